"""Whole studies: what is no image lies beside the slices, and among them."""

from pydicom import Dataset
from pydicom.uid import (
    BasicTextSRStorage,
    EncapsulatedPDFStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
    RawDataStorage,
    XRayRadiationDoseSRStorage,
)

from tests.corpus.images import ANEURYSM_HU, cta, other
from tests.corpus.situation import Sending, Situation

OTHERS = (
    XRayRadiationDoseSRStorage,
    KeyObjectSelectionDocumentStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    RawDataStorage,
    EncapsulatedPDFStorage,
    BasicTextSRStorage,
)


def study() -> list[Dataset]:
    """Twelve slices, one of each other object, and the other slices."""
    slices = cta(ANEURYSM_HU)
    return [*slices[:12], *(other(each, number) for number, each in enumerate(OTHERS)), *slices[12:]]


def with_raw_data() -> list[Dataset]:
    """A CTA with an object of raw data in its series."""
    slices = cta(ANEURYSM_HU)
    raw = other(RawDataStorage, Modality="CT", SeriesInstanceUID=slices[0].SeriesInstanceUID)
    return [*slices[:12], raw, *slices[12:]]


SITUATIONS = (
    Situation("a whole study with dose report, key objects, presentation state, raw data, PDF and text",
              "fo-dicom issue 355, pynetdicom issue 1006: senders stop at the first object that is refused",
              lambda: [Sending(study())], ("positive", *["not_eligible: no_image"] * len(OTHERS))),
    Situation("raw data in the series of the slices", "pynetdicom issue 598: what a series counts besides images",
              lambda: [Sending(with_raw_data())], ("positive",), ("1 of kind no_image",)),
)  # fmt: skip
