"""Reviews that are to go back to where the reports are, and the objects that say them.

A review is owed from its change until whoever wants it has an object in the outbox, or nobody does: `ReviewRow.changed_at`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from storage.database.running import UploadRow
from storage.database.schema import AccountRow, DeliveryRow, ObjectRow, ReportRow, ReviewRow, SeriesRow
from storage.database.transactions import Transactions
from storage.database.wakeups import Whom, wake_hosts
from storage.queries.reviews import Verdict, verdicts_of
from storage.queries.uploads import new_values
from storage.records import ResultObject, StoredFile
from storage.stages import DeliveryStage

REVIEW = "review"
"""What the kind of each such object begins with."""


@dataclass(frozen=True)
class OwedReview:
    """A case that was acknowledged, whose review is not with its destinations as it stands.

    `objects`: (kind, SOP Instance UID, file) of all that is beside the report, oldest first.  `names`: of persons, by
    account, where they are known.
    """

    case_id: int
    version: int
    calling_ae: str
    revision: int
    report_id: int
    report_uid: str
    report_file: StoredFile
    limits: str
    findings: int
    acknowledged_by: str
    acknowledged_at: datetime
    verdicts: tuple[Verdict, ...]
    names: Mapping[str, str]
    objects: tuple[tuple[str, str, StoredFile], ...]

    @property
    def is_whole(self) -> bool:
        """Whether every finding was judged, and there is one."""
        return bool(self.findings) and {each.finding for each in self.verdicts} == set(range(1, self.findings + 1))


class ReviewDocuments:
    """Each public method is one transaction."""

    def __init__(self, transactions: Transactions, folder: str = "") -> None:
        """`transactions` are those of the store's database; objects are to be uploaded from this `folder`, "": are not."""
        self._transactions, self._folder = transactions, folder

    def owed(self, before: datetime, limit: int) -> list[OwedReview]:
        """Acknowledged cases whose review has not changed since `before`, the longest first.

        Not where no name is known of the person who acknowledged: nobody could be said to have verified it.
        """
        found = (
            select(ReviewRow, SeriesRow, ReportRow)
            .join(SeriesRow, (SeriesRow.id == ReviewRow.case_id) & (SeriesRow.revision == ReviewRow.revision))
            .where(
                SeriesRow.series_instance_uid == ReviewRow.series_instance_uid
            )  # SQLite gives a removed case's number again
            .join(ReportRow, (ReportRow.id == SeriesRow.report_id) & (ReportRow.revision == SeriesRow.revision))
            .join(AccountRow, (AccountRow.name == ReviewRow.acknowledged_by) & (AccountRow.person_name != ""))
            .where(ReviewRow.changed_at <= before, ReviewRow.acknowledged_at.is_not(None))
            .order_by(ReviewRow.changed_at)
            .limit(limit)
        )
        with self._transactions.reading() as session:
            return [_owed(session, *row) for row in session.execute(found).all()]

    def changed_at(self, case_id: int) -> datetime | None:
        """When the case's review changed; None when it is with whoever gets it, or nobody does."""
        with self._transactions.reading() as session:
            return session.scalar(select(ReviewRow.changed_at).where(ReviewRow.case_id == case_id))

    def made(self, owed: OwedReview, objects: Sequence[ResultObject], now: datetime) -> bool:
        """The objects are in the outbox and nothing is owed.  False, changing nothing, when the review has changed since."""
        with self._transactions.writing("review") as session:
            series = session.get(SeriesRow, owed.case_id, with_for_update=True)
            row = session.get(ReviewRow, owed.case_id)
            if row is None or row.version != owed.version or row.changed_at is None:
                return False
            if series is None or series.report_id != owed.report_id:
                return False
            row.changed_at = None
            for each in objects:
                beside = ObjectRow(
                    report_id=owed.report_id, kind=each.kind, sop_instance_uid=each.sop_instance_uid, **vars(each.file)
                )
                session.add(beside)
                if self._folder:
                    session.add(UploadRow(**new_values(each.file, series.id, self._folder, now)))
                session.flush()
                session.add_all(
                    DeliveryRow(
                        report_id=owed.report_id, object_id=beside.id, destination=name,
                        stage=DeliveryStage.PENDING.value, created_at=now, next_attempt_at=now,
                    )
                    for name in each.destinations
                )  # fmt: skip
            wake_hosts(session, Whom.NODES)
            return True

    def postponed(self, owed: OwedReview, now: datetime) -> None:
        """It could not be made, and is owed as if it had changed now."""
        mine = (ReviewRow.case_id == owed.case_id, ReviewRow.version == owed.version)
        self._transactions.change(
            update(ReviewRow).where(*mine, ReviewRow.changed_at.is_not(None)).values(changed_at=now)
        )


def _owed(session: Session, review: ReviewRow, series: SeriesRow, report: ReportRow) -> OwedReview:
    verdicts = verdicts_of(review.verdicts)
    people = {review.acknowledged_by, *(each.by for each in verdicts)}
    names = session.execute(select(AccountRow.name, AccountRow.person_name).where(AccountRow.name.in_(people)))
    beside = session.scalars(select(ObjectRow).where(ObjectRow.report_id == report.id).order_by(ObjectRow.id))
    assert review.acknowledged_at is not None  # asked for
    return OwedReview(
        case_id=series.id,
        version=review.version,
        calling_ae=series.calling_ae,
        revision=series.revision,
        report_id=report.id,
        report_uid=report.sop_instance_uid,
        report_file=report.file,
        limits=report.limits or "",
        findings=len(report.lesions),
        acknowledged_by=review.acknowledged_by,
        acknowledged_at=review.acknowledged_at,
        verdicts=verdicts,
        names={name: person for name, person in names.all() if person},
        objects=tuple((row.kind, row.sop_instance_uid, row.file) for row in beside),
    )
