"""Small synthetic CT series whose every voxel says what the stand-in for the network is to find in them."""

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from tests.corpus.situation import Sending
from tests.support.dicom_factory import change, ct_series, enhanced_ct, identity

AIR_HU, PLAIN_HU, FILLED_HU, ANEURYSM_HU = -1000, 40, 300, 500
"""No head; a head without contrast; an angiography without an aneurysm; one with an aneurysm."""
COUNT = 24
"""Of slices; the node of the corpus wants 20, so that it is quick."""


def flat(hu: int, side: int = 32) -> Any:
    """Planes of one value."""
    plane: NDArray[np.int16] = np.full((side, side), hu, np.int16)
    return lambda _index: plane


def cta(hu: int = FILLED_HU, count: int = COUNT, series: int = 1, first: int = 0, **changes: Any) -> list[Dataset]:
    """An axial series; `series` and `first` number its UIDs and Instance Numbers."""
    named: dict[str, Any] = {"SeriesInstanceUID": f"2.25.5{series:03d}", "SeriesNumber": series, "rows": 32}
    named |= changes
    slices = ct_series(count, hu=flat(hu, named["rows"]), **({"columns": named["rows"]} | named))
    for index, ds in enumerate(slices):
        number = first + index
        ds.SOPInstanceUID = f"2.25.7{series:03d}{number:05d}"
        if "InstanceNumber" not in changes:
            ds.InstanceNumber = number + 1
    return slices


def alone(*args: Any, **changes: Any) -> Callable[[], list[Sending]]:
    """The series that `cta` makes, on one association."""
    return lambda: [Sending(cta(*args, **changes))]


def at(clock: str, slices: Sequence[Dataset], number: int = 1, **changes: Any) -> list[Dataset]:
    """The slices with the time and number of an acquisition."""
    return [
        change(ds, AcquisitionDate="20260101", AcquisitionTime=clock, AcquisitionNumber=number, **changes)
        for ds in slices
    ]


def stray(like: Dataset, number: int = 1, **changes: Any) -> Dataset:
    """One more instance of the same series, changed."""
    return change(copy.deepcopy(like), SOPInstanceUID=f"{like.SOPInstanceUID}.9{number}", **changes)


def other(sop_class: str, number: int = 1, **changes: Any) -> Dataset:
    """An object of the study that is no image, in a series of its own unless the changes say otherwise."""
    ds = identity(
        SOPClassUID=sop_class, SOPInstanceUID=f"2.25.17{number}", SeriesInstanceUID=f"2.25.18{number}", Modality="OT",
        FrameOfReferenceUID=None,
    )  # fmt: skip
    ds.file_meta = copy.deepcopy(ct_series(1)[0].file_meta)
    return change(ds, **changes)


def enhanced(slices: Sequence[Dataset], number: int = 1, **changes: Any) -> Dataset:
    """The slices as frames of one Enhanced CT instance of their series."""
    first = slices[0]
    named: dict[str, Any] = {
        "SeriesInstanceUID": first.SeriesInstanceUID,
        "SeriesNumber": first.SeriesNumber,
        "SOPInstanceUID": f"{first.SeriesInstanceUID}.8{number}",
        "InstanceNumber": number,
    }
    return enhanced_ct(slices, **named | changes)


def interleaved(*series: Iterable[Dataset]) -> list[Dataset]:
    """One slice of each in turn."""
    return [ds for slices in zip(*series, strict=True) for ds in slices]
