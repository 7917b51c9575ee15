"""The outbox of notifications: what people and other systems are to be told of, until each target has it.

Attempts are claimed, leased and given back as those of deliveries are: see `storage.queries.due`.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, exists, or_, select, union, update
from sqlalchemy.orm import Session

from storage.database.running import NotificationRow
from storage.database.schema import DeliveryRow, ReportRow, ReviewRow, SeriesRow
from storage.database.transactions import Transactions
from storage.queries.due import Due
from storage.queries.rows import alike
from storage.stages import DeliveryStage, Stage

_CHUNK = 500


class NotificationStage(StrEnum):
    """Where a notification stands.  DEAD waits for a person."""

    PENDING = "pending"
    DELIVERED = "delivered"
    NEEDLESS = "needless"
    """What it was about had passed before it was sent: somebody has acknowledged the case."""
    DEAD = "dead"


@dataclass(frozen=True)
class Notification:
    """What one target is to be notified of.  `subject` is the same of nothing else; `case_id` and `revision` of a case."""

    target: str
    event: str
    subject: str
    created_at: datetime
    next_attempt_at: datetime | None
    case_id: int | None = None
    revision: int | None = None
    id: int = 0
    attempts: int = 0

    @property
    def peer(self) -> str:
        """With whom it is attempted."""
        return self.target


@dataclass(frozen=True)
class Noteworthy:
    """A case that somebody may have to be notified of, as it stands."""

    case_id: int
    revision: int
    since: datetime


class Notifications:
    """Each public method is one transaction."""

    def __init__(self, transactions: Transactions) -> None:
        """`transactions` are those of the store's database."""
        self._transactions = transactions
        pending = NotificationRow.stage == NotificationStage.PENDING.value
        self.due = Due(transactions, NotificationRow, NotificationRow.target, _notification, pending)
        self._insert = transactions.insert_unless_there(NotificationRow.__table__)

    def add(self, wanted: Sequence[Notification]) -> None:
        """Each is due at its `next_attempt_at`, unless its target was notified of it before."""
        new = self._unknown(wanted)
        if not new:
            return
        common = {"stage": NotificationStage.PENDING.value, "attempts": 0, "last_error": ""}
        names = ("target", "event", "subject", "case_id", "revision", "created_at", "next_attempt_at")
        rows = [{name: getattr(each, name) for name in names} | common for each in new]
        with self._transactions.writing() as session:
            session.execute(self._insert, rows)

    def _unknown(self, wanted: Sequence[Notification]) -> list[Notification]:
        """Those that are not there yet: asked first, because the same are wanted again and again."""
        row, found = NotificationRow, set[tuple[str, str, str]]()
        with self._transactions.reading() as session:
            for at in range(0, len(wanted), _CHUNK):
                subjects = {each.subject for each in wanted[at : at + _CHUNK]}
                known = select(row.target, row.event, row.subject).where(row.subject.in_(subjects))
                found |= {(target, event, subject) for target, event, subject in session.execute(known)}
        return [each for each in wanted if (each.target, each.event, each.subject) not in found]

    def delivered(self, notification: Notification, now: datetime) -> None:
        """The target has it."""
        self._end(notification, NotificationStage.DELIVERED, "", now)

    def needless(self, notification: Notification, now: datetime) -> None:
        """It is not sent: what it was about has passed."""
        needless = NotificationStage.NEEDLESS.value
        self._change(notification, stage=needless, last_error="", next_attempt_at=None, ended_at=now, over_at=now)

    def refused(self, notification: Notification, error: str, now: datetime) -> None:
        """It will not be sent without a person: a dead letter."""
        self._end(notification, NotificationStage.DEAD, error, now)

    def postponed(self, notification: Notification, error: str, next_attempt_at: datetime) -> None:
        """It could not be sent now and is due again then."""
        self._change(notification, last_error=error, next_attempt_at=next_attempt_at)

    def _end(self, notification: Notification, stage: NotificationStage, error: str, now: datetime) -> None:
        self._change(notification, stage=stage.value, last_error=error, next_attempt_at=None, ended_at=now)

    def _change(self, notification: Notification, **values: Any) -> None:
        """Nothing changes once it has ended."""
        pending = NotificationRow.stage == NotificationStage.PENDING.value
        self._transactions.change(
            update(NotificationRow).where(NotificationRow.id == notification.id, pending).values(**values)
        )

    def requeue(self, now: datetime) -> int:
        """The dead letters are pending again, as if new.  Returns how many."""
        dead = NotificationRow.stage == NotificationStage.DEAD.value
        as_new = {"stage": NotificationStage.PENDING.value, "attempts": 0, "created_at": now, "next_attempt_at": now}
        return self._transactions.change(update(NotificationRow).where(dead).values(ended_at=None, **as_new))

    def unacknowledged(self, since: datetime) -> list[Noteworthy]:
        """The cases worth an alert that were reported since then and that nobody has acknowledged."""
        found = (
            select(SeriesRow.id, SeriesRow.revision, ReportRow.created_at)
            .join(ReportRow, _its_report())
            .where(ReportRow.created_at >= since, ReportRow.notify.is_(True), ~SeriesRow.canary, ~_acknowledged())
        )
        return self._noteworthy(found)

    def late(self, before: datetime, since: datetime) -> list[Noteworthy]:
        """The cases whose last slice came between these times and whose report is not where it belongs.

        Found from what is in work and from deliveries that have not ended well, not among all cases.
        """
        in_work = SeriesRow.stage.in_((Stage.RECEIVING.value, Stage.READY.value, Stage.ANALYSING.value))
        open_or_dead = DeliveryRow.stage.in_((DeliveryStage.PENDING.value, DeliveryStage.DEAD.value))
        case = select(SeriesRow.id, SeriesRow.revision, SeriesRow.last_instance_at).where(
            SeriesRow.last_instance_at < before, SeriesRow.last_instance_at >= since, ~SeriesRow.canary
        )
        undelivered = case.join(ReportRow, _its_report()).join(DeliveryRow, DeliveryRow.report_id == ReportRow.id)
        return self._noteworthy(union(case.where(in_work), undelivered.where(open_or_dead)))

    def is_open(self, notification: Notification) -> bool:
        """Whether its case is still there as it was, and not acknowledged."""
        mine = (SeriesRow.id == notification.case_id, SeriesRow.revision == notification.revision)
        with self._transactions.reading() as session:
            return session.scalar(select(SeriesRow.id).where(*mine, ~_acknowledged())) is not None

    def going_on(self, event: str) -> set[tuple[str, str]]:
        """What is no case and has not passed, as (target, what)."""
        with self._transactions.reading() as session:
            rows = session.scalars(
                select(NotificationRow).where(NotificationRow.event == event, NotificationRow.over_at.is_(None))
            )
            return {(row.target, row.subject.partition(" ")[0]) for row in rows}

    def notified_since(self, event: str, since: datetime) -> dict[tuple[str, str], datetime]:
        """Of what is no case and was sent since then: (target, what) to when."""
        sent = (NotificationRow.stage == NotificationStage.DELIVERED.value, NotificationRow.ended_at >= since)
        with self._transactions.reading() as session:
            rows = session.scalars(select(NotificationRow).where(NotificationRow.event == event, *sent))
            return {(row.target, row.subject.partition(" ")[0]): row.ended_at for row in rows if row.ended_at}

    def over(self, event: str, target: str, what: Collection[str], now: datetime) -> None:
        """These have passed, and what was not sent of them is needless: should they come again, the target is notified again."""
        if not what:
            return
        with self._transactions.writing() as session:
            mine = (NotificationRow.event == event, NotificationRow.target == target, NotificationRow.over_at.is_(None))
            for row in session.scalars(select(NotificationRow).where(*mine)):
                if row.subject.partition(" ")[0] in what:
                    row.over_at = now
                    if row.stage == NotificationStage.PENDING.value:
                        row.stage, row.next_attempt_at, row.ended_at = NotificationStage.NEEDLESS.value, None, now

    def forget(self, before: datetime) -> int:
        """Those that had ended before this time, and what they were about too, are no longer known; returns how many."""
        is_over = or_(NotificationRow.case_id.is_not(None), NotificationRow.over_at < before)
        old = (NotificationRow.ended_at < before, NotificationRow.stage != NotificationStage.DEAD.value, is_over)
        with self._transactions.reading() as session:
            if session.scalar(select(NotificationRow.id).where(*old).limit(1)) is None:
                return 0
        return self._transactions.change(delete(NotificationRow).where(*old))

    def _noteworthy(self, statement: Any) -> list[Noteworthy]:
        with self._transactions.reading() as session:
            return [Noteworthy(*row) for row in session.execute(statement)]


def _its_report() -> ColumnElement[bool]:
    """It is the series' last report; found by the number of the series, which has an index."""
    return and_(ReportRow.series_id == SeriesRow.id, ReportRow.id == SeriesRow.report_id)


def _acknowledged() -> ColumnElement[bool]:
    mine = and_(
        ReviewRow.case_id == SeriesRow.id,
        ReviewRow.series_instance_uid == SeriesRow.series_instance_uid,  # SQLite gives a removed case's number again
        ReviewRow.revision == SeriesRow.revision,
    )
    return exists().where(mine, ReviewRow.acknowledged_at.is_not(None))


def _notification(_session: Session, row: NotificationRow) -> Notification:
    return Notification(**alike(Notification, row))
