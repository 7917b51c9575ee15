"""Storage commitments that we ask destinations for (PS3.4 annex J).

A transaction is recorded before it is asked, and stays known until its case is removed: its answer may come hours later, or twice.
"""

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from storage.database.schema import CommitmentRow, DeliveryRow, ObjectRow, ReportRow
from storage.database.transactions import Transactions
from storage.database.wakeups import Whom, wake_hosts
from storage.queries.due import Due
from storage.queries.outbox import commitment_row, delivery_of, reach_of
from storage.records import Commitment, Reported
from storage.stages import DeliveryEvent, DeliveryStage, advance_delivery

_DELIVERY = select(DeliveryRow.destination).where(DeliveryRow.id == CommitmentRow.delivery_id)
_DESTINATION = _DELIVERY.correlate(CommitmentRow).scalar_subquery()


class Commitments:
    """Transactions that are due, and how they end.  Each public method is one transaction of the database."""

    def __init__(self, transactions: Transactions, folder: str = "") -> None:
        """`transactions` are those of the store's database; files lie in this `folder` or an object store ("": all here)."""
        self._transactions = transactions
        reach = reach_of(CommitmentRow.delivery_id, CommitmentRow, folder)
        self.due = Due(transactions, CommitmentRow, _DESTINATION, _as_commitment, reach=reach)
        """To be asked, or their answer is overdue."""

    def asked(self, commitment: Commitment, now: datetime, overdue_at: datetime) -> None:
        """The destination has acknowledged the request; without an answer until `overdue_at` it is due again."""
        self._change(commitment, asked_at=now, next_attempt_at=overdue_at)

    def postponed(self, commitment: Commitment, error: str, next_attempt_at: datetime) -> None:
        """The destination could not be asked now; it is to be asked again, under the same UID."""
        self._change(commitment, error, next_attempt_at=next_attempt_at)

    def renewed(self, commitment: Commitment, error: str, transaction_uid: str, now: datetime) -> None:
        """No answer came: a new transaction is due at once.  An answer to the old one still counts."""
        with self._transactions.writing() as session:
            if _close(session, commitment.transaction_uid):
                row = commitment_row(commitment.delivery.id, transaction_uid, now)
                row.attempts = commitment.attempts
                session.add(row)
                _note(session, commitment.delivery.id, error)

    def refused(self, commitment: Commitment, error: str) -> None:
        """The destination will not commit without a person: a dead letter."""
        with self._transactions.writing() as session:
            if _close(session, commitment.transaction_uid):
                _advance(session, commitment.delivery.id, DeliveryEvent.REFUSED, last_error=error)

    def dropped(self, commitment: Commitment) -> None:
        """The delivery no longer waits for this transaction."""
        with self._transactions.writing() as session:
            _close(session, commitment.transaction_uid)

    def instance_of(self, transaction_uid: str) -> str | None:
        """The SOP Instance UID that the transaction is about; None when there is no such transaction."""
        with self._transactions.reading() as session:
            return session.scalar(
                select(func.coalesce(ObjectRow.sop_instance_uid, ReportRow.sop_instance_uid))
                .select_from(CommitmentRow)
                .join(DeliveryRow, DeliveryRow.id == CommitmentRow.delivery_id)
                .join(ReportRow, ReportRow.id == DeliveryRow.report_id)
                .outerjoin(ObjectRow, ObjectRow.id == DeliveryRow.object_id)
                .where(CommitmentRow.transaction_uid == transaction_uid)
            )

    def reported(
        self, transaction_uid: str, error: str, now: datetime, resend_at: Callable[[int], datetime]
    ) -> Reported:
        """What the destination reported of the transaction holds.

        Without `error` it has committed.  With one, the delivery is pending again from `resend_at(attempts)`.
        """
        with self._transactions.writing() as session:
            row = session.scalar(select(CommitmentRow).where(CommitmentRow.transaction_uid == transaction_uid))
            if row is None:
                return Reported.UNKNOWN
            if error:
                if not _close(session, transaction_uid):
                    return Reported.NOTHING  # a failure counts once, and not after we have asked anew
                attempts = session.get_one(DeliveryRow, row.delivery_id).attempts
                changed = _advance(
                    session, row.delivery_id, DeliveryEvent.UNCOMMITTED,
                    last_error=error, next_attempt_at=resend_at(attempts), delivered_at=None,
                )  # fmt: skip
                return Reported.UNCOMMITTED if changed else Reported.NOTHING
            if not _advance(session, row.delivery_id, DeliveryEvent.COMMITTED, last_error="", committed_at=now):
                return Reported.NOTHING
            others = update(CommitmentRow).where(CommitmentRow.delivery_id == row.delivery_id)
            session.execute(others.values(next_attempt_at=None))
            return Reported.COMMITTED

    def _change(self, commitment: Commitment, error: str = "", **values: datetime) -> None:
        """Nothing changes when an answer was faster."""
        with self._transactions.writing() as session:
            if _while_due(session, commitment.transaction_uid, **values):
                _note(session, commitment.delivery.id, error)


def _as_commitment(session: Session, row: CommitmentRow) -> Commitment:
    delivery = delivery_of(session, session.get_one(DeliveryRow, row.delivery_id))
    return Commitment(row.id, row.transaction_uid, delivery, row.attempts, row.next_attempt_at, row.asked_at)


def _close(session: Session, transaction_uid: str) -> bool:
    """Nothing more is asked under this UID; whether something was still to be."""
    return _while_due(session, transaction_uid, next_attempt_at=None)


def _while_due(session: Session, transaction_uid: str, **values: datetime | None) -> bool:
    """The transaction has these values; False, changing nothing, when nothing more is asked under this UID."""
    due = (CommitmentRow.transaction_uid == transaction_uid, CommitmentRow.next_attempt_at.is_not(None))
    changed = update(CommitmentRow).where(*due).values(**values).returning(CommitmentRow.id)
    return session.scalar(changed) is not None


def _note(session: Session, delivery_id: int, error: str) -> None:
    session.execute(update(DeliveryRow).where(DeliveryRow.id == delivery_id).values(last_error=error))


def _advance(session: Session, delivery_id: int, event: DeliveryEvent, **values: str | datetime | None) -> bool:
    """The delivery after `event`; False, changing nothing, when it is no longer delivered."""
    stage = advance_delivery(DeliveryStage.DELIVERED, event).value
    delivered = (DeliveryRow.id == delivery_id, DeliveryRow.stage == DeliveryStage.DELIVERED.value)
    changed = update(DeliveryRow).where(*delivered).values(stage=stage, **values).returning(DeliveryRow.id)
    if session.scalar(changed) is None:
        return False
    wake_hosts(session, Whom.PAGES)
    return True
