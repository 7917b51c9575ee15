"""The commands beside `serve`; each module adds its own to `node.cli.app`."""
