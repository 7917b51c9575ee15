"""Reads what Willis needs to know of an instance from the sender's bytes, without decoding the rest."""

import math
import re
import struct
from collections.abc import Callable
from functools import lru_cache
from io import BytesIO
from typing import Any

from pydicom import config as pydicom_config
from pydicom.filereader import read_dataset
from pydicom.multival import MultiValue
from pydicom.tag import Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from ai.wording import unpadded
from node.dicom.conformance import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.dicom.dataset_walker import Elements, Inflation
from storage.records import Header

# A wrong value in a dataset is no reason to print it: pydicom's warnings carry the value.
pydicom_config.settings.reading_validation_mode = pydicom_config.IGNORE

MAXIMUM_INFLATED_BYTES = 1 << 31
_UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))*\Z", re.ASCII)
_DATE_AND_TIME, _TIME, _DATE = (
    re.compile(each, re.ASCII) for each in (r"\d{14}(\.\d+)?", r"\d{6}(\.\d+)?", r"\d{8}\Z")
)
_NUMBERS = re.compile(rb"[-+.eE0-9 ]+(\\[-+.eE0-9 ]+)*\Z")
_PIXEL_TAGS = {0x7FE00008, 0x7FE00009, 0x7FE00010}
_KEYWORDS = (
    "SpecificCharacterSet", "ImageType", "SOPClassUID", "SOPInstanceUID", "StudyDate", "AccessionNumber", "Modality",
    "SeriesDescription", "AcquisitionUID", "AcquisitionDate", "PatientName", "PatientID", "IssuerOfPatientID",
    "ConvolutionKernel", "StudyInstanceUID", "SeriesInstanceUID", "AcquisitionNumber", "ImagePositionPatient",
    "ImageOrientationPatient", "FrameOfReferenceUID", "NumberOfFrames", "StudyTime", "StudyID", "SeriesNumber",
    "InstanceNumber", "AcquisitionDateTime", "AcquisitionTime", "KVP", "TemporalPositionIdentifier",
    "ContrastBolusAgent", "SliceThickness", "ContentDate", "ContentTime",
)  # fmt: skip
_UIDS = ("SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID", "StudyInstanceUID")
_TAG_OF = {keyword: int(Tag(keyword)) for keyword in _KEYWORDS}
_WANTED = frozenset(_TAG_OF.values())


class UnreadableDataset(ValueError):
    """The dataset cannot be understood.  The message, at most 64 characters, holds no value of a patient."""


class MismatchedDataset(UnreadableDataset):
    """The dataset is not the instance that the command announced."""


_MOST_KEPT_BYTES = 1024


def is_uid(text: str) -> bool:
    """Whether `text` is a UID (PS3.5 9.1): digits and dots, at most 64 characters, no leading zeros."""
    return len(text) <= 64 and _has_form_of_uid(text)


def serves_as_uid(text: str) -> bool:
    """The same, with leading zeros or without: some send them, and what others wrote is found again under nothing else."""
    return re.fullmatch(r"[0-9]+(\.[0-9]+)*", text, re.ASCII) is not None and len(text) <= 64


@lru_cache(maxsize=1024)
def _has_form_of_uid(text: str) -> bool:
    """Most that are asked for are asked for again with the next instance."""
    return _UID.match(text) is not None


def header_of(walker: Elements, transfer_syntax_uid: str, sop_class_uid: str, sop_instance_uid: str) -> Header:
    """The header that `walker` has found in a dataset of this transfer syntax, once it is complete.

    Raises UnreadableDataset (missing or malformed UIDs), or MismatchedDataset when it is not the instance announced as
    `sop_instance_uid` of `sop_class_uid`.
    """
    ds = _Found(walker, transfer_syntax_uid)
    uids = {keyword: ds.text(keyword) for keyword in _UIDS}
    for keyword, uid in uids.items():
        if not is_uid(uid):
            raise UnreadableDataset(f"{keyword} {'is not a valid UID' if uid else 'is missing'}")
    for keyword, announced in (("SOPInstanceUID", sop_instance_uid), ("SOPClassUID", sop_class_uid)):
        if uids[keyword] != announced:
            raise MismatchedDataset(f"{keyword} differs from the command's")
    return Header(
        sop_instance_uid=sop_instance_uid,
        sop_class_uid=sop_class_uid,
        series_instance_uid=uids["SeriesInstanceUID"],
        study_instance_uid=uids["StudyInstanceUID"],
        transfer_syntax_uid=transfer_syntax_uid,
        patient_id=ds.text("PatientID"),
        issuer_of_patient_id=ds.text("IssuerOfPatientID"),
        patient_name=ds.text("PatientName"),
        accession_number=ds.text("AccessionNumber"),
        study_date=ds.text("StudyDate"),
        study_time=ds.text("StudyTime"),
        study_id=ds.text("StudyID"),
        modality=ds.text("Modality"),
        series_number=ds.integer("SeriesNumber"),
        series_description=ds.text("SeriesDescription"),
        convolution_kernel=ds.text("ConvolutionKernel"),
        image_type=tuple(unpadded(str(value)) for value in _value(ds, "ImageType", list) or ()),
        acquisition_key=_acquisition_key(ds),
        frame_of_reference_uid=ds.text("FrameOfReferenceUID"),
        position_mm=_numbers(ds, "ImagePositionPatient", 3),  # type: ignore[arg-type]  # exactly three
        orientation=_numbers(ds, "ImageOrientationPatient", 6),
        number_of_frames=_value(ds, "NumberOfFrames", int) or 1,
        instance_number=ds.integer("InstanceNumber"),
        has_pixels=walker.has_pixels,
        acquisition_number=ds.ascii("AcquisitionNumber"),
        acquired_at=_acquired_at(ds),
        acquisition_uid=ds.text("AcquisitionUID"),
        content_at=_date_and_time(ds, "Content"),
        kvp=_number_text(ds, "KVP"),
        temporal_position=ds.ascii("TemporalPositionIdentifier"),
        contrast_agent=ds.text("ContrastBolusAgent"),
        slice_thickness_mm=_number(ds, "SliceThickness"),
    )


def file_meta(header_uids: tuple[str, str], transfer_syntax_uid: str, source_ae: str) -> bytes:
    """Preamble, prefix and File Meta Information (PS3.10 7.1) for (SOP class, SOP instance)."""
    sop_class_uid, sop_instance_uid = header_uids
    before, after = _around_the_instance(sop_class_uid, transfer_syntax_uid, source_ae)
    elements = before + _explicit(0x0003, b"UI", sop_instance_uid.encode("ascii"), 0) + after
    return b"\0" * 128 + b"DICM" + _explicit(0x0000, b"UL", struct.pack("<L", len(elements)), 0) + elements


@lru_cache(maxsize=256)
def _around_the_instance(sop_class_uid: str, transfer_syntax_uid: str, source_ae: str) -> tuple[bytes, bytes]:
    """What stands before and after (0002,0003): the same for all instances of a series."""
    uids = ((0x0010, transfer_syntax_uid), (0x0012, IMPLEMENTATION_CLASS_UID))
    before = _explicit(0x0001, b"OB", b"\0\x01", 0) + _explicit(0x0002, b"UI", sop_class_uid.encode("ascii"), 0)
    return before, b"".join((
        *(_explicit(element, b"UI", uid.encode("ascii"), 0) for element, uid in uids),
        _explicit(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME.encode("ascii"), 0x20),
        _explicit(0x0016, b"AE", source_ae.encode("ascii", "replace"), 0x20),
    ))  # fmt: skip


def _explicit(element: int, vr: bytes, value: bytes, padding: int) -> bytes:
    """An element of group 0002 in Explicit VR Little Endian."""
    value += bytes([padding]) * (len(value) % 2)
    length = struct.pack("<HL", 0, len(value)) if vr == b"OB" else struct.pack("<H", len(value))
    return struct.pack("<HH2s", 0x0002, element, vr) + length + value


def walk(transfer_syntax_uid: str) -> Elements:
    """Walks through a dataset in this transfer syntax, whose bytes are fed to it, for `header_of`."""
    return Elements(
        implicit=transfer_syntax_uid == ImplicitVRLittleEndian,
        little=transfer_syntax_uid != ExplicitVRBigEndian,
        wanted=_WANTED,
        pixels=_PIXEL_TAGS,
        inflation=Inflation(MAXIMUM_INFLATED_BYTES) if transfer_syntax_uid == DeflatedExplicitVRLittleEndian else None,
    )


class _Found:
    """The elements that a walker has captured, decoded when they are asked for."""

    def __init__(self, walker: Elements, transfer_syntax_uid: str) -> None:
        self._captured = walker.captured
        self._character_set = walker.captured.get(_TAG_OF["SpecificCharacterSet"], b"")
        self._implicit = transfer_syntax_uid == ImplicitVRLittleEndian
        self._little = transfer_syntax_uid != ExplicitVRBigEndian

    def get(self, keyword: str) -> Any:
        """The value as pydicom decodes it; None where the element is absent.  Raises whatever pydicom does."""
        tag = _TAG_OF[keyword]
        element = self._captured.get(tag)
        if element is None:
            return None
        plain = _plain(keyword, element)
        if plain is not None:
            return plain
        decoded = _decoded if self._is_short(element) else _decoded.__wrapped__
        return decoded(tag, element, self._character_set, self._implicit, self._little)

    def text(self, keyword: str) -> str:
        """Of several values all, with a backslash between them; without their padding; "" where there is none."""
        tag = _TAG_OF[keyword]
        element = self._captured.get(tag)
        if element is None:
            return ""
        if keyword == "SOPInstanceUID" and (uid := _plain(keyword, element)) is not None:
            return str(uid)
        decoded = _decoded_text if self._is_short(element) else _decoded_text.__wrapped__
        return decoded(tag, element, self._character_set, self._implicit, self._little)

    def _is_short(self, element: bytes) -> bool:
        """Longer ones are decoded each time: nobody fills the receiver's memory with what it remembers."""
        return len(self._character_set) + len(element) <= _MOST_KEPT_BYTES

    def integer(self, keyword: str) -> int | None:
        """The value of an IS element; None where it is no number of 32 bits.

        Without pydicom: of Instance Number every slice has another, which no cache knows.
        """
        try:
            number = int(self.ascii(keyword))
        except ValueError:
            return None
        return number if -(2**31) <= number < 2**31 else None

    def ascii(self, keyword: str) -> str:
        """The value of an element whose VR has no character set (DS, IS, TM …), without NULs, which PostgreSQL cannot hold.

        Its header has 8 bytes, explicit or not, but where a sender did not know its VR (UN, PS3.5 6.2.2).
        """
        element = self._captured.get(_TAG_OF[keyword], b"")
        begins = 12 if not self._implicit and element[4:6] == b"UN" else 8
        return element[begins:].replace(b"\0", b"").strip().decode("ascii", "replace")


def _plain(keyword: str, element: bytes) -> Any:
    """The value, read without pydicom, of what differs in every slice of a series; None where it is not plain."""
    is_implicit = int.from_bytes(element[4:8], "little") == len(element) - 8
    if keyword == "SOPInstanceUID" and (is_implicit or element[4:6] == b"UI"):
        uid = element[8:].rstrip(b"\0").decode("ascii", "replace")
        return uid if is_uid(uid) else None
    if keyword == "ImagePositionPatient" and (is_implicit or element[4:6] == b"DS") and _NUMBERS.match(element, 8):
        return element[8:].decode("ascii").split("\\")
    return None


@lru_cache(maxsize=2048)
def _decoded(tag: int, element: bytes, character_set: bytes, implicit: bool, little: bool) -> Any:
    """The value of one encoded element.  Most are the same in all slices of a series: those are decoded once."""
    return read_dataset(BytesIO(character_set + element), implicit, little)[tag].value


@lru_cache(maxsize=2048)
def _decoded_text(tag: int, element: bytes, character_set: bytes, implicit: bool, little: bool) -> str:
    """See `_Found.text`."""
    try:
        value = _decoded.__wrapped__(tag, element, character_set, implicit, little)  # kept here, not there
        values = [""] if value is None else list(value) if isinstance(value, MultiValue) else [value]
        return "\\".join(unpadded(str(each)) for each in values).replace("\0", "")  # which PostgreSQL cannot hold
    except Exception:  # noqa: BLE001  the edge: a malformed value is as good as none
        return ""


def _acquisition_key(ds: _Found) -> str:
    """The same for all reconstructions of one acquisition; "" when nothing says which acquisition it was."""
    uid = ds.text("AcquisitionUID")
    parts = (ds.text("FrameOfReferenceUID"), ds.text("AcquisitionNumber"))
    return uid or ("/".join((*parts, ds.text("AcquisitionDate"))) if all(parts) else "")


def _acquired_at(ds: _Found) -> str:
    """See `Header.acquired_at`; "" where the header does not say."""
    return date_and_time(ds.ascii("AcquisitionDateTime")) or _date_and_time(ds, "Acquisition")


def date_and_time(text: str) -> str:
    """The part of a DT that `Header.acquired_at` has: to the second at least, no offset from UTC; else ""."""
    at = _DATE_AND_TIME.match(text)
    return at[0] if at else ""


def _date_and_time(ds: _Found, of: str) -> str:
    at = _TIME.match(ds.ascii(f"{of}Time"))
    date = ds.ascii(f"{of}Date").replace(".", "")
    return (date if _DATE.match(date) else "") + at[0] if at else ""


def _number(ds: _Found, keyword: str) -> float | None:
    """The first value of a DS; None where it is no finite number."""
    try:
        number = float(ds.ascii(keyword).partition("\\")[0])
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _number_text(ds: _Found, keyword: str) -> str:
    """A number as text, the same for 120 and 120.0; "" where there is none."""
    number = _number(ds, keyword)
    return "" if number is None else f"{number:g}"


def _value(ds: _Found, keyword: str, convert: Callable[[Any], Any]) -> Any:
    """The converted value, None where the element is absent, empty or malformed."""
    try:
        value = ds.get(keyword)
        if isinstance(value, str) and convert is list:
            return [value]
        return None if value is None else convert(value)
    except Exception:  # noqa: BLE001  the edge: a malformed value is as good as none
        return None


def _numbers(ds: _Found, keyword: str, count: int) -> tuple[float, ...] | None:
    values = _value(ds, keyword, lambda value: tuple(float(number) for number in value))
    return values if values is not None and len(values) == count and all(map(math.isfinite, values)) else None
