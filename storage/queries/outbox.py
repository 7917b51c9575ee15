"""The outbox: reports and the objects beside them on their way to their destinations, until each is accepted or refused for good."""

from datetime import datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, aliased

from storage.database.running import UploadRow
from storage.database.schema import CommitmentRow, DeliveryRow, ObjectRow, ReportRow
from storage.database.transactions import Transactions
from storage.database.wakeups import Whom, wake_hosts
from storage.queries.due import Due, Reach
from storage.queries.rows import alike
from storage.queries.tally import count_acceptance
from storage.queries.uploads import lies_elsewhere, waits_elsewhere
from storage.records import Delivery
from storage.stages import DeliveryEvent, DeliveryStage, advance_delivery


class Outbox:
    """Deliveries that are due, and how they end.  Each public method is one transaction."""

    def __init__(self, transactions: Transactions, folder: str = "") -> None:
        """`transactions` are those of the store's database; files lie in this `folder` or an object store ("": all here)."""
        self._transactions = transactions
        pending = DeliveryRow.stage == DeliveryStage.PENDING.value
        reach = reach_of(DeliveryRow.id, DeliveryRow, folder)
        self.due = Due(transactions, DeliveryRow, DeliveryRow.destination, delivery_of, pending, reach)

    def accepted(self, delivery: Delivery, now: datetime, transaction_uid: str | None = None) -> None:
        """The destination has the object; with a transaction UID some host asks it for storage commitment at once."""
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
        """The delivery after `event`; nothing changes when it is no longer pending: another sender was faster.

        What was accepted is, whoever has it now; else it is left to who claimed it since.
        """
        stage = advance_delivery(DeliveryStage.PENDING, event)
        mine = [DeliveryRow.id == delivery.id, DeliveryRow.stage == DeliveryStage.PENDING.value]
        if event is not DeliveryEvent.ACCEPTED:
            mine.append(DeliveryRow.attempts == delivery.attempts)
        with self._transactions.writing("delivery") as session:
            ended = session.scalar(
                update(DeliveryRow)
                .where(*mine)
                .values(stage=stage.value, last_error=error, next_attempt_at=next_attempt_at, delivered_at=delivered_at)
                .returning(DeliveryRow.id)
            )
            if ended is not None:
                wake_hosts(session, Whom.PAGES if transaction_uid is None else Whom.NODES)
            if ended is not None and delivered_at is not None:
                count_acceptance(session, ended, delivered_at)
            if ended is not None and transaction_uid is not None and delivered_at is not None:
                session.add(commitment_row(ended, transaction_uid, delivered_at))

    def requeue(self, report_id: int, now: datetime) -> int:
        """The dead letters of a report are pending again, as if new.  Returns how many."""
        stage = advance_delivery(DeliveryStage.DEAD, DeliveryEvent.REQUEUED)
        dead = (DeliveryRow.report_id == report_id, DeliveryRow.stage == DeliveryStage.DEAD.value)
        as_new = {"stage": stage.value, "attempts": 0, "created_at": now, "next_attempt_at": now}
        return self._transactions.change(update(DeliveryRow).where(*dead).values(as_new), wakes=Whom.NODES)


def reach_of(delivery_id: Any, table: Any, folder: str) -> Reach | None:
    """Of the delivery that a row of the `table` names, where its file lies for a node with this `folder`; None: "" is all."""
    if not folder:
        return None
    mine = aliased(DeliveryRow)
    beside = select(ObjectRow.path).join(mine, mine.object_id == ObjectRow.id)
    report = select(ReportRow.path).join(mine, mine.report_id == ReportRow.id)
    paths = (each.where(mine.id == delivery_id).correlate(table).scalar_subquery() for each in (beside, report))
    which = UploadRow.path == func.coalesce(*paths)
    return Reach(~waits_elsewhere(which, folder), ~lies_elsewhere(which, folder))


def commitment_row(delivery_id: int, transaction_uid: str, due_at: datetime) -> CommitmentRow:
    """A transaction that is due at `due_at`."""
    return CommitmentRow(
        transaction_uid=transaction_uid, delivery_id=delivery_id, created_at=due_at, next_attempt_at=due_at
    )


def delivery_of(session: Session, row: DeliveryRow) -> Delivery:
    """The row as a record, with what it delivers: the report, or the object beside it that it names."""
    report, beside = session.get_one(ReportRow, row.report_id), session.get(ObjectRow, row.object_id or 0)
    sent, kind = (beside, beside.kind) if beside else (report, "report")
    of_others = {
        "stage": DeliveryStage(row.stage), "sop_instance_uid": sent.sop_instance_uid, "file": sent.file,
        "series_id": report.series_id, "kind": kind, "revision": report.revision,
    }  # fmt: skip
    return Delivery(**alike(Delivery, row) | of_others)
