"""The synthetic series that are sent to find out whether the node still answers rightly: when, and what came of each.

A series is one of them by the UID that was recorded here before it was sent, and by nothing that a sender says of itself.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, select, update

from storage.database.running import CanaryRow
from storage.database.schema import ReportRow, SeriesRow
from storage.database.transactions import Transactions
from storage.queries.rows import alike
from storage.stages import Stage

KEPT = timedelta(days=30)
_IN_WORK = (Stage.RECEIVING.value, Stage.READY.value, Stage.ANALYSING.value)


@dataclass(frozen=True)
class CanaryRun:
    """One of them.  `seconds`: from sending to its answer.  `trouble`: what was wrong, "" where nothing was, or nothing is known."""

    id: int
    series_instance_uid: str
    sent_at: datetime
    ended_at: datetime | None
    seconds: float | None
    trouble: str


@dataclass(frozen=True)
class CanaryAnswer:
    """How its series stands.  `lesions`: those of its report, each with "location" and "centre_lps_mm"."""

    case_id: int
    stage: Stage
    outcome: str
    reason: str
    lesions: tuple[dict[str, Any], ...]
    ended_at: datetime | None


class Canaries:
    """Each public method is one transaction."""

    def __init__(self, transactions: Transactions) -> None:
        """`transactions` are those of the store's database."""
        self._transactions = transactions

    def last(self) -> CanaryRun | None:
        """The one that was sent last."""
        with self._transactions.reading() as session:
            row = session.scalar(select(CanaryRow).order_by(CanaryRow.id.desc()).limit(1))
            return None if row is None else CanaryRun(**alike(CanaryRun, row))

    def begin(self, series_instance_uid: str, now: datetime) -> None:
        """A series of this UID is one, when it comes; those of long ago are forgotten."""
        with self._transactions.writing() as session:
            session.execute(delete(CanaryRow).where(CanaryRow.sent_at < now - KEPT))
            session.add(CanaryRow(series_instance_uid=series_instance_uid, sent_at=now, trouble=""))

    def end(self, run: CanaryRun, now: datetime, trouble: str = "", seconds: float | None = None) -> None:
        """What came of it is known."""
        ended = {"ended_at": now, "trouble": trouble, "seconds": seconds}
        self._transactions.change(update(CanaryRow).where(CanaryRow.id == run.id).values(**ended))

    def answer(self, run: CanaryRun) -> CanaryAnswer | None:
        """How its series stands; None where nothing of it came."""
        with self._transactions.reading() as session:
            row = session.scalar(select(SeriesRow).where(SeriesRow.series_instance_uid == run.series_instance_uid))
            if row is None:
                return None
            report = session.get(ReportRow, row.report_id) if row.report_id else None
            lesions = tuple(report.lesions) if report else ()
            return CanaryAnswer(row.id, Stage(row.stage), row.outcome or "", row.reason, lesions, row.ended_at)

    def left(self) -> list[int]:
        """The cases that are of one of them, to be removed once they have ended."""
        with self._transactions.reading() as session:
            return list(session.scalars(select(SeriesRow.id).where(SeriesRow.canary).order_by(SeriesRow.id)))

    def real_ones_in_work(self) -> int:
        """How many series that are of patients are being received, wait, or are analysed."""
        in_work = (SeriesRow.stage.in_(_IN_WORK), ~SeriesRow.canary)
        with self._transactions.reading() as session:
            return session.scalar(select(func.count()).select_from(SeriesRow).where(*in_work)) or 0
