"""An outcome becomes a Secondary Capture image: what every viewer shows, beside the report that says it in codes.

Pure, and always the same bytes.  No name, number or date of the patient is in the pixels (Burned In Annotation NO);
the attributes are copied as the report copies them.
"""

from collections.abc import Sequence
from datetime import datetime

from pydicom import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, Comprehensive3DSRStorage, SecondaryCaptureImageStorage

from ai.findings import Findings
from ai.volume import Volume
from node.results import codes as code
from node.results.document import Algorithm, Outcome, local, result_file_meta, series_and_equipment, sources_of
from node.results.identity import patient_and_study, say_whether_lossy
from node.results.key_slices import key_slice
from node.results.sr_items import instance_reference, with_purpose
from node.results.summary_picture import SIDE, points_shown, summary_picture

SERIES_DESCRIPTION = "Willis summary, research use, not verified"


def build_summary(
    headers: Sequence[Dataset],
    outcome: Outcome,
    volume: Volume | None,
    *,
    summary_uid: str,
    series_uid: str,
    series_number: int,
    report_uid: str,
    created: datetime,
    algorithm: Algorithm,
    instance_number: int = 1,
) -> Dataset:
    """The summary as a dataset with file meta information; `node.results.document.encode` makes the bytes.

    `headers`, `created` and `outcome` are those of the report `report_uid`, which is referred to as the same in another
    SOP class.  `volume`: the images that were analysed; None where there are none to show.  Raises ValueError when
    `created` is naive or `missing_identity` names something.
    """
    sources = sources_of(headers, created)

    ds = patient_and_study(sources[0])
    ds.file_meta = result_file_meta(SecondaryCaptureImageStorage, summary_uid)
    at = local(created, ds)
    series_and_equipment(ds, "OT", SERIES_DESCRIPTION, series_uid, series_number, at, algorithm)
    ds.DateOfSecondaryCapture, ds.TimeOfSecondaryCapture = ds.ContentDate, ds.ContentTime
    ds.ConversionType = "WSD"
    ds.BodyPartExamined = "HEAD"
    ds.SOPClassUID, ds.SOPInstanceUID = SecondaryCaptureImageStorage, UID(summary_uid)
    ds.InstanceNumber = instance_number
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.PatientOrientation = None
    ds.BurnedInAnnotation = "NO"
    ds.DerivationDescription = "Summary of an automatic analysis: probabilities, key images and projection"
    if isinstance(outcome, Findings) and volume is not None:
        ds.SourceImageSequence = _source_images(sources, outcome, volume)
    ds.ReferencedInstanceSequence = Items(
        [with_purpose(instance_reference(Comprehensive3DSRStorage, report_uid), code.SAME_IN_ANOTHER_CLASS)]
    )
    say_whether_lossy(ds, sources)
    _pixels(ds, outcome, algorithm, volume)
    return ds


def _source_images(sources: Sequence[Dataset], findings: Findings, volume: Volume) -> Items:
    """The images that the picture shows beside the projection."""
    shown = [key_slice(sources, point) for point in points_shown(findings, volume)]
    references = {
        (where.sop_instance_uid, where.frame_number): instance_reference(
            where.sop_class_uid, where.sop_instance_uid, where.frame_number
        )
        for where in shown
    }
    return Items([with_purpose(reference, code.MONTAGE) for reference in references.values()])


def _pixels(ds: Dataset, outcome: Outcome, algorithm: Algorithm, volume: Volume | None) -> None:
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.Rows = ds.Columns = SIDE
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.add_new("PixelData", "OB", summary_picture(outcome, algorithm, volume).tobytes())
