"""The worklist, and all that is kept of a case.

In plain SQL that SQLite and PostgreSQL both take, so that `storage.reader` can ask without importing SQLAlchemy.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from storage.database.plain import Reading, Select
from storage.records import Delivery, StoredFile
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
    """From when the last slice came to the report's acceptance."""


@dataclass(frozen=True)
class Counts:
    """How many series and deliveries stand where, and since when the oldest waits."""

    stages: Mapping[Stage, int]
    empty: int
    """Of those that are RECEIVING by their stage, and are not among them here: see `is_empty`."""
    deliveries: Mapping[DeliveryStage, int]
    oldest_ready_at: datetime | None
    oldest_pending_at: datetime | None


@dataclass(frozen=True)
class Status(Counts):
    """The node at a glance."""

    errors: tuple[tuple[datetime, str], ...]
    """When and what: the last failed or held-up attempts of analysis, then those of delivery (by when the report was made)."""
    shortfalls: tuple[tuple[datetime, str], ...]
    """When an association ended with which more may not have come, and why; the newest first."""
    clocks: tuple[Clock, ...]
    """Of the last delivered cases, newest first; without those that a person had analysed or delivered again."""


NOT_A_REVIEW = "COALESCE((SELECT SUBSTR(o.kind, 1, 6) FROM report_object o WHERE o.id = d.object_id), '') <> 'review'"
"""Of the table `delivery` as `d`: a review leaves when a person has decided, which says nothing of how fast the node is."""
MOST_URGENT = """
SELECT w.* FROM worklist w JOIN series s ON s.id = w.case_id
ORDER BY s.priority, s.p_absent, s.last_instance_at LIMIT :most
"""
"""In the order of `ix_series_urgent`."""
_CASE = (  # one after the other: together they would be a search through all cases
    "SELECT id FROM series WHERE series_instance_uid = :name",
    "SELECT s.id FROM report r JOIN series s ON s.id = r.series_id AND s.report_id = r.id WHERE r.sop_instance_uid = :name",
)
_REPORTS = """
SELECT id, revision, sop_instance_uid, predecessor_uid, outcome, created_at, path
FROM report WHERE series_id = :case_id ORDER BY revision
"""
_DELIVERIES = """
SELECT d.id, d.destination, d.stage, d.attempts, d.created_at, d.next_attempt_at, d.last_error, d.delivered_at,
    d.committed_at, r.series_id, r.revision, COALESCE(o.kind, 'report') AS kind,
    COALESCE(o.sop_instance_uid, r.sop_instance_uid) AS sop_instance_uid, COALESCE(o.path, r.path) AS path,
    COALESCE(o.sha256, r.sha256) AS sha256, COALESCE(o.size_bytes, r.size_bytes) AS size_bytes
FROM delivery d JOIN report r ON r.id = d.report_id LEFT JOIN report_object o ON o.id = d.object_id
WHERE r.series_id = :case_id ORDER BY d.id
"""
_STAGES = """
SELECT stage, SUM(number) AS number FROM at_end WHERE what = 'series' GROUP BY stage HAVING SUM(number) <> 0
UNION ALL SELECT stage, COUNT(*) FROM series
    WHERE NOT canary AND stage IN ('receiving', 'ready', 'analysing') GROUP BY stage
"""
_DELIVERY_STAGES = """
SELECT stage, SUM(number) AS number FROM at_end WHERE what = 'delivery' GROUP BY stage HAVING SUM(number) <> 0
UNION ALL SELECT stage, COUNT(*) FROM delivery WHERE stage = 'pending' GROUP BY stage
"""
"""What stands at an end is a sum (`storage.queries.at_end`); one statement, so that nothing is counted twice or not at all."""
_EMPTY = "SELECT COUNT(*) AS number FROM series WHERE NOT canary AND stage = 'receiving' AND instance_count = 0"
_DELIVERY_ERRORS = """
SELECT MAX(created_at) AS last_at, destination, last_error, COUNT(*) AS number FROM delivery WHERE last_error <> ''
GROUP BY destination, last_error ORDER BY MAX(id) DESC LIMIT 5
"""
_HELD_UP = "(stage = 'ready' AND outcome IS NULL AND detail <> '')"
_ANALYSIS_ERRORS = f"""
SELECT claimed_at, id,
    CASE WHEN {_HELD_UP} THEN detail ELSE CAST(attempts AS TEXT) || ' failed attempts of analysis' END AS error
FROM series WHERE NOT canary AND stage IN ('failed', 'ready') AND (attempts > 0 OR {_HELD_UP}) ORDER BY id + 0 DESC LIMIT 5
"""  # noqa: S608
"""In no index's order: PostgreSQL would go through all cases for the last that failed."""
_SHORTFALLS = """
SELECT closed_at, calling_ae, shortfall FROM association WHERE shortfall <> '' ORDER BY id DESC LIMIT 10
"""
# Not what a person had analysed or delivered again (`willis retry`): how long that took says nothing of the node.
# With OFFSET, and so looked for at each case: without, PostgreSQL reads whole tables first, to join them.
_DELIVERED = f"""
SELECT w.* FROM worklist w WHERE w.delivery IN ('delivered', 'committed')
AND NOT EXISTS (SELECT 1 FROM report r WHERE r.series_id = w.case_id AND r.revision < w.revision
    AND r.created_at >= w.ready_at LIMIT 1 OFFSET 0)
AND NOT EXISTS (SELECT 1 FROM report r JOIN delivery d ON d.report_id = r.id
    WHERE r.sop_instance_uid = w.report_uid AND d.created_at > r.created_at AND {NOT_A_REVIEW} LIMIT 1 OFFSET 0)
ORDER BY w.case_id DESC LIMIT :most
"""  # noqa: S608


class Worklist:
    """Reads only."""

    def __init__(self, reading: Reading) -> None:
        """`reading` opens a transaction on the database."""
        self._reading = reading

    def rows(self, limit: int = 100) -> list[Row]:
        """The most urgent rows: by priority, then probability, then time of waiting."""
        return self._select(MOST_URGENT, most=limit)

    def case(self, case: str) -> Row | None:
        """The row whose case number, Series Instance UID or report UID is `case`."""
        with self._reading() as select:
            found = [int(case)] if case.isdecimal() and len(case) < 10 else []
            found += [row["id"] for statement in _CASE for row in select(statement, name=case)]
            for case_id in found:
                for row in select("SELECT * FROM worklist WHERE case_id = :case_id", case_id=case_id):
                    return typed(row)
        return None

    def reports(self, case_id: int) -> list[Row]:
        """Every report of the case, oldest first: revision, uid, outcome, predecessor, time and path."""
        return self._select(_REPORTS, case_id=case_id)

    def deliveries(self, case_id: int) -> list[Delivery]:
        """Every delivery of the case, oldest first."""
        return [_delivery(dict(row)) for row in self._select(_DELIVERIES, case_id=case_id)]

    def counts(self) -> Counts:
        """How many stand where, and the oldest that wait."""
        with self._reading() as select:
            return _counts(select)

    def status(self, last: int = 1000) -> Status:
        """Counts, the oldest that waits, the last errors, and the clocks of the `last` delivered cases."""
        with self._reading() as select:
            counts = _counts(select)
            failed = [typed(row) for row in select(_ANALYSIS_ERRORS)]
            undelivered = [typed(row) for row in select(_DELIVERY_ERRORS)]
            short = [typed(row) for row in select(_SHORTFALLS)]
            delivered = [typed(row) for row in select(_DELIVERED, most=last)]
        return Status(
            **vars(counts),
            errors=(
                *((row["claimed_at"], f"case {row['id']}: {row['error']}") for row in failed if row["claimed_at"]),
                *((row["last_at"], _outage(row)) for row in undelivered),
            ),
            shortfalls=tuple((row["closed_at"], f"{row['calling_ae']}: {row['shortfall']}") for row in short),
            clocks=tuple(_clock(row) for row in delivered),
        )

    def _select(self, statement: str, **values: Any) -> list[Row]:
        with self._reading() as select:
            return [typed(row) for row in select(statement, **values)]


def is_empty(row: Row) -> bool:
    """Whether the case has lost every slice that it had (`Intake.forget_instance`), and waits for them to be sent again."""
    return (row["stage"], row["instance_count"]) == (Stage.RECEIVING, 0)


def _counts(select: Select) -> Counts:
    stages = {Stage(row["stage"]): row["number"] for row in select(_STAGES)}
    if empty := select(_EMPTY)[0]["number"]:
        stages[Stage.RECEIVING] = stages.get(Stage.RECEIVING, empty) - empty  # two statements: it may have gone on
    [ready] = select("SELECT MIN(ready_at) AS oldest_at FROM series WHERE stage = 'ready' AND NOT canary")
    [pending] = select("SELECT MIN(created_at) AS oldest_at FROM delivery WHERE stage = 'pending'")
    return Counts(
        stages=stages,
        empty=empty,
        deliveries={DeliveryStage(row["stage"]): row["number"] for row in select(_DELIVERY_STAGES)},
        oldest_ready_at=as_time(ready["oldest_at"]),
        oldest_pending_at=as_time(pending["oldest_at"]),
    )


def typed(row: Row) -> Row:
    """The row with times as aware `datetime`s in UTC and JSON decoded, which SQLite keeps as text."""
    return {name: _value(name, value) for name, value in row.items()}


def as_time(value: Any) -> datetime | None:
    """A time as an aware `datetime` in UTC, which SQLite keeps as text."""
    if value is None:
        return None
    return (datetime.fromisoformat(value) if isinstance(value, str) else value).replace(tzinfo=UTC)


def _value(name: str, value: Any) -> Any:
    if name.endswith("_at"):
        return as_time(value)
    if name == "notify" and value is not None:
        return bool(value)  # SQLite keeps it as a number
    if name in ("conflicts", "lesions") and isinstance(value, str):
        return json.loads(value)
    return value


def _outage(row: Row) -> str:
    """One line for all deliveries that fail alike."""
    many = f" ({row['number']} deliveries)" if row["number"] > 1 else ""
    return f"{row['destination']}: {row['last_error']}{many}"


def _delivery(row: dict[str, Any]) -> Delivery:
    file = StoredFile(row.pop("path"), row.pop("sha256"), row.pop("size_bytes"))
    return Delivery(file=file, stage=DeliveryStage(row.pop("stage")), **row)


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
