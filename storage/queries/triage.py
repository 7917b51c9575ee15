"""The cases as the triage page lists them: all that it ranks, filters and shows, in one statement without the view's counts."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from storage.database.plain import Reading
from storage.queries.worklist import Row, as_time

MOST_CASES = 10_000
"""Of the newest, and of the most urgent as the view has them: what has not been looked at for long stays listed."""

_COLUMNS = """
SELECT s.id AS case_id, s.priority, s.stage, s.outcome, s.reason, s.detail, s.conflicts, s.p_present, s.revision,
    s.patient_name, s.patient_id, s.accession_number, s.study_date, s.series_description, s.calling_ae,
    s.instance_count, s.last_instance_at, s.series_instance_uid, r.top_location, r.diameter_mm, r.limits, r.notify,
    r.threshold,
    COALESCE(v.version, 0) AS version, COALESCE(v.assigned_to, '') AS assigned_to,
    CASE WHEN v.revision = s.revision THEN v.acknowledged_at END AS acknowledged_at,
    CASE WHEN v.revision = s.revision THEN v.acknowledged_by ELSE '' END AS acknowledged_by,
    CASE WHEN v.revision = s.revision THEN v.verdicts END AS verdicts
FROM {some} LEFT JOIN report r ON r.id = s.report_id LEFT JOIN review v ON v.case_id = s.id
    AND v.series_instance_uid = s.series_instance_uid
"""
_NEWEST = _COLUMNS.format(some="(SELECT * FROM series WHERE NOT canary ORDER BY id DESC LIMIT :most) s")
_MOST_URGENT = _COLUMNS.format(
    some="(SELECT * FROM series WHERE id <= :before AND NOT canary ORDER BY priority, p_absent, last_instance_at LIMIT :most) s"
)
_STAMP = """
SELECT stage, COUNT(*) AS number, (SELECT COUNT(*) FROM review_entry) AS reviews, (SELECT MAX(id) FROM report) AS reports,
    (SELECT MAX(id) FROM instance) AS instances, (SELECT MAX(id) FROM removal) AS removals
FROM series GROUP BY stage ORDER BY stage
"""
"""From indexes alone.  Heartbeats and deliveries change the database and none of this; nor do an instance that came again with
other content, or two cases that change places between two stages.
"""
_DELIVERY = "SELECT case_id, delivery FROM worklist WHERE case_id IN ({numbers})"


class Triage:
    """Reads only."""

    def __init__(self, reading: Reading) -> None:
        """`reading` opens a transaction on the database."""
        self._reading = reading

    def cases(self, most: int = MOST_CASES) -> list[Row]:
        """The newest cases and the most urgent of the older ones, each once, in no order that counts."""
        with self._reading() as select:
            rows = select(_NEWEST, most=most)
            if len(rows) == most:
                rows += select(_MOST_URGENT, most=most, before=min(row["case_id"] for row in rows) - 1)
        return [_whole(row) for row in rows]

    def stamp(self) -> str:
        """What differs from its last value once a case has come, moved on, been decided on or gone, as a rule (`_STAMP`)."""
        with self._reading() as select:
            return repr([tuple(row.values()) for row in select(_STAMP)])

    def deliveries(self, case_ids: Sequence[int]) -> Mapping[int, str]:
        """How the reports of these cases stand on their way."""
        if not case_ids:
            return {}
        numbers = ", ".join(str(int(number)) for number in case_ids)
        with self._reading() as select:
            return {row["case_id"]: row["delivery"] or "" for row in select(_DELIVERY.format(numbers=numbers))}


def _whole(row: dict[str, Any]) -> Row:
    """The row as `typed` would have it, but quickly: there are thousands, and five columns are not what they should be."""
    for name in ("last_instance_at", "acknowledged_at"):
        row[name] = as_time(row[name])
    row["notify"] = None if row["notify"] is None else bool(row["notify"])
    row["conflicts"], row["verdicts"] = _decoded(row["conflicts"]), _decoded(row["verdicts"])
    return row


def _decoded(value: Any) -> Any:
    """A JSON array, which SQLite keeps as text."""
    if value in (None, "[]"):
        return []
    return json.loads(value) if isinstance(value, str) else value
