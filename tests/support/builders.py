"""Small builders for tests of the node and the storage: a clock, headers, and series brought as far as a test needs."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

from pydicom import Dataset, dcmwrite
from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian
from sqlalchemy import select

from node.dicom.dataset_walker import Malformed
from node.dicom.header import UnreadableDataset, file_meta, header_of, walk
from storage.database.schema import SeriesRow
from storage.files.instances import Files
from storage.queries.rows import as_series
from storage.records import (
    Added,
    AssociationEnd,
    Claim,
    Conclusion,
    Ended,
    Header,
    LesionRecord,
    Opened,
    Received,
    ReportObject,
    Series,
    StoredFile,
)
from storage.stages import Event, Outcome
from storage.store import Store

START = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
SERIES_UID, STUDY_UID = "2.25.1002", "2.25.1001"
LEASE = timedelta(seconds=60)
PROBABILITIES = tuple(round(0.01 * n, 2) for n in range(1, 14)) + (0.9,)


class Seconds:
    """A monotonic clock that stands still until a test moves it."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class FakeClock:
    """A clock that stands still until a test moves it."""

    now: datetime = START

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> datetime:
        """The clock shows so much later; returns the new time."""
        self.now += timedelta(seconds=seconds)
        return self.now


def header(number: int = 1, series: str = SERIES_UID, **changes: Any) -> Header:
    """The header of the nth axial slice of a head CT, 1 mm apart."""
    plain = Header(
        sop_instance_uid=f"{series}.{number}",
        sop_class_uid=CTImageStorage,
        series_instance_uid=series,
        study_instance_uid=STUDY_UID,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        patient_id="P-0001",
        patient_name="Doe^Jane",
        accession_number="A-77",
        study_date="20261123",
        study_time="101500",
        study_id="S1",
        modality="CT",
        series_number=3,
        series_description="CTA 0.75",
        convolution_kernel="H20f",
        image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
        acquisition_key="2.25.1003/4/20261123",
        frame_of_reference_uid="2.25.1003",
        position_mm=(-100.0, -100.0, float(number)),
        orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        instance_number=number,
    )
    return replace(plain, **changes)


def stored_file(head: Header, content: str = "first") -> StoredFile:
    """A file record as if the bytes `content` had been written for `head`."""
    return StoredFile(f"instances/{head.sop_instance_uid}-{content}.dcm", f"{content:0>64}", 1000 + len(content))


def open_association(store: Store, receiver: str, calling_ae: str, now: datetime) -> int:
    """The association is known as open; returns its id."""
    return int(store.intake.take([Opened(receiver, calling_ae, now)])[0])


def close_association(store: Store, association_id: int, how: AssociationEnd, now: datetime) -> None:
    """The association is known as closed."""
    store.intake.take([Ended(association_id, how, now)])


def add_instance(
    store: Store, header: Header, file: StoredFile, association_id: int, calling_ae: str, now: datetime
) -> Added:
    """The instance was offered to the store; returns what became of it."""
    return Added(str(store.intake.take([Received(header, file, association_id, calling_ae, now)])[0]))


def add(
    store: Store,
    clock: FakeClock,
    head: Header,
    association: int | None = None,
    content: str = "first",
    calling_ae: str = "PACS",
) -> Added:
    """Offer the instance to the store; without an association, on one of its own that stays open."""
    if association is None:
        association = open_association(store, "receiver", calling_ae, clock())
    return add_instance(store, head, stored_file(head, content), association, calling_ae, clock())


def received(
    store: Store,
    clock: FakeClock,
    count: int = 3,
    series: str = SERIES_UID,
    closed: AssociationEnd | None = AssociationEnd.RELEASED,
    calling_ae: str = "PACS",
    first: int = 1,
    **changes: Any,
) -> Series:
    """`count` slices came on one association that ended as `closed`; returns the series."""
    association = open_association(store, "receiver", calling_ae, clock())
    for number in range(first, first + count):
        add(store, clock, header(number, series, **changes), association, calling_ae=calling_ae)
    if closed is not None:
        close_association(store, association, closed, clock())
    return series_now(store, series)


def ready(store: Store, clock: FakeClock, **options: Any) -> Series:
    """As `received`, and the series is READY."""
    series = received(store, clock, **options)
    assert store.settling.leave(series, Event.SETTLED, "count", clock())
    return series_now(store, series.series_instance_uid)


def claimed(store: Store, clock: FakeClock, worker: str = "worker:1", attempts: int = 3, **options: Any) -> Claim:
    """As `ready`, and claimed."""
    ready(store, clock, **options)
    claim = store.queue.claim(worker, clock(), LEASE, attempts)
    assert claim is not None
    return claim


def conclusion(outcome: Outcome = Outcome.POSITIVE, **changes: Any) -> Conclusion:
    """What came of a series: by default one lesion of 6.5 mm."""
    if outcome not in (Outcome.POSITIVE, Outcome.NEGATIVE):
        return replace(Conclusion(outcome, "gap", "about 3 slices missing"), **changes)
    lesions = (LesionRecord("Left Middle Cerebral Artery", 0.9, (1.0, -2.0, 3.5), 6.5),)
    plain = Conclusion(
        outcome,
        model="0.1.0",
        probabilities=PROBABILITIES,
        lesions=lesions if outcome is Outcome.POSITIVE else (),
        seconds={"volume": 1.5, "inference": 2.5, "report": 0.25},
    )
    return replace(plain, **changes)


def report_object(uid: str = "2.25.77", predecessor: str | None = None) -> ReportObject:
    """A report as if it had been written."""
    return ReportObject(uid, StoredFile(f"reports/{uid}.dcm", "a" * 64, 20_000), predecessor)


def finish(
    store: Store,
    clock: FakeClock,
    claim: Claim,
    outcome: Outcome = Outcome.POSITIVE,
    report: ReportObject | None = None,
    destinations: Sequence[str] = ("PACS",),
    **changes: Any,
) -> bool:
    """The claim is finished with a report named after case and revision."""
    made = report or report_object(f"2.25.77.{claim.series.id}.{claim.series.revision}")
    return store.queue.finish(claim, conclusion(outcome, **changes), made, destinations, clock())


def reported(store: Store, clock: FakeClock, outcome: Outcome = Outcome.POSITIVE, **options: Any) -> Claim:
    """As `claimed`, and finished with a report to PACS."""
    claim = claimed(store, clock, **options)
    assert finish(store, clock, claim, outcome)
    return claim


def next_attempt_at(store: Store) -> datetime | None:
    """When the next of all pending deliveries is due; None where none is pending."""
    deliveries = [each for row in store.worklist.rows() for each in store.worklist.deliveries(row["case_id"])]
    return min((each.next_attempt_at for each in deliveries if each.next_attempt_at), default=None)


def series_now(store: Store, uid: str = SERIES_UID) -> Series:
    """The series as the database has it."""
    with store.transactions.reading() as session:
        return as_series(session.scalars(select(SeriesRow).where(SeriesRow.series_instance_uid == uid)).one())


def read_header(dataset: bytes, transfer_syntax_uid: str, sop_class_uid: str, sop_instance_uid: str) -> Header:
    """The header of the whole dataset, read as when it comes in one piece.  Raises UnreadableDataset."""
    walker = walk(transfer_syntax_uid)
    try:
        walker.feed(dataset)
        walker.finish()
    except Malformed as error:
        raise UnreadableDataset(str(error)) from None
    return header_of(walker, transfer_syntax_uid, sop_class_uid, sop_instance_uid)


def encoded(ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """The bytes of the dataset as a sender puts them on the wire: without file meta, in this transfer syntax."""
    implicit, little = syntax == "1.2.840.10008.1.2", syntax != "1.2.840.10008.1.2.2"
    bare = Dataset()
    bare.update({element.tag: element for element in ds})
    buffer = BytesIO()
    dcmwrite(buffer, bare, implicit_vr=implicit, little_endian=little, enforce_file_format=False)
    if syntax == DeflatedExplicitVRLittleEndian:
        deflating = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        return deflating.compress(buffer.getvalue()) + deflating.flush()
    return buffer.getvalue()


def write_instance(files: Files, series_uid: str, sop_uid: str, preamble: bytes, dataset: bytes) -> StoredFile:
    """The instance is on disk, as the receiver writes it."""
    writer = files.begin_instance(preamble)
    writer.write(dataset)
    file = writer.seal(series_uid, sop_uid)
    writer.publish()
    writer.flush()
    return file


def known_file(store: Store, sop_instance_uid: str) -> StoredFile | None:
    """The file that is kept under this UID, if there is one."""
    held = store.commitment_requests.held([("", sop_instance_uid)])
    return held[sop_instance_uid][1] if held else None


def keep(
    store: Store,
    files: Files,
    clock: FakeClock,
    datasets: Sequence[Dataset],
    calling_ae: str = "PACS",
    closed: AssociationEnd | None = AssociationEnd.RELEASED,
    syntax: str = ExplicitVRLittleEndian,
) -> Series:
    """The datasets came on one association, are on disk and known, as the receiver does it; returns the series."""
    association = open_association(store, "receiver", calling_ae, clock())
    for ds in datasets:
        content = encoded(ds, syntax)
        head = read_header(content, syntax, str(ds.SOPClassUID), str(ds.SOPInstanceUID))
        meta = file_meta((head.sop_class_uid, head.sop_instance_uid), syntax, calling_ae)
        file = write_instance(files, head.series_instance_uid, head.sop_instance_uid, meta, content)
        assert add_instance(store, head, file, association, calling_ae, clock()) is Added.STORED
    if closed is not None:
        close_association(store, association, closed, clock())
    return series_now(store, str(datasets[0].SeriesInstanceUID))
