"""The findings' masks become a DICOM Segmentation over the source images: pure, and always the same bytes.

One segment a finding, in the planes and pixels of the source series.  A pixel belongs to it when its centre lies in one
of the mask's cells, which are coarser than the pixels: no outline is drawn that the model did not see.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, SegmentationStorage

from ai.findings import Findings, Lesion
from ai.frames import Frame, frames, text_of
from ai.lesion_mask import LesionMask
from node.results import codes as code
from node.results.document import Algorithm, local, result_file_meta, series_and_equipment, sources_of
from node.results.identity import derive_uid, patient_and_study, say_whether_lossy
from node.results.sr_items import coded, instance_reference, with_purpose

SERIES_DESCRIPTION = "Willis lesion masks, research use, not verified"
CYAN_CIELAB = (52372, 17476, 27242)
"""As the summary's circles, in the encoding of PS3.3 C.10.7.1.1."""


@dataclass(frozen=True)
class _Plane:
    """A source frame, and how far along the normal of the series it lies."""

    ds: Dataset
    frame: Frame
    along_mm: float


@dataclass(frozen=True)
class _Painted:
    """The pixels of one segment on one plane."""

    segment: int
    plane: _Plane
    pixels: NDArray[np.bool_]


def build_segmentation(
    headers: Sequence[Dataset],
    findings: Findings,
    *,
    segmentation_uid: str,
    series_uid: str,
    series_number: int,
    report_uid: str,
    created: datetime,
    algorithm: Algorithm,
    instance_number: int = 1,
) -> Dataset:
    """The masks as a dataset with file meta information; `node.results.document.encode` makes the bytes.

    `headers`, `created` and `findings` are those of the report `report_uid`, whose tracking identifiers the segments
    have.  Nothing else names the report: OHIF looks for images in every series that a segmentation names.  Raises
    ValueError when `created` is naive, `missing_identity` names something, a lesion has no mask, or the images state no
    frame of reference or geometry.
    """
    sources = sources_of(headers, created)
    planes = _planes(sources)
    painted = [
        each
        for number, lesion in enumerate(findings.lesions, start=1)
        for each in _paint(number, _mask_of(lesion), planes)
    ]
    if not painted:
        raise ValueError("no lesion, no segment")

    ds = patient_and_study(sources[0])
    ds.file_meta = result_file_meta(SegmentationStorage, segmentation_uid)
    at = local(created, ds)
    series_and_equipment(ds, "SEG", SERIES_DESCRIPTION, series_uid, series_number, at, algorithm)
    ds.DeviceSerialNumber = algorithm.device_uid.rpartition(".")[2]
    ds.SOPClassUID, ds.SOPInstanceUID = SegmentationStorage, UID(segmentation_uid)
    ds.InstanceNumber = instance_number
    ds.FrameOfReferenceUID = planes[0].frame.frame_of_reference_uid
    ds.PositionReferenceIndicator = None
    ds.ImageType = ["DERIVED", "PRIMARY"]
    ds.ContentLabel, ds.ContentDescription = "ANEURYSM", "Cells of the lesion map, automatic, not verified"
    ds.ContentCreatorName = None
    ds.SegmentationType = "BINARY"
    ds.SegmentSequence = Items(
        [_segment(number, lesion, algorithm, report_uid) for number, lesion in enumerate(findings.lesions, start=1)]
    )
    _dimensions(ds, segmentation_uid)
    _functional_groups(ds, planes, painted)
    _referenced_series(ds, painted)
    say_whether_lossy(ds, sources)
    _pixels(ds, painted)
    return ds


def _mask_of(lesion: Lesion) -> LesionMask:
    if lesion.mask is None:
        raise ValueError(f"the lesion at {lesion.location.value} has no mask")
    return lesion.mask


def _planes(sources: Sequence[Dataset]) -> list[_Plane]:
    """Every source frame, ordered along the normal of the first.  Raises ValueError."""
    known = [(ds, frame) for ds in sources for frame in frames(ds)]
    first = known[0][1]
    alike = (first.rows, first.columns, first.frame_of_reference_uid)
    if any(not f.has_geometry or (f.rows, f.columns, f.frame_of_reference_uid) != alike for _, f in known):
        raise ValueError("the source images differ in matrix or frame of reference, or lack geometry")
    if not first.frame_of_reference_uid:
        raise ValueError("a segmentation needs the images' FrameOfReferenceUID")
    normal = np.cross(first.orientation[:3], first.orientation[3:])
    placed = [_Plane(ds, frame, float(normal @ np.asarray(frame.position_mm))) for ds, frame in known]
    return sorted(placed, key=lambda plane: (plane.along_mm, plane.frame.sop_instance_uid, plane.frame.number))


def _paint(segment: int, mask: LesionMask, planes: Sequence[_Plane]) -> Iterator[_Painted]:
    """The planes that the mask meets.  Where slices are so thick that it lies between two: the nearest, seen along the normal."""
    orientation = np.asarray(planes[0].frame.orientation).reshape(2, 3)
    centre = float(np.cross(*orientation) @ mask.centre_lps_mm)
    near = [plane for plane in planes if abs(plane.along_mm - centre) <= mask.radius_mm]
    met = [(plane, pixels) for plane in near if (pixels := _pixels_in(mask, plane, 0.0)).any()]
    if not met:
        plane = min(planes, key=lambda plane: abs(plane.along_mm - centre))
        met = [(plane, _pixels_in(mask, plane, centre - plane.along_mm))]
    if not met[0][1].any():
        raise ValueError("the lesion's mask meets no pixel of the source images")
    yield from (_Painted(segment, plane, pixels) for plane, pixels in met)


def _pixels_in(mask: LesionMask, plane: _Plane, shift_mm: float) -> NDArray[np.bool_]:
    """Rows × columns: whether the pixel's centre, moved along the normal by `shift_mm`, lies in the mask."""
    frame = plane.frame
    along_columns, along_rows = np.asarray(frame.orientation).reshape(2, 3)
    between_rows, between_columns = frame.pixel_spacing_mm
    origin = np.asarray(frame.position_mm) + shift_mm * np.cross(along_columns, along_rows)
    offset = mask.centre_lps_mm - origin
    row, column = offset @ along_rows / between_rows, offset @ along_columns / between_columns
    rows = np.arange(*_within(row, mask.radius_mm / between_rows, frame.rows))
    columns = np.arange(*_within(column, mask.radius_mm / between_columns, frame.columns))
    points = (
        origin
        + rows[:, None, None] * between_rows * along_rows
        + columns[None, :, None] * between_columns * along_columns
    )
    pixels = np.zeros((frame.rows, frame.columns), np.bool_)
    pixels[np.ix_(rows, columns)] = mask.contains(points)
    return pixels


def _within(middle: float, reach: float, size: int) -> tuple[int, int]:
    """The first index within reach of `middle` and the one after the last, on a line of `size` pixels."""
    low, high = np.clip((np.floor(middle - reach), np.ceil(middle + reach) + 1.0), 0, size)
    return int(low), int(high)


def _segment(number: int, lesion: Lesion, algorithm: Algorithm, report_uid: str) -> Dataset:
    site = code.SITES[lesion.location]
    ds = Dataset()
    ds.SegmentNumber = number
    ds.SegmentLabel = f"Aneurysm {number}: {lesion.location.value}"
    ds.SegmentAlgorithmType, ds.SegmentAlgorithmName = "AUTOMATIC", f"{algorithm.name} {algorithm.version}"[:64]
    ds.SegmentedPropertyCategoryCodeSequence = Items([coded(code.ABNORMAL_STRUCTURE)])
    ds.SegmentedPropertyTypeCodeSequence = Items([coded(code.ANEURYSM)])
    anatomy = coded(site.anatomy)
    if modifiers := [each for each in (site.laterality, site.modifier) if each is not None]:
        anatomy.AnatomicRegionModifierSequence = Items([coded(each) for each in modifiers])
    ds.AnatomicRegionSequence = Items([anatomy])
    ds.RecommendedDisplayCIELabValue = list(CYAN_CIELAB)
    ds.TrackingID, ds.TrackingUID = ds.SegmentLabel, derive_uid("tracking", report_uid, number)
    identification = Dataset()
    identification.AlgorithmFamilyCodeSequence = Items([coded(code.ARTIFICIAL_INTELLIGENCE)])
    identification.AlgorithmName, identification.AlgorithmVersion = algorithm.name, algorithm.version
    ds.SegmentationAlgorithmIdentificationSequence = Items([identification])
    return ds


def _dimensions(ds: Dataset, segmentation_uid: str) -> None:
    """Frames are ordered by segment, then by position (PS3.3 C.7.6.17)."""
    organization = Dataset()
    organization.DimensionOrganizationUID = derive_uid("dimensions", segmentation_uid)
    ds.DimensionOrganizationSequence = Items([organization])
    indices = []
    for pointer, group in (
        ("ReferencedSegmentNumber", "SegmentIdentificationSequence"),
        ("ImagePositionPatient", "PlanePositionSequence"),
    ):
        index = Dataset()
        index.DimensionOrganizationUID = organization.DimensionOrganizationUID
        index.DimensionIndexPointer, index.FunctionalGroupPointer = _tag(pointer), _tag(group)
        index.DimensionDescriptionLabel = pointer
        indices.append(index)
    ds.DimensionIndexSequence = Items(indices)


def _functional_groups(ds: Dataset, planes: Sequence[_Plane], painted: Sequence[_Painted]) -> None:
    first = planes[0].frame
    measures, orientation, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [_decimal(value) for value in first.pixel_spacing_mm]
    apart_mm = np.diff([plane.along_mm for plane in planes])
    between_mm = _decimal(float(np.median(apart_mm)) if len(apart_mm) else 1.0)
    measures.SliceThickness = measures.SpacingBetweenSlices = between_mm
    orientation.ImageOrientationPatient = [_decimal(value) for value in first.orientation]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = Items([measures]), Items([orientation])
    ds.SharedFunctionalGroupsSequence = Items([shared])
    places = {along: n for n, along in enumerate(sorted({each.plane.along_mm for each in painted}), start=1)}
    ds.PerFrameFunctionalGroupsSequence = Items([_frame(each, places[each.plane.along_mm]) for each in painted])
    ds.NumberOfFrames = len(painted)


def _frame(painted: _Painted, place: int) -> Dataset:
    frame, source = painted.plane.frame, painted.plane.ds
    content, position, segment, derivation, ds = (Dataset() for _ in range(5))
    content.DimensionIndexValues = [painted.segment, place]
    position.ImagePositionPatient = [_decimal(value) for value in frame.position_mm]
    segment.ReferencedSegmentNumber = painted.segment
    number = frame.number if frame.multi_frame else None
    reference = instance_reference(text_of(source, "SOPClassUID"), frame.sop_instance_uid, number)
    reference.SpatialLocationsPreserved = "YES"
    derivation.SourceImageSequence = Items([with_purpose(reference, code.PROCESSED_IMAGE)])
    derivation.DerivationCodeSequence = Items([coded(code.SEGMENTATION)])
    ds.FrameContentSequence, ds.PlanePositionSequence = Items([content]), Items([position])
    ds.SegmentIdentificationSequence, ds.DerivationImageSequence = Items([segment]), Items([derivation])
    return ds


def _referenced_series(ds: Dataset, painted: Sequence[_Painted]) -> None:
    """Common Instance Reference (PS3.3 C.12.2): every source image that a frame names, by series."""
    named = {(text_of(each.plane.ds, "SeriesInstanceUID"), each.plane.frame.sop_instance_uid): each for each in painted}
    ds.ReferencedSeriesSequence = Items()
    for series, members in itertools.groupby(sorted(named), key=lambda key: key[0]):
        images = [instance_reference(text_of(named[key].plane.ds, "SOPClassUID"), key[1]) for key in members]
        item = Dataset()
        item.SeriesInstanceUID, item.ReferencedInstanceSequence = series, Items(images)
        ds.ReferencedSeriesSequence.append(item)


def _pixels(ds: Dataset, painted: Sequence[_Painted]) -> None:
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = painted[0].pixels.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 1, 1, 0, 0
    bits = np.packbits(np.concatenate([each.pixels.ravel() for each in painted]), bitorder="little").tobytes()
    ds.add_new("PixelData", "OB", bits + b"\0" * (len(bits) % 2))


def _decimal(value: float) -> str:
    """A Decimal String of at most 16 characters."""
    return next(text for digits in range(15, 0, -1) if len(text := f"{value:.{digits}g}") <= 16)


def _tag(keyword: str) -> int:
    number = tag_for_keyword(keyword)
    assert number is not None
    return number
