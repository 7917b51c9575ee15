"""What people said of the model's findings, and how long reports took: what the page "How good is it here" counts.

In plain SQL that SQLite and PostgreSQL both take.  A place that was judged on several revisions of a report counts as on
the newest.  Review entries outlive their cases: retention takes no
verdict away, but what it has removed is no longer among the reported and the times.  What a person had analysed or delivered
again has no time.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from storage.database.plain import Reading
from storage.queries.worklist import NOT_A_REVIEW, as_time

MOST = 100_000
_VERDICTS = """
SELECT e.case_id, e.at AS judged_at, e.action, e.reason, e.model, e.location, e.probability, e.diameter_mm
FROM review_entry e
WHERE e.action IN ('accepted', 'rejected') AND e.undone = :no AND e.at >= :since AND e.version = (
    SELECT MAX(l.version) FROM review_entry l WHERE l.case_id = e.case_id AND l.revision = e.revision
        AND l.finding = e.finding AND l.action IN ('accepted', 'rejected') AND l.undone = :no
) AND NOT EXISTS (
    SELECT 1 FROM review_entry n WHERE n.case_id = e.case_id AND n.revision > e.revision AND n.location = e.location
        AND n.action IN ('accepted', 'rejected') AND n.undone = :no
)
ORDER BY e.at, e.id LIMIT :most
"""
_REPORTED = (
    "SELECT r.model, r.lesions FROM report r WHERE r.outcome = 'positive' AND r.created_at >= :since AND NOT EXISTS "
    "(SELECT 1 FROM series s WHERE s.id = r.series_id AND s.canary) ORDER BY r.id LIMIT :most"
)
_TIMES = f"""
SELECT s.last_instance_at, MAX(d.delivered_at) AS delivered_at, SUM(CASE WHEN d.delivered_at IS NULL THEN 1 ELSE 0 END) AS open
FROM report r JOIN series s ON s.id = r.series_id AND s.report_id = r.id JOIN delivery d ON d.report_id = r.id
WHERE r.created_at >= :since AND r.outcome IN ('positive', 'negative')
    AND NOT EXISTS (SELECT 1 FROM report e WHERE e.series_id = s.id AND e.revision < r.revision AND e.created_at >= s.ready_at)
    AND NOT EXISTS (SELECT 1 FROM delivery d WHERE d.report_id = r.id AND d.created_at > r.created_at AND {NOT_A_REVIEW})
    AND {NOT_A_REVIEW}
GROUP BY s.id, s.last_instance_at ORDER BY s.id DESC LIMIT :most
"""  # noqa: S608


@dataclass(frozen=True)
class Judged:
    """What somebody last said of a finding."""

    case_id: int
    judged_at: datetime
    accepted: bool
    reason: str
    model: str
    location: str
    probability: float
    diameter_mm: float


@dataclass(frozen=True)
class Counted:
    """`reported`: findings in the reports, by model.  `seconds`: from the last slice to the last destination's acceptance.

    `undelivered`: answered cases of which a destination has not got everything.
    """

    judged: tuple[Judged, ...]
    reported: dict[str, int]
    seconds: tuple[float, ...]
    undelivered: int


class Statistics:
    """Reads only."""

    def __init__(self, reading: Reading) -> None:
        """`reading` opens a transaction on the database."""
        self._reading = reading

    def since(self, since: datetime) -> Counted:
        """What was judged and reported since then."""
        asked: dict[str, Any] = {"since": since.replace(tzinfo=None), "most": MOST}
        with self._reading() as select:
            verdicts = select(_VERDICTS, **asked, no=False)
            reports = select(_REPORTED, **asked)
            times = select(_TIMES, **asked)
        reported: dict[str, int] = {}
        for row in reports:
            lesions = json.loads(row["lesions"]) if isinstance(row["lesions"], str) else row["lesions"]
            reported[row["model"]] = reported.get(row["model"], 0) + len(lesions)
        delivered = [row for row in times if not row["open"]]
        return Counted(
            tuple(_judged(row) for row in verdicts),
            reported,
            tuple(_seconds(row) for row in delivered),
            len(times) - len(delivered),
        )


def _judged(row: dict[str, Any]) -> Judged:
    at = as_time(row["judged_at"])
    assert at is not None  # the column has no nulls
    of_finding = (row["reason"], row["model"], row["location"], row["probability"], row["diameter_mm"])
    return Judged(row["case_id"], at, row["action"] == "accepted", *of_finding)


def _seconds(row: dict[str, Any]) -> float:
    first, last = as_time(row["last_instance_at"]), as_time(row["delivered_at"])
    return (last - first).total_seconds() if first and last else 0.0
