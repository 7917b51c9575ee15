"""What a database is, found out without changing anything in it or on the disk."""

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from storage import messages
from storage.database import revision
from storage.errors import DatabaseAway, DatabaseUnusable

_SCHEME = "sqlite:///"


@dataclass(frozen=True)
class Inspected:
    """A database that can be opened.  `revision`: of its tables; None where it has none, or is not there yet."""

    revision: str | None

    @property
    def is_current(self) -> bool:
        """Whether the tables are those of this version."""
        return self.revision == revision.newest()


def inspect_database(url: str) -> Inspected:
    """What is at `url`.  Raises DatabaseUnusable, or DatabaseAway where it may come back by itself."""
    if url.startswith(_SCHEME) and "?" not in url:
        return _sqlite(Path(url.removeprefix(_SCHEME)))
    from storage.database.engine import engine_of, named  # and with them SQLAlchemy

    engine = engine_of(url)
    try:
        with named(url), engine.connect() as connection:
            found = connection.exec_driver_sql(
                "SELECT version_num FROM alembic_version"
                if engine.dialect.has_table(connection, "alembic_version")
                else "SELECT NULL"
            ).scalar()
            connection.rollback()
    finally:
        engine.dispose()
    return Inspected(found)


def _sqlite(path: Path) -> Inspected:
    if not path.exists():
        return Inspected(None)
    # Whoever opens a database in WAL mode makes two files beside it, unless they are there or it is called immutable.
    is_open = path.with_name(f"{path.name}-wal").exists()
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro{'' if is_open else '&immutable=1'}", uri=True)
        try:
            known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone() if known else None
        finally:
            connection.close()
    except sqlite3.Error as error:
        kind = DatabaseAway if messages.is_away(error) else DatabaseUnusable
        raise kind(f"the database {_SCHEME}{path} cannot be opened: {messages.of_database(error)}") from None
    return Inspected(row[0] if row else None)
