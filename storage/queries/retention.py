"""Cases that are removed to make room, without a moment in which something that is in work could go with them.

A removal has three steps, each a transaction, and is recorded before the first file moves:

1. `begin`: the case has ended and nothing of it is owed to anybody; it is recorded.  Then its files are moved to `removed/`.
2. `forget`: if that is still so, its rows are deleted.  A slice that came meanwhile has made it RECEIVING again: nothing is.
3. `end`, at a later run: whatever the database knows of the series again was moved back; the rest of the files was deleted.

A crash leaves a removal that has begun; a run that is not much later ends it, either way.  With an object store all three
are made by the host whose folder holds the images.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    case,
    delete,
    exists,
    func,
    literal_column,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.orm import Session

from storage.database.running import NotificationRow, UploadRow
from storage.database.schema import (
    AssociationRow,
    CommitmentRow,
    DeliveryRow,
    InstanceRow,
    ObjectRow,
    RefusalRow,
    RemovalRow,
    ReportRow,
    ReviewRow,
    SeriesRow,
)
from storage.database.transactions import Transactions
from storage.files.instances import series_folder
from storage.queries.notifications import NotificationStage
from storage.queries.rows import alike
from storage.queries.uploads import IS_IMAGE, remove_objects
from storage.stages import DeliveryStage, Outcome, Stage

LEFT = timedelta(minutes=1)
"""After so long whoever has begun a removal is not at it any longer."""
_ACCEPTED = (DeliveryStage.DELIVERED.value, DeliveryStage.COMMITTED.value)


class Why(StrEnum):
    """Why a case is removed."""

    AGE = "age"
    SPACE = "space"
    OTHER_OBJECTS = "other_objects"
    """It holds nothing that could be analysed, and came only so that its study came across whole."""
    CANARY = "canary"
    """It was synthetic; no record of it stays."""


@dataclass(frozen=True)
class Removal:
    """A case on its way out.  `paths`: all its files, relative to the root.

    `asked`: when a sender was promised last that it is kept, and when one sent it again, as it was at the beginning.
    """

    id: int
    series_instance_uid: str
    case_id: int
    size_bytes: int
    paths: tuple[str, ...] = ()
    asked: tuple[datetime | None, datetime | None] = (None, None)

    @property
    def folder(self) -> str:
        """Where its files lie until it has ended, relative to the root."""
        return f"removed/{self.id}-{series_folder(self.series_instance_uid).rpartition('/')[2]}"


class Retention:
    """Each public method is one transaction."""

    def __init__(self, transactions: Transactions, folder: str = "") -> None:
        """`transactions` are those of the store's database; with an object store files lie in this `folder`, or others."""
        self._transactions, self._folder = transactions, folder

    def candidates(
        self, before: datetime, limit: int, why: Why = Why.AGE, kept_classes: Collection[str] = ()
    ) -> list[int]:
        """The cases that ended longest ago, before this time, and of which nothing is owed.

        For OTHER_OBJECTS: of which no instance is of the `kept_classes`.
        What a sender was promised to be kept (storage commitment) is old only so long after the promise, and is removed
        for its age alone.
        """
        others = [*_MAY_HOLD_NONE, ~_holds_one_of(kept_classes)] if why is Why.OTHER_OBJECTS else []
        with self._transactions.reading() as session:
            old = (SeriesRow.ended_at < before, SeriesRow.last_instance_at < before)
            found = select(SeriesRow.id).where(
                *old, ~SeriesRow.canary, _owes_nothing(why), _is_free(before, why), self._is_for_us(why), *others
            )
            return list(session.scalars(found.order_by(SeriesRow.ended_at).limit(limit)))

    def is_for_us(self, case_id: int) -> bool:
        """Whether it is for whoever has our folder to remove the case, once nothing is owed of it."""
        with self._transactions.reading() as session:
            mine = select(SeriesRow.id).where(SeriesRow.id == case_id, self._lies_with_us())
            return session.scalar(mine) is not None

    def _is_for_us(self, why: Why) -> ColumnElement[bool]:
        """Nobody is at it already, and its files lie with us; for SPACE one of its images does."""
        begun = exists().where(RemovalRow.case_id == SeriesRow.id, RemovalRow.ended_at.is_(None))
        ours = [~begun, self._lies_with_us()]
        if why is Why.SPACE and self._folder:  # looked for in an index first: of what is evicted there may be very much
            lies_here = select(UploadRow.series_id).where(UploadRow.folder == self._folder, IS_IMAGE)
            ours.append(SeriesRow.id.in_(lies_here))
        return and_(*ours)

    def _lies_with_us(self) -> ColumnElement[bool]:
        """With an object store: the first of its files that lies in a folder, of images before others, lies in ours, or none does."""
        if not self._folder:
            return true()
        first = (
            select(UploadRow.folder)
            .where(UploadRow.series_id == SeriesRow.id, UploadRow.folder != "")
            .order_by(case((UploadRow.path.like("instances/%"), 0), else_=1), UploadRow.id)
            .limit(1)
            .scalar_subquery()
        )
        return func.coalesce(first, self._folder) == self._folder

    def note_images(self, before: datetime, limit: int, kept_classes: Collection[str]) -> int:
        """What ended before this time and holds an instance of these classes is not looked at as OTHER_OBJECTS again.

        The oldest first, without those in which somebody writes now; returns how many.
        """
        some = select(SeriesRow.id).where(*_MAY_HOLD_NONE, SeriesRow.ended_at < before, _holds_one_of(kept_classes))
        oldest = some.order_by(SeriesRow.ended_at).limit(limit)
        unlocked = oldest.with_for_update(skip_locked=True, key_share=True)
        noted = update(SeriesRow).where(SeriesRow.id.in_(unlocked), *_MAY_HOLD_NONE).values(holds_images=True)
        with self._transactions.reading() as session:
            if session.scalar(oldest.limit(1)) is None:
                return 0
        return self._transactions.change(noted)

    def begin(self, case_id: int, why: Why, before: datetime, now: datetime) -> Removal | None:
        """The removal is recorded; None when it is no longer one of the `candidates` before this time."""
        with self._transactions.writing() as session:
            mine = (SeriesRow.id == case_id, self._is_for_us(why))
            series = session.scalar(select(SeriesRow).where(*mine, _owes_nothing(why), _is_free(before, why)))
            if series is None:
                return None
            files = _files_of(session, case_id)
            uid = select(ReportRow.sop_instance_uid).where(ReportRow.id == series.report_id)
            row = RemovalRow(
                series_instance_uid=series.series_instance_uid,
                case_id=case_id,
                reason=why.value,
                outcome=series.outcome,
                report_uid=session.scalar(uid),
                instance_count=series.instance_count,
                size_bytes=sum(size for _, size in files),
                folder=self._folder,
                begun_at=now,
            )
            session.add(row)
            session.flush()
            paths, asked = tuple(path for path, _ in files), (series.promised_at, series.sent_again_at)
            return Removal(row.id, row.series_instance_uid, case_id, row.size_bytes, paths, asked)

    def forget(self, removal: Removal, now: datetime) -> bool:
        """The case is no longer in the database.  False, changing nothing, when something is owed, promised or sent since.

        Nor where somebody else has ended the removal meanwhile.
        """
        case = removal.case_id
        with self._transactions.writing() as session:
            mine = SeriesRow.series_instance_uid == removal.series_instance_uid
            begun = session.get(RemovalRow, removal.id)
            if begun is None:
                return False
            free = (_owes_nothing(Why.AGE), ~_is_spoken_of(begun.begun_at))
            series = session.scalar(select(SeriesRow).where(SeriesRow.id == case, mine, *free).with_for_update())
            # not by the time that they bear: it may be that of a clock, or a moment, before the removal began
            if series is None or (series.promised_at, series.sent_again_at) != removal.asked:
                return False
            if {path for path, _ in _files_of(session, case)} != set(removal.paths):
                return False
            reports = select(ReportRow.id).where(ReportRow.series_id == case)
            deliveries = select(DeliveryRow.id).where(DeliveryRow.report_id.in_(reports))
            for rows in (
                delete(CommitmentRow).where(CommitmentRow.delivery_id.in_(deliveries)),
                *(delete(table).where(table.report_id.in_(reports)) for table in (DeliveryRow, ObjectRow)),
                *(delete(table).where(table.series_id == case) for table in (ReportRow, InstanceRow)),
            ):
                session.execute(rows)
            remove_objects(session, case, now)
            session.delete(series)
            begun.forgotten_at = now
            return True

    def forget_associations(self, before: datetime, limit: int) -> int:
        """Associations that were closed before this time and brought nothing that is still here are forgotten: how many."""
        brought = exists().where(InstanceRow.association_id == AssociationRow.id)
        old = select(AssociationRow.id).where(AssociationRow.closed_at < before, ~brought)
        idle = old.order_by(AssociationRow.closed_at).limit(limit)
        with self._transactions.reading() as session:
            found = session.scalars(idle).all()
        if found:  # the search has locked nobody out
            with self._transactions.writing() as session:
                still = exists().where(InstanceRow.association_id == RefusalRow.association_id)
                session.execute(delete(RefusalRow).where(RefusalRow.association_id.in_(found), ~still))
                session.execute(delete(AssociationRow).where(AssociationRow.id.in_(found), ~brought))
        return len(found)

    def unended(self, now: datetime) -> list[tuple[Removal, Sequence[str]]]:
        """Removals from our folder that nobody is at, each with the files that the database knows of its series now."""
        left = or_(RemovalRow.forgotten_at.is_not(None), RemovalRow.begun_at <= now - LEFT)
        mine = [RemovalRow.ended_at.is_(None), left]
        if self._folder:
            mine.append(RemovalRow.folder.in_([self._folder, ""]))
        with self._transactions.reading() as session:
            rows = session.scalars(select(RemovalRow).where(*mine).order_by(RemovalRow.id))
            return [
                (Removal(**alike(Removal, row)), _files_known(session, row.series_instance_uid)) for row in rows.all()
            ]

    def end(self, removal: Removal, now: datetime) -> None:
        """The files of the removal are gone or back.  One that came to nothing leaves no record."""
        with self._transactions.writing() as session:
            row = session.get(RemovalRow, removal.id)
            if row is None:
                return
            if row.forgotten_at is None or row.reason == Why.CANARY.value:
                session.delete(row)
            else:
                row.ended_at = now


def _owes_nothing(why: Why) -> ColumnElement[bool]:
    """It was reported, every delivery of it was accepted, and no destination has still to say whether it keeps it.

    Or it ended without a report because none was wanted.  Where nobody has a report, because no report could be made or no
    destination is to get it, what is here is all there is: it goes by age alone.
    """
    mine = select(DeliveryRow.id).join(ReportRow, ReportRow.id == DeliveryRow.report_id)
    mine = mine.where(ReportRow.series_id == SeriesRow.id)
    open_ones = _is_there(mine.where(DeliveryRow.stage.not_in(_ACCEPTED)))
    asked = mine.join(CommitmentRow, CommitmentRow.delivery_id == DeliveryRow.id)
    unanswered = _is_there(asked.where(CommitmentRow.next_attempt_at.is_not(None)))
    of_report = select(DeliveryRow.id).where(DeliveryRow.report_id == SeriesRow.report_id)
    delivered = _is_there(of_report.where(DeliveryRow.stage.in_(_ACCEPTED)))
    stage = SeriesRow.stage.concat("")  # no column: SQLite would leave the index of the order for that of the stage
    ended = (Stage.REPORTED.value, Stage.FAILED.value)
    unreported = and_(stage.in_(ended[:1] if why is Why.SPACE else ended), SeriesRow.report_id.is_(None))
    received = delivered if why is Why.SPACE else or_(delivered, ~_is_there(of_report))
    reported = and_(stage.in_(ended), received)
    return and_(or_(stage == Stage.SET_ASIDE.value, unreported, reported), ~open_ones, ~unanswered)


_MAY_HOLD_NONE = (
    SeriesRow.outcome == literal_column(f"'{Outcome.NOT_ELIGIBLE.value}'"),
    ~SeriesRow.holds_images,
    SeriesRow.promised_at.is_(None),
)
"""It may be removed as OTHER_OBJECTS, for all that its row says: as the index `ix_series_other_objects` has it."""


def _holds_one_of(sop_classes: Collection[str]) -> ColumnElement[bool]:
    """An instance of it is of one of these classes."""
    sop_class = InstanceRow.header["sop_class_uid"].as_string()
    return _is_there(
        select(InstanceRow.id).where(InstanceRow.series_id == SeriesRow.id, sop_class.in_(list(sop_classes)))
    )


def _is_there(some: Select[Any]) -> ColumnElement[bool]:
    """Whether there is one, looked for at each case: without OFFSET PostgreSQL may read the whole table first, to join it."""
    return some.limit(1).offset(0).exists()


def _is_free(before: datetime, why: Why) -> ColumnElement[bool]:
    """No sender was promised that it is kept, nor has sent it again, or long ago; and nobody is still to hear of it."""
    never = SeriesRow.promised_at.is_(None)
    unpromised = or_(never, SeriesRow.promised_at < before) if why is Why.AGE else never
    not_again = or_(SeriesRow.sent_again_at.is_(None), SeriesRow.sent_again_at < before)
    return and_(unpromised, not_again, ~_is_spoken_of(before))


def _is_spoken_of(since: datetime) -> ColumnElement[bool]:
    """A review of it may still have to be sent, or somebody is still to be notified of it."""
    reviewed = exists().where(ReviewRow.case_id == SeriesRow.id, ReviewRow.changed_at >= since)
    waits = (NotificationRow.stage == NotificationStage.PENDING.value, NotificationRow.case_id.is_not(None))
    return or_(reviewed, SeriesRow.id.in_(select(NotificationRow.case_id).where(*waits)))


def _files_of(session: Session, case_id: int) -> list[tuple[str, int]]:
    """(path, bytes) of every instance, report and object beside a report of the case."""
    found: list[Any] = []
    for table in (InstanceRow, ReportRow):
        found += session.execute(select(table.path, table.size_bytes).where(table.series_id == case_id)).all()
    beside = select(ObjectRow.path, ObjectRow.size_bytes).join(ReportRow, ReportRow.id == ObjectRow.report_id)
    found += session.execute(beside.where(ReportRow.series_id == case_id)).all()
    return [(path, size) for path, size in found]


def _files_known(session: Session, series_instance_uid: str) -> list[str]:
    case = session.scalar(select(SeriesRow.id).where(SeriesRow.series_instance_uid == series_instance_uid))
    return [] if case is None else [path for path, _ in _files_of(session, case)]
