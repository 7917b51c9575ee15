"""Associations and the instances they bring."""

from collections.abc import Collection, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, bindparam, delete, func, insert, select, update
from sqlalchemy.orm import Session

from storage.database.prepared import Prepared
from storage.database.running import CanaryRow, UploadRow
from storage.database.schema import AssociationRow, InstanceRow, RefusalRow, RemovalRow, ReportRow, ReviewRow, SeriesRow
from storage.database.transactions import Transactions
from storage.queries.rows import reopen
from storage.queries.uploads import INSERTED, REVIVE, TAKE_OVER, is_kept_elsewhere, new_values, remove_object
from storage.records import (
    Added,
    AssociationEnd,
    Change,
    Ended,
    Header,
    Opened,
    Received,
    StoredFile,
    name_key,
)
from storage.stages import Event, Stage, advance

INSTANCES_DIFFER = "instances_differ"
MIXED_PATIENTS = "mixed_patients"
MIXED_STUDIES = "mixed_studies"
_ONE_SERIES = update(SeriesRow.__table__).where(SeriesRow.id == bindparam("series"))  # type: ignore[arg-type]  # FromClause
_COUNT_ONE = _ONE_SERIES.values(instance_count=SeriesRow.instance_count + 1, last_instance_at=bindparam("now"))
_SEE_AGAIN = _ONE_SERIES.values(sent_again_at=bindparam("now"), sent_again_by=bindparam("association"))
"""So that retention does not take the case away while the rest of it comes."""
_NEXT_CASE = 1 + func.max(  # of several values: the largest
    func.coalesce(select(func.max(SeriesRow.id)).scalar_subquery(), 0),
    func.coalesce(select(func.max(RemovalRow.case_id)).scalar_subquery(), 0),
    func.coalesce(select(func.max(ReviewRow.case_id)).scalar_subquery(), 0),
)
"""SQLite alone would give the number of the newest case, once that is removed, to the next one; with what was decided of
it, which is kept by number and outlives it, also where no record of the removal is left.
"""
_FORGET_IF_EMPTY = delete(SeriesRow.__table__).where(  # type: ignore[arg-type]
    SeriesRow.id == bindparam("series"), SeriesRow.instance_count == 0, SeriesRow.revision == 1
)
"""A series that was made for an instance which turns out to belong to another one must not stay.

One that was emptied by `forget_instance` and may have a report is of a later revision.
"""


_IS_CANARY = select(CanaryRow.id).where(CanaryRow.series_instance_uid == bindparam("uid"))
_CLOSE = (
    update(AssociationRow.__table__)  # type: ignore[arg-type]
    .where(AssociationRow.id == bindparam("association"), AssociationRow.closed.is_(None))
    .values(
        closed=bindparam("how"),
        closed_at=bindparam("now"),
        shortfall=bindparam("shortfall"),
        refused_classes=bindparam("refused_classes"),
    )
)
_KINDS = (Ended, Opened, Received)
GROUP_NAMES = ("closing", "opening", "instances")
_ASSOCIATION = ("receiver", "calling_ae", "opened_at")
_INSTANCE = tuple(column.name for column in InstanceRow.__table__.columns if column.name != "id")
_OF_HEADER = tuple(field.name for field in fields(Header) if field.name in SeriesRow.__table__.columns)
"""What a series has of the header of its first instance."""


class _Series(NamedTuple):
    """What is asked of a series for each of its instances."""

    id: int
    stage: str
    conflicts: list[str]
    patient_id: str
    issuer_of_patient_id: str
    study_instance_uid: str


_SERIES = select(*(getattr(SeriesRow, name) for name in _Series._fields)).where(
    SeriesRow.series_instance_uid == bindparam("uid")
)


class Intake:
    """What the receiver tells the database.  Each public method is one transaction."""

    def __init__(self, transactions: Transactions, folder: str = "") -> None:
        """`transactions` are those of the store's database; what comes is to be uploaded from this `folder`, "": is not."""
        self._transactions, self._folder = transactions, folder
        dialect = transactions.engine.dialect
        self._insert_series = transactions.insert_unless_there(SeriesRow.__table__)
        if dialect.name == "sqlite":
            self._insert_series = self._insert_series.values(id=_NEXT_CASE)
        insert_instance = transactions.insert_unless_there(InstanceRow.__table__).returning(InstanceRow.id)
        self._insert_instance = Prepared(insert_instance, dialect, _INSTANCE)
        insert_association = insert(AssociationRow.__table__).returning(AssociationRow.id)  # type: ignore[arg-type]
        self._insert_association = Prepared(insert_association, dialect, _ASSOCIATION)
        self._close_association = Prepared(_CLOSE, dialect)
        self._select_series = Prepared(_SERIES.with_for_update(), dialect)
        self._count_one = Prepared(_COUNT_ONE, dialect)
        insert_upload = transactions.insert_unless_there(UploadRow.__table__).returning(UploadRow.id)
        self._insert_upload = Prepared(insert_upload, dialect, INSERTED)

    def lose_associations(self, receiver: str, now: datetime, but_of: Collection[str] = ()) -> int:
        """What `receiver` had open when it died is closed as LOST; returns how many.

        Not what brought an instance with a UID in `but_of`: the last of each stays doubtful.
        """
        left = select(InstanceRow.association_id).where(InstanceRow.sop_instance_uid.in_(but_of))
        lost = update(AssociationRow).where(*_open_of(receiver), AssociationRow.id.not_in(left))
        shortfall = "the receiver ended while it was open: more may not have come"
        lost = lost.values(closed=AssociationEnd.LOST.value, closed_at=now, shortfall=shortfall)
        return self._transactions.change(lost)

    def doubtful_instances(self, receiver: str) -> dict[str, StoredFile]:
        """By UID, what `receiver` may have recorded but not flushed when it died: the last of each open association."""
        with self._transactions.reading() as session:
            last = (
                select(func.max(InstanceRow.id))
                .join(AssociationRow, AssociationRow.id == InstanceRow.association_id)
                .where(*_open_of(receiver))
                .group_by(InstanceRow.association_id)
            )
            rows = session.scalars(select(InstanceRow).where(InstanceRow.id.in_(last)))
            return {row.sop_instance_uid: row.file for row in rows}

    def forget_instance(self, sop_instance_uid: str, file: StoredFile) -> None:
        """An instance that was never acknowledged, and that no file holds, is not there.

        Its series is RECEIVING, and gone with its last instance unless it has a report: then it is empty until one comes.
        Nothing happens to one that another folder or the object store has: it was acknowledged there, or can be read.
        """
        with self._transactions.writing() as session:
            that = (InstanceRow.sop_instance_uid == sop_instance_uid, InstanceRow.path == file.path)
            row = session.scalar(select(InstanceRow).where(*that))
            if row is None:
                return
            series = session.scalars(select(SeriesRow).where(SeriesRow.id == row.series_id).with_for_update()).one()
            if self._folder and is_kept_elsewhere(session, file.path, self._folder):
                return
            session.delete(row)
            remove_object(session, file.path)
            session.flush()
            reported = session.scalar(select(ReportRow.id).where(ReportRow.series_id == series.id).limit(1))
            if series.instance_count == 1 and reported is None:
                session.delete(series)
                return
            if series.stage != Stage.RECEIVING:
                reopen(series)
            series.stage = advance(Stage(series.stage), Event.RECEIVED)
            series.instance_count -= 1

    def take(self, changes: Sequence[Change]) -> list[Added | int]:
        """Every change is made, or after an error none.  Returns for an instance what became of it, for an association its id.

        A new instance belongs to its series and makes that RECEIVING again, whatever it was: outside RECEIVING that
        raises the revision and voids the claim.  SAME changes nothing but when it was last sent.  DIFFERENT changes
        nothing but the series' conflicts.
        """
        outcome: dict[int, Added | int] = {}
        with self._transactions.writing_plainly(_name_of(changes)) as connection:
            # In one order everywhere, so that two receivers on one PostgreSQL cannot wait for each other.
            for index in sorted(range(len(changes)), key=lambda i: changes[i].key):
                outcome[index] = self._take(connection, changes[index])
        return [outcome[index] for index in range(len(changes))]

    def concerns_everybody(self, error: Exception) -> bool:
        """Whether what `take` raised would be raised for other changes too."""
        return self._transactions.concerns_everybody(error)

    def _take(self, connection: Connection, change: Change) -> Added | int:
        if isinstance(change, Received):
            return self._add(connection, change)
        if isinstance(change, Opened):
            values = {"receiver": change.receiver, "calling_ae": change.calling_ae, "opened_at": change.at}
            (association_id,) = self._insert_association.first(connection, values) or ()
            return int(association_id)
        self._close_association.first(
            connection,
            {
                "association": change.association_id,
                "how": change.how.value,
                "now": change.at,
                "shortfall": change.shortfall,
                "refused_classes": ",".join(change.refused_classes),
            },
        )
        if change.refusals:
            of_it = {"association_id": change.association_id}
            connection.execute(insert(RefusalRow), [of_it | vars(each) for each in change.refusals])
        return change.association_id

    def _add(self, connection: Connection, received: Received) -> Added:
        """Prepared statements where nothing is decided, the series' row as an object where something is."""
        header = received.header
        series = self._series_for(connection, received)
        inserted = self._insert_instance.first(
            connection,
            {
                "sop_instance_uid": header.sop_instance_uid,
                "series_id": series.id,
                "association_id": received.association_id,
                **vars(received.file),
                "header": header.as_json(),
                "received_at": received.at,
            },
        )
        if inserted is None:
            connection.execute(_FORGET_IF_EMPTY, {"series": series.id})
            return self._known(connection, received)
        if self._folder:
            self._add_upload(connection, received, series.id)
        stage, conflicts = Stage(series.stage), _conflicts(series, header)
        if stage is Stage.RECEIVING and conflicts == series.conflicts:
            advance(stage, Event.RECEIVED)
            self._count_one.first(connection, {"series": series.id, "now": received.at})
            return Added.STORED
        with Session(connection) as session:
            row = session.get_one(SeriesRow, series.id)
            row.conflicts = conflicts
            if stage is not Stage.RECEIVING:
                reopen(row)
            row.stage = advance(stage, Event.RECEIVED)
            row.instance_count += 1
            row.last_instance_at = received.at
            session.flush()
        return Added.STORED

    def _add_upload(self, connection: Connection, received: Received, series_id: int) -> None:
        values = new_values(received.file, series_id, self._folder, received.at)
        if self._insert_upload.first(connection, values) is None:
            again = {"of_path": received.file.path, "of_folder": self._folder, "series": series_id, "now": received.at}
            connection.execute(REVIVE, again)

    def _series_for(self, connection: Connection, received: Received) -> _Series:
        """The series' row, locked, made if there was none."""
        header, now = received.header, received.at
        uid = {"uid": header.series_instance_uid}
        row = self._select_series.first(connection, uid)
        if row is None:
            begun = {"stage": Stage.RECEIVING.value, "first_instance_at": now, "last_instance_at": now}
            whose: dict[str, Any] = {"name_key": name_key(header.patient_name), "calling_ae": received.calling_ae}
            whose["canary"] = connection.scalar(_IS_CANARY, uid) is not None
            values = {name: getattr(header, name) for name in _OF_HEADER}
            connection.execute(self._insert_series, values | whose | begun)
            row = self._select_series.first(connection, uid)
        if row is None:
            raise AssertionError("a series that was made is there")
        return _Series(*row)

    def _known(self, connection: Connection, received: Received) -> Added:
        with Session(connection) as session:
            with_uid = InstanceRow.sop_instance_uid == received.header.sop_instance_uid
            kept = session.scalars(select(InstanceRow).where(with_uid)).one()
            if kept.sha256 == received.file.sha256:
                connection.execute(
                    _SEE_AGAIN, {"series": kept.series_id, "now": received.at, "association": received.association_id}
                )
                if self._folder:
                    mine = {"of_path": received.file.path, "of_folder": self._folder, "now": received.at}
                    connection.execute(TAKE_OVER, mine)
                return Added.SAME
            owner = session.get_one(SeriesRow, kept.series_id)
            owner.conflicts = sorted({*owner.conflicts, INSTANCES_DIFFER})
            session.flush()
            return Added.DIFFERENT


def _open_of(receiver: str) -> tuple[ColumnElement[bool], ...]:
    """The associations that are known as open with this receiver."""
    return AssociationRow.receiver == receiver, AssociationRow.closed.is_(None)


def _conflicts(series: _Series, header: Header) -> list[str]:
    """The series' conflicts, with those that this instance brings."""
    conflicts = set(series.conflicts)
    if (series.patient_id, series.issuer_of_patient_id) != (header.patient_id, header.issuer_of_patient_id):
        conflicts.add(MIXED_PATIENTS)
    if series.study_instance_uid != header.study_instance_uid:
        conflicts.add(MIXED_STUDIES)
    return sorted(conflicts)


def _name_of(changes: Sequence[Change]) -> str:
    """What `killpoints` calls the commit: after the last of these that is in it."""
    return GROUP_NAMES[max(_KINDS.index(type(change)) for change in changes)]
