"""Which pixels of which slice belong to each finding, from the segmentation that lies beside the report."""

from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.pixels.utils import unpack_bits

from ai.frames import GARBLED
from node.web.images import Series

Run = tuple[int, int, int, int]
"""Finding (from 1), row, first column, how many columns."""
_UNREADABLE = (*GARBLED, InvalidDicomError, AttributeError, IndexError, KeyError)


def masks_on(series: Series, path: Path) -> dict[int, list[Run]]:
    """The runs of pixels by slice (from 0).  Empty where the file is gone, cannot be read, or is of other images."""
    try:
        ds = dcmread(path)
        return _runs(ds, _numbers_by_frame(series))
    except _UNREADABLE:
        return {}


def _numbers_by_frame(series: Series) -> dict[tuple[str, int], int]:
    """By instance and frame, not by position: two phases have slices at the same."""
    return {(place.sop_instance_uid, place.frame_number): number for number, place in enumerate(series.places)}


def _source(frame: Dataset) -> tuple[str, int]:
    """Which frame of which instance the mask was drawn on."""
    source = frame.DerivationImageSequence[0].SourceImageSequence[0]
    return str(source.ReferencedSOPInstanceUID), int(source.get("ReferencedFrameNumber") or 1)


def _runs(ds: Dataset, numbers: dict[tuple[str, int], int]) -> dict[int, list[Run]]:
    rows, columns = ds.Rows, ds.Columns
    bits = np.asarray(unpack_bits(ds.PixelData))[: ds.NumberOfFrames * rows * columns].reshape(-1, rows, columns)
    found: dict[int, list[Run]] = {}
    for number, frame in enumerate(ds.PerFrameFunctionalGroupsSequence):
        finding = int(frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        at = numbers.get(_source(frame))
        if at is not None:
            found.setdefault(at, []).extend((finding, *run) for run in _runs_of(bits[number]))
    return found


def _runs_of(mask_HW: np.ndarray) -> list[tuple[int, int, int]]:
    runs = []
    for row in np.flatnonzero(mask_HW.any(axis=1)).tolist():
        edges = np.flatnonzero(np.diff(np.concatenate(([0], mask_HW[row], [0])).astype(np.int8)))
        runs += [(row, int(start), int(end - start)) for start, end in edges.reshape(-1, 2)]
    return runs
