"""An instance's headers as `Frame` values, single-frame or multi-frame alike; and the pixels of one frame in HU."""

import math
import struct
from collections.abc import Iterator, MutableSequence, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.charset import convert_encodings, default_encoding
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.encaps import get_frame
from pydicom.errors import BytesLengthException
from pydicom.uid import UID, AllTransferSyntaxes, ExplicitVRBigEndian, RLELossless

from ai.codestream import decoded, unpacked
from ai.errors import NotAnalysable, Reason
from ai.wording import unpadded

AIR_HU = -1024
"""What padding and everything below it becomes."""
_MAX_HU = 32767
MAX_FRAMES = 20_000
"""Of a series; no CT has more, and a header that claims more must not cost hours."""
GARBLED = (
    ValueError,
    TypeError,
    OverflowError,
    NotImplementedError,
    struct.error,
    EOFError,
    OSError,
    BytesLengthException,
)
"""What pydicom raises for bytes that are not what their tag and VR say."""
_NAN3, _NAN6, _NAN2 = (math.nan,) * 3, (math.nan,) * 6, (math.nan,) * 2


@dataclass(frozen=True)
class Frame:
    """The geometry and the rescale of one frame; NaN, or "" for `rescale_type`, where the header does not say.

    `number` counts from 1 inside its instance; `multi_frame` tells whether the instance has functional groups or
    several frames, so that a reference to it must name the frame.  `position_mm` and `orientation` are LPS;
    `pixel_spacing_mm` is (between rows, between columns).
    """

    sop_instance_uid: str
    number: int
    multi_frame: bool
    position_mm: tuple[float, ...]
    orientation: tuple[float, ...]
    pixel_spacing_mm: tuple[float, ...]
    rows: int
    columns: int
    slope: float
    intercept: float
    frame_of_reference_uid: str
    rescale_type: str = ""

    @property
    def has_geometry(self) -> bool:
        """Whether a point of the patient can be found on this frame."""
        return all(math.isfinite(v) for v in (*self.position_mm, *self.orientation, *self.pixel_spacing_mm))


def frame_count(ds: Dataset) -> int:
    """How many frames the header claims."""
    return max(_integer(ds, "NumberOfFrames") or 1, 1)


def check_described(datasets: Sequence[Dataset]) -> None:
    """No image describes more frames than it says to have.  Raises CONTRADICTORY_HEADER.

    One that describes fewer lacks their positions.  Where a value at the top level differs from that of the functional
    groups, the latter holds: the Standard has it nowhere else (PS3.3 C.7.6.16).
    """
    for ds in datasets:
        groups = items_of(ds, "PerFrameFunctionalGroupsSequence")
        if len(groups) > frame_count(ds):
            detail = f"functional groups of {len(groups)} frames in an image of {frame_count(ds)}"
            raise NotAnalysable(Reason.CONTRADICTORY_HEADER, detail)


def matrix(ds: Dataset) -> tuple[int, int]:
    """The rows and columns that the header claims, 0 where it does not say."""
    return max(_integer(ds, "Rows") or 0, 0), max(_integer(ds, "Columns") or 0, 0)


def frames(ds: Dataset) -> Iterator[Frame]:
    """The frames of one instance in stored order.  What the header lacks or garbles is NaN; nothing is raised."""
    shared = _item(ds, "SharedFunctionalGroupsSequence")
    per_frame = items_of(ds, "PerFrameFunctionalGroupsSequence")
    count = min(frame_count(ds), MAX_FRAMES)
    multi_frame = bool(per_frame) or count > 1
    uid, reference = text_of(ds, "SOPInstanceUID"), text_of(ds, "FrameOfReferenceUID")
    rows, columns = matrix(ds)
    for index in range(count):
        own = per_frame[index] if index < len(per_frame) else None

        def group(macro: str, own: Dataset | None = own) -> Dataset | None:
            return (_item(own, macro) or _item(shared, macro)) if multi_frame else ds

        def find(macro: str, keyword: str, empty: tuple[float, ...], group: Any = group) -> tuple[float, ...]:
            found = group(macro)
            return _numbers(found, keyword, empty) if found is not None else empty

        transformation = group("PixelValueTransformationSequence")

        yield Frame(
            sop_instance_uid=uid,
            number=index + 1,
            multi_frame=multi_frame,
            position_mm=find("PlanePositionSequence", "ImagePositionPatient", _NAN3),
            orientation=find("PlaneOrientationSequence", "ImageOrientationPatient", _NAN6),
            pixel_spacing_mm=find("PixelMeasuresSequence", "PixelSpacing", _NAN2),
            rows=rows,
            columns=columns,
            slope=find("PixelValueTransformationSequence", "RescaleSlope", (math.nan,))[0],
            intercept=find("PixelValueTransformationSequence", "RescaleIntercept", (math.nan,))[0],
            frame_of_reference_uid=reference,
            rescale_type=unpadded(text_of(transformation, "RescaleType")).upper() if transformation is not None else "",
        )


def frame_hu(ds: Dataset, frame: Frame, stride: int = 1) -> NDArray[np.int16]:
    """Every `stride`-th row and column of the frame as int16 HU (rows, columns); padding and values below air are air.

    `ds` is not changed and keeps no decoded copy.  Raises NotAnalysable: NOT_HOUNSFIELD, MISSING_RESCALE, MISSING_PIXELS,
    PIXELS_TRUNCATED, PIXELS_UNDECODABLE.
    """
    if frame.rescale_type not in ("", "HU"):  # PS3.3 C.11.1.1.2: optical density, electron density, modified HU …
        raise NotAnalysable(Reason.NOT_HOUNSFIELD)
    if not (math.isfinite(frame.slope) and math.isfinite(frame.intercept)) or frame.slope == 0.0:
        raise NotAnalysable(Reason.MISSING_RESCALE, f"slope {frame.slope}, intercept {frame.intercept}")
    stored = _stored_values(ds, frame)[::stride, ::stride]
    if frame.slope == 1.0 and frame.intercept.is_integer() and abs(frame.intercept) < 1e6:
        wide = stored.astype(np.int32)
        wide += int(frame.intercept)
        hu = np.clip(wide, AIR_HU, _MAX_HU).astype(np.int16)
    else:
        hu = np.clip(np.rint(stored * frame.slope + frame.intercept), AIR_HU, _MAX_HU).astype(np.int16)
    padding = _padding_range(ds, stored.dtype)
    if padding is not None:
        hu[(stored >= padding[0]) & (stored <= padding[1])] = AIR_HU
    return hu


def _stored_values(ds: Dataset, frame: Frame) -> NDArray[np.integer]:
    """The stored pixel values (rows, columns), with the sign that PixelRepresentation gives them."""
    allocated, samples = _integer(ds, "BitsAllocated"), _integer(ds, "SamplesPerPixel")
    if frame.rows < 1 or frame.columns < 1 or "PixelData" not in ds:
        raise NotAnalysable(Reason.MISSING_PIXELS, f"matrix {frame.rows} x {frame.columns}")
    if allocated not in (8, 16) or samples != 1:
        raise NotAnalysable(Reason.PIXELS_UNDECODABLE, f"samples a pixel: {samples}, bits: {allocated}")
    syntax = transfer_syntax(ds)
    if syntax is not None and syntax not in AllTransferSyntaxes:
        raise NotAnalysable(Reason.PIXELS_UNDECODABLE, "a transfer syntax that is not in the Standard")
    data, layout = _value(ds, "PixelData"), _layout(ds, allocated)
    if data is None or len(data) == 0:
        raise NotAnalysable(Reason.MISSING_PIXELS, "0 bytes")
    if syntax is not None and syntax.is_encapsulated:
        return _decoded(ds, data, frame, layout, syntax)
    return _native(data, frame, layout, frame.number - 1, ">" if syntax == ExplicitVRBigEndian else "<")


def _native(data: bytes, frame: Frame, layout: "_Layout", index: int, byte_order: str) -> NDArray[np.integer]:
    """Uncompressed pixel values of the frame at `index`, straight from the bytes (PS3.5 8.1.1)."""
    dtype = np.dtype(f"{byte_order}{'i' if layout.signed else 'u'}{layout.allocated // 8}")
    count = frame.rows * frame.columns
    offset = index * count * dtype.itemsize
    if len(data) < offset + count * dtype.itemsize:
        raise NotAnalysable(Reason.PIXELS_TRUNCATED, f"{len(data)} bytes of at least {offset + count * dtype.itemsize}")
    values = np.frombuffer(data, dtype=dtype, count=count, offset=offset).reshape(frame.rows, frame.columns)
    if layout.stored < layout.allocated:
        # The bits above High Bit are not pixel value: old scanners keep overlays there.
        wide = values.astype(dtype.newbyteorder("=")) << (layout.allocated - 1 - layout.high)
        values = wide >> (layout.allocated - layout.stored)
    return values


def _decoded(ds: Dataset, data: bytes, frame: Frame, layout: "_Layout", syntax: UID) -> NDArray[np.integer]:
    try:
        encoded = get_frame(
            data,
            frame.number - 1,
            number_of_frames=(_integer(ds, "NumberOfFrames") or 1) if frame.multi_frame else 1,
            extended_offsets=_extended_offsets(ds),
        )
        if syntax == RLELossless:
            return _native(unpacked(encoded, frame.rows * frame.columns, layout.allocated), frame, layout, 0, "<")
        return decoded(encoded, syntax, frame.rows, frame.columns, layout.stored, layout.signed)
    except (NotAnalysable, MemoryError):
        raise
    except Exception as error:
        kind = type(error).__name__
        raise NotAnalysable(Reason.PIXELS_UNDECODABLE, f"transfer syntax {syntax}: {kind}") from error


def _extended_offsets(ds: Dataset) -> tuple[bytes, bytes] | None:
    table, lengths = _value(ds, "ExtendedOffsetTable"), _value(ds, "ExtendedOffsetTableLengths")
    return (table, lengths) if table and lengths else None


@dataclass(frozen=True)
class _Layout:
    """How a pixel value lies in its bits (PS3.5 8.1.1)."""

    allocated: int
    stored: int
    high: int
    signed: bool


def _layout(ds: Dataset, allocated: int) -> _Layout:
    stored = _integer(ds, "BitsStored") or allocated
    high = _integer(ds, "HighBit")
    high = stored - 1 if high is None else high
    if not 1 <= stored <= high + 1 <= allocated:
        detail = f"{stored} bits stored up to bit {high} of {allocated}"
        raise NotAnalysable(Reason.PIXELS_UNDECODABLE, detail)
    return _Layout(allocated, stored, high, _integer(ds, "PixelRepresentation") == 1)


def transfer_syntax(ds: Dataset) -> UID | None:
    """The dataset's transfer syntax; None when it has no file meta information (then little endian, uncompressed)."""
    meta = getattr(ds, "file_meta", None)
    uid = meta.get("TransferSyntaxUID") if meta is not None else None
    return UID(str(uid)) if uid else None


def _padding_range(ds: Dataset, dtype: np.dtype[np.integer]) -> tuple[int, int] | None:
    """Lowest and highest stored value that is padding (PS3.3 C.7.5.1.1.2), read in the pixels' own sign."""
    value, limit = _integer(ds, "PixelPaddingValue"), _integer(ds, "PixelPaddingRangeLimit")
    if value is None:
        return None
    # A signed value read as unsigned, or the reverse, is a common fault of implicit VR.
    ends = [_wrapped(v, dtype) for v in (value, limit) if v is not None]
    return min(ends), max(ends)


def _wrapped(value: int, dtype: np.dtype[np.integer]) -> int:
    """`value` as the pixels' type reads its bits."""
    bits = 8 * dtype.itemsize
    if dtype.kind == "i" and value >= 1 << (bits - 1):
        return value - (1 << bits)
    return value + (1 << bits) if dtype.kind == "u" and value < 0 else value


def text_of(ds: Dataset, keyword: str) -> str:
    """The attribute as text, "" when absent, empty or undecodable.

    The dataset keeps the bytes as received: reading them through pydicom would replace them by what their character
    set makes of them.
    """
    tag = tag_for_keyword(keyword)
    if tag is None or tag not in ds:
        return ""
    element = ds.get_item(tag)
    if isinstance(element, RawDataElement):
        try:
            element = convert_raw_data_element(element, encoding=encodings_of(ds), ds=ds)
        except GARBLED:
            return ""
    return str(element.value) if element.value is not None else ""


def encodings_of(ds: Dataset) -> str | MutableSequence[str]:
    """What pydicom calls the dataset's character set."""
    character_set = _value(ds, "SpecificCharacterSet")
    return convert_encodings(character_set) if character_set else default_encoding


def _item(ds: Dataset | None, keyword: str) -> Dataset | None:
    """The first item of a sequence, or None."""
    return next(iter(items_of(ds, keyword)), None) if ds is not None else None


def items_of(ds: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; none where it is absent, garbled, or by its VR no sequence at all."""
    value = _value(ds, keyword)
    return list(value) if isinstance(value, pydicom.Sequence) else []


def _value(ds: Dataset, keyword: str) -> Any:
    """The attribute's value; None when absent, empty or undecodable."""
    try:
        return ds.get(keyword)
    except GARBLED:
        return None


def _numbers(ds: Dataset, keyword: str, empty: tuple[float, ...]) -> tuple[float, ...]:
    """As many floats as `empty` has; `empty` when absent, garbled or of another number."""
    try:
        value = _value(ds, keyword)
        values = tuple(float(v) for v in value) if isinstance(value, MutableSequence) else (float(value),)
    except (TypeError, ValueError, OverflowError):
        return empty
    return values if len(values) == len(empty) else empty


def _integer(ds: Dataset, keyword: str) -> int | None:
    """The attribute as an integer; None when absent, empty or garbled."""
    try:
        return int(_value(ds, keyword))
    except (TypeError, ValueError, OverflowError):
        return None
