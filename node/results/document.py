"""What every object that Willis makes has: a name, an author, a time, and the patient and the study of its images.

highdicom builds the objects.  It is given none of the patient: `bare_instance` stands for an image, and `complete` copies
patient and study afterwards as they were received, which highdicom would check, decode or refuse.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cached_property
from io import BytesIO
from typing import Any

import highdicom as hd
from pydicom import Dataset, dcmwrite
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, Comprehensive3DSRStorage

from ai.errors import Reason
from ai.findings import Findings
from ai.frames import encodings_of, text_of
from node.dicom.conformance import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.results import codes as code
from node.results.identity import TYPE_2, missing_identity, patient_and_study, reported_on

NUMBERS_OF_A_REVISION = 100
"""Reports are numbered so far apart that their reviews come between: of a series of reports viewers show the highest."""
DISCLAIMER = "Unverified result of a research system; not a medical device."


@dataclass(frozen=True)
class Algorithm:
    """Who made the result: the same strings in TID 1004, TID 4019 and Contributing Equipment (IHE AIR 6.5.3.1)."""

    name: str
    version: str
    software_version: str
    device_uid: str
    manufacturer: str = "Willis"
    model_name: str = "Willis"


@dataclass(frozen=True)
class NotAnalysed:
    """No result, and why.  `detail` holds numbers and units, never text from the images."""

    reason: Reason
    detail: str = ""


Outcome = Findings | NotAnalysed


@dataclass(frozen=True)
class Predecessor:
    """An earlier object of ours that another one replaces."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str = Comprehensive3DSRStorage


@dataclass(frozen=True)
class Document:
    """An object to be made: of which images, what it is called, when and by what it is made.

    `headers`: the source instances without pixels, in any order; identity is that of most of them (`reported_on`).
    `created`: timezone-aware; written in the images' own timezone when they state one.  `report_uid`: the report that
    says in codes what the object shows, itself if it is one.

    Raises ValueError when `created` is naive or `missing_identity` names something.
    """

    headers: Sequence[Dataset]
    sop_instance_uid: str
    series_instance_uid: str
    series_number: int
    report_uid: str
    created: datetime
    algorithm: Algorithm
    instance_number: int = 1

    def __post_init__(self) -> None:
        if self.created.tzinfo is None:
            raise ValueError("created must be timezone-aware")
        if missing := missing_identity(self.sources[:1]):
            raise ValueError(f"the source images lack {', '.join(missing)}; check missing_identity before analysing")

    @cached_property
    def sources(self) -> list[Dataset]:
        """The headers that the object is about, by ascending SOP Instance UID."""
        return reported_on(self.headers) if self.headers else []

    @cached_property
    def at(self) -> datetime:
        """`created` in the timezone that the copied dates are in (PS3.3 C.12.1: one offset serves the whole dataset)."""
        return in_timezone_of(self.sources[0], self.created)

    def named(self, series_description: str) -> dict[str, Any]:
        """The keywords that every class of highdicom takes: series, instance, equipment and content time.

        A series lives on through all revisions, so that it has no time of its own.
        """
        return {
            "series_instance_uid": self.series_instance_uid,
            "series_number": self.series_number,
            "series_description": series_description,
            "sop_instance_uid": self.sop_instance_uid,
            "instance_number": self.instance_number,
            "manufacturer": self.algorithm.manufacturer,
            "manufacturer_model_name": self.algorithm.model_name,
            "software_versions": self.algorithm.software_version,
            "content_date": self.at.strftime("%Y%m%d"),
            "content_time": self.at.strftime("%H%M%S.%f"),
        }


def in_timezone_of(ds: Dataset, at: datetime) -> datetime:
    """`at` in the timezone that the dataset states, or as it is."""
    offset = text_of(ds, "TimezoneOffsetFromUTC")
    if re.fullmatch(r"[+-](0\d|1[0-4])[0-5]\d", offset, re.ASCII):
        minutes = int(offset[1:3]) * 60 + int(offset[3:5])
        return at.astimezone(timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes)))
    return at


def bare_instance(study_uid: str, series_uid: str, sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    """An instance as highdicom asks for one, without anything of the patient: every type 2 attribute is empty."""
    ds = Dataset()
    for keyword in TYPE_2:
        setattr(ds, keyword, None)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study_uid, series_uid
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class_uid, sop_instance_uid
    return ds


def reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    """An item that refers to an instance."""
    ds = Dataset()
    ds.ReferencedSOPClassUID, ds.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
    return ds


def complete(ds: Dataset, document: Document) -> None:
    """`ds`, which highdicom made, is of the patient and study of its images, to the byte; and no clock is in it."""
    ds.update(patient_and_study(document.sources[0]))
    ds.set_original_encoding(False, True, encodings_of(ds))
    ds.InstanceCreationDate, ds.InstanceCreationTime = ds.ContentDate, ds.ContentTime
    ds.ContributingEquipmentSequence = Items([_equipment(document.algorithm, document.at)])
    if "PixelData" in ds:
        ds["PixelData"].VR = "OB"
    ds.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    ds.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME


def encode(ds: Dataset) -> bytes:
    """The object as a DICOM file (PS3.10), Explicit VR Little Endian; the same dataset gives the same bytes."""
    buffer = BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()


def operating_points(findings: Findings) -> list[tuple[str, float]]:
    """From which probability of presence what happens: one operating point, or two with their names."""
    if findings.notify_threshold is None:
        return [("threshold", findings.threshold)]
    return [("reported from", findings.threshold), ("alert from", findings.notify_threshold)]


def remarks(outcome: Outcome) -> tuple[str, ...]:
    """What report and summary say beside the outcome, in our own words: one sentence each."""
    note = outcome.note if isinstance(outcome, Findings) else ""
    return (f"{note[0].upper()}{note[1:]}.",) if note else ()


def percent(probability: float) -> str:
    """One decimal; never rounded up to 100 nor down to 0."""
    return f"{percentage(probability):.1f} %"


def percentage(probability: float) -> float:
    """As `percent`, as a number."""
    share = min(max(100.0 * probability, 0.05), 99.94) if 0.0 < probability < 1.0 else 100.0 * probability
    return math.floor(share * 10.0 + 0.5) / 10.0


def _equipment(algorithm: Algorithm, at: datetime) -> Dataset:
    """The item of Contributing Equipment Sequence that names the algorithm (IHE AIR 6.5.3.1)."""
    ds: Dataset = hd.ContributingEquipment(
        algorithm.manufacturer,
        code.PROCESSING_EQUIPMENT,
        manufacturer_model_name=algorithm.model_name,
        software_versions=algorithm.software_version,
        contribution_datetime=at.strftime("%Y%m%d%H%M%S.%f%z"),
        contribution_description=f"{algorithm.name} {algorithm.version}",
    )
    ds.DeviceUID = algorithm.device_uid
    return ds
