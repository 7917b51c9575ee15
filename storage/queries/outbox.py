"""The outbox: reports and the objects beside them on their way to their destinations, until each is accepted or refused for good."""

from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from storage.database.schema import CommitmentRow, DeliveryRow, ObjectRow, ReportRow
from storage.database.transactions import Transactions
from storage.records import Delivery, StoredFile
from storage.stages import DeliveryEvent, DeliveryStage, advance_delivery


class Outbox:
    """Deliveries that are due, and how they end.  Each public method is one transaction."""

    def __init__(self, transactions: Transactions) -> None:
        """`transactions` are those of the store's database."""
        self._transactions = transactions

    def claim_due(self, now: datetime, lease: timedelta, except_to: Collection[str] = ()) -> Delivery | None:
        """The delivery that has been due longest, those `except_to` destinations left out; None when none is due.

        The attempt is counted and the delivery is due again after `lease`, should the sender die.
        """
        due = (
            select(DeliveryRow.id)
            .where(
                DeliveryRow.stage == DeliveryStage.PENDING.value,
                DeliveryRow.next_attempt_at <= now,
                DeliveryRow.destination.not_in(except_to),
            )
            .order_by(DeliveryRow.next_attempt_at, DeliveryRow.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        with self._transactions.writing("attempt") as session:
            row = session.scalar(
                update(DeliveryRow)
                .where(DeliveryRow.id == due.scalar_subquery(), DeliveryRow.next_attempt_at <= now)
                .values(attempts=DeliveryRow.attempts + 1, next_attempt_at=now + lease)
                .returning(DeliveryRow)
            )
            if row is None:
                return None
            return delivery_of(session, row)

    def give_back(self, delivery: Delivery, now: datetime) -> None:
        """It is due at once and the attempt does not count: its sender stopped.  Not when it ended or was claimed again."""
        with self._transactions.writing() as session:
            session.execute(
                update(DeliveryRow)
                .where(
                    DeliveryRow.id == delivery.id,
                    DeliveryRow.stage == DeliveryStage.PENDING.value,
                    DeliveryRow.attempts == delivery.attempts,
                )
                .values(attempts=delivery.attempts - 1, next_attempt_at=now)
            )

    def accepted(self, delivery: Delivery, now: datetime, transaction_uid: str | None = None) -> None:
        """The destination has the object; with a transaction UID it is to be asked for storage commitment at once."""
        self._end(delivery, DeliveryEvent.ACCEPTED, "", delivered_at=now, transaction_uid=transaction_uid)

    def postponed(self, delivery: Delivery, error: str, next_attempt_at: datetime) -> None:
        """It could not be delivered now and is due again at `next_attempt_at`."""
        self._end(delivery, DeliveryEvent.POSTPONED, error, next_attempt_at=next_attempt_at)

    def refused(self, delivery: Delivery, error: str) -> None:
        """It will not be delivered without a person: a dead letter."""
        self._end(delivery, DeliveryEvent.REFUSED, error)

    def _end(
        self,
        delivery: Delivery,
        event: DeliveryEvent,
        error: str,
        next_attempt_at: datetime | None = None,
        delivered_at: datetime | None = None,
        transaction_uid: str | None = None,
    ) -> None:
        """The delivery after `event`; nothing changes when it is no longer pending: another sender was faster."""
        stage = advance_delivery(DeliveryStage.PENDING, event)
        with self._transactions.writing("delivery") as session:
            ended = session.scalar(
                update(DeliveryRow)
                .where(DeliveryRow.id == delivery.id, DeliveryRow.stage == DeliveryStage.PENDING.value)
                .values(stage=stage.value, last_error=error, next_attempt_at=next_attempt_at, delivered_at=delivered_at)
                .returning(DeliveryRow.id)
            )
            if ended is not None and transaction_uid is not None and delivered_at is not None:
                session.add(commitment_row(ended, transaction_uid, delivered_at))

    def requeue(self, report_id: int, now: datetime) -> int:
        """The dead letters of a report are pending again, as if new.  Returns how many."""
        stage = advance_delivery(DeliveryStage.DEAD, DeliveryEvent.REQUEUED)
        with self._transactions.writing() as session:
            requeued = session.execute(
                update(DeliveryRow)
                .where(DeliveryRow.report_id == report_id, DeliveryRow.stage == DeliveryStage.DEAD.value)
                .values(stage=stage.value, attempts=0, created_at=now, next_attempt_at=now)
                .returning(DeliveryRow.id)
            )
            return len(requeued.all())

    def hasten(self, now: datetime, longest: timedelta) -> int:
        """What has longer to wait than the `longest`, because the clock was set back, is due now.  Returns how many."""
        with self._transactions.writing() as session:
            hastened = session.execute(
                update(DeliveryRow)
                .where(DeliveryRow.stage == DeliveryStage.PENDING.value, DeliveryRow.next_attempt_at > now + longest)
                .values(next_attempt_at=now)
                .returning(DeliveryRow.id)
            )
            return len(hastened.all())

    def next_due(self) -> datetime | None:
        """When the next pending delivery is due."""
        with self._transactions.reading() as session:
            return session.scalar(
                select(DeliveryRow.next_attempt_at)
                .where(DeliveryRow.stage == DeliveryStage.PENDING.value)
                .order_by(DeliveryRow.next_attempt_at)
                .limit(1)
            )


def commitment_row(delivery_id: int, transaction_uid: str, due_at: datetime) -> CommitmentRow:
    """A transaction that is due at `due_at`."""
    return CommitmentRow(
        transaction_uid=transaction_uid, delivery_id=delivery_id, created_at=due_at, next_attempt_at=due_at
    )


def delivery_of(session: Session, row: DeliveryRow) -> Delivery:
    """The row as a record, with what it delivers."""
    beside = session.get(ObjectRow, row.object_id) if row.object_id else None
    return as_delivery(row, session.get_one(ReportRow, row.report_id), beside)


def as_delivery(row: DeliveryRow, report: ReportRow, beside: ObjectRow | None = None) -> Delivery:
    """The row as a record; `beside` is the object that it delivers, if that is not the report."""
    sent = beside or report
    return Delivery(
        id=row.id,
        destination=row.destination,
        stage=DeliveryStage(row.stage),
        attempts=row.attempts,
        created_at=row.created_at,
        sop_instance_uid=sent.sop_instance_uid,
        file=StoredFile(sent.path, sent.sha256, sent.size_bytes),
        next_attempt_at=row.next_attempt_at,
        last_error=row.last_error,
        delivered_at=row.delivered_at,
        committed_at=row.committed_at,
        series_id=report.series_id,
        kind=beside.kind if beside else "report",
    )
