"""Counts and histograms of what has ended, kept where it ended: in its transaction, so that they survive any restart.

What retention removes stays counted: nothing here is ever taken back, as who reads counters expects.
"""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert as insert_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.orm import Session

from storage.database.running import TallyRow
from storage.database.schema import DeliveryRow, ReportRow, SeriesRow
from storage.database.transactions import Transactions

BOUNDS_SECONDS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 14_400)
"""The upper bounds of a histogram's buckets; what is above the last is in `ABOVE`."""
ABOVE, SUM, PLAIN = "+Inf", "sum", ""
REPORTS, SECONDS = "reports", "seconds"
_Key = tuple[str, str, str]


class Tally:
    """Reads only: (name, label, bucket) to value; a bucket holds what fell into it alone."""

    def __init__(self, transactions: Transactions) -> None:
        """`transactions` are those of the store's database."""
        self._transactions = transactions

    def all(self) -> Mapping[_Key, float]:
        """Everything that was ever counted."""
        with self._transactions.reading() as session:
            return {(row.name, row.label, row.bucket): row.value for row in session.scalars(select(TallyRow))}


def count_report(session: Session, series: SeriesRow, report: ReportRow) -> None:
    """A report was made: of which outcome, by which model; and how long each step took.

    Not how long, where a person had the case analysed again: that says nothing of the node.
    """
    changes = Counter[_Key]({(REPORTS, f"{report.outcome} {report.model}"[:128], PLAIN): 1.0})
    earlier = select(ReportRow.id).where(
        ReportRow.series_id == series.id, ReportRow.id != report.id, ReportRow.created_at >= series.ready_at
    )
    if series.ready_at and series.claimed_at and session.scalar(earlier.limit(1)) is None:
        seconds = {
            "settle": (series.ready_at - series.last_instance_at).total_seconds(),
            "wait": (series.claimed_at - series.ready_at).total_seconds(),
            "volume": report.volume_seconds,
            "inference": report.inference_seconds,
            "report": report.report_seconds,
        }
        for part, value in seconds.items():
            changes.update(_observed(part, value))
    _add(session, changes)


def count_acceptance(session: Session, delivery_id: int, now: datetime) -> None:
    """A destination has accepted a report: how long it took from the report, and from the last slice.

    Not where a person had it analysed or delivered again, nor where a slice has come since; and once for the report: not for
    the objects beside it.
    """
    delivery = session.get_one(DeliveryRow, delivery_id)
    report = session.get_one(ReportRow, delivery.report_id)
    series = session.get_one(SeriesRow, report.series_id)
    is_of_now = series.report_id == report.id and delivery.created_at == report.created_at
    if delivery.object_id is not None or not is_of_now or series.ready_at is None:  # which a late slice has undone
        return
    earlier = select(ReportRow.id).where(
        ReportRow.series_id == series.id, ReportRow.id != report.id, ReportRow.created_at >= series.ready_at
    )
    if session.scalar(earlier.limit(1)) is not None:
        return
    changes = Counter[_Key](_observed("delivery", (now - report.created_at).total_seconds()))
    changes.update(_observed("total", (now - series.last_instance_at).total_seconds()))
    _add(session, changes)


def _observed(part: str, seconds: float | None) -> dict[_Key, float]:
    """What one observation adds to the histogram of a part of the way."""
    if seconds is None:
        return {}
    bucket = next((str(bound) for bound in BOUNDS_SECONDS if seconds <= bound), ABOVE)
    return {(SECONDS, part, bucket): 1.0, (SECONDS, part, SUM): max(seconds, 0.0)}


def _add(session: Session, changes: Mapping[_Key, float]) -> None:
    """Each value has grown; in one order, so that no two transactions wait for each other."""
    dialect = session.get_bind().dialect.name
    statement = (insert_sqlite if dialect == "sqlite" else insert_postgresql)(TallyRow)
    grown = statement.on_conflict_do_update(
        index_elements=["name", "label", "bucket"], set_={"value": TallyRow.value + statement.excluded.value}
    )
    rows = [
        {"name": name, "label": label, "bucket": bucket, "value": value}
        for (name, label, bucket), value in sorted(changes.items())
    ]
    session.execute(grown, rows)
