"""The frames of a multi-frame image as headers of their own, so that one rule serves single-frame and enhanced CT."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pydicom import Dataset
from pydicom.tag import Tag

from ai.frames import GARBLED, frame_count, frames, items_of
from ai.wording import unpadded
from node.dicom.header import date_and_time
from storage.records import Header


def frame_headers(header: Header, ds: Dataset) -> list[Header]:
    """The instance's header once for each frame, with what the functional groups say of it (PS3.3 C.7.6.16.2, C.8.15.3).

    `ds` needs no pixels.  A frame's own groups come before the shared ones, and both before the dataset's top level.
    """
    of_time = _dimensions_of_time(ds)
    return [
        replace(
            header,
            position_mm=tuple(frame.position_mm) if frame.has_geometry else header.position_mm,  # type: ignore[arg-type]
            orientation=tuple(frame.orientation) if frame.has_geometry else header.orientation,
            image_type=_frame_type(find) or header.image_type,
            convolution_kernel=_text(find("CTReconstructionSequence", "ConvolutionKernel"))
            or header.convolution_kernel,
            kvp=_number(find("CTXRayDetailsSequence", "KVP")) or header.kvp,
            acquisition_number=_text(find("FrameContentSequence", "FrameAcquisitionNumber"))
            or header.acquisition_number,
            acquired_at=date_and_time(_text(find("FrameContentSequence", "FrameAcquisitionDateTime")))
            or header.acquired_at,
            slice_thickness_mm=_float(find("PixelMeasuresSequence", "SliceThickness")) or header.slice_thickness_mm,
            temporal_position=_text(find("FrameContentSequence", "TemporalPositionIndex"))
            or _text(_at(find("FrameContentSequence", "DimensionIndexValues"), of_time))
            or header.temporal_position,
            stack=_text(find("FrameContentSequence", "StackID")),
            instance_number=frame.number,
            number_of_frames=1,
        )
        for frame, find in zip(frames(ds), _finders(ds), strict=False)
    ]


def is_part_of_concatenation(ds: Dataset) -> bool:
    """Whether other instances hold the rest of the frames (PS3.3 C.7.6.16.1.1)."""
    try:
        return "ConcatenationUID" in ds and int(ds.get("InConcatenationTotalNumber") or 2) > 1
    except GARBLED:
        return True


def _finders(ds: Dataset) -> Iterator[Any]:
    shared = items_of(ds, "SharedFunctionalGroupsSequence")[:1]
    per_frame = items_of(ds, "PerFrameFunctionalGroupsSequence")
    for index in range(frame_count(ds)):
        groups = [*per_frame[index : index + 1], *shared]

        def find(macro: str, keyword: str, groups: list[Dataset] = groups) -> list[Any]:
            """The values of the attribute; none where no group has it."""
            for group in groups:
                for item in items_of(group, macro)[:1]:
                    if (value := _value(item, keyword)) not in (None, ""):
                        return list(value) if isinstance(value, list | tuple) or hasattr(value, "append") else [value]
            return []

        yield find


def _value(ds: Dataset, keyword: str) -> Any:
    try:
        return ds.get(keyword)
    except GARBLED:
        return None


_POINTERS_OF_TIME = {Tag("TemporalPositionIndex"), Tag("TemporalPositionTimeOffset")}


def _dimensions_of_time(ds: Dataset) -> list[int]:
    """Which of a frame's Dimension Index Values count moments (PS3.3 C.7.6.17)."""
    pointers = [_value(each, "DimensionIndexPointer") for each in items_of(ds, "DimensionIndexSequence")]
    return [place for place, pointer in enumerate(pointers) if pointer in _POINTERS_OF_TIME]


def _at(values: list[Any], places: list[int]) -> list[Any]:
    return [values[place] for place in places if place < len(values)]


def _frame_type(find: Any) -> tuple[str, ...]:
    """Frame Type, and Volume Based Calculation Technique as one more value (PS3.3 C.8.15.3.1)."""
    found = [find("CTImageFrameTypeSequence", each) for each in ("FrameType", "VolumeBasedCalculationTechnique")]
    return tuple(unpadded(str(value)) for values in found for value in values)


def _text(values: list[Any]) -> str:
    return "\\".join(unpadded(str(value)) for value in values)


def _number(values: list[Any]) -> str:
    number = _float(values)
    return "" if number is None else f"{number:g}"


def _float(values: list[Any]) -> float | None:
    try:
        number = float(values[0]) if values else math.nan
    except GARBLED:
        return None
    return number if math.isfinite(number) else None
