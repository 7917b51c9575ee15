"""An outcome and the headers of its series become a Comprehensive 3D SR (TID 1500): pure, and always the same bytes.

Three shapes (PS3.16 TID 1500; IHE AIR 6.5.3): *positive* has one measurement group (TID 1410) a lesion; *negative* has no
measurements and says that the finding is absent, unless an acquisition of the series could not be analysed; *not analysed* says
that no algorithm succeeded, and why, and says nothing about the finding.  Content items and the templates below TID 1410 are
highdicom's; TID 1500, 1600 and 1410 themselves are put together here, because its own have no place for what these reports say
(docs/decisions/0004-results-on-highdicom.md).
"""

from collections.abc import Iterable, Sequence
from typing import Any

import highdicom as hd
import numpy as np
from pydicom import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import UID, CTImageStorage

from ai.findings import Findings, Lesion
from ai.locations import COLUMNS
from ai.wording import counted
from node.config.types import Region
from node.results import codes as code
from node.results.document import (
    DISCLAIMER,
    Algorithm,
    Document,
    NotAnalysed,
    Outcome,
    Predecessor,
    bare_instance,
    complete,
    operating_points,
    percent,
    percentage,
    remarks,
)
from node.results.identity import derive_uid, uid_of
from node.results.key_slices import KeySlice, key_slices, representative_slices
from node.results.plain_ascii import plain_ascii

SERIES_DESCRIPTION = "Willis intracranial aneurysm detection"
_SUMMARIES = {
    (True, True): code.SUCCEEDED_WITH_FINDINGS,
    (True, False): code.SUCCEEDED_WITHOUT_FINDINGS,
    (False, True): code.NOT_ALL_WITH_FINDINGS,
    (False, False): code.NOT_ALL_WITHOUT_FINDINGS,
}
"""By whether all was analysed, and whether something was found."""
_CONTAINS, _ACQUISITION = hd.sr.RelationshipTypeValues.CONTAINS, hd.sr.RelationshipTypeValues.HAS_ACQ_CONTEXT


def read_tables() -> None:
    """What highdicom knows of the Standard is in memory: the first report of a process does not wait for it."""
    source = hd.sr.SourceImageForRegion(CTImageStorage, "2.25.1")
    hd.sr.ImageRegion("POINT", np.zeros((1, 2)), source)


def build_report(
    document: Document,
    outcome: Outcome,
    *,
    predecessors: Sequence[Predecessor] = (),
    region: Region = Region.CIRCLE_2D,
    unanalysed: str = "",
) -> Dataset:
    """The report as a dataset with file meta information; `node.results.document.encode` makes the bytes.

    For a positive outcome all headers are needed, because the key slice of a lesion is looked for among them.
    `unanalysed`: what of the series the findings are not of, because it could not be analysed, in words.

    Raises ValueError when no slice shows a lesion, or when a 3D point is asked for and the images have no frame of
    reference.
    """
    lesions = outcome.lesions if isinstance(outcome, Findings) else ()
    slices = key_slices(document.sources, [lesion.centre_lps_mm for lesion in lesions])
    shown = slices or representative_slices(document.sources)
    algorithm = document.algorithm
    analysed = isinstance(outcome, Findings)
    content = [*_context(algorithm, shown), _image_library(shown, analysed)]
    if lesions:
        groups = [
            _measurement_group(number, lesion, where, document, region)
            for number, (lesion, where) in enumerate(zip(lesions, slices, strict=True), start=1)
        ]
        content.append(_container(code.IMAGING_MEASUREMENTS, groups))
    evaluations = _evaluations(outcome, algorithm, slices, len(document.headers), is_whole=not unanalysed)
    content.append(_container(code.QUALITATIVE_EVALUATIONS, evaluations))

    ds: Dataset = hd.sr.Comprehensive3DSR(
        evidence=_sorted(shown),
        content=_container(code.REPORT_TITLE, content, template_id="1500", relationship_type=None),
        is_complete=analysed and not unanalysed,
        previous_versions=_sorted(predecessors) or None,
        **document.named(SERIES_DESCRIPTION),
    )
    if isinstance(outcome, NotAnalysed):
        ds.CompletionFlagDescription = f"Not analysed: {outcome.reason.value}"
    elif unanalysed:
        ds.CompletionFlagDescription = f"Not analysed: {unanalysed}"
    complete(ds, document)
    return ds


def _sorted(instances: Sequence[KeySlice | Predecessor]) -> list[Dataset]:
    """The instances as highdicom refers to them, in an order that is always the same."""
    uids = {(e.study_instance_uid, e.series_instance_uid, e.sop_instance_uid, e.sop_class_uid) for e in instances}
    return [
        bare_instance(study, series, UID(sop_class), instance) for study, series, instance, sop_class in sorted(uids)
    ]


def _container(name: Code, items: Iterable[Any], **options: Any) -> Any:
    container = hd.sr.ContainerContentItem(
        name, **{"is_content_continuous": False, "relationship_type": _CONTAINS} | options
    )
    container.ContentSequence = list(items)
    return container


def _context(algorithm: Algorithm, slices: Sequence[KeySlice]) -> list[Any]:
    """Language (TID 1204), device observer (TID 1002, 1004) and the procedure of the images."""
    observer = hd.sr.DeviceObserverIdentifyingAttributes(
        algorithm.device_uid,
        name=plain_ascii(algorithm.name),
        manufacturer_name=plain_ascii(algorithm.manufacturer),
        model_name=plain_ascii(algorithm.model_name),
    )
    modifier = hd.sr.RelationshipTypeValues.HAS_CONCEPT_MOD
    procedure = code.PROCEDURES.get(slices[0].modality, code.IMAGING_PROCEDURE)
    return [
        *hd.sr.LanguageOfContentItemAndDescendants(code.ENGLISH),
        *hd.sr.ObserverContext(code.DEVICE, observer),
        hd.sr.CodeContentItem(code.PROCEDURE_REPORTED, procedure, relationship_type=modifier),
    ]


def _image_library(slices: Sequence[KeySlice], analysed: bool) -> Any:
    """TID 1600 with the shown slices only: with all slices a report takes 1.5 MB and viewers take many seconds.

    The head is what was `analysed`; of other images the region is what they say, and none where they do not.
    """
    entries = []
    for where in {(s.sop_instance_uid, s.frame_number): s for s in slices}.values():
        frame = where.frame
        entry = hd.sr.ImageContentItem(
            code.SOURCE, where.sop_class_uid, where.sop_instance_uid, where.frame_number, relationship_type=_CONTAINS
        )
        entry.ContentSequence = [
            *(
                hd.sr.CodeContentItem(name, value, _ACQUISITION)
                for name, value in (
                    (code.MODALITY, code.MODALITIES.get(where.modality)),
                    (code.TARGET_REGION, code.HEAD if analysed else code.BODY_PARTS.get(where.body_part)),
                )
                if value
            ),
            *(
                hd.sr.UIDRefContentItem(code.FRAME_OF_REFERENCE, uid, _ACQUISITION)
                for uid in (uid_of(frame.frame_of_reference_uid),)
                if uid
            ),
            *(
                _with_value(
                    hd.sr.NumContentItem(name, pixels, code.PIXELS, relationship_type=_ACQUISITION), str(pixels)
                )
                for name, pixels in ((code.PIXEL_ROWS, frame.rows), (code.PIXEL_COLUMNS, frame.columns))
            ),
        ]
        entries.append(entry)
    return _container(code.IMAGE_LIBRARY, [_container(code.IMAGE_LIBRARY_GROUP, entries)])


def _measurement_group(number: int, lesion: Lesion, where: KeySlice, document: Document, region: Region) -> Any:
    """TID 1410.  The diameter comes first: viewers label the region with the first measurement.

    It names the region as what it is inferred from (TID 320), which is where OHIF looks for it.  The comment is what
    OHIF lists a finding under, in the 60 characters that it has: who says it, side, place, diameter and probability.
    """
    site, algorithm, report_uid = code.SITES[lesion.location], document.algorithm, document.report_uid
    coordinates = _coordinates(lesion, where, region)
    if region is Region.POINT_3D:
        shape, inferred = hd.sr.ImageRegion3D, hd.sr.CoordinatesForMeasurement3D
    else:
        shape, inferred = hd.sr.ImageRegion, hd.sr.CoordinatesForMeasurement
    group = _container(
        code.MEASUREMENT_GROUP,
        [
            *hd.sr.TrackingIdentifier(
                derive_uid("tracking", report_uid, number), f"Aneurysm {number}: {lesion.location.value}"
            ),
            hd.sr.CodeContentItem(code.FINDING, code.ANEURYSM, _CONTAINS),
            hd.sr.FindingSite(site.anatomy, site.laterality, site.modifier),
            *hd.sr.AlgorithmIdentification(plain_ascii(algorithm.name), plain_ascii(algorithm.version)),
            shape(**coordinates),
            _measurement(
                code.DIAMETER, lesion.diameter_mm, code.MILLIMETRE, inferred(**coordinates, purpose=code.IMAGE_REGION)
            ),
            _measurement(code.PROBABILITY, percentage(lesion.probability), code.PERCENT),
            _comment(f"{algorithm.model_name}: {_described(code.short(lesion.location), lesion, where)}"),
        ],
        template_id="1410",
    )
    group.ObservationUID = derive_uid("observation", report_uid, number)
    return group


def _measurement(name: Code, value: float, unit: Code, *coordinates: Any) -> Any:
    [item] = hd.sr.Measurement(name, float(value), unit, referenced_coordinates=coordinates)
    return _with_value(item, f"{value:.1f}")


def _with_value(item: Any, number: str) -> Any:
    """The NUM item has `number` as its value, and no binary double beside it that would claim to be more exact."""
    [measured] = item.MeasuredValueSequence
    measured.NumericValue = number
    measured.pop("FloatingPointValue", None)
    return item


def _coordinates(lesion: Lesion, where: KeySlice, region: Region) -> dict[str, Any]:
    """What the content items of a region take.  2D points are (column, row), 0\\0 being the outer corner of the first pixel.

    PS3.3 C.18.6.1.2.
    """
    if region is Region.POINT_3D:
        if not uid_of(where.frame.frame_of_reference_uid):
            raise ValueError("a 3D point needs the images' FrameOfReferenceUID; use Region.CIRCLE_2D")
        return {
            "graphic_type": "POINT",
            "graphic_data": np.array([lesion.centre_lps_mm]),
            "frame_of_reference_uid": where.frame.frame_of_reference_uid,
        }
    rows, columns = (lesion.diameter_mm / 2.0 / spacing for spacing in where.frame.pixel_spacing_mm)
    centre, corners = np.array((where.column, where.row)), [(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)]
    frame_numbers = None if where.frame_number is None else [where.frame_number]
    return {
        "graphic_type": "POLYLINE" if region is Region.BOX_2D else "CIRCLE",
        "graphic_data": centre + np.multiply(corners if region is Region.BOX_2D else [(0, 0), (1, 0)], (columns, rows)),
        "source_image": hd.sr.SourceImageForRegion(where.sop_class_uid, where.sop_instance_uid, frame_numbers),
    }


def _described(name: str, lesion: Lesion, where: KeySlice) -> str:
    """A finding in one line; `name`: of its location."""
    measured = f"{name}, {lesion.diameter_mm:.1f} mm, {percent(lesion.probability)}"
    return f"{measured}, {where.name}" if where.name else measured


def _comment(text: str) -> Any:
    return hd.sr.TextContentItem(code.COMMENT, plain_ascii(text), _CONTAINS)


def _evaluations(
    outcome: Outcome, algorithm: Algorithm, slices: Sequence[KeySlice], images: int, is_whole: bool
) -> list[Any]:
    """The outcome in codes, then in words, with what was unusual; the disclaimer is always the last.

    Where not all that is of the kind could be analysed, nothing is called absent.
    """
    if isinstance(outcome, NotAnalysed):
        coded = [(code.PROCESSING_SUMMARY, code.NONE_SUCCEEDED)]
        detail = f" ({outcome.detail})" if outcome.detail else ""
        texts = [f"NOT ANALYSED: {outcome.reason.explained} [{outcome.reason.value}]{detail}"]
    else:
        coded = [(code.PROCESSING_SUMMARY, _SUMMARIES[is_whole, outcome.positive])]
        if outcome.positive or is_whole:
            coded.append((code.ANEURYSM, code.PRESENT if outcome.positive else code.ABSENT))
        texts = _words(outcome, slices)
    reads = "" if isinstance(outcome, NotAnalysed) else _READS
    texts.append(f"{counted(images, 'image')} given to {algorithm.name} {algorithm.version}{reads}.")
    texts += remarks(outcome)
    return [
        *(hd.sr.CodeContentItem(name, value, _CONTAINS) for name, value in coded),
        *map(_comment, [*texts, DISCLAIMER]),
    ]


_READS = ", which reads the region around the circle of Willis and not the whole head"


def _words(findings: Findings, slices: Sequence[KeySlice]) -> list[str]:
    threshold = "; ".join(f"{name} {100.0 * value:.1f} %" for name, value in operating_points(findings))
    if findings.positive:
        headline = f"Suspected intracranial aneurysm: {counted(len(findings.lesions), 'finding')}"
    else:
        headline = "No intracranial aneurysm was detected"
    headline += f"; {findings.limited}." if findings.limited else "."
    listed = [
        f"Aneurysm {number}: {_described(lesion.location.value, lesion, where)}"
        for number, (lesion, where) in enumerate(zip(findings.lesions, slices, strict=True), start=1)
    ]
    listed += ["Diameters are those of spheres of equal volume."] if findings.positive else []
    table = "\r\n".join(f"{column}: {percent(p)}" for column, p in zip(COLUMNS, findings.probabilities, strict=True))
    return [f"{headline} Probability of aneurysm presence {percent(findings.present)} ({threshold}).", *listed, table]
