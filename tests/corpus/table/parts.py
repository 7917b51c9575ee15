"""Parts of series, copies and repetitions: never silent, never negative."""

import copy

from tests.corpus.images import ANEURYSM_HU, alone, cta, stray
from tests.corpus.situation import Sending, Situation

SITUATIONS = (
    Situation("a gap of one slice", "a slice that was lost", lambda: [Sending([*cta()[:10], *cta()[11:]])],
              ("not_analysed: gap",)),
    Situation("every second slice is lost at one end", "an interrupted transfer",
              lambda: [Sending([*cta(count=34)[:24], *cta(count=34)[24::2]])], ("not_analysed: gap",)),
    Situation("a single exact copy of a slice under a new UID", "a PACS that copies what it corrects",
              lambda: [Sending([*cta(ANEURYSM_HU), stray(cta(ANEURYSM_HU)[10])])], ("positive",)),
    Situation("the whole series twice under new UIDs", "a PACS that copies what it corrects",
              lambda: [Sending([*cta(ANEURYSM_HU), *(stray(ds) for ds in cta(ANEURYSM_HU))])], ("positive",)),
    Situation("a position repeated with other pixels", "a rescan of one slice",
              lambda: [Sending([*cta(), stray(cta(ANEURYSM_HU)[10])])], ("not_analysed: duplicate_position",)),
    Situation("the same series sent twice", "a router that repeats",
              lambda: [Sending(cta(ANEURYSM_HU), then_ends=True), Sending(cta(ANEURYSM_HU))], ("positive",)),
    Situation("a series on four associations", "senders that open one association for a part",
              lambda: [Sending(cta(ANEURYSM_HU)[n : n + 6]) for n in range(0, 24, 6)], ("positive",)),
    Situation("a late slice fills the gap", "a transfer that is taken up again",
              lambda: [Sending([ds for n, ds in enumerate(cta(ANEURYSM_HU)) if n != 12], then_ends=True),
                       Sending([cta(ANEURYSM_HU)[12]])], ("positive",)),
    Situation("broken off by an abort after 16 slices", "dcmtk and Orthanc stop at what is refused",
              lambda: [Sending(cta(count=16, spacing_mm=0.6), aborted=True)], ("not_analysed: incomplete",)),
    Situation("fewer slices than are wanted", "fewer than a head CT angiography has", alone(count=19),
              ("not_eligible: too_few_slices",)),
    Situation("a file of 0 pixels among the slices", "an image without pixel data",
              lambda: [Sending([*cta(), stray(cta()[0], ImagePositionPatient=[-20, -30, 124], PixelData=b"")])],
              ("not_analysed: missing_pixels",)),
    Situation("an object without pixels in the series", "a raw data object in the CT series",
              lambda: [Sending([*cta(), stray(cta()[0], PixelData=None)])], ("negative",), ("1 of kind no_image",)),
    Situation("a slice of half its pixels", "a file cut off on disk",
              lambda: [Sending([*cta()[:-1], stray(cta()[-1], PixelData=cta()[-1].PixelData[:1024])])],
              ("not_analysed: pixels_truncated",)),
    Situation("slices of two patients in one series", "two people's slices under one UID",
              lambda: [Sending([*cta()[:12], *cta(PatientID="P-0002")[12:]])], ("not_analysed: mixed_patients",)),
    Situation("slices of two matrices", "a reconstruction repeated with another matrix",
              lambda: [Sending([*cta()[:12], *cta(rows=16, columns=16)[12:]])], ("not_analysed: mixed_matrix",)),
    Situation("a slice turned by some degrees", "the patient moved between two blocks",
              lambda: [Sending([*cta()[:-1], *cta(ImageOrientationPatient=[1, 0, 0, 0, 0.98, 0.199])[-1:]])],
              ("not_analysed: mixed_orientation",)),
    Situation("two frames of reference", "the patient was taken off the table",
              lambda: [Sending([*cta()[:12], *cta(FrameOfReferenceUID="2.25.1004")[12:]])],
              ("not_analysed: mixed_frames_of_reference",)),
    Situation("slices without a position", "an anonymiser that removes too much", alone(ImagePositionPatient=None),
              ("not_analysed: missing_geometry",)),
    Situation("no patient", "an anonymiser that removes the patient", alone(PatientID="", PatientName=""),
              ("not_analysed: missing_identity, no report",)),
    Situation("slices in random order", "every sender", lambda: [Sending(disordered())], ("positive",)),
)  # fmt: skip


def disordered() -> list:  # type: ignore[type-arg]
    """The slices in an order of no kind."""
    slices = cta(ANEURYSM_HU)
    return [copy.deepcopy(slices[(7 * n) % len(slices)]) for n in range(len(slices))]
