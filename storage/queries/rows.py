"""Rows of the tables as records, and what several parts of the store do to them."""

from dataclasses import fields
from typing import Any

from storage.database.schema import SeriesRow
from storage.records import Missing, Series
from storage.stages import Outcome, Stage


def as_series(row: SeriesRow) -> Series:
    """The row as the state machine sees it."""
    outcome = Outcome(row.outcome) if row.outcome else None
    return Series(
        **alike(Series, row)
        | {
            "stage": Stage(row.stage),
            "conflicts": tuple(row.conflicts),
            "outcome": outcome,
            "missing": None if row.missing_slices is None else Missing(row.missing_slices, row.missing_others or 0),
        }
    )


def alike(record: type, row: Any) -> dict[str, Any]:
    """The values of the record's fields of which the row has a column of the same name."""
    return {field.name: getattr(row, field.name) for field in fields(record) if hasattr(row, field.name)}


def reopen(series: SeriesRow) -> None:
    """Nothing that was decided about the series holds any longer; the next report is of a new revision."""
    series.revision += 1
    series.attempts = 0
    series.outcome = series.claim_token = series.claimed_by = series.lease_until = series.report_id = None
    series.ready_at = series.claimed_at = series.ended_at = series.p_present = None
    series.reason = series.detail = series.evidence = ""
    series.holds_images = False
