"""Wakeups between the hosts of one PostgreSQL, by LISTEN and NOTIFY; losing one costs no more than the wait for the next look.

SQLite has one host, whose processes wake each other (`node.runtime.notify`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import Session

LOOKERS = 4
"""So many of the idle workers, on average, look for a series that has become ready; none does once in e⁴ = 55 times."""


class Whom(StrEnum):
    """Whom a wakeup concerns, besides the pages, which show whatever changes."""

    WORKERS = "workers"
    """A series is ready."""
    NODES = "nodes"
    """Something is to be settled or delivered."""
    PAGES = "pages"
    """Nothing is due."""


_NOTIFY = text("SELECT pg_notify('willis', :whom)")
_NOTIFY_WORKERS = text("""
SELECT pg_notify('willis', 'workers ' || greatest(0,
    (SELECT count(*) FROM process WHERE role = 'work' AND details->>'trouble' IS NULL
     AND beat_at > timezone('utc', now()) - interval '12 s')
    - (SELECT count(*) FROM series WHERE stage = 'analysing')))
""")
"""A worker that has not said for 12 s (four beats) that it runs, or has said what ended it, is none."""


@dataclass(frozen=True)
class Heard:
    """A wakeup, and for workers how many of all hosts were idle when it was sent, as far as the database knew (0: all look)."""

    whom: Whom
    idle: int = 0

    def is_drawn(self, random: Random) -> bool:
        """Whether a worker that hears of a series is one of the about `LOOKERS` that look, by lot."""
        return self.idle * random.random() < LOOKERS


def wake_hosts(transaction: Connection | Session, whom: Whom, all_look: bool = False) -> None:
    """Whoever listens hears of it when this transaction is committed; on SQLite nobody does.

    `all_look`: all idle workers, because several series may be ready.
    Not for what is written with every instance: PostgreSQL commits one transaction with a NOTIFY at a time, flush included.
    """
    bound = transaction.get_bind() if isinstance(transaction, Session) else transaction
    if bound.dialect.name == "postgresql":
        if whom is Whom.WORKERS and not all_look:
            transaction.execute(_NOTIFY_WORKERS)
        else:
            transaction.execute(_NOTIFY, {"whom": whom})


class Listening:
    """A connection that hears what is committed from now on, on the channel `willis`, of which each database has its own."""

    def __init__(self, engine: Engine) -> None:
        """`engine` is one on PostgreSQL, of whose pool the connection is none.  Raises the driver's errors."""
        arguments, keywords = engine.dialect.create_connect_args(engine.url)
        self._connection: Any = engine.dialect.connect(*arguments, **keywords)
        self._connection.autocommit = True
        self._connection.execute("LISTEN willis")

    def wait(self, timeout_seconds: float) -> list[Heard]:
        """What was heard before the timeout, as soon as something was.  Raises the driver's errors."""
        heard = self._connection.notifies(timeout=timeout_seconds, stop_after=1)
        return list(_known(each.payload for each in heard))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()


def _known(payloads: Iterator[str]) -> Iterator[Heard]:
    """What an earlier version says is for everybody; what a later one says and this one does not know is found at the next look."""
    for payload in payloads:
        whom, _, idle = payload.partition(" ")
        if whom in list(Whom):
            yield Heard(Whom(whom), int(idle) if idle.isdecimal() else 0)
        elif not payload:
            yield from map(Heard, Whom)
