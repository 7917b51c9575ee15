"""The Segmentation of the findings' masks: where the mask lies in the patient, on whatever images, and whose it is."""

import copy
import itertools
from dataclasses import replace
from io import BytesIO
from typing import Any

import highdicom
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.uid import JPEG2000, UID, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSLossless, JPEGLSNearLossless

from ai.findings import Findings
from ai.lesion_mask import LesionMask
from node.results.document import encode
from node.results.segmentation import build_segmentation
from tests.support.dicom_factory import LOSSY, change, ct_series, enhanced_ct, headers_of
from tests.support.made_up_head import affine
from tests.support.reports import (
    ALGORITHM,
    BASILAR,
    CREATED,
    NEGATIVE,
    RIGHT_MCA,
    document,
    named,
    positive,
    received,
    report,
)
from tests.support.segments import painted_lps_mm

CELL_MM = 1.4
TILTED = (1.0, 0.0, 0.0, 0.0, 0.94, 0.342)
OBLIQUE = (0.8, 0.6, 0.0, -0.6, 0.8, 0.0)


def a_series(count: int = 24, **changes: Any) -> list[Dataset]:
    """24 slices of 48 × 52 pixels of 0.6 × 0.5 mm."""
    arguments: dict[str, Any] = {"rows": 48, "columns": 52, "pixel_spacing_mm": (0.6, 0.5), "spacing_mm": 0.8}
    return ct_series(count, **arguments | changes)


def a_mask(series: list[Dataset], size: int = 3, at: float = 0.5) -> LesionMask:
    """A cube of `size` cells around a point inside the series: `at` of the way along each of its axes."""
    ends = [np.asarray(ds.ImagePositionPatient, float) for ds in (series[0], series[-1])]
    across = np.asarray(series[0].ImageOrientationPatient, float).reshape(2, 3).T @ [51 * 0.5 * at, 47 * 0.6 * at]
    corner = ends[0] + at * (ends[1] - ends[0]) + across - CELL_MM * (size - 1) / 2
    x, y, z = (float(value) for value in corner)
    return LesionMask(np.ones((size, size, size), np.bool_), affine((CELL_MM, CELL_MM, CELL_MM), (x, y, z)))


def built(headers: list[Dataset], findings: Findings, **changes: Any) -> bytes:
    return encode(build_segmentation(document(headers, "segmentation", **changes), findings))


def segmentation(series: list[Dataset], *masks: LesionMask, **changes: Any) -> highdicom.seg.Segmentation:
    """The object as highdicom reads it: one segment for each mask."""
    lesions = [replace(lesion, mask=mask) for lesion, mask in zip((RIGHT_MCA, BASILAR), masks, strict=False)]
    return highdicom.seg.segread(BytesIO(built(headers_of(series), positive(*lesions), **changes)))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"step_mm": (0.0, 0.0, -0.8)},
        {"orientation": (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0)},
        {"orientation": OBLIQUE},
        {"orientation": TILTED},
        {"orientation": TILTED, "step_mm": (0.0, 0.0, 0.8)},
    ],
    ids=["axial", "head first", "turned", "oblique", "tilted", "sheared"],
)
def test_a_mask_at_a_place_in_the_patient_comes_back_there(changes: dict[str, Any]) -> None:
    series = a_series(**changes)
    mask = a_mask(series, size=7)
    seg = segmentation(series[::-1], mask)
    points = painted_lps_mm(seg)
    assert mask.contains(points).all()
    assert np.allclose(points.mean(axis=0), mask.centre_lps_mm, atol=0.4)
    normal = np.cross(*np.asarray(series[0].ImageOrientationPatient, float).reshape(2, 3))
    voxel_mm3 = 0.5 * 0.6 * abs(normal @ (np.subtract(series[1].ImagePositionPatient, series[0].ImagePositionPatient)))
    assert len(points) * voxel_mm3 == pytest.approx((7 * CELL_MM) ** 3, rel=0.15)


def test_every_pixel_of_the_images_in_the_mask_is_painted_and_no_other() -> None:
    series = a_series()
    mask = a_mask(series, at=0.4)
    seg = segmentation(series, mask)
    painted = {
        tuple(frame.PlanePositionSequence[0].ImagePositionPatient): pixels.astype(bool)
        for pixels, frame in zip(seg.pixel_array, seg.PerFrameFunctionalGroupsSequence, strict=True)
    }
    for ds in series:
        x, y, z = (float(value) for value in ds.ImagePositionPatient)
        grid = np.array([[(x + c * 0.5, y + r * 0.6, z) for c in range(52)] for r in range(48)])
        expected = mask.contains(grid)
        assert (painted.pop((x, y, z), np.zeros((48, 52), bool)) == expected).all()
    assert painted == {}


def test_each_frame_names_the_image_that_it_lies_on() -> None:
    series = a_series()
    seg = segmentation(series, a_mask(series, at=0.4), a_mask(series, at=0.6))
    at = {tuple(ds.ImagePositionPatient): ds.SOPInstanceUID for ds in series}
    named_images = set()
    for frame in seg.PerFrameFunctionalGroupsSequence:
        [source] = frame.DerivationImageSequence[0].SourceImageSequence
        assert source.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
        assert source.ReferencedSOPInstanceUID == at[tuple(frame.PlanePositionSequence[0].ImagePositionPatient)]
        named_images.add(source.ReferencedSOPInstanceUID)
    [of_series] = seg.ReferencedSeriesSequence
    assert of_series.SeriesInstanceUID == series[0].SeriesInstanceUID
    assert {each.ReferencedSOPInstanceUID for each in of_series.ReferencedInstanceSequence} == named_images
    indices = [tuple(f.FrameContentSequence[0].DimensionIndexValues) for f in seg.PerFrameFunctionalGroupsSequence]
    assert indices == sorted(set(indices))


def test_a_frame_of_a_multi_frame_image_is_named_by_its_number() -> None:
    series = a_series()
    seg = segmentation([enhanced_ct(series[::-1])], a_mask(series))
    for frame in seg.PerFrameFunctionalGroupsSequence:
        [source] = frame.DerivationImageSequence[0].SourceImageSequence
        position = series[24 - source.ReferencedFrameNumber].ImagePositionPatient
        assert list(frame.PlanePositionSequence[0].ImagePositionPatient) == list(position)
    assert [len(item.ReferencedInstanceSequence) for item in seg.ReferencedSeriesSequence] == [1]


def test_frames_of_another_acquisition_of_the_image_are_left_out() -> None:
    series = a_series()
    both = enhanced_ct([*series, *a_series(origin_mm=(-20.0, -30.0, 100.4))])
    without = Dataset()
    both.PerFrameFunctionalGroupsSequence[24:] = [without] * 24
    mine, alone = segmentation([both], a_mask(series)), segmentation([enhanced_ct(series)], a_mask(series))
    assert mine.PixelData == alone.PixelData
    numbers = [
        frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        for frame in mine.PerFrameFunctionalGroupsSequence
    ]
    assert max(numbers) <= 24
    both.PerFrameFunctionalGroupsSequence[:24] = [without] * 24
    with pytest.raises(ValueError, match="no frame"):
        segmentation([both], a_mask(series))


def test_of_slices_that_came_twice_the_mask_lies_on_one() -> None:
    series = a_series()
    copies = [change(copy.deepcopy(ds), SOPInstanceUID=f"{ds.SOPInstanceUID}.9") for ds in series[10:14]]
    mine, alone = segmentation([*copies, *series], a_mask(series)), segmentation(series, a_mask(series))
    assert mine.PixelData == alone.PixelData
    assert mine.PerFrameFunctionalGroupsSequence == alone.PerFrameFunctionalGroupsSequence


def test_nothing_but_source_images_is_named_as_an_instance() -> None:
    series = a_series()
    seg = segmentation(series, a_mask(series))
    named_uids = {each.value for each in seg.iterall() if each.keyword == "ReferencedSOPInstanceUID"}
    assert named_uids and named_uids <= {ds.SOPInstanceUID for ds in series}


def test_segments_are_the_reports_findings_under_its_tracking_identifiers() -> None:
    series = a_series()
    masks = a_mask(series, at=0.4), a_mask(series, at=0.6)
    seg = segmentation(series, *masks)
    ds = report(headers_of(series), positive(RIGHT_MCA, BASILAR))
    groups = list(zip(named(ds, "112039"), named(ds, "112040"), strict=True))
    assert [(s.TrackingID, s.TrackingUID) for s in seg.SegmentSequence] == [(a.TextValue, b.UID) for a, b in groups]
    assert [s.SegmentLabel for s in seg.SegmentSequence] == [s.TrackingID for s in seg.SegmentSequence]
    assert seg.ContributingEquipmentSequence[0].DeviceUID == ALGORITHM.device_uid
    for number, mask in enumerate(masks, start=1):
        assert mask.contains(painted_lps_mm(seg, number)).all()


def test_a_mask_between_two_thick_slices_is_seen_on_the_nearest() -> None:
    series = a_series(6, spacing_mm=5.0)
    mask = a_mask(series, size=1, at=0.5)
    seg = segmentation(series, mask)
    assert seg.NumberOfFrames == 1
    assert np.allclose(painted_lps_mm(seg).mean(axis=0)[:2], mask.centre_lps_mm[:2], atol=0.4)


def test_the_same_findings_give_the_same_bytes_in_whatever_order_the_images_came() -> None:
    series = a_series()
    findings = positive(replace(RIGHT_MCA, mask=a_mask(series)))
    assert built(headers_of(series), findings) == built(headers_of(series[::-1]), findings)


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        (b"ISO_IR 100", b"M\xfcller^J\xf6rg"),
        (b"ISO_IR 192", "Łukasz^Ωμέγα".encode()),
        (b"\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"),
    ],
)
def test_names_and_issuers_in_any_character_set_are_copied_byte_for_byte(character_set: bytes, name: bytes) -> None:
    series = a_series()
    headers = [received(ds, character_set, PatientName=name, IssuerOfPatientID=b"HOSPITAL A") for ds in series]
    ds = dcmread(BytesIO(built(headers, positive(replace(RIGHT_MCA, mask=a_mask(series))))))
    for keyword, expected in (("PatientName", name), ("IssuerOfPatientID", b"HOSPITAL A")):
        element = ds.get_item(keyword)
        assert isinstance(element, RawDataElement) and element.value is not None
        assert element.value.rstrip() == expected


def test_masks_over_images_of_which_one_was_compressed_with_loss_say_so() -> None:
    series = a_series()
    assert segmentation(series, a_mask(series)).LossyImageCompression == "00"
    change(series[5], **LOSSY)
    seg = segmentation(series, a_mask(series))
    assert {keyword: seg[keyword].value for keyword in LOSSY} == LOSSY


@pytest.mark.parametrize(
    ("syntax", "method"),
    [
        (JPEGBaseline8Bit, "ISO_10918_1"),
        (JPEGExtended12Bit, "ISO_10918_1"),
        (JPEGLSNearLossless, "ISO_14495_1"),
        (JPEGLSLossless, None),
        (JPEG2000, None),
    ],
)
def test_images_in_a_transfer_syntax_that_loses_are_lossy_whether_they_say_so_or_not(
    syntax: str, method: str | None
) -> None:
    series = a_series()
    series[5].file_meta.TransferSyntaxUID = UID(syntax)
    seg = segmentation(series, a_mask(series))
    assert (seg.LossyImageCompression, seg.get("LossyImageCompressionMethod")) == ("01" if method else "00", method)
    change(series[5], **LOSSY)
    seg = segmentation(series, a_mask(series))
    assert {keyword: seg[keyword].value for keyword in LOSSY} == LOSSY


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ({"FrameOfReferenceUID": None}, "FrameOfReferenceUID"),
        ({"ImagePositionPatient": None}, "geometry"),
        ({"StudyInstanceUID": ""}, "lack StudyInstanceUID"),
    ],
)
def test_images_that_no_mask_can_be_laid_over_are_an_error(broken: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        segmentation(a_series(**broken), a_mask(a_series()))


def test_findings_without_masks_or_far_from_the_images_are_an_error() -> None:
    series = a_series()
    far = LesionMask(np.ones((2, 2, 2), np.bool_), affine((CELL_MM,) * 3, (900.0, 900.0, 900.0)))
    outcomes = itertools.product((positive(RIGHT_MCA), NEGATIVE, positive(replace(RIGHT_MCA, mask=far))), (CREATED,))
    for outcome, created in (*outcomes, (NEGATIVE, CREATED.replace(tzinfo=None))):
        with pytest.raises(ValueError, match=r"no mask|no segment|no pixel|timezone-aware"):
            built(headers_of(series), outcome, created=created)
    with pytest.raises(ValueError, match="needs a cell"):
        LesionMask(np.zeros((2, 2, 2), np.bool_), np.eye(4))
