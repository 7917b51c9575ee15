"""The findings' masks become a DICOM Segmentation over the source images: pure, and always the same bytes.

One segment a finding, in the planes and pixels of the source series.  A pixel belongs to it when its centre lies in one
of the mask's cells, which are coarser than the pixels: no outline is drawn that the model did not see.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import CTImageStorage

from ai.findings import Findings, Lesion
from ai.frames import Frame, frames, text_of
from ai.lesion_mask import LesionMask
from node.results import codes as code
from node.results.document import Document, bare_instance, complete, reference
from node.results.identity import derive_uid, say_whether_lossy, uid_of

SERIES_DESCRIPTION = "Willis lesion masks, research use, not verified"
CYAN = hd.color.CIELabColor.from_dicom_value((52372, 17476, 27242))
"""As the summary's circles."""

_Painted = dict[int, NDArray[np.bool_]]
"""The pixels of one segment, rows × columns, by the number of the plane."""


@dataclass(frozen=True)
class _Plane:
    """A source frame, and how far along the normal of the series it lies."""

    ds: Dataset
    frame: Frame
    along_mm: float


def build_segmentation(document: Document, findings: Findings) -> Dataset:
    """The masks as a dataset with file meta information; `node.results.document.encode` makes the bytes.

    The segments have the tracking identifiers of the report.  Nothing else names the report: OHIF looks for images in
    every series that a segmentation names.  Raises ValueError when a lesion has no mask, or when the images state no
    frame of reference or geometry.
    """
    if not findings.lesions:
        raise ValueError("no lesion, no segment")
    planes = _planes(document.sources)
    if unmasked := [lesion.location.value for lesion in findings.lesions if lesion.mask is None]:
        raise ValueError(f"the lesion at {unmasked[0]} has no mask")
    segments = [_paint(lesion.mask, planes) for lesion in findings.lesions if lesion.mask]
    shown = sorted({number for painted in segments for number in painted})
    ds: Dataset = hd.seg.Segmentation(
        source_images=_stand_ins(planes, shown),
        pixel_array=_stacked(segments, shown),
        segmentation_type="BINARY",
        segment_descriptions=[_segment(n, lesion, document) for n, lesion in enumerate(findings.lesions, start=1)],
        device_serial_number=document.algorithm.device_uid.rpartition(".")[2],
        content_label="ANEURYSM",
        content_description="Cells of the lesion map, automatic, not verified",
        **document.named(SERIES_DESCRIPTION),
    )
    complete(ds, document)
    say_whether_lossy(ds, document.sources)
    _always_alike(ds, derive_uid("dimensions", document.sop_instance_uid))
    _name_images(ds, planes)
    ds.ContentCreatorName = None
    return ds


def _planes(sources: Sequence[Dataset]) -> list[_Plane]:
    """Every source frame, ordered along the normal of the first; of copies at one place one.  Raises ValueError.

    A frame without a place in an image of several belongs to another acquisition (`node.analysis.examination`).  Copies
    are slices that came under two UIDs: of them too the volume has one, with the same pixels (`ai.volume`).
    """
    known = [(ds, frame) for ds in sources for frame in frames(ds) if frame.has_geometry or not frame.multi_frame]
    if not known:
        raise ValueError("no frame of the source images has a geometry")
    first = known[0][1]
    alike = (first.rows, first.columns, first.frame_of_reference_uid)
    if any(not f.has_geometry or (f.rows, f.columns, f.frame_of_reference_uid) != alike for _, f in known):
        raise ValueError("the source images differ in matrix or frame of reference, or lack geometry")
    if not uid_of(first.frame_of_reference_uid):
        raise ValueError("a segmentation needs the images' FrameOfReferenceUID")
    normal = np.cross(first.orientation[:3], first.orientation[3:])
    once = {tuple(_decimals(frame.position_mm)): (ds, frame) for ds, frame in reversed(known)}
    placed = [_Plane(ds, frame, float(normal @ np.asarray(frame.position_mm))) for ds, frame in once.values()]
    return sorted(placed, key=lambda plane: (plane.along_mm, plane.frame.sop_instance_uid, plane.frame.number))


def _paint(mask: LesionMask, planes: Sequence[_Plane]) -> _Painted:
    """What the mask covers.  Where slices are so thick that it lies between two: the nearest, seen along the normal."""
    orientation = np.asarray(planes[0].frame.orientation).reshape(2, 3)
    apart_mm = np.array([plane.along_mm for plane in planes]) - np.cross(*orientation) @ mask.centre_lps_mm
    near = np.flatnonzero(np.abs(apart_mm) <= mask.radius_mm)
    met = {n: pixels for n in near.tolist() if (pixels := _pixels_in(mask, planes[n], 0.0)).any()}
    if not met:
        nearest = int(np.abs(apart_mm).argmin())
        met = {nearest: _pixels_in(mask, planes[nearest], -float(apart_mm[nearest]))}
        if not met[nearest].any():
            raise ValueError("the lesion's mask meets no pixel of the source images")
    return met


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
    down = rows[:, None, None] * between_rows * along_rows
    points = origin + down + columns[None, :, None] * between_columns * along_columns
    pixels = np.zeros((frame.rows, frame.columns), np.bool_)
    pixels[np.ix_(rows, columns)] = mask.contains(points)
    return pixels


def _within(middle: float, reach: float, size: int) -> tuple[int, int]:
    """The first index within reach of `middle` and the one after the last, on a line of `size` pixels."""
    low, high = np.clip((np.floor(middle - reach), np.ceil(middle + reach) + 1.0), 0, size)
    return int(low), int(high)


def _segment(number: int, lesion: Lesion, document: Document) -> Dataset:
    site, algorithm = code.SITES[lesion.location], document.algorithm
    label = f"Aneurysm {number}: {lesion.location.value}"
    anatomy = hd.sr.CodedConcept.from_code(site.anatomy)
    if modifiers := [hd.sr.CodedConcept.from_code(each) for each in (site.laterality, site.modifier) if each]:
        anatomy.AnatomicRegionModifierSequence = modifiers
    ds: Dataset = hd.seg.SegmentDescription(
        number,
        label,
        code.ABNORMAL_STRUCTURE,
        code.ANEURYSM,
        "AUTOMATIC",
        hd.AlgorithmIdentificationSequence(algorithm.name, code.ARTIFICIAL_INTELLIGENCE, algorithm.version),
        tracking_uid=derive_uid("tracking", document.report_uid, number),
        tracking_id=label,
        anatomic_regions=[anatomy],
        display_color=CYAN,
    )
    ds.SegmentAlgorithmName = f"{algorithm.name} {algorithm.version}"[:64]
    return ds


def _stand_ins(planes: Sequence[_Plane], shown: Sequence[int]) -> list[Dataset]:
    """The planes as highdicom takes them, frames of multi-frame images too: CT images with nothing but their geometry."""
    apart_mm = np.diff([plane.along_mm for plane in planes])
    first = planes[0].frame
    study, series = (text_of(planes[0].ds, keyword) for keyword in ("StudyInstanceUID", "SeriesInstanceUID"))
    images = []
    for number in shown:
        ds = bare_instance(study, series, CTImageStorage, f"2.25.{number}")
        ds.Rows, ds.Columns, ds.FrameOfReferenceUID = first.rows, first.columns, first.frame_of_reference_uid
        ds.ImagePositionPatient = _decimals(planes[number].frame.position_mm)
        ds.ImageOrientationPatient, ds.PixelSpacing = _decimals(first.orientation), _decimals(first.pixel_spacing_mm)
        [ds.SpacingBetweenSlices] = [ds.SliceThickness] = _decimals([np.median(apart_mm) if len(apart_mm) else 1.0])
        images.append(ds)
    return images


def _stacked(segments: Sequence[_Painted], shown: Sequence[int]) -> NDArray[np.uint8] | NDArray[np.bool_]:
    """Planes × rows × columns with the segment's number; × segments, much larger, where one lies over another."""
    shape = len(shown), *next(iter(segments[0].values())).shape
    labels = np.zeros(shape, np.uint8)
    for segment, painted in enumerate(segments, start=1):
        for number, pixels in painted.items():
            plane = labels[shown.index(number)]
            if plane[pixels].any():
                nothing = np.zeros(shape[1:], np.bool_)
                return np.stack([[each.get(n, nothing) for n in shown] for each in segments], axis=-1)
            plane[pixels] = segment
    return labels


def _always_alike(ds: Dataset, dimensions_uid: str) -> None:
    """No UID in `ds` is random; and whether there is one segment or more, each frame says whose it is."""
    for item in (*ds.DimensionOrganizationSequence, *ds.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimensions_uid
    for keyword in ("SourceImageSequence", "SegmentsOverlap", "PresentationLUTShape", "DimensionOrganizationType"):
        ds.pop(keyword, None)
    bits = ds.NumberOfFrames * ds.Rows * ds.Columns
    ds["PixelData"].value = ds.PixelData[: (bits + 7) // 8]  # highdicom pads to even length with the character "0"
    [shared] = ds.SharedFunctionalGroupsSequence
    if identification := shared.pop("SegmentIdentificationSequence", None):
        for frame in ds.PerFrameFunctionalGroupsSequence:
            frame.SegmentIdentificationSequence = identification.value


def _name_images(ds: Dataset, planes: Sequence[_Plane]) -> None:
    """In place of the stand-ins the images are named: by each frame that on which it lies, and every one once by series."""
    at, classes = {tuple(_decimals(plane.frame.position_mm)): plane for plane in planes}, {}
    for frame in ds.PerFrameFunctionalGroupsSequence:
        [source] = frame.DerivationImageSequence[0].SourceImageSequence
        plane = at[tuple(map(str, frame.PlanePositionSequence[0].ImagePositionPatient))]
        source.ReferencedSOPClassUID = text_of(plane.ds, "SOPClassUID")
        source.ReferencedSOPInstanceUID = plane.frame.sop_instance_uid
        if plane.frame.multi_frame:
            source.ReferencedFrameNumber = plane.frame.number
        classes[plane.frame.sop_instance_uid] = source.ReferencedSOPClassUID
    [series] = ds.ReferencedSeriesSequence
    series.ReferencedInstanceSequence = Items([reference(classes[uid], uid) for uid in sorted(classes)])


def _decimals(values: Sequence[float]) -> list[str]:
    """Decimal Strings of at most 16 characters."""
    return [next(text for digits in range(15, 0, -1) if len(text := f"{value:.{digits}g}") <= 16) for value in values]
