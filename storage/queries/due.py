"""What is due: attempts at deliveries, commitments and commitment requests, claimed one at a time for a lease."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, Protocol, TypeVar

from sqlalchemy import ColumnElement, select, true, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from storage.database.transactions import Transactions
from storage.database.wakeups import Whom, wake_hosts
from storage.errors import StorageFull

ASK_STORE_AGAIN = timedelta(seconds=30)
"""So long after it was away, nothing is asked of the object store."""


class Attempt(Protocol):
    """What was claimed: its row, with whom the attempt is made, since when, the how manieth it is, and the end of the lease."""

    @property
    def id(self) -> int: ...
    @property
    def peer(self) -> str: ...
    @property
    def created_at(self) -> datetime: ...
    @property
    def attempts(self) -> int: ...
    @property
    def next_attempt_at(self) -> datetime | None: ...


Record = TypeVar("Record", bound=Attempt)


@dataclass(frozen=True)
class Reach:
    """Where the file lies that an attempt needs: it can be had here; it need not be asked of the object store."""

    can_be_had: ColumnElement[bool]
    lies_here: ColumnElement[bool]


class Due(Generic[Record]):
    """The rows of one table whose `next_attempt_at` has come.  Each public method is one transaction."""

    def __init__(
        self,
        transactions: Transactions,
        table: Any,
        peer: Any,
        record: Callable[[Session, Any], Record],
        waits: ColumnElement[bool] = true(),  # noqa: B008  immutable
        reach: Reach | None = None,
    ) -> None:
        """`peer` tells with whom an attempt at the row is made; only a row that `waits` has one before it.

        `record` makes of the row what is attempted.  `reach`: of its file; None where that lies here.
        """
        self._transactions, self._table, self._peer = transactions, table, peer
        self._record, self._waits, self._reach = record, waits, reach
        self._away_at: datetime | None = None

    def store_is_away(self, now: datetime) -> bool:
        """For a while only what needs nothing of the object store is claimed.  False: that was so, or all files lie here."""
        if self._reach is None or self._lies_here_only(now):
            return False
        self._away_at = now
        return True

    def _lies_here_only(self, now: datetime) -> bool:
        return self._away_at is not None and timedelta() <= now - self._away_at < ASK_STORE_AGAIN

    def claim(self, now: datetime, lease: timedelta, away: Collection[str] = ()) -> Record | None:
        """The one that has been due longest, those with the peers that are `away` left out; None when none is due.

        The attempt is counted, and is due again after `lease`, should whoever makes it die.
        """
        table = self._table
        oldest = (
            select(table.id)
            .where(self._waits, *self._in_reach(now), table.next_attempt_at <= now, self._peer.not_in(away))
            .order_by(table.next_attempt_at, table.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        with self._transactions.writing("attempt") as session:
            row = session.scalar(
                update(table)
                .where(table.id == oldest.scalar_subquery(), table.next_attempt_at <= now)
                .values(attempts=table.attempts + 1, next_attempt_at=now + lease)
                .returning(table)
            )
            return None if row is None else self._record(session, row)

    def wake_hosts(self) -> None:
        """Other hosts look at once at what is left to them."""
        with self._transactions.writing_plainly() as connection:
            wake_hosts(connection, Whom.NODES)

    def _in_reach(self, now: datetime) -> list[ColumnElement[bool]]:
        if self._reach is None:
            return []
        return [self._reach.lies_here if self._lies_here_only(now) else self._reach.can_be_had]

    def renew(self, claimed: Record, until: datetime, unanswered: Collection[datetime] = ()) -> Record | None:
        """It is due again `until` then at the earliest: who makes it is still at it.  None: it ended, or was claimed again.

        `unanswered`: for these ends it was renewed without an answer, so that one of them may be its lease's.
        """
        with self._transactions.writing() as session:
            renewed = update(self._table).where(*self._as_claimed(claimed, unanswered)).values(next_attempt_at=until)
            row = session.scalar(renewed.returning(self._table))
            return None if row is None else self._record(session, row)

    def give_back(self, claimed: Record, now: datetime, unanswered: Collection[datetime] = ()) -> None:
        """It is due at once and the attempt does not count: who made it has stopped.

        Not when it ended, was postponed, or was claimed again.  `unanswered`: as of `renew`.
        """
        returned = {"attempts": claimed.attempts - 1, "next_attempt_at": now}
        self._transactions.change(update(self._table).where(*self._as_claimed(claimed, unanswered)).values(returned))

    def _as_claimed(self, claimed: Record, unanswered: Collection[datetime]) -> list[ColumnElement[bool]]:
        table = self._table
        return [
            table.id == claimed.id,
            table.attempts == claimed.attempts,
            table.next_attempt_at.in_([claimed.next_attempt_at, *unanswered]),
        ]

    @staticmethod
    def is_of_database(error: Exception) -> bool:
        """Whether it was the database that failed, and not the attempt."""
        return isinstance(error, SQLAlchemyError | StorageFull)

    def hasten(self, now: datetime, longest: timedelta) -> int:
        """What has longer to wait than the `longest`, because the clock was set back, is due now.  Returns how many."""
        too_long = self._table.next_attempt_at > now + longest
        return self._transactions.change(update(self._table).where(self._waits, too_long).values(next_attempt_at=now))


class WithDue(Protocol[Record]):
    """A part of the store that keeps what is attempted until it is done."""

    due: Due[Record]

    def postponed(self, record: Record, error: str, next_attempt_at: datetime, /) -> None:
        """It failed now, and is due again at `next_attempt_at`."""
