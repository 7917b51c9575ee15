"""An outcome becomes a Secondary Capture image: what every viewer shows, beside the report that says it in codes.

Pure, and always the same bytes.  No name, number or date of the patient is in the pixels (Burned In Annotation NO);
the attributes are copied as the report copies them.
"""

import re
from collections.abc import Sequence

import highdicom as hd
from pydicom import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.sr.coding import Code
from pydicom.uid import Comprehensive3DSRStorage

from ai.findings import Findings
from ai.frames import text_of
from ai.volume import Volume
from ai.wording import unpadded
from node.results import codes as code
from node.results.document import Document, Outcome, complete, reference
from node.results.identity import say_whether_lossy
from node.results.key_slices import KeySlice, key_slices
from node.results.summary_picture import points_shown, summary_picture

SERIES_DESCRIPTION = "Willis summary, research use, not verified"


def build_summary(document: Document, outcome: Outcome, volume: Volume | None) -> Dataset:
    """The summary as a dataset with file meta information; `node.results.document.encode` makes the bytes.

    The report is referred to as the same in another SOP class.  `volume`: the images that were analysed; None where there
    are none to show.
    """
    sources = document.sources
    shown: list[KeySlice] = []
    if isinstance(outcome, Findings) and volume is not None:
        shown = key_slices(sources, points_shown(outcome, volume))
    ds: Dataset = hd.sc.SCImage(
        summary_picture(outcome, document.algorithm, volume, [where.name for where in shown]),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),
        study_instance_uid=text_of(sources[0], "StudyInstanceUID"),
        **document.named(SERIES_DESCRIPTION),
    )
    complete(ds, document)
    ds.PatientOrientation = None  # of text and of several views there is none
    ds.DateOfSecondaryCapture, ds.TimeOfSecondaryCapture = ds.ContentDate, ds.ContentTime
    ds.ConversionType = "WSD"
    body_part = "HEAD" if isinstance(outcome, Findings) else unpadded(text_of(sources[0], "BodyPartExamined"))
    if re.fullmatch(r"[A-Z0-9_ ]{1,16}", body_part, re.ASCII):
        ds.BodyPartExamined = body_part
    if body_part not in code.BODY_PARTS:
        ds.Laterality = None  # type 2C: it may be one of a pair
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.BurnedInAnnotation = "NO"
    ds.DerivationDescription = "Summary of an automatic analysis: probabilities, key images and projection"
    if shown:
        ds.SourceImageSequence = _source_images(shown)
    report = _reference(code.SAME_IN_ANOTHER_CLASS, Comprehensive3DSRStorage, document.report_uid)
    ds.ReferencedInstanceSequence = Items([report])
    say_whether_lossy(ds, sources)
    return ds


def _source_images(shown: Sequence[KeySlice]) -> Items:
    """The images that the picture shows beside the projection and the planes across."""
    once = {(where.sop_instance_uid, where.frame_number): where for where in shown}
    return Items([_reference(code.MONTAGE, s.sop_class_uid, s.sop_instance_uid, s.frame_number) for s in once.values()])


def _reference(purpose: Code, sop_class_uid: str, sop_instance_uid: str, frame_number: int | None = None) -> Dataset:
    """A reference that says what it is for."""
    ds = reference(sop_class_uid, sop_instance_uid)
    if frame_number is not None:
        ds.ReferencedFrameNumber = frame_number
    ds.PurposeOfReferenceCodeSequence = Items([hd.sr.CodedConcept.from_code(purpose)])
    return ds
