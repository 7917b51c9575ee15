"""The outbox: reports and the objects beside them on their way to their destinations, until each is accepted or refused for good."""

from datetime import datetime, timedelta

from sqlalchemy import select, update

from storage.records import Delivery, StoredFile
from storage.schema import DeliveryRow, ObjectRow, ReportRow
from storage.stages import DeliveryEvent, DeliveryStage, advance_delivery
from storage.transactions import Transactions


class Outbox:
    """Deliveries that are due, and how they end.  Each public method is one transaction."""

    def __init__(self, transactions: Transactions) -> None:
        """`transactions` are those of the store's database."""
        self._transactions = transactions

    def claim_due(self, now: datetime, lease: timedelta) -> Delivery | None:
        """The delivery that has been due longest; None when none is due.

        The attempt is counted and the delivery is due again after `lease`, should the sender die.
        """
        due = (
            select(DeliveryRow.id)
            .where(DeliveryRow.stage == DeliveryStage.PENDING.value, DeliveryRow.next_attempt_at <= now)
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
            report = session.get_one(ReportRow, row.report_id)
            return as_delivery(row, report, session.get(ObjectRow, row.object_id) if row.object_id else None)

    def accepted(self, delivery: Delivery, now: datetime) -> None:
        """The destination has the object."""
        self._end(delivery, DeliveryEvent.ACCEPTED, "", delivered_at=now)

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
    ) -> None:
        """The delivery after `event`; nothing changes when it is no longer pending: another sender was faster."""
        stage = advance_delivery(DeliveryStage.PENDING, event)
        with self._transactions.writing("delivery") as session:
            session.execute(
                update(DeliveryRow)
                .where(DeliveryRow.id == delivery.id, DeliveryRow.stage == DeliveryStage.PENDING.value)
                .values(stage=stage.value, last_error=error, next_attempt_at=next_attempt_at, delivered_at=delivered_at)
            )

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
        series_id=report.series_id,
        kind=beside.kind if beside else "report",
    )
