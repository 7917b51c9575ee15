"""The outbox: reports and the objects beside them on their way to their destinations, until each is accepted or refused for good."""

from datetime import datetime

from sqlalchemy import update
from sqlalchemy.orm import Session

from storage.database.schema import CommitmentRow, DeliveryRow, ObjectRow, ReportRow
from storage.database.transactions import Transactions
from storage.queries.due import Due
from storage.records import Delivery, StoredFile
from storage.stages import DeliveryEvent, DeliveryStage, advance_delivery


class Outbox:
    """Deliveries that are due, and how they end.  Each public method is one transaction."""

    def __init__(self, transactions: Transactions) -> None:
        """`transactions` are those of the store's database."""
        self._transactions = transactions
        pending = DeliveryRow.stage == DeliveryStage.PENDING.value
        self.due = Due(transactions, DeliveryRow, DeliveryRow.destination, delivery_of, pending)

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
