"""Associations and the instances they bring."""

from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from storage.records import Added, Closed, Header, StoredFile
from storage.rows import reopen
from storage.schema import AssociationRow, InstanceRow, SeriesRow
from storage.stages import Event, Stage, advance
from storage.transactions import Transactions

INSTANCES_DIFFER = "instances_differ"
MIXED_PATIENTS = "mixed_patients"
MIXED_STUDIES = "mixed_studies"


class Intake:
    """What the receiver tells the database.  Each public method is one transaction."""

    def __init__(self, transactions: Transactions) -> None:
        """`transactions` are those of the store's database."""
        self._transactions = transactions

    def open_association(self, receiver: str, calling_ae: str, now: datetime) -> int:
        """The association is known as open; returns its id."""
        with self._transactions.writing() as session:
            row = AssociationRow(receiver=receiver, calling_ae=calling_ae, opened_at=now)
            session.add(row)
            session.flush()
            return row.id

    def close_association(self, association_id: int, how: Closed, now: datetime) -> None:
        """The association is known as closed."""
        with self._transactions.writing() as session:
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
        voids the claim.  SAME changes nothing.  DIFFERENT changes nothing but the series' conflicts.
        """
        with self._transactions.writing() as session:
            series = self._series_for(session, header, calling_ae, now)
            inserted = session.execute(
                self._transactions.insert_unless_there(InstanceRow)
                .values(
                    sop_instance_uid=header.sop_instance_uid,
                    series_id=series.id,
                    association_id=association_id,
                    path=file.path,
                    sha256=file.sha256,
                    size_bytes=file.size_bytes,
                    header=header.as_json(),
                    received_at=now,
                )
                .returning(InstanceRow.id)
            ).first()
            if inserted is None:
                if series.instance_count == 0:
                    session.delete(series)  # made for an instance that belongs to another series
                return self._known(session, header, file)
            self._note_conflicts(series, header)
            stage = Stage(series.stage)
            if stage is not Stage.RECEIVING:
                reopen(series)
            series.stage = advance(stage, Event.ARRIVED)
            series.instance_count += 1
            series.last_instance_at = now
            return Added.STORED

    def _series_for(self, session: Session, header: Header, calling_ae: str, now: datetime) -> SeriesRow:
        """The series' row, locked, made if there was none."""
        mine = select(SeriesRow).where(SeriesRow.series_instance_uid == header.series_instance_uid).with_for_update()
        series = session.scalar(mine)
        if series is None:
            session.execute(
                self._transactions.insert_unless_there(SeriesRow).values(
                    series_instance_uid=header.series_instance_uid,
                    study_instance_uid=header.study_instance_uid,
                    patient_id=header.patient_id,
                    issuer_of_patient_id=header.issuer_of_patient_id,
                    patient_name=header.patient_name,
                    accession_number=header.accession_number,
                    study_date=header.study_date,
                    modality=header.modality,
                    series_description=header.series_description,
                    acquisition_key=header.acquisition_key,
                    calling_ae=calling_ae,
                    stage=Stage.RECEIVING.value,
                    reason="",
                    detail="",
                    evidence="",
                    conflicts=[],
                    revision=1,
                    instance_count=0,
                    attempts=0,
                    first_instance_at=now,
                    last_instance_at=now,
                )
            )
            series = session.scalars(mine).one()
        return series

    @staticmethod
    def _known(session: Session, header: Header, file: StoredFile) -> Added:
        kept = session.scalars(select(InstanceRow).where(InstanceRow.sop_instance_uid == header.sop_instance_uid)).one()
        if kept.sha256 == file.sha256:
            return Added.SAME
        owner = session.get_one(SeriesRow, kept.series_id, with_for_update=True)
        owner.conflicts = sorted({*owner.conflicts, INSTANCES_DIFFER})
        return Added.DIFFERENT

    @staticmethod
    def _note_conflicts(series: SeriesRow, header: Header) -> None:
        conflicts = set(series.conflicts)
        if (series.patient_id, series.issuer_of_patient_id) != (header.patient_id, header.issuer_of_patient_id):
            conflicts.add(MIXED_PATIENTS)
        if series.study_instance_uid != header.study_instance_uid:
            conflicts.add(MIXED_STUDIES)
        if conflicts != set(series.conflicts):
            series.conflicts = sorted(conflicts)
