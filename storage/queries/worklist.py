"""What people ask of the database."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, Text, case, cast, func, select

from storage.database.schema import WORKLIST, DeliveryRow, ObjectRow, ReportRow, SeriesRow
from storage.database.transactions import Transactions
from storage.queries.outbox import as_delivery
from storage.records import Delivery
from storage.stages import DeliveryStage, Stage

Row = Mapping[str, Any]
"""One row of the view `worklist`; the keys are its columns."""


@dataclass(frozen=True)
class Clock:
    """Where the time of one delivered case went, in seconds."""

    settle: float
    wait: float
    volume: float
    inference: float
    report: float
    delivery: float
    total: float
    """From the last slice's arrival to the report's acceptance."""


@dataclass(frozen=True)
class Status:
    """The node at a glance."""

    stages: Mapping[Stage, int]
    deliveries: Mapping[DeliveryStage, int]
    oldest_ready_at: datetime | None
    oldest_pending_at: datetime | None
    errors: tuple[tuple[datetime, str], ...]
    """When and what: the last failed or held-up attempts of analysis, then those of delivery (by when the report was made)."""
    clocks: tuple[Clock, ...]
    """Of the last delivered cases, newest first."""


def most_urgent(limit: int) -> Select[Any]:
    """The worklist's first rows, in the order of `ix_series_urgent`."""
    return (
        select(WORKLIST)
        .join(SeriesRow, SeriesRow.id == WORKLIST.c.case_id)
        .order_by(SeriesRow.priority, SeriesRow.p_absent, SeriesRow.last_instance_at)
        .limit(limit)
    )


class Worklist:
    """Reads only."""

    def __init__(self, transactions: Transactions) -> None:
        """`transactions` are those of the store's database."""
        self._transactions = transactions

    def rows(self, limit: int = 100) -> list[Row]:
        """The most urgent rows: by priority, then probability, then time of waiting."""
        with self._transactions.reading() as session:
            return [dict(row) for row in session.execute(most_urgent(limit)).mappings()]

    def case(self, case: str) -> Row | None:
        """The row whose case number, Series Instance UID or report UID is `case`."""
        ways = [  # one after the other: together they would be a search through all cases
            select(SeriesRow.id).where(SeriesRow.series_instance_uid == case),
            select(SeriesRow.id)
            .join(ReportRow, ReportRow.id == SeriesRow.report_id)
            .where(ReportRow.sop_instance_uid == case),
        ]
        if case.isdecimal() and len(case) < 10:
            ways.insert(0, select(SeriesRow.id).where(SeriesRow.id == int(case)))
        with self._transactions.reading() as session:
            for way in ways:
                if id_ := session.scalar(way):
                    row = session.execute(select(WORKLIST).where(WORKLIST.c.case_id == id_)).mappings().one()
                    return dict(row)
        return None

    def reports(self, case_id: int) -> list[Row]:
        """Every report of the case, oldest first: revision, uid, outcome, predecessor, time and path."""
        with self._transactions.reading() as session:
            rows = session.scalars(select(ReportRow).where(ReportRow.series_id == case_id).order_by(ReportRow.revision))
            return [
                {
                    "id": row.id,
                    "revision": row.revision,
                    "sop_instance_uid": row.sop_instance_uid,
                    "predecessor_uid": row.predecessor_uid,
                    "outcome": row.outcome,
                    "created_at": row.created_at,
                    "path": row.path,
                }
                for row in rows
            ]

    def deliveries(self, case_id: int) -> list[Delivery]:
        """Every delivery of the case, oldest first."""
        with self._transactions.reading() as session:
            rows = session.execute(
                select(DeliveryRow, ReportRow, ObjectRow)
                .join(ReportRow, ReportRow.id == DeliveryRow.report_id)
                .outerjoin(ObjectRow, ObjectRow.id == DeliveryRow.object_id)
                .where(ReportRow.series_id == case_id)
                .order_by(DeliveryRow.id)
            )
            return [as_delivery(delivery, report, beside) for delivery, report, beside in rows]

    def status(self, last: int = 1000) -> Status:
        """Counts, the oldest that waits, the last errors, and the clocks of the `last` delivered cases."""
        pending = DeliveryRow.stage == DeliveryStage.PENDING.value
        with self._transactions.reading() as session:
            stages = session.execute(select(SeriesRow.stage, func.count()).group_by(SeriesRow.stage)).all()
            deliveries = session.execute(select(DeliveryRow.stage, func.count()).group_by(DeliveryRow.stage)).all()
            errors = session.execute(
                select(DeliveryRow.created_at, DeliveryRow.destination, DeliveryRow.last_error)
                .where(DeliveryRow.last_error != "")
                .order_by(DeliveryRow.id.desc())
                .limit(5)
            ).all()
            held_up = (SeriesRow.stage == Stage.READY.value) & SeriesRow.outcome.is_(None) & (SeriesRow.detail != "")
            failed = session.execute(
                select(
                    SeriesRow.claimed_at,
                    SeriesRow.id,
                    case(
                        (held_up, SeriesRow.detail),
                        else_=cast(SeriesRow.attempts, Text).concat(" failed attempts of analysis"),
                    ),
                )
                .where(SeriesRow.stage.in_((Stage.FAILED.value, Stage.READY.value)), (SeriesRow.attempts > 0) | held_up)
                .order_by(SeriesRow.id.desc())
                .limit(5)
            ).all()
            return Status(
                stages={Stage(stage): count for stage, count in stages},
                deliveries={DeliveryStage(stage): count for stage, count in deliveries},
                oldest_ready_at=session.scalar(
                    select(func.min(SeriesRow.ready_at)).where(SeriesRow.stage == Stage.READY.value)
                ),
                oldest_pending_at=session.scalar(select(func.min(DeliveryRow.created_at)).where(pending)),
                errors=(
                    *((at, f"case {case_id}: {said}") for at, case_id, said in failed if at),
                    *((at, f"{destination}: {error}") for at, destination, error in errors),
                ),
                clocks=tuple(_clock(row) for row in self._delivered(last)),
            )

    def _delivered(self, last: int) -> list[Row]:
        newest = WORKLIST.c.case_id.desc()
        with self._transactions.reading() as session:
            rows = session.execute(
                select(WORKLIST).where(WORKLIST.c.delivery.in_(("delivered", "committed"))).order_by(newest).limit(last)
            )
            return [dict(row) for row in rows.mappings()]


def _clock(row: Row) -> Clock:
    def between(start: str, end: str) -> float:
        return float((row[end] - row[start]).total_seconds())

    return Clock(
        settle=between("last_instance_at", "ready_at"),
        wait=between("ready_at", "claimed_at"),
        volume=row["volume_seconds"] or 0.0,
        inference=row["inference_seconds"] or 0.0,
        report=row["report_seconds"] or 0.0,
        delivery=between("reported_at", "delivered_at"),
        total=between("last_instance_at", "delivered_at"),
    )
