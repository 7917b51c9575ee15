"""Associations and the instances they bring."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, delete, func, select, update
from sqlalchemy.orm import Session

from storage.prepared import Prepared
from storage.records import Added, Arrived, Closed, Header, StoredFile
from storage.rows import reopen
from storage.schema import AssociationRow, InstanceRow, RemovalRow, SeriesRow
from storage.stages import Event, Stage, advance
from storage.transactions import Transactions

INSTANCES_DIFFER = "instances_differ"
MIXED_PATIENTS = "mixed_patients"
MIXED_STUDIES = "mixed_studies"
_SERIES = (
    select(
        SeriesRow.id,
        SeriesRow.stage,
        SeriesRow.conflicts,
        SeriesRow.patient_id,
        SeriesRow.issuer_of_patient_id,
        SeriesRow.study_instance_uid,
    )
    .where(SeriesRow.series_instance_uid == bindparam("uid"))
    .with_for_update()
)
_COUNT_ONE = (
    update(SeriesRow.__table__)  # type: ignore[arg-type]  # declared as FromClause
    .where(SeriesRow.id == bindparam("series"))
    .values(instance_count=SeriesRow.instance_count + 1, last_instance_at=bindparam("now"))
)
_SEE_AGAIN = (
    update(SeriesRow.__table__)  # type: ignore[arg-type]
    .where(SeriesRow.id == bindparam("series"))
    .values(sent_again_at=bindparam("now"))
)
"""So that retention does not take the case away while the rest of it comes."""
_NEXT_CASE = 1 + func.max(  # of several values: the largest
    func.coalesce(select(func.max(SeriesRow.id)).scalar_subquery(), 0),
    func.coalesce(select(func.max(RemovalRow.case_id)).scalar_subquery(), 0),
)
"""SQLite alone would give the number of the newest case, once that is removed, to the next one."""
_FORGET_IF_EMPTY = delete(SeriesRow.__table__).where(  # type: ignore[arg-type]
    SeriesRow.id == bindparam("series"), SeriesRow.instance_count == 0
)
"""A series that was made for an instance which turns out to belong to another one must not stay."""


_INSTANCE = (
    "sop_instance_uid", "series_id", "association_id", "path", "sha256", "size_bytes", "header", "received_at",
)  # fmt: skip


class _Series(NamedTuple):
    """What `_SERIES` selects."""

    id: int
    stage: str
    conflicts: list[str]
    patient_id: str
    issuer_of_patient_id: str
    study_instance_uid: str


class Intake:
    """What the receiver tells the database.  Each public method is one transaction."""

    def __init__(self, transactions: Transactions) -> None:
        """`transactions` are those of the store's database."""
        self._transactions = transactions
        dialect = transactions.engine.dialect
        self._insert_series = transactions.insert_unless_there(SeriesRow.__table__)
        if dialect.name == "sqlite":
            self._insert_series = self._insert_series.values(id=_NEXT_CASE)
        insert_instance = transactions.insert_unless_there(InstanceRow.__table__).returning(InstanceRow.id)
        self._insert_instance = Prepared(insert_instance, dialect, _INSTANCE)
        self._select_series = Prepared(_SERIES, dialect)
        self._count_one = Prepared(_COUNT_ONE, dialect)

    def open_association(self, receiver: str, calling_ae: str, now: datetime) -> int:
        """The association is known as open; returns its id."""
        with self._transactions.writing("opening") as session:
            row = AssociationRow(receiver=receiver, calling_ae=calling_ae, opened_at=now)
            session.add(row)
            session.flush()
            return row.id

    def close_association(self, association_id: int, how: Closed, now: datetime) -> None:
        """The association is known as closed."""
        with self._transactions.writing("closing") as session:
            session.execute(
                update(AssociationRow)
                .where(AssociationRow.id == association_id, AssociationRow.closed.is_(None))
                .values(closed=how.value, closed_at=now)
            )

    def lose_associations(self, receiver: str, now: datetime) -> int:
        """What `receiver` had open when it died is closed as LOST; returns how many."""
        with self._transactions.writing() as session:
            lost = session.execute(
                update(AssociationRow)
                .where(AssociationRow.receiver == receiver, AssociationRow.closed.is_(None))
                .values(closed=Closed.LOST.value, closed_at=now)
                .returning(AssociationRow.id)
            )
            return len(lost.all())

    def doubtful_instances(self, receiver: str) -> dict[str, StoredFile]:
        """By UID, what `receiver` may have recorded but not flushed when it died: the last of each open association."""
        with self._transactions.reading() as session:
            last = (
                select(func.max(InstanceRow.id))
                .join(AssociationRow, AssociationRow.id == InstanceRow.association_id)
                .where(AssociationRow.receiver == receiver, AssociationRow.closed.is_(None))
                .group_by(InstanceRow.association_id)
            )
            rows = session.scalars(select(InstanceRow).where(InstanceRow.id.in_(last)))
            return {row.sop_instance_uid: StoredFile(row.path, row.sha256, row.size_bytes) for row in rows}

    def forget_instance(self, sop_instance_uid: str, file: StoredFile) -> None:
        """An instance that was never acknowledged, and that no file holds, is not there.  Its series is RECEIVING."""
        with self._transactions.writing() as session:
            row = session.scalar(
                select(InstanceRow).where(
                    InstanceRow.sop_instance_uid == sop_instance_uid, InstanceRow.path == file.path
                )
            )
            if row is None:
                return
            series = session.scalars(select(SeriesRow).where(SeriesRow.id == row.series_id).with_for_update()).one()
            session.delete(row)
            session.flush()
            if series.instance_count == 1 and series.revision == 1:
                session.delete(series)
                return
            if series.stage != Stage.RECEIVING:
                reopen(series)
            series.stage = advance(Stage(series.stage), Event.ARRIVED)
            series.instance_count -= 1

    def known_instance(self, sop_instance_uid: str) -> StoredFile | None:
        """The file kept under this UID, if there is one."""
        with self._transactions.reading() as session:
            row = session.scalar(select(InstanceRow).where(InstanceRow.sop_instance_uid == sop_instance_uid))
            return StoredFile(row.path, row.sha256, row.size_bytes) if row else None

    def add_instance(
        self, header: Header, file: StoredFile, association_id: int, calling_ae: str, now: datetime
    ) -> Added:
        """The instance belongs to its series.

        A new one makes the series RECEIVING again, whatever it was: outside RECEIVING that raises the revision and
        voids the claim.  SAME changes nothing but when it was last sent.  DIFFERENT changes nothing but the series' conflicts.
        """
        return self.add_instances([Arrived(header, file, association_id, calling_ae, now)])[0]

    def add_instances(self, arrived: Sequence[Arrived]) -> list[Added]:
        """Each instance belongs to its series, as by `add_instance`: all of them, or after an error none."""
        outcome: dict[int, Added] = {}
        with self._transactions.writing_plainly("instances") as connection:
            # In one order everywhere, so that two receivers on one PostgreSQL cannot wait for each other.
            for index in sorted(range(len(arrived)), key=lambda i: arrived[i].key):
                outcome[index] = self._add(connection, arrived[index])
        return [outcome[index] for index in range(len(arrived))]

    def _add(self, connection: Connection, arrived: Arrived) -> Added:
        """Prepared statements where nothing is decided, the series' row as an object where something is."""
        header, file = arrived.header, arrived.file
        series = self._series_for(connection, arrived)
        inserted = self._insert_instance.first(
            connection,
            {
                "sop_instance_uid": header.sop_instance_uid,
                "series_id": series.id,
                "association_id": arrived.association_id,
                "path": file.path,
                "sha256": file.sha256,
                "size_bytes": file.size_bytes,
                "header": header.as_json(),
                "received_at": arrived.at,
            },
        )
        if inserted is None:
            connection.execute(_FORGET_IF_EMPTY, {"series": series.id})
            return self._known(connection, arrived)
        stage, conflicts = Stage(series.stage), _conflicts(series, header)
        if stage is Stage.RECEIVING and conflicts == series.conflicts:
            advance(stage, Event.ARRIVED)
            self._count_one.first(connection, {"series": series.id, "now": arrived.at})
            return Added.STORED
        with Session(connection) as session:
            row = session.get_one(SeriesRow, series.id)
            row.conflicts = conflicts
            if stage is not Stage.RECEIVING:
                reopen(row)
            row.stage = advance(stage, Event.ARRIVED)
            row.instance_count += 1
            row.last_instance_at = arrived.at
            session.flush()
        return Added.STORED

    def _series_for(self, connection: Connection, arrived: Arrived) -> _Series:
        """The series' row, locked, made if there was none."""
        header, now = arrived.header, arrived.at
        uid = {"uid": header.series_instance_uid}
        row = self._select_series.first(connection, uid)
        if row is None:
            connection.execute(
                self._insert_series,
                {
                    "series_instance_uid": header.series_instance_uid,
                    "study_instance_uid": header.study_instance_uid,
                    "patient_id": header.patient_id,
                    "issuer_of_patient_id": header.issuer_of_patient_id,
                    "patient_name": header.patient_name,
                    "accession_number": header.accession_number,
                    "study_date": header.study_date,
                    "modality": header.modality,
                    "series_description": header.series_description,
                    "acquisition_key": header.acquisition_key,
                    "calling_ae": arrived.calling_ae,
                    "stage": Stage.RECEIVING.value,
                    "reason": "",
                    "detail": "",
                    "evidence": "",
                    "conflicts": [],
                    "revision": 1,
                    "instance_count": 0,
                    "attempts": 0,
                    "first_instance_at": now,
                    "last_instance_at": now,
                },
            )
            row = self._select_series.first(connection, uid)
        if row is None:
            raise AssertionError("a series that was made is there")
        return _Series(*row)

    @staticmethod
    def _known(connection: Connection, arrived: Arrived) -> Added:
        with Session(connection) as session:
            mine = select(InstanceRow).where(InstanceRow.sop_instance_uid == arrived.header.sop_instance_uid)
            kept = session.scalars(mine).one()
            if kept.sha256 == arrived.file.sha256:
                connection.execute(_SEE_AGAIN, {"series": kept.series_id, "now": arrived.at})
                return Added.SAME
            owner = session.get_one(SeriesRow, kept.series_id)
            owner.conflicts = sorted({*owner.conflicts, INSTANCES_DIFFER})
            session.flush()
            return Added.DIFFERENT


def _conflicts(series: _Series, header: Header) -> list[str]:
    """The series' conflicts, with those that this instance brings."""
    conflicts = set(series.conflicts)
    if (series.patient_id, series.issuer_of_patient_id) != (header.patient_id, header.issuer_of_patient_id):
        conflicts.add(MIXED_PATIENTS)
    if series.study_instance_uid != header.study_instance_uid:
        conflicts.add(MIXED_STUDIES)
    return sorted(conflicts)
