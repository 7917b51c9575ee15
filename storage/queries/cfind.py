"""What other programs ask of us (C-FIND, PS3.4 C.6.2): one query each, the most urgent first."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, or_, select, tuple_
from sqlalchemy.orm import aliased

from storage.conditions import MODALITIES_IN_STUDY, Between, Condition, Found, Level, Like
from storage.database.schema import InstanceRow, ReportRow, SeriesRow
from storage.database.transactions import Transactions

SERIES_COLUMNS = (
    "patient_id", "issuer_of_patient_id", "patient_name", "name_key", "accession_number", "study_date", "study_time",
    "study_id", "study_instance_uid", "series_instance_uid", "modality", "series_number", "series_description",
    "instance_count", "calling_ae", "stage", "outcome", "reason", "revision", "priority", "p_present",
)  # fmt: skip
"""What a query of any level may name and is answered; of a study it is that of its most urgent series."""
IMAGE_COLUMNS: Mapping[str, ColumnElement[Any]] = {
    "sop_instance_uid": InstanceRow.sop_instance_uid.expression,
    "sop_class_uid": InstanceRow.header["sop_class_uid"].as_string(),
    "instance_number": InstanceRow.header["instance_number"].as_integer(),
    "number_of_frames": InstanceRow.header["number_of_frames"].as_integer(),
}
"""The same, at IMAGE level."""
_URGENCY = (SeriesRow.priority, SeriesRow.p_absent, SeriesRow.last_instance_at)
_OF_SERIES = (
    *(getattr(SeriesRow, name) for name in SERIES_COLUMNS),
    *(ReportRow.sop_instance_uid.label("report_uid"), ReportRow.created_at.label("reported_at")),
    ReportRow.limits.label("limits"),
)


class CFind:
    """Reads only."""

    def __init__(self, transactions: Transactions) -> None:
        """`transactions` are those of the store's database."""
        self._transactions = transactions
        self._is_sqlite = transactions.engine.dialect.name == "sqlite"

    def find(self, level: Level, conditions: Mapping[str, Condition], limit: int) -> list[Found]:
        """The `limit` most urgent studies or series, or a series' first instances, that meet all of `conditions`.

        Keys of the conditions and of what is found: `SERIES_COLUMNS`, `report_uid`, `reported_at` and `limits`; at IMAGE
        level `IMAGE_COLUMNS` too; at STUDY level `modalities_in_study` (a tuple), `series_count` and `study_instance_count`,
        of which only the first can be a condition.
        """
        ways = {Level.STUDY: self._studies, Level.SERIES: self._series, Level.IMAGE: self._images}
        with self._transactions.reading() as session:
            rows: list[dict[str, Any]] = [
                dict(row) for row in session.execute(ways[level](conditions, limit)).mappings()
            ]
        for row in rows:
            if MODALITIES_IN_STUDY in row:
                row[MODALITIES_IN_STUDY] = tuple(sorted({*row[MODALITIES_IN_STUDY].split("\\")} - {""}))
        return list[Found](rows)

    def _studies(self, conditions: Mapping[str, Condition], limit: int) -> Select[Any]:
        """Series and instances are counted after the limit, not for every study that matches."""
        other, its = aliased(SeriesRow), aliased(SeriesRow)
        same_study = other.study_instance_uid == SeriesRow.study_instance_uid
        urgency_of_other = tuple_(other.priority, other.p_absent, other.last_instance_at, other.id)
        more_urgent = and_(same_study, urgency_of_other < tuple_(*_URGENCY, SeriesRow.id))
        wanted = self._meeting({k: v for k, v in conditions.items() if k != MODALITIES_IN_STUDY})
        wanted.append(~select(other.id).where(more_urgent).exists())
        if MODALITIES_IN_STUDY in conditions:
            its_modality = self._meets(other.modality.expression, conditions[MODALITIES_IN_STUDY])
            wanted.append(select(other.id).where(same_study, its_modality).exists())

        def of_study(value: Any) -> Any:
            return select(value).where(its.study_instance_uid == SeriesRow.study_instance_uid).scalar_subquery()

        chosen = select(SeriesRow.id).where(*wanted).order_by(*_URGENCY).limit(limit)
        return self._rows(
            [SeriesRow.id.in_(chosen)],
            of_study(func.aggregate_strings(its.modality, "\\")).label(MODALITIES_IN_STUDY),
            of_study(func.count()).label("series_count"),
            of_study(func.sum(its.instance_count)).label("study_instance_count"),
        )

    def _series(self, conditions: Mapping[str, Condition], limit: int) -> Select[Any]:
        return self._rows(self._meeting(conditions)).limit(limit)

    def _rows(self, wanted: Sequence[ColumnElement[bool]], *more: Any) -> Select[Any]:
        found = select(*_OF_SERIES, *more).outerjoin(ReportRow, ReportRow.id == SeriesRow.report_id)
        return found.where(*wanted).order_by(*_URGENCY)

    def _images(self, conditions: Mapping[str, Condition], limit: int) -> Select[Any]:
        of_image = [column.label(name) for name, column in IMAGE_COLUMNS.items()]
        found = select(*_OF_SERIES, *of_image).join(InstanceRow, InstanceRow.series_id == SeriesRow.id)
        found = found.outerjoin(ReportRow, ReportRow.id == SeriesRow.report_id)
        return found.where(*self._meeting(conditions)).order_by(InstanceRow.id).limit(limit)

    def _meeting(self, conditions: Mapping[str, Condition]) -> list[ColumnElement[bool]]:
        """Of patients' series alone."""
        return [~SeriesRow.canary] + [
            self._meets(IMAGE_COLUMNS.get(name, getattr(SeriesRow, name, None)), condition)
            for name, condition in conditions.items()
        ]

    def _meets(self, column: Any, condition: Condition) -> ColumnElement[bool]:
        """Whole values together, so that an index serves them."""
        whole = [each for each in condition if isinstance(each, str | int)]
        parts = [column.in_(whole)] if whole else []
        for each in condition:
            if isinstance(each, Like):
                parts.append(self._is_like(column, each.pattern))
            elif isinstance(each, Between):
                ends = ([column >= each.low] if each.low else []) + ([column <= each.high] if each.high else [])
                parts.append(and_(column != "", *ends))
        return or_(*parts)

    def _is_like(self, column: Any, pattern: str) -> Any:
        """In SQLite GLOB, in PostgreSQL LIKE: both mind case, and find a fixed beginning in the index."""
        if self._is_sqlite:
            return column.op("GLOB")(pattern.replace("[", "[[]"))
        escaped = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        return column.like(escaped.replace("*", "%").replace("?", "_"))
