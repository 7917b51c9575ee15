"""One transaction at a time, in the words of either database."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.dialects.postgresql import insert as insert_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.orm import Session

from storage.killpoints import here


class Transactions:
    """The transactions of one database.  When `writing` has ended without an error, its changes survive a crash."""

    def __init__(self, engine: Engine) -> None:
        """`engine` comes from `open_database`."""
        self.engine = engine
        self._reader = engine.execution_options(reads_only=True)
        # SQLite has one writer: threads queue here, fairly and without polling for its lock.
        self._turn = threading.Lock() if engine.dialect.name == "sqlite" else nullcontext()

    @contextmanager
    def writing(self, what: str = "") -> Iterator[Session]:
        """A session that is committed at the end, or rolled back by an error.  `what` names it for `killpoints`."""
        with self._turn, Session(self.engine) as session:
            with session.begin():
                yield session
                here(f"before_commit_of_{what}")
            here(f"after_commit_of_{what}")

    @contextmanager
    def writing_plainly(self, what: str = "") -> Iterator[Connection]:
        """The same without a session's bookkeeping, for what is done for every instance."""
        with self._turn:
            with self.engine.begin() as connection:
                yield connection
                here(f"before_commit_of_{what}")
            here(f"after_commit_of_{what}")

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that never takes the write lock."""
        with Session(self._reader) as session:
            yield session

    def insert_unless_there(self, table: Any) -> Any:
        """An INSERT that does nothing when a unique key is taken, in the dialect's words."""
        dialect = insert_sqlite if self.engine.dialect.name == "sqlite" else insert_postgresql
        return dialect(table).on_conflict_do_nothing()
