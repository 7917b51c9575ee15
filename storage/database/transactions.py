"""One transaction at a time, in the words of either database."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from sqlalchemy import Connection, Engine, text
from sqlalchemy.dialects.postgresql import insert as insert_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.exc import TimeoutError as NoConnectionFree
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import UpdateBase

from storage.database.plain import Select
from storage.database.wakeups import Whom, wake_hosts
from storage.errors import StorageFull
from storage.killpoints import kill_point

_POSTGRESQL_FULL = "53100"
"""SQLSTATE disk_full."""
_POSTGRESQL_READ_ONLY = "25006"
"""SQLSTATE read_only_sql_transaction: a standby, or a server that was set so; the driver does not call it operational."""
_OF_ONE_TRANSACTION = ("40", "54")
"""SQLSTATE classes that PostgreSQL's driver counts as operational too: a deadlock, a value beyond a limit."""


class Transactions:
    """The transactions of one database.  When `writing` has ended without an error, its changes survive a crash."""

    def __init__(self, engine: Engine) -> None:
        """`engine` comes from `open_database`."""
        self.engine = engine
        self._operational_error: type[Exception] = engine.dialect.loaded_dbapi.OperationalError
        # Each statement of PostgreSQL sees what is committed when it begins: BEGIN and ROLLBACK would change nothing of that.
        alone = {"isolation_level": "AUTOCOMMIT"} if engine.dialect.name == "postgresql" else {}
        self._reader = engine.execution_options(reads_only=True, **alone)
        # SQLite has one writer: threads queue here, fairly and without polling for its lock.
        self._turn = threading.Lock() if engine.dialect.name == "sqlite" else nullcontext()

    @contextmanager
    def writing(self, what: str = "") -> Iterator[Session]:
        """A session that is committed at the end, or rolled back by an error.  `what` names it for `killpoints`."""
        with self.writing_plainly(what) as connection, Session(connection) as session:
            yield session
            session.flush()

    @contextmanager
    def writing_plainly(self, what: str = "") -> Iterator[Connection]:
        """The same without a session's bookkeeping, for what is done for every instance."""
        with self._turn, _full_disk_named():
            with self.engine.begin() as connection:
                yield connection
                kill_point(f"before_commit_of_{what}")
            kill_point(f"after_commit_of_{what}")

    def change(self, statement: UpdateBase, what: str = "", wakes: Whom | None = None) -> int:
        """One transaction with this statement alone; returns how many rows it changed.

        `wakes`: who is to look at once at what it changed; see `wake_hosts`.
        """
        with self.writing_plainly(what) as connection:
            changed = connection.execute(statement).rowcount
            if wakes and changed:
                wake_hosts(connection, wakes)
            return changed

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that never takes the write lock."""
        with Session(self._reader) as session:
            yield session

    @contextmanager
    def reading_plainly(self) -> Iterator[Select]:
        """The same for statements in plain SQL, whose values are written `:name`."""
        with self._reader.begin() as connection:
            yield lambda statement, **values: [
                dict(row) for row in connection.execute(text(statement), values).mappings()
            ]

    def concerns_everybody(self, error: Exception) -> bool:
        """Whether a transaction failed by the database, locked, away or full, and not by what was to be written."""
        of_driver = getattr(error, "orig", error)
        sqlstate = getattr(of_driver, "sqlstate", None) or ""
        operational = isinstance(of_driver, self._operational_error) and not sqlstate.startswith(_OF_ONE_TRANSACTION)
        is_read_only = sqlstate == _POSTGRESQL_READ_ONLY
        return operational or is_read_only or isinstance(error, StorageFull | NoConnectionFree)

    def insert_unless_there(self, table: Any) -> Any:
        """An INSERT that does nothing when a unique key is taken, in the dialect's words."""
        dialect = insert_sqlite if self.engine.dialect.name == "sqlite" else insert_postgresql
        return dialect(table).on_conflict_do_nothing()


@contextmanager
def _full_disk_named() -> Iterator[None]:
    """An error of the database that says that there is no space becomes StorageFull."""
    try:
        yield
    except Exception as error:
        of_driver = getattr(error, "orig", error)
        codes = getattr(of_driver, "sqlite_errorcode", None), getattr(of_driver, "sqlstate", None)
        if codes[0] == sqlite3.SQLITE_FULL or codes[1] == _POSTGRESQL_FULL:
            raise StorageFull("no space left for the database; free some where [storage] database_url is") from None
        raise
