"""Rows of the tables as records, and what several parts of the store do to them."""

from storage.database.schema import SeriesRow
from storage.records import Missing, Series
from storage.stages import Outcome, Stage


def as_series(row: SeriesRow) -> Series:
    """The row as the state machine sees it."""
    return Series(
        id=row.id,
        series_instance_uid=row.series_instance_uid,
        study_instance_uid=row.study_instance_uid,
        calling_ae=row.calling_ae,
        stage=Stage(row.stage),
        revision=row.revision,
        instance_count=row.instance_count,
        expected_count=row.expected_count,
        count_asked_at=row.count_asked_at,
        conflicts=tuple(row.conflicts),
        attempts=row.attempts,
        first_instance_at=row.first_instance_at,
        last_instance_at=row.last_instance_at,
        outcome=Outcome(row.outcome) if row.outcome else None,
        reason=row.reason,
        detail=row.detail,
        retrievals=row.retrievals,
        retrieve_until=row.retrieve_until,
        kinds_asked_at=row.kinds_asked_at,
        missing=None if row.missing_slices is None else Missing(row.missing_slices, row.missing_others or 0),
    )


def reopen(series: SeriesRow) -> None:
    """Nothing that was decided about the series holds any longer; the next report is of a new revision."""
    series.revision += 1
    series.attempts = 0
    series.outcome = series.claim_token = series.claimed_by = series.lease_until = series.report_id = None
    series.ready_at = series.claimed_at = series.ended_at = series.p_present = None
    series.reason = series.detail = series.evidence = ""
