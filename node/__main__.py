"""`python -m node` is `willis`."""

from node.cli.main import app

if __name__ == "__main__":
    app()
