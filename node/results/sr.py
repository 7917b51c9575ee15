"""An outcome and the headers of its series become a Comprehensive 3D SR (TID 1500): pure, and always the same bytes.

Three shapes (PS3.16 TID 1500; IHE AIR 6.5.3): *positive* has one measurement group (TID 1410) a lesion; *negative* has
no measurements and says that the finding is absent; *not analysed* says that no algorithm succeeded, and why, and says
nothing about the finding.  The content tree is built item by item, not through highdicom, so that patient and study
attributes stay as received and no clock or random UID enters.
"""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

from pydicom import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, Comprehensive3DSRStorage

from ai.findings import Findings, Lesion
from ai.frames import Frame
from ai.locations import COLUMNS
from ai.wording import counted
from node.results import codes as code
from node.results.document import (
    DISCLAIMER,
    Algorithm,
    NotAnalysed,
    Outcome,
    Predecessor,
    _percentage,
    encode,
    local,
    percent,
    result_file_meta,
    series_and_equipment,
    sources_of,
)
from node.results.identity import derive_uid, missing_identity, patient_and_study
from node.results.key_slices import KeySlice, key_slice, representative_slices
from node.results.sr_items import (
    ACQUISITION,
    CONTAINS,
    INFERRED,
    MODIFIER,
    OBSERVATION,
    SELECTED,
    box_item,
    circle_item,
    code_item,
    container,
    hierarchical_references,
    image_item,
    instance_reference,
    number_item,
    point_3d_item,
    text_item,
    uid_item,
)

__all__ = [
    "DISCLAIMER", "Algorithm", "KeySlice", "NotAnalysed", "Outcome", "Predecessor", "Region",
    "build_report", "derive_uid", "encode", "key_slice", "local", "missing_identity", "percent", "result_file_meta",
    "series_and_equipment", "sources_of",
]  # fmt: skip

SERIES_DESCRIPTION = "Willis intracranial aneurysm detection"


class Region(StrEnum):
    """How a lesion is shown: a circle on its key slice (read almost everywhere), a box there, or a point in the patient.

    OHIF lists boxes and points among its own measurements; circles only under names of its own.
    """

    CIRCLE_2D = "circle_2d"
    BOX_2D = "box_2d"
    POINT_3D = "point_3d"


def build_report(
    headers: Sequence[Dataset],
    outcome: Outcome,
    *,
    report_uid: str,
    series_uid: str,
    series_number: int,
    created: datetime,
    algorithm: Algorithm,
    predecessors: Sequence[Predecessor] = (),
    note: str = "",
    region: Region = Region.CIRCLE_2D,
    instance_number: int = 1,
) -> Dataset:
    """The report as a dataset with file meta information; `encode` makes the bytes.

    `headers`: the source instances without pixels, in any order; for a positive outcome all of them, because the key
    slice of a lesion is looked for among them.  Identity is that of most of them (`reported_on`).  `created`: the
    content date and time, timezone-aware; written in the images' own timezone when they state one.  `note`: a remark
    on coverage or on a partial result.

    Raises ValueError when `created` is naive, when `missing_identity` names something, when no slice shows a lesion,
    or when a 3D point is asked for and the images have no frame of reference.
    """
    sources = sources_of(headers, created)
    lesions = outcome.lesions if isinstance(outcome, Findings) else ()
    slices = [key_slice(sources, lesion.centre_lps_mm) for lesion in lesions]
    shown = slices or representative_slices(sources)

    ds = patient_and_study(sources[0])
    _document(ds, outcome, report_uid, series_uid, series_number, local(created, ds), algorithm, instance_number)
    if predecessors:
        ds.PredecessorDocumentsSequence = hierarchical_references(
            [(p.study_instance_uid, p.series_instance_uid, p.sop_class_uid, p.sop_instance_uid) for p in predecessors]
        )
    ds.CurrentRequestedProcedureEvidenceSequence = hierarchical_references(
        [(s.study_instance_uid, s.series_instance_uid, s.sop_class_uid, s.sop_instance_uid) for s in shown]
    )
    content = [*_context(algorithm), _image_library(shown)]
    if lesions:
        groups = [
            _measurement_group(number, lesion, where, algorithm, report_uid, region)
            for number, (lesion, where) in enumerate(zip(lesions, slices, strict=True), start=1)
        ]
        content.append(container(CONTAINS, code.IMAGING_MEASUREMENTS, groups))
    content.append(
        container(CONTAINS, code.QUALITATIVE_EVALUATIONS, _evaluations(outcome, algorithm, len(headers), note))
    )
    ds.update(container("", code.REPORT_TITLE, content, template="1500"))
    return ds


def _document(
    ds: Dataset,
    outcome: Outcome,
    report_uid: str,
    series_uid: str,
    series_number: int,
    created: datetime,
    algorithm: Algorithm,
    instance_number: int,
) -> None:
    """The modules around the content tree: SOP Common, SR Document Series, Equipment, SR Document General."""
    ds.file_meta = result_file_meta(Comprehensive3DSRStorage, report_uid)
    series_and_equipment(ds, "SR", SERIES_DESCRIPTION, series_uid, series_number, created, algorithm)
    ds.SOPClassUID, ds.SOPInstanceUID = Comprehensive3DSRStorage, UID(report_uid)
    ds.ReferencedPerformedProcedureStepSequence = Items([])
    ds.InstanceNumber = instance_number
    ds.VerificationFlag = "UNVERIFIED"
    ds.PreliminaryFlag = "PRELIMINARY"
    ds.PerformedProcedureCodeSequence = Items([])
    if isinstance(outcome, NotAnalysed):
        ds.CompletionFlag = "PARTIAL"
        ds.CompletionFlagDescription = f"Not analysed: {outcome.reason.value}"
    else:
        ds.CompletionFlag = "COMPLETE"


def _context(algorithm: Algorithm) -> list[Dataset]:
    """Language (TID 1204), device observer (TID 1002, 1004) and the procedure."""
    return [
        code_item(MODIFIER, code.LANGUAGE, code.ENGLISH),
        code_item(OBSERVATION, code.OBSERVER_TYPE, code.DEVICE),
        uid_item(OBSERVATION, code.DEVICE_UID, algorithm.device_uid),
        text_item(OBSERVATION, code.DEVICE_NAME, algorithm.name),
        text_item(OBSERVATION, code.DEVICE_MANUFACTURER, algorithm.manufacturer),
        text_item(OBSERVATION, code.DEVICE_MODEL, algorithm.model_name),
        code_item(MODIFIER, code.PROCEDURE_REPORTED, code.CT_PROCEDURE),
    ]


def _reference(where: KeySlice) -> Dataset:
    return instance_reference(where.sop_class_uid, where.sop_instance_uid, where.frame_number)


def _image_library(slices: Sequence[KeySlice]) -> Dataset:
    """TID 1600 with the shown slices only: with all slices a report takes 1.5 MB and viewers take many seconds."""
    entries = []
    for where in {(s.sop_instance_uid, s.frame_number): s for s in slices}.values():
        frame: Frame = where.frame
        descriptors = [code_item(ACQUISITION, code.MODALITY, code.CT)]
        if frame.frame_of_reference_uid:
            descriptors.append(uid_item(ACQUISITION, code.FRAME_OF_REFERENCE, frame.frame_of_reference_uid))
        descriptors.append(number_item(ACQUISITION, code.PIXEL_ROWS, frame.rows, code.PIXELS, decimals=0))
        descriptors.append(number_item(ACQUISITION, code.PIXEL_COLUMNS, frame.columns, code.PIXELS, decimals=0))
        entries.append(image_item(CONTAINS, code.SOURCE, _reference(where), descriptors))
    return container(CONTAINS, code.IMAGE_LIBRARY, [container(CONTAINS, code.IMAGE_LIBRARY_GROUP, entries)])


def _measurement_group(
    number: int, lesion: Lesion, where: KeySlice, algorithm: Algorithm, report_uid: str, region: Region
) -> Dataset:
    """TID 1410.  The diameter comes first: viewers label the region with the first measurement.

    It names the region as what it is inferred from (TID 320), which is where OHIF looks for it.
    """
    items = [
        text_item(OBSERVATION, code.TRACKING_IDENTIFIER, f"Aneurysm {number}: {lesion.location.value}"),
        uid_item(OBSERVATION, code.TRACKING_UID, derive_uid("tracking", report_uid, number)),
        code_item(CONTAINS, code.FINDING, code.ANEURYSM),
        _finding_site(lesion),
        text_item(MODIFIER, code.ALGORITHM_NAME, algorithm.name),
        text_item(MODIFIER, code.ALGORITHM_VERSION, algorithm.version),
        _region(CONTAINS, lesion, where, region),
        number_item(
            CONTAINS, code.DIAMETER, lesion.diameter_mm, code.MILLIMETRE, [_region(INFERRED, lesion, where, region)]
        ),
        number_item(CONTAINS, code.PROBABILITY, _percentage(lesion.probability), code.PERCENT),
    ]  # fmt: skip
    group = container(CONTAINS, code.MEASUREMENT_GROUP, items, template="1410")
    group.ObservationUID = derive_uid("observation", report_uid, number)
    return group


def _finding_site(lesion: Lesion) -> Dataset:
    site = code.SITES[lesion.location]
    modifiers = []
    if site.laterality is not None:
        modifiers.append(code_item(MODIFIER, code.LATERALITY, site.laterality))
    if site.modifier is not None:
        modifiers.append(code_item(MODIFIER, code.TOPOGRAPHICAL_MODIFIER, site.modifier))
    return code_item(MODIFIER, code.FINDING_SITE, site.anatomy, modifiers)


def _region(relationship: str, lesion: Lesion, where: KeySlice, region: Region) -> Dataset:
    if region is Region.POINT_3D:
        if not where.frame.frame_of_reference_uid:
            raise ValueError("a 3D point needs the images' FrameOfReferenceUID; use Region.CIRCLE_2D")
        return point_3d_item(relationship, code.IMAGE_REGION, lesion.centre_lps_mm, where.frame.frame_of_reference_uid)
    column, row, radius_mm = where.column, where.row, lesion.diameter_mm / 2.0
    rows, columns = (radius_mm / spacing for spacing in where.frame.pixel_spacing_mm)
    image = image_item(SELECTED, code.SOURCE, _reference(where))
    if region is Region.BOX_2D:
        return box_item(
            relationship, code.IMAGE_REGION, (column - columns, row - rows), (column + columns, row + rows), image
        )
    return circle_item(relationship, code.IMAGE_REGION, (column, row), (column + columns, row), image)


def _evaluations(outcome: Outcome, algorithm: Algorithm, images: int, note: str) -> list[Dataset]:
    """The outcome in codes, then in words; the disclaimer is always the last."""
    if isinstance(outcome, NotAnalysed):
        items = [code_item(CONTAINS, code.PROCESSING_SUMMARY, code.NONE_SUCCEEDED)]
        detail = f" ({outcome.detail})" if outcome.detail else ""
        texts = [f"NOT ANALYSED: {outcome.reason.explained} [{outcome.reason.value}]{detail}"]
    else:
        summary = code.SUCCEEDED_WITH_FINDINGS if outcome.positive else code.SUCCEEDED_WITHOUT_FINDINGS
        items = [
            code_item(CONTAINS, code.PROCESSING_SUMMARY, summary),
            code_item(CONTAINS, code.ANEURYSM, code.PRESENT if outcome.positive else code.ABSENT),
        ]
        texts = _words(outcome)
    texts.append(f"{counted(images, 'image')} given to {algorithm.name} {algorithm.version}.")
    texts += [note] if note else []
    return [*items, *(text_item(CONTAINS, code.COMMENT, text) for text in [*texts, DISCLAIMER])]


def _words(findings: Findings) -> list[str]:
    threshold = f"threshold {100.0 * findings.threshold:.1f} %"
    if findings.positive:
        headline = f"Suspected intracranial aneurysm: {counted(len(findings.lesions), 'finding')}."
    else:
        headline = "No intracranial aneurysm was detected."
    listed = [
        f"Aneurysm {number}: {lesion.location.value}, {lesion.diameter_mm:.1f} mm, {percent(lesion.probability)}"
        for number, lesion in enumerate(findings.lesions, start=1)
    ]
    listed += ["Diameters are those of spheres of equal volume."] if findings.positive else []
    table = "\r\n".join(f"{column}: {percent(p)}" for column, p in zip(COLUMNS, findings.probabilities, strict=True))
    return [f"{headline} Probability of aneurysm presence {percent(findings.present)} ({threshold}).", *listed, table]
