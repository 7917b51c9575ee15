"""`python -m node` is `willis`."""

from node.cli import app

app()
