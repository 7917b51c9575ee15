"""Wakeups between the hosts of one PostgreSQL, by LISTEN and NOTIFY; losing one costs no more than the wait for the next look.

SQLite has one host, whose processes wake each other (`node.runtime.notify`).
"""

from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import Session

_CHANNEL = "willis"
"""Each database has its own."""
_NOTIFY = text(f"NOTIFY {_CHANNEL}")


def wake_hosts(transaction: Connection | Session) -> None:
    """Whoever listens hears of it when this transaction is committed; on SQLite nobody does.

    Not for what is written with every instance: PostgreSQL commits one transaction with a NOTIFY at a time, flush included.
    """
    bound = transaction.get_bind() if isinstance(transaction, Session) else transaction
    if bound.dialect.name == "postgresql":
        transaction.execute(_NOTIFY)


class Listening:
    """A connection that hears what is committed from now on."""

    def __init__(self, engine: Engine) -> None:
        """`engine` is one on PostgreSQL, of whose pool the connection is none.  Raises the driver's errors."""
        arguments, keywords = engine.dialect.create_connect_args(engine.url)
        self._connection: Any = engine.dialect.connect(*arguments, **keywords)
        self._connection.autocommit = True
        self._connection.execute(f"LISTEN {_CHANNEL}")

    def wait(self, timeout_seconds: float) -> bool:
        """Whether something was heard before the timeout; several count once.  Raises the driver's errors."""
        return bool(list(self._connection.notifies(timeout=timeout_seconds, stop_after=1)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
