"""What people decide on cases: acknowledged, assigned, findings accepted or rejected; each change with who, when and before.

A review belongs to one revision of its case: what was acknowledged of an older report does not count for a newer one.
"""

from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.database.schema import ReportRow, ReviewEntryRow, ReviewRow, SeriesRow
from storage.database.transactions import Transactions
from storage.database.wakeups import Whom, wake_hosts
from storage.errors import StorageError
from storage.queries.rows import alike
from storage.stages import Stage

ENDED = (Stage.REPORTED.value, Stage.SET_ASIDE.value, Stage.FAILED.value)


class Action(StrEnum):
    """What a person does with a case, or with one finding of it."""

    ACKNOWLEDGED = "acknowledged"
    REOPENED = "reopened"
    ASSIGNED = "assigned"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNDONE = "undone"


class Rejection(StrEnum):
    """Why a finding is no aneurysm."""

    INFUNDIBULUM = "infundibulum"
    VESSEL_LOOP = "vessel_loop"
    BIFURCATION = "bifurcation"
    VEIN = "vein"
    CALCIFICATION = "calcification"
    ARTEFACT = "artefact"
    TREATED = "treated"
    OTHER = "other"


@dataclass(frozen=True)
class Verdict:
    """What somebody says of one finding, counted from 1.  `reason`: why it was rejected."""

    finding: int
    accepted: bool
    reason: str
    by: str
    at: datetime


@dataclass(frozen=True)
class Review:
    """What was decided on a revision of a case.  Version 0: nothing yet."""

    case_id: int
    revision: int
    version: int = 0
    acknowledged_at: datetime | None = None
    acknowledged_by: str = ""
    assigned_to: str = ""
    verdicts: tuple[Verdict, ...] = ()

    def of(self, finding: int) -> Verdict | None:
        """The verdict on the finding."""
        return next((each for each in self.verdicts if each.finding == finding), None)


@dataclass(frozen=True)
class Entry:
    """One change of a review, as it is shown."""

    version: int
    revision: int
    at: datetime
    account: str
    action: Action
    undone: bool
    assigned_to: str
    finding: int | None
    reason: str


@dataclass(frozen=True)
class Wanted:
    """A change that somebody asks for who saw `version` of the review.  `of_others`: whether he may undo what others did."""

    case_id: int
    version: int
    action: Action
    account: str
    finding: int | None = None
    reason: str = ""
    assigned_to: str = ""
    of_others: bool = False


class NotChanged(StorageError):
    """The review stays as it is; the message says why."""


class ChangedMeanwhile(NotChanged):
    """Somebody else was faster; `last` is what he did."""

    def __init__(self, last: Entry | None) -> None:
        super().__init__("the case was changed meanwhile")
        self.last = last


class Reviews:
    """Each public method is one transaction."""

    def __init__(self, transactions: Transactions) -> None:
        """`transactions` are those of the store's database."""
        self._transactions = transactions

    def of(self, case_id: int) -> Review | None:
        """What was decided on the case's present revision; None when there is no such case."""
        with self._transactions.reading() as session:
            series = session.get(SeriesRow, case_id)
            return None if series is None else _review(series, session.get(ReviewRow, case_id))

    def entries(self, case_id: int) -> list[Entry]:
        """Every change, oldest first."""
        with self._transactions.reading() as session:
            rows = session.scalars(
                select(ReviewEntryRow).where(ReviewEntryRow.case_id == case_id).order_by(ReviewEntryRow.version)
            )
            return [_entry(row) for row in rows]

    def change(self, wanted: Wanted, now: datetime) -> Review:
        """The review as it is after the change.  Raises NotChanged, or ChangedMeanwhile; then nothing was changed."""
        with self._transactions.writing() as session:
            series = session.get(SeriesRow, wanted.case_id, with_for_update=True)
            if series is None:
                raise NotChanged(f"there is no case {wanted.case_id} any longer")
            row = session.get(ReviewRow, wanted.case_id)
            version = row.version if row else 0
            if wanted.version != version:
                raise ChangedMeanwhile(_last(session, wanted.case_id))
            if series.stage not in ENDED and wanted.action is not Action.ASSIGNED:
                raise NotChanged("the case is still in work")
            before = _review(series, row)
            lesion, report = _finding(session, series, wanted)
            after = (
                _undone(session, before, wanted) if wanted.action is Action.UNDONE else _changed(before, wanted, now)
            )
            session.add(_new_entry(wanted, before, lesion, report, now))
            row = _write(session, series, row, replace(after, version=version + 1))
            if wanted.action is not Action.ASSIGNED:
                row.changed_at = now
            wake_hosts(session, Whom.PAGES)
            return replace(after, version=version + 1)


def _changed(before: Review, wanted: Wanted, now: datetime) -> Review:
    match wanted.action:
        case Action.ACKNOWLEDGED:
            if before.acknowledged_at is not None:
                raise NotChanged(f"{before.acknowledged_by} has acknowledged it already")
            return replace(before, acknowledged_at=now, acknowledged_by=wanted.account)
        case Action.REOPENED:
            return replace(before, acknowledged_at=None, acknowledged_by="")
        case Action.ASSIGNED:
            return replace(before, assigned_to=wanted.assigned_to)
        case _:
            accepted = wanted.action is Action.ACCEPTED
            verdict = Verdict(wanted.finding or 0, accepted, wanted.reason, wanted.account, now)
            others = tuple(each for each in before.verdicts if each.finding != verdict.finding)
            return replace(before, verdicts=tuple(sorted((*others, verdict), key=lambda each: each.finding)))


def _undone(session: Session, before: Review, wanted: Wanted) -> Review:
    """As it was before the last change that was not undone.  Raises NotChanged where there is none, or it is another's."""
    row = session.scalar(
        select(ReviewEntryRow)
        .where(
            ReviewEntryRow.case_id == wanted.case_id,
            ReviewEntryRow.revision == before.revision,
            ReviewEntryRow.undone.is_(False),
            ReviewEntryRow.action != Action.UNDONE.value,
        )
        .order_by(ReviewEntryRow.version.desc())
        .limit(1)
    )
    if row is None:
        raise NotChanged("there is nothing to undo")
    if row.account != wanted.account and not wanted.of_others:
        raise NotChanged(f"the last change is {row.account}'s: a lead may undo it")
    row.undone = True
    return _from_json(before, row.before)


def _finding(session: Session, series: SeriesRow, wanted: Wanted) -> tuple[dict[str, Any], ReportRow | None]:
    """The finding as the report has it.  Raises NotChanged when there is none of this number, or the reason is none.

    Nothing but a verdict has a finding, and nothing but a rejection a reason.
    """
    report = session.get(ReportRow, series.report_id) if series.report_id else None
    if wanted.reason and wanted.action is not Action.REJECTED:
        raise NotChanged("only a rejection has a reason")
    if wanted.action not in (Action.ACCEPTED, Action.REJECTED):
        if wanted.finding is not None:
            raise NotChanged("only a finding that is accepted or rejected is named")
        return {}, report
    lesions = report.lesions if report else []
    if wanted.finding is None or not 1 <= wanted.finding <= len(lesions):
        raise NotChanged(f"the report has no finding {wanted.finding}")
    if wanted.action is Action.REJECTED and wanted.reason not in set(Rejection):
        raise NotChanged(f"a rejection has one of these reasons: {', '.join(Rejection)}")
    return lesions[wanted.finding - 1], report


def _new_entry(
    wanted: Wanted, before: Review, lesion: dict[str, Any], report: ReportRow | None, now: datetime
) -> ReviewEntryRow:
    return ReviewEntryRow(
        case_id=wanted.case_id,
        version=before.version + 1,
        revision=before.revision,
        at=now,
        account=wanted.account,
        action=wanted.action.value,
        before=_as_json(before),
        assigned_to=wanted.assigned_to,
        finding=wanted.finding,
        reason=wanted.reason,
        report_uid=report.sop_instance_uid if report else "",
        model=report.model if report else "",
        location=lesion.get("location", ""),
        probability=lesion.get("probability"),
        diameter_mm=lesion.get("diameter_mm"),
    )


def _write(session: Session, series: SeriesRow, row: ReviewRow | None, review: Review) -> ReviewRow:
    if row is None:
        row = ReviewRow(case_id=series.id, series_instance_uid=series.series_instance_uid)
        session.add(row)
    row.revision, row.version = review.revision, review.version
    row.acknowledged_at, row.acknowledged_by = review.acknowledged_at, review.acknowledged_by
    row.assigned_to = review.assigned_to
    row.verdicts = _as_json(review)["verdicts"]
    return row


def _review(series: SeriesRow, row: ReviewRow | None) -> Review:
    """Of the present revision; what was decided on an earlier one leaves its version, and who the case was assigned to."""
    if row is None:
        return Review(series.id, series.revision)
    if row.revision != series.revision:
        return Review(series.id, series.revision, row.version, assigned_to=row.assigned_to)
    return Review(**alike(Review, row) | {"verdicts": verdicts_of(row.verdicts)})


def _as_json(review: Review) -> dict[str, Any]:
    at = review.acknowledged_at
    return {
        "acknowledged_at": at and at.isoformat(),
        "acknowledged_by": review.acknowledged_by,
        "assigned_to": review.assigned_to,
        "verdicts": [{**asdict(each), "at": each.at.isoformat()} for each in review.verdicts],
    }


def _from_json(review: Review, values: dict[str, Any]) -> Review:
    at = values["acknowledged_at"]
    return replace(
        review,
        acknowledged_at=at and datetime.fromisoformat(at),
        acknowledged_by=values["acknowledged_by"],
        assigned_to=values["assigned_to"],
        verdicts=verdicts_of(values["verdicts"]),
    )


def verdicts_of(values: list[Any]) -> tuple[Verdict, ...]:
    """The verdicts that a review's row holds."""
    return tuple(Verdict(**{**each, "at": datetime.fromisoformat(each["at"])}) for each in values)


def _last(session: Session, case_id: int) -> Entry | None:
    row = session.scalar(
        select(ReviewEntryRow).where(ReviewEntryRow.case_id == case_id).order_by(ReviewEntryRow.version.desc()).limit(1)
    )
    return None if row is None else _entry(row)


def _entry(row: ReviewEntryRow) -> Entry:
    return Entry(**alike(Entry, row) | {"action": Action(row.action)})
