"""Storage commitments that others ask of us (PS3.4 annex J): kept until the result is with them."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from storage.database.schema import CommitmentRequestRow, InstanceRow, SeriesRow
from storage.database.transactions import Transactions
from storage.queries.due import Due
from storage.queries.rows import alike
from storage.records import CommitmentRequest, StoredFile

_CHUNK = 500


class CommitmentRequests:
    """Requests whose result is owed.  Each public method is one transaction of the database."""

    def __init__(self, transactions: Transactions) -> None:
        """`transactions` are those of the store's database."""
        self._transactions = transactions
        self.due = Due(transactions, CommitmentRequestRow, CommitmentRequestRow.calling_ae, _as_request)
        self._insert = transactions.insert_unless_there(CommitmentRequestRow.__table__)

    def add(
        self,
        transaction_uid: str,
        calling_ae: str,
        instances: Sequence[tuple[str, str]],
        now: datetime,
        due_at: datetime,
    ) -> CommitmentRequest | None:
        """The request is kept, and its result due at `due_at`, also when the same was asked before.

        None, changing nothing, when this peer has used the transaction UID for other instances.
        """
        key: dict[str, Any] = {"transaction_uid": transaction_uid, "calling_ae": calling_ae}
        asked = [list(pair) for pair in instances]
        with self._transactions.writing() as session:
            session.execute(self._insert, key | {"instances": asked, "created_at": now, "next_attempt_at": due_at})
            row = session.scalars(select(CommitmentRequestRow).filter_by(**key)).one()
            if row.instances != asked:
                return None
            row.created_at, row.next_attempt_at, row.answered_at, row.attempts = now, due_at, None, 0
            return _as_request(session, row)

    def answered(self, request: CommitmentRequest, now: datetime) -> None:
        """The peer has the result."""
        self._change(request, answered_at=now, next_attempt_at=None, last_error="")

    def postponed(self, request: CommitmentRequest, error: str, next_attempt_at: datetime | None) -> None:
        """The result could not be sent; it is due again at `next_attempt_at`, or (None) given up."""
        self._change(request, last_error=error, next_attempt_at=next_attempt_at)

    def forget(self, before: datetime) -> int:
        """Those that came before this time and of which nothing is owed are no longer known; returns how many."""
        row = CommitmentRequestRow
        old = select(row.id).where(row.next_attempt_at.is_(None), row.created_at < before).limit(_CHUNK)
        with self._transactions.reading() as session:
            found = session.scalars(old).all()
        return self._transactions.change(delete(row).where(row.id.in_(found))) if found else 0

    def _change(self, request: CommitmentRequest, **values: str | datetime | None) -> None:
        """Nothing changes once the peer has the result."""
        owed = (CommitmentRequestRow.id == request.id, CommitmentRequestRow.answered_at.is_(None))
        self._transactions.change(update(CommitmentRequestRow).where(*owed).values(**values))

    def promise(self, sop_instance_uids: Sequence[str], now: datetime) -> set[str]:
        """Those that are still known; their cases are kept as `storage.queries.retention` keeps what was promised."""
        columns = (SeriesRow.series_instance_uid, InstanceRow.sop_instance_uid)
        instances: dict[str, set[str]] = {}
        known: set[str] = set()
        with self._transactions.writing() as session:
            for chunk in _chunks(sop_instance_uids):
                known_ones = select(*columns).join(SeriesRow, SeriesRow.id == InstanceRow.series_id)
                for series, uid in session.execute(known_ones.where(InstanceRow.sop_instance_uid.in_(chunk))):
                    instances.setdefault(series, set()).add(uid)
            for series in sorted(instances):  # in the order of the receivers, so that none waits for another
                mine = update(SeriesRow).where(SeriesRow.series_instance_uid == series).values(promised_at=now)
                if session.scalar(mine.returning(SeriesRow.id)) is not None:
                    known |= instances[series]
        return known

    def held(self, instances: Sequence[tuple[str, str]]) -> dict[str, tuple[str, StoredFile]]:
        """By SOP Instance UID, the SOP class and file of those that are known."""
        with self._transactions.reading() as session:
            return {
                row.sop_instance_uid: (row.header["sop_class_uid"], row.file)
                for chunk in _chunks([uid for _, uid in instances])
                for row in session.scalars(select(InstanceRow).where(InstanceRow.sop_instance_uid.in_(chunk)))
            }


def _chunks(uids: Sequence[str]) -> Iterator[Sequence[str]]:
    for at in range(0, len(uids), _CHUNK):
        yield uids[at : at + _CHUNK]


def _as_request(_session: Session, row: CommitmentRequestRow) -> CommitmentRequest:
    instances = tuple((sop_class, instance) for sop_class, instance in row.instances)
    return CommitmentRequest(**alike(CommitmentRequest, row) | {"instances": instances})
