"""A second bundle answers what the first has reported: what is due, what came of it, and what people said of the same findings.

Kept apart: no report, delivery, list or notification reads this table.  What is not begun is in no table: it is every
report of the last days that the bundle has not answered, so that a case that retention has removed is owed nothing.
"""

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import Select, exists, or_, select, update
from sqlalchemy.orm import Session

from storage.database.running import ShadowAnswerRow
from storage.database.schema import ReportRow, ReviewEntryRow, SeriesRow
from storage.database.transactions import Transactions
from storage.queries.rows import alike, as_series
from storage.queries.uploads import images_of, waits_elsewhere
from storage.records import Conclusion, Series
from storage.stages import Outcome, Stage

LOOKED_BACK = timedelta(days=7)
"""Reports of so long are answered, the newest first."""
_FIRST_RETRY, _MOST_ATTEMPTS = timedelta(minutes=1), 3
_CONCLUDED = (Outcome.POSITIVE.value, Outcome.NEGATIVE.value)


class ShadowStage(StrEnum):
    """How an answer of the second bundle stands.  GONE: the case was removed, or has another report."""

    TRYING = "trying"
    ANSWERED = "answered"
    FAILED = "failed"
    GONE = "gone"


@dataclass(frozen=True)
class Bundles:
    """The second bundle by the digest of its manifest and its version, and the version of the first."""

    sha256: str
    model: str
    first_model: str


@dataclass(frozen=True)
class ShadowClaim:
    """An attempt of the second bundle at a reported series.  It counts, unless it is given back."""

    id: int
    series: Series
    attempt: int


@dataclass(frozen=True)
class ShadowAnswer:
    """What both say of one report.  `verdicts`: what people last said of the first's findings, accepted or not, counted from 1."""

    report_uid: str
    case_id: int
    reported_at: datetime
    stage: ShadowStage
    error: str
    first_model: str
    first_present: bool
    first_notify: bool | None
    first_p_present: float
    first_lesions: tuple[dict[str, Any], ...]
    model: str
    bundle_sha256: str
    outcome: str
    notify: bool | None
    p_present: float | None
    lesions: tuple[dict[str, Any], ...]
    verdicts: dict[int, bool]


class Shadows:
    """Each public method is one transaction."""

    def __init__(self, transactions: Transactions, folder: str = "") -> None:
        """`transactions` are those of the store's database; files lie in this `folder` or an object store ("": all here)."""
        self._transactions = transactions
        self._can_be_read = [~waits_elsewhere(images_of(SeriesRow.id), folder)] if folder else []

    def somebody_waits(self) -> bool:
        """Whether a series is being received or waits for its analysis: then the second bundle does nothing.

        Not one with an image that lies in another folder alone: it is analysed there.
        """
        in_work = SeriesRow.stage.in_((Stage.RECEIVING.value, Stage.READY.value))
        with self._transactions.reading() as session:
            return session.scalar(select(SeriesRow.id).where(in_work, *self._can_be_read).limit(1)) is not None

    def begin(self, bundles: Bundles, now: datetime, lease: timedelta) -> ShadowClaim | None:
        """The right to the next attempt, which is counted; None when none is due.  What has nothing to answer is settled.

        An attempt whose process died is due again after the `lease`.
        """
        with self._transactions.reading() as session:
            if session.scalar(_in_work(bundles, now)) is not None:
                return None
            if session.scalar(_tried_before(bundles, now)) is None and session.scalar(_new(bundles, now)) is None:
                return None
        with self._transactions.writing() as session:
            for row in session.scalars(_tried_before(bundles, now).with_for_update(skip_locked=True)).all():
                series = _still_there(session, row)
                if series is None:
                    _settle(row, ShadowStage.GONE)
                elif row.attempts >= _MOST_ATTEMPTS:
                    _settle(row, ShadowStage.FAILED)
                else:
                    row.attempts, row.next_attempt_at = row.attempts + 1, now + lease
                    return ShadowClaim(row.id, series, row.attempts)
            report = session.scalar(_new(bundles, now))
            return None if report is None else self._first_attempt(session, report, bundles, now + lease)

    def _first_attempt(
        self, session: Session, report: ReportRow, bundles: Bundles, until: datetime
    ) -> ShadowClaim | None:
        """None where another host was quicker."""
        values = {
            "report_uid": report.sop_instance_uid,
            "bundle_sha256": bundles.sha256,
            "case_id": report.series_id,
            "stage": ShadowStage.TRYING.value,
            "attempts": 1,
            "next_attempt_at": until,
            "error": "",
            "reported_at": report.created_at,
            "first_model": report.model,
            "first_present": report.outcome == Outcome.POSITIVE.value,
            "first_notify": report.notify,
            "first_p_present": report.p_present,  # type: ignore[attr-defined]
            "first_lesions": report.lesions,
            "model": bundles.model,
            "outcome": "",
            "lesions": [],
        }
        inserted = self._transactions.insert_unless_there(ShadowAnswerRow).values(values).returning(ShadowAnswerRow.id)
        row_id = session.scalar(inserted)
        return row_id and ShadowClaim(row_id, as_series(session.get_one(SeriesRow, report.series_id)), 1)

    def end(self, claim: ShadowClaim, conclusion: Conclusion) -> bool:
        """What it says is kept.  False, and settled, where the case has got another report or is gone meanwhile."""
        with self._transactions.writing() as session:
            row = session.get_one(ShadowAnswerRow, claim.id)
            if _still_there(session, row) is None:
                _settle(row, ShadowStage.GONE)
                return False
            _settle(row, ShadowStage.ANSWERED)
            row.error = conclusion.reason
            row.outcome, row.notify = conclusion.outcome.value, conclusion.notify
            row.p_present = conclusion.probabilities[-1] if conclusion.probabilities else None
            row.lesions = [asdict(lesion) for lesion in conclusion.lesions]
            return True

    def give_back(self, claim: ShadowClaim, now: datetime) -> None:
        """It is due again, as if the attempt had not been begun."""
        self._change(claim, {"attempts": claim.attempt - 1, "next_attempt_at": now})

    def fail(self, claim: ShadowClaim, now: datetime, error: str) -> None:
        """The attempt came to nothing: there is another one later, or this was the last."""
        values: dict[str, Any] = {"error": error, "next_attempt_at": now + _FIRST_RETRY * 4 ** (claim.attempt - 1)}
        if claim.attempt >= _MOST_ATTEMPTS:
            values |= {"stage": ShadowStage.FAILED.value, "next_attempt_at": None}
        self._change(claim, values)

    def _change(self, claim: ShadowClaim, values: dict[str, Any]) -> None:
        """Unless its process has answered before it was ended."""
        is_open = ShadowAnswerRow.id == claim.id, ShadowAnswerRow.stage == ShadowStage.TRYING.value
        self._transactions.change(update(ShadowAnswerRow).where(*is_open).values(**values))

    def answers(self) -> list[ShadowAnswer]:
        """All that was begun, in the order of the reports."""
        with self._transactions.reading() as session:
            rows = session.scalars(select(ShadowAnswerRow).order_by(ShadowAnswerRow.reported_at, ShadowAnswerRow.id))
            verdicts = _verdicts(session)
            return [
                ShadowAnswer(
                    **alike(ShadowAnswer, row)
                    | {
                        "stage": ShadowStage(row.stage),
                        "first_lesions": tuple(row.first_lesions),
                        "lesions": tuple(row.lesions),
                        "verdicts": verdicts.get(row.report_uid, {}),
                    }
                )
                for row in rows
            ]


def _tried_before(bundles: Bundles, now: datetime) -> Select[ShadowAnswerRow]:
    trying = (
        ShadowAnswerRow.bundle_sha256 == bundles.sha256,
        ShadowAnswerRow.stage == ShadowStage.TRYING.value,
        ShadowAnswerRow.next_attempt_at <= now,
    )
    return select(ShadowAnswerRow).where(*trying).order_by(ShadowAnswerRow.next_attempt_at)


def _in_work(bundles: Bundles, now: datetime) -> Select[ShadowAnswerRow]:
    """One at a time, and none while one waits to be tried again: a bundle that ends its process costs one of them in minutes."""
    trying = (ShadowAnswerRow.bundle_sha256 == bundles.sha256, ShadowAnswerRow.stage == ShadowStage.TRYING.value)
    return select(ShadowAnswerRow).where(*trying, ShadowAnswerRow.next_attempt_at > now).limit(1)


def _new(bundles: Bundles, now: datetime) -> Select[ReportRow]:
    """The newest report of the first bundle that the second has not begun to answer."""
    answered = exists().where(
        ShadowAnswerRow.report_uid == ReportRow.sop_instance_uid, ShadowAnswerRow.bundle_sha256 == bundles.sha256
    )
    last = select(SeriesRow.id).where(
        SeriesRow.id == ReportRow.series_id,
        SeriesRow.report_id == ReportRow.id,
        SeriesRow.stage == Stage.REPORTED.value,
        ~SeriesRow.canary,
    )
    is_last = last.limit(1).offset(0).exists()  # OFFSET: else it may be begun at the series, all of which are reported
    return (
        select(ReportRow)
        .where(ReportRow.model == bundles.first_model, ReportRow.outcome.in_(_CONCLUDED), is_last)
        .where(ReportRow.created_at >= now - LOOKED_BACK, ~answered)
        .order_by(ReportRow.created_at.desc())
        .limit(1)
    )


def _still_there(session: Session, row: ShadowAnswerRow) -> Series | None:
    """The series of the report, where that is still its last."""
    found = session.scalar(
        select(SeriesRow)
        .join(ReportRow, ReportRow.id == SeriesRow.report_id)
        .where(ReportRow.sop_instance_uid == row.report_uid, SeriesRow.stage == Stage.REPORTED.value)
    )
    return None if found is None else as_series(found)


def _settle(row: ShadowAnswerRow, stage: ShadowStage) -> None:
    row.stage, row.next_attempt_at = stage.value, None


def _verdicts(session: Session) -> dict[str, dict[int, bool]]:
    """By report and finding, what was last said of it and not undone."""
    judged = or_(ReviewEntryRow.action == "accepted", ReviewEntryRow.action == "rejected")
    asked = select(ReviewEntryRow).where(judged, ~ReviewEntryRow.undone, ReviewEntryRow.report_uid != "")
    found: dict[str, dict[int, bool]] = {}
    for entry in session.scalars(asked.order_by(ReviewEntryRow.version)):
        if entry.finding is not None:
            found.setdefault(entry.report_uid, {})[entry.finding] = entry.action == "accepted"
    return found
