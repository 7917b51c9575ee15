"""The command line with all its commands: each module adds its own to `node.cli.app.app`."""

from node.cli import demo, dicom, explain, fetch, fsck, phantoms, serve, training, worklist  # noqa: F401
from node.cli.app import app

__all__ = ["app"]
