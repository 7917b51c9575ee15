"""Which tables this version has; known without Alembic, which only a database of another revision needs."""

import ast
from pathlib import Path

MIGRATIONS = Path(__file__).parent / "migrations"


def newest() -> str:
    """The revision of the tables of this version: the number in front of the last migration's name."""
    return max(all_known())


def all_known() -> frozenset[str]:
    """The revisions that this version knows how to bring up to its own."""
    return frozenset(_migrations())


def what_comes_after(found: str | None) -> dict[str, str]:
    """The revisions after this one (None: all), the oldest first, each with what its migration is for."""
    return {
        number: (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").split("\n")[0]
        for number, path in sorted(_migrations().items())
        if found is None or number > found
    }


def why_not(found: str, may_migrate: bool = False) -> str:
    """Why tables of this revision, which is not the newest, cannot be used, and what to type; "" where they are migrated."""
    if found in all_known():
        if may_migrate:
            return ""
        return (
            f"has the tables of an earlier version ({found}; this one needs {newest()}): stop the node and run `willis migrate`, "
            'which copies it first, or set [storage] migrate = "by_itself"'
        )
    return (
        f"was made by a later version of Willis (tables {found}; this one knows up to {newest()}), and a downgrade would lose "
        "what that one has written: install that version or restore the backup that fits this one"
    )


def _migrations() -> dict[str, Path]:
    return {path.name.split("_")[0]: path for path in (MIGRATIONS / "versions").glob("[0-9]*_*.py")}
