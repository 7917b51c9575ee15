"""Reads what Willis needs to know of an instance from the sender's bytes, without decoding the rest."""

import re
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

from pydicom import config as pydicom_config
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_file_meta_info
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from storage.records import Header

# A wrong value in a dataset is no reason to print it: pydicom's warnings carry the value.
pydicom_config.settings.reading_validation_mode = pydicom_config.IGNORE

IMPLEMENTATION_CLASS_UID = "2.25.161746098240367914236428104013612204119"
IMPLEMENTATION_VERSION_NAME = "WILLIS_0.1"
MAXIMUM_INFLATED_BYTES = 1 << 31
_UID = re.compile(r"(?=.{1,64}\Z)(0|[1-9]\d*)(\.(0|[1-9]\d*))*\Z", re.ASCII)
_PIXEL_TAGS = {0x7FE00008, 0x7FE00009, 0x7FE00010}
_UNDEFINED_LENGTH = 0xFFFFFFFF
_TAGS = tuple(map(Tag, (

    "SpecificCharacterSet", "ImageType", "SOPClassUID", "SOPInstanceUID", "StudyDate", "AccessionNumber", "Modality",
    "SeriesDescription", "AcquisitionUID", "AcquisitionDate", "PatientName", "PatientID", "IssuerOfPatientID",
    "ConvolutionKernel", "StudyInstanceUID", "SeriesInstanceUID", "AcquisitionNumber", "ImagePositionPatient",
    "ImageOrientationPatient", "FrameOfReferenceUID", "NumberOfFrames",
)))  # fmt: skip


class UnreadableDataset(ValueError):
    """The dataset cannot be understood.  The message, at most 64 characters, holds no value of a patient."""


class MismatchedDataset(UnreadableDataset):
    """The dataset is not the instance that the command announced."""


def is_uid(text: str) -> bool:
    """Whether `text` is a UID (PS3.5 9.1): digits and dots, at most 64 characters, no leading zeros."""
    return _UID.match(text) is not None


def read_header(dataset: bytes, transfer_syntax_uid: str, sop_class_uid: str, sop_instance_uid: str) -> Header:
    """The header of the instance that `dataset` encodes, without file meta, in this transfer syntax.

    Raises UnreadableDataset (missing or malformed UIDs, truncated), or MismatchedDataset when it is not the
    instance announced as `sop_instance_uid` of `sop_class_uid`.
    """
    ds, has_pixels = _parse(dataset, transfer_syntax_uid)
    for keyword in ("SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID", "StudyInstanceUID"):
        if not is_uid(_text(ds, keyword)):
            state = "is not a valid UID" if _text(ds, keyword) else "is missing"
            raise UnreadableDataset(f"{keyword} {state}")
    if _text(ds, "SOPInstanceUID") != sop_instance_uid:
        raise MismatchedDataset("SOPInstanceUID differs from the command's")
    if _text(ds, "SOPClassUID") != sop_class_uid:
        raise MismatchedDataset("SOPClassUID differs from the command's")
    return Header(
        sop_instance_uid=sop_instance_uid,
        sop_class_uid=sop_class_uid,
        series_instance_uid=_text(ds, "SeriesInstanceUID"),
        study_instance_uid=_text(ds, "StudyInstanceUID"),
        transfer_syntax_uid=transfer_syntax_uid,
        patient_id=_text(ds, "PatientID"),
        issuer_of_patient_id=_text(ds, "IssuerOfPatientID"),
        patient_name=_text(ds, "PatientName"),
        accession_number=_text(ds, "AccessionNumber"),
        study_date=_text(ds, "StudyDate"),
        modality=_text(ds, "Modality"),
        series_description=_text(ds, "SeriesDescription"),
        convolution_kernel=_text(ds, "ConvolutionKernel"),
        image_type=tuple(str(value) for value in _value(ds, "ImageType", list) or ()),
        acquisition_key=_acquisition_key(ds),
        frame_of_reference_uid=_text(ds, "FrameOfReferenceUID"),
        position_mm=_numbers(ds, "ImagePositionPatient", 3),  # type: ignore[arg-type]  # exactly three
        orientation=_numbers(ds, "ImageOrientationPatient", 6),
        number_of_frames=_value(ds, "NumberOfFrames", int) or 1,
        has_pixels=has_pixels,
    )


def file_meta(header_uids: tuple[str, str], transfer_syntax_uid: str, source_ae: str) -> bytes:
    """Preamble, prefix and File Meta Information (PS3.10 7.1) for (SOP class, SOP instance)."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = map(UID, header_uids)
    meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    meta.SourceApplicationEntityTitle = source_ae
    buffer = DicomBytesIO()
    buffer.write(b"\0" * 128 + b"DICM")
    write_file_meta_info(buffer, meta)
    return buffer.getvalue()


def _parse(dataset: bytes, transfer_syntax_uid: str) -> tuple[Dataset, bool]:
    """The elements of `_TAGS` that are there, and whether pixel data follow.  Raises UnreadableDataset."""
    if transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
        dataset = _inflate(dataset)
    stream = BytesIO(dataset)
    pixels: list[tuple[int, int]] = []

    def at_pixels(tag: int, _vr: str | None, length: int) -> bool:
        if tag in _PIXEL_TAGS:
            pixels.append((stream.tell(), length))
        return tag in _PIXEL_TAGS

    little = transfer_syntax_uid != ExplicitVRBigEndian
    try:
        ds = read_dataset(
            stream,
            transfer_syntax_uid == ImplicitVRLittleEndian,
            little,
            stop_when=at_pixels,
            specific_tags=[*_TAGS],
        )
    except Exception:  # noqa: BLE001  the edge: pydicom raises whatever its parser stumbles over
        raise UnreadableDataset("the dataset cannot be parsed") from None
    if pixels:
        start, length = pixels[0]
        complete = _fragments_end(dataset, start) if length == _UNDEFINED_LENGTH else start + length <= len(dataset)
    else:
        complete = stream.tell() == len(dataset)
    if not complete:
        raise UnreadableDataset("the dataset is truncated")
    return ds, bool(pixels)


def _inflate(deflated: bytes) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(deflated, MAXIMUM_INFLATED_BYTES)
    except zlib.error:
        raise UnreadableDataset("the deflated dataset is damaged") from None
    if inflater.unconsumed_tail:
        raise UnreadableDataset("the deflated dataset is larger than 2 GiB")
    if not inflater.eof:
        raise UnreadableDataset("the deflated dataset is truncated")
    return inflated


def _fragments_end(dataset: bytes, start: int) -> bool:
    """Whether the encapsulated fragments from `start` on reach their sequence delimiter (PS3.5 A.4)."""
    while start + 8 <= len(dataset):
        group, element, length = struct.unpack_from("<HHL", dataset, start)
        if (group, element) == (0xFFFE, 0xE0DD):
            return True
        if (group, element) != (0xFFFE, 0xE000):
            return False
        start += 8 + length
    return False


def _acquisition_key(ds: Dataset) -> str:
    """The same for all reconstructions of one acquisition; "" when nothing says which acquisition it was."""
    uid = _text(ds, "AcquisitionUID")
    parts = (_text(ds, "FrameOfReferenceUID"), _text(ds, "AcquisitionNumber"))
    return uid or ("/".join((*parts, _text(ds, "AcquisitionDate"))) if all(parts) else "")


def _value(ds: Dataset, keyword: str, convert: Callable[[Any], Any]) -> Any:
    """The converted value, None where the element is absent, empty or malformed."""
    try:
        value = ds.get(keyword)
        if isinstance(value, str) and convert is list:
            return [value]
        return None if value is None else convert(value)
    except Exception:  # noqa: BLE001  the edge: a malformed value is as good as none
        return None


def _text(ds: Dataset, keyword: str) -> str:
    return _value(ds, keyword, str) or ""


def _numbers(ds: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    values = _value(ds, keyword, lambda value: tuple(float(number) for number in value))
    return values if values is not None and len(values) == count else None
