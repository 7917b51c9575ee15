"""Strays in a series, wherever they come: set aside one by one, and the CT left is judged."""

from collections.abc import Sequence
from typing import Any

from pydicom import Dataset
from pydicom.uid import MRImageStorage, SecondaryCaptureImageStorage

from tests.corpus.images import ANEURYSM_HU, cta, stray
from tests.corpus.situation import Sending, Situation

STRAYS: dict[str, dict[str, Any]] = {
    "scout": {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "ImageOrientationPatient": [0, 1, 0, 0, 0, -1]},
    "dose picture": {
        "SOPClassUID": SecondaryCaptureImageStorage,
        "ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"],
        "ImagePositionPatient": None,
    },
    "secondary capture of another modality": {"SOPClassUID": SecondaryCaptureImageStorage, "Modality": "OT"},
    "reformat": {"ImageType": ["DERIVED", "SECONDARY", "MPR"], "ImageOrientationPatient": [1, 0, 0, 0, 0, -1]},
    "MR slice": {"SOPClassUID": MRImageStorage, "Modality": "MR"},
}
SOURCES = {
    "scout": "dwv issue 748, dicom2nifti issue 60",
    "dose picture": "OHIF issue 3360: extra pictures inside the CT series",
    "secondary capture of another modality": "OHIF issue 3360",
    "reformat": "workstations store reformats into the source series",
    "MR slice": "a fusion exported under one series",
}


def with_stray(what: str, place: int) -> Sequence[Sending]:
    """A CTA with an aneurysm, and the stray at this place among its slices."""
    slices: list[Dataset] = cta(ANEURYSM_HU)
    slices.insert(place, stray(slices[0], **STRAYS[what]))
    return [Sending(slices)]


SITUATIONS = tuple(
    Situation(
        f"{what} {when} in the series",
        SOURCES[what],
        lambda what=what, place=place: with_stray(what, place),  # type: ignore[misc]
        ("positive",),
        ("set aside in this series: 1",),
    )
    for what in STRAYS
    for when, place in (("first", 0), ("last", 24))
) + (
    Situation(
        "every kind of stray among the slices",
        "all of the above in one series",
        lambda: [Sending(mixed())],
        ("positive",),
        tuple(f"1 of kind {kind}" for kind in ("localizer", "reformat", "not_ct")),
    ),
    Situation(
        "one sagittal slice without a word about it",
        "sibling: a reformat that calls itself original",
        lambda: [Sending([stray(cta()[0], ImageOrientationPatient=[0, 1, 0, 0, 0, -1]), *cta(ANEURYSM_HU)])],
        ("positive",),
        ("2 acquisitions",),
    ),
    Situation(
        "nothing but strays",
        "a series of scouts with a dose picture",
        lambda: [Sending([stray(cta()[0], n, **STRAYS[what]) for n, what in enumerate(("scout", "scout", "dose picture"))])],
        ("not_eligible: localizer",),
    ),
)  # fmt: skip


def mixed() -> list[Dataset]:
    """A CTA with an aneurysm and one of each kind of stray."""
    slices = cta(ANEURYSM_HU)
    return [*slices[:10], *(stray(slices[0], n, **changes) for n, changes in enumerate(STRAYS.values())), *slices[10:]]
