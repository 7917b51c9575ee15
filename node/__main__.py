"""`python -m node` is `willis`."""

from node.cli.main import app

app()
