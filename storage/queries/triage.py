"""The cases as the triage page lists them: all that it ranks, filters and shows, in one statement without the view's counts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
_SOME = _COLUMNS.format(some="(SELECT * FROM series WHERE id IN ({numbers}) AND NOT canary) s")
_MARK = """
SELECT COALESCE((SELECT MAX(id) FROM series), 0) AS cases, COALESCE((SELECT MAX(id) FROM report), 0) AS reports,
    COALESCE((SELECT MAX(id) FROM review_entry), 0) AS entries, COALESCE((SELECT MAX(id) FROM removal), 0) AS removals
"""
NOT_ENDED = ("receiving", "ready", "analysing")
"""The stages that a case may leave without a report, a review or a removal; `_TOUCHED` and `_READY` have them too."""
_TOUCHED = """
SELECT id AS case_id FROM series WHERE id > :cases
UNION SELECT id FROM series WHERE stage IN ('receiving', 'analysing')
UNION SELECT series_id FROM report WHERE id > :reports
UNION SELECT case_id FROM review_entry WHERE id > :entries
UNION SELECT case_id FROM removal WHERE id > :removals
"""
"""From indexes alone, but for the few rows that it finds."""
_READY = "SELECT id AS case_id, stage, outcome, reason, detail, conflicts, revision, instance_count FROM series WHERE stage = 'ready'"
"""What may differ of those that wait, of which there may be thousands: the rest of a row is read where one of these does."""
_AGAIN, _REMOVALS_AGAIN = 8, 64
"""So many of the last rows of each table are looked at again: two transactions may commit in another order than they got
their numbers, and a removal is recorded before its case is gone.
"""
_DELIVERY = "SELECT case_id, delivery FROM worklist WHERE case_id IN ({numbers})"


@dataclass(frozen=True)
class Mark:
    """How far the tables had been written when the cases were read: the highest number in each."""

    cases: int
    reports: int
    entries: int
    removals: int


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

    def mark(self) -> Mark:
        """Up to where what is read after this call is known."""
        with self._reading() as select:
            return Mark(**select(_MARK)[0])

    def changed(self, since: Mark, in_work: Mapping[int, Row]) -> tuple[Mark, dict[int, Row | None]]:
        """The cases that may differ from what was read at `since`, None for one that is gone, and the mark to go on from.

        `in_work`: those that had not ended then, as they were.  Not among them is a case that ended long ago and changed
        without a new report or a review, as one does whose instance came again with other content.
        """
        with self._reading() as select:
            mark = Mark(**select(_MARK)[0])
            values = {name: value - _AGAIN for name, value in vars(since).items()}
            values["removals"] = since.removals - _REMOVALS_AGAIN
            ready = {row["case_id"]: row for row in select(_READY)}
            still = {case for case, row in ready.items() if case in in_work and _is_alike(row, in_work[case])}
            touched = {row["case_id"] for row in select(_TOUCHED, **values)} | ((in_work.keys() | ready.keys()) - still)
            rows = select(_SOME.format(numbers=", ".join(map(str, map(int, touched))))) if touched else []
        found: dict[int, Row | None] = dict.fromkeys(touched)
        return mark, found | {row["case_id"]: _whole(row) for row in rows}

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


def _is_alike(row: Row, known: Row) -> bool:
    return all(known[name] == (_decoded(value) if name == "conflicts" else value) for name, value in row.items())


def _decoded(value: Any) -> Any:
    """A JSON array, which SQLite keeps as text."""
    if value in (None, "[]"):
        return []
    return json.loads(value) if isinstance(value, str) else value
