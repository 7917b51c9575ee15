"""Reading without SQLAlchemy, whose import takes longer than all that `willis status` does."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from storage.database import revision

Select = Callable[..., list[dict[str, Any]]]
"""Executes a statement in plain SQL, whose values are written `:name`; returns its rows by the names of the columns."""
Reading = Callable[[], AbstractContextManager[Select]]
"""Opens a transaction that only reads."""

_SCHEME = "sqlite:///"


def reading_sqlite(url: str) -> Reading | None:
    """Transactions on the SQLite database at `url`, by its driver alone; None when it has not the tables of this version."""
    path = Path(url.removeprefix(_SCHEME))
    if not url.startswith(_SCHEME) or "?" in url or not path.is_file():
        return None
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=30)
    except sqlite3.Error:
        return None
    if not _is_current(connection):
        connection.close()
        return None
    connection.execute("PRAGMA query_only = ON")
    connection.row_factory = sqlite3.Row

    @contextmanager
    def reading() -> Iterator[Select]:
        connection.execute("BEGIN")
        try:
            yield lambda statement, **values: [dict(row) for row in connection.execute(statement, values)]
        finally:
            connection.execute("ROLLBACK")

    return reading


def _is_current(connection: sqlite3.Connection) -> bool:
    try:
        return connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(revision.newest(),)]
    except sqlite3.Error:
        return False
