"""What every object that Willis makes has: patient, study, series, equipment, times, file meta information."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from io import BytesIO

from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, Comprehensive3DSRStorage, ExplicitVRLittleEndian

from ai.errors import Reason
from ai.findings import Findings
from node.dicom.conformance import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.results import codes as code
from node.results.identity import missing_identity, reported_on
from node.results.sr_items import (
    coded,
)

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
    """An earlier report of ours that this one replaces; it is in the same study."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str = Comprehensive3DSRStorage


def encode(ds: Dataset) -> bytes:
    """The report as a DICOM file (PS3.10), Explicit VR Little Endian; the same dataset gives the same bytes."""
    buffer = BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()


def result_file_meta(sop_class_uid: UID, sop_instance_uid: str) -> FileMetaDataset:
    """The file meta information of an object that Willis makes: explicit VR little endian."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = sop_class_uid
    meta.MediaStorageSOPInstanceUID = UID(sop_instance_uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    return meta


def sources_of(headers: Sequence[Dataset], created: datetime) -> list[Dataset]:
    """`reported_on` the headers.  Raises ValueError when `created` is naive or `missing_identity` names something."""
    if created.tzinfo is None:
        raise ValueError("created must be timezone-aware")
    if missing := missing_identity(headers):
        raise ValueError(f"the source images lack {', '.join(missing)}; check missing_identity before analysing")
    return reported_on(headers)


def series_and_equipment(
    ds: Dataset,
    modality: str,
    description: str,
    series_uid: str,
    series_number: int,
    created: datetime,
    algorithm: Algorithm,
) -> None:
    """`ds` has the series, the equipment and the times that every object of ours has.

    The series lives on through all revisions, so that it has no time of its own.
    """
    date, time = created.strftime("%Y%m%d"), created.strftime("%H%M%S.%f")
    ds.InstanceCreationDate, ds.InstanceCreationTime = date, time
    ds.ContentDate, ds.ContentTime = date, time
    ds.Modality, ds.SeriesDescription = modality, description
    ds.SeriesInstanceUID, ds.SeriesNumber = UID(series_uid), series_number
    ds.Manufacturer, ds.ManufacturerModelName = algorithm.manufacturer, algorithm.model_name
    ds.SoftwareVersions = algorithm.software_version
    ds.ContributingEquipmentSequence = Items([_equipment(algorithm, created)])


def _equipment(algorithm: Algorithm, created: datetime) -> Dataset:
    """The item of Contributing Equipment Sequence that names the algorithm (IHE AIR 6.5.3.1)."""
    ds = Dataset()
    ds.PurposeOfReferenceCodeSequence = Items([coded(code.PROCESSING_EQUIPMENT)])
    ds.Manufacturer, ds.ManufacturerModelName = algorithm.manufacturer, algorithm.model_name
    ds.SoftwareVersions = algorithm.software_version
    ds.DeviceUID = algorithm.device_uid
    ds.ContributionDateTime = created.strftime("%Y%m%d%H%M%S.%f%z")
    ds.ContributionDescription = f"{algorithm.name} {algorithm.version}"
    return ds


def local(created: datetime, ds: Dataset) -> datetime:
    """`created` in the timezone that the copied dates are in (PS3.3 C.12.1: one offset serves the whole dataset)."""
    offset = str(ds.get("TimezoneOffsetFromUTC") or "")
    if re.fullmatch(r"[+-](0\d|1[0-4])[0-5]\d", offset, re.ASCII):
        minutes = int(offset[1:3]) * 60 + int(offset[3:5])
        return created.astimezone(timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes)))
    return created


def percent(probability: float) -> str:
    """One decimal; never rounded up to 100 nor down to 0."""
    return f"{_percentage(probability):.1f} %"


def _percentage(probability: float) -> float:
    percent = min(max(100.0 * probability, 0.05), 99.94) if 0.0 < probability < 1.0 else 100.0 * probability
    return math.floor(percent * 10.0 + 0.5) / 10.0
