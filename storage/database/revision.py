"""Which tables this version has; known without Alembic, which only a database of another revision needs."""

from pathlib import Path

MIGRATIONS = Path(__file__).parent / "migrations"


def newest() -> str:
    """The revision of the tables of this version: the number in front of the last migration's name."""
    return max(all_known())


def all_known() -> frozenset[str]:
    """The revisions that this version knows how to bring up to its own."""
    return frozenset(path.name.split("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*_*.py"))
