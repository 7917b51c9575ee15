"""Headers that make one even stack, and headers that do not: each with its reason and a number to act on."""

from typing import Any

import numpy as np
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from ai.errors import Reason
from ai.stack import stack_geometry
from ai.volume import volume_from_datasets
from tests.support.dicom_factory import AXIAL, change, ct_series, normal_of, rotated, shuffled
from tests.support.refusal import refusal


@pytest.mark.parametrize(
    ("keyword", "value", "what"),
    [
        ("ImagePositionPatient", None, "position"),
        ("ImagePositionPatient", [1.0, 2.0], "position"),
        ("ImagePositionPatient", [1.0, 2.0, float("nan")], "position"),
        ("ImageOrientationPatient", None, "orientation"),
        ("PixelSpacing", None, "pixel spacing"),
        ("PixelSpacing", [0.0, 0.4], "pixel spacing"),
        ("PixelSpacing", [1e-200, 1e-200], "pixel spacing"),
        ("PixelSpacing", 0.5, "pixel spacing"),
    ],
)
def test_missing_geometry_says_how_many_slices_lack_what(keyword: str, value: Any, what: str) -> None:
    series = ct_series(5)
    change(series[2], **{keyword: value})
    caught = refusal(series)
    assert (caught.reason, caught.detail) == (Reason.MISSING_GEOMETRY, f"1 of 5 slices without {what}")


def test_a_garbled_number_counts_as_missing() -> None:
    series = ct_series(3)
    tag = Tag("ImagePositionPatient")
    series[0][tag] = RawDataElement(tag, "DS", 6, b"a\\b\\c ", 0, False, True)
    assert refusal(series).reason is Reason.MISSING_GEOMETRY


@pytest.mark.parametrize("orientation", [[0.0] * 6, [1, 0, 0, 1, 0, 0], [2, 0, 0, 0, 1, 0]])
def test_an_orientation_that_is_none_is_refused(orientation: list[float]) -> None:
    series = ct_series(3)
    series[0].ImageOrientationPatient = orientation
    assert refusal(series).detail == "1 of 3 slices not oriented by two perpendicular unit vectors"


def test_mixed_orientation_is_refused_with_the_angle() -> None:
    series = ct_series(4)
    series[3].ImageOrientationPatient = list(np.round(rotated("x", 10.0), 9))
    caught = refusal(series)
    assert (caught.reason, caught.detail) == (Reason.MIXED_ORIENTATION, "1 of 4 slices turned by up to 10.0 degrees")


def test_orientations_that_differ_by_rounding_are_one() -> None:
    series = ct_series(4)
    series[2].ImageOrientationPatient = [0.999999, 0.0012, 0, -0.0012, 0.999999, 0]
    assert volume_from_datasets(series).hu_DHW.shape == (4, 8, 9)


def test_mixed_matrix_and_mixed_pixel_spacing_are_refused() -> None:
    series = ct_series(3)
    series[1].Rows = 4
    assert refusal(series).detail == "2 matrix sizes: 4 x 9, 8 x 9"
    series = ct_series(3)
    series[1].PixelSpacing = [0.5, 0.45]
    caught = refusal(series)
    assert caught.reason is Reason.MIXED_MATRIX
    assert "0.4500" in caught.detail or "0.4000" in caught.detail


def test_mixed_frames_of_reference_are_refused_and_none_at_all_is_one() -> None:
    series = ct_series(3)
    series[1].FrameOfReferenceUID = "2.25.9"
    caught = refusal(series)
    assert (caught.reason, caught.detail) == (Reason.MIXED_FRAMES_OF_REFERENCE, "2 frames of reference")
    assert volume_from_datasets(ct_series(3, FrameOfReferenceUID=None)).hu_DHW.shape[0] == 3


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"PatientID": "P-0002"}, Reason.MIXED_PATIENTS),
        ({"IssuerOfPatientID": "ELSEWHERE"}, Reason.MIXED_PATIENTS),
        ({"StudyInstanceUID": "2.25.99"}, Reason.MIXED_STUDIES),
    ],
)
def test_a_slice_of_another_patient_or_study_is_refused(changes: dict[str, str], reason: Reason) -> None:
    series = ct_series(4)
    change(series[2], **changes)
    caught = refusal(series)
    assert caught.reason is reason
    assert caught.detail.startswith("2 ")


@pytest.mark.parametrize("orientation", [(0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1)], ids=["sagittal", "coronal"])
def test_sagittal_and_coronal_reformats_are_refused(orientation: tuple[float, ...]) -> None:
    caught = refusal(ct_series(4, orientation=orientation))
    assert (caught.reason, caught.detail) == (Reason.NOT_AXIAL, "slice normal 90 degrees from the patient's long axis")


def test_two_slices_at_one_position_are_refused_with_the_place() -> None:
    series = ct_series(5)
    series[3].ImagePositionPatient = series[2].ImagePositionPatient
    caught = refusal(series)
    assert caught.reason is Reason.DUPLICATE_POSITION
    assert caught.detail == "1 slice repeats a position, the first at z = 102.00 mm"


def test_a_gap_is_refused_with_its_place_and_the_number_of_missing_slices() -> None:
    series = ct_series(40, spacing_mm=0.6)
    del series[10:13]
    del series[30]
    caught = refusal(shuffled(series))
    assert caught.reason is Reason.GAP
    assert caught.detail == (
        "about 4 slices missing in 2 gaps, the first of 2.40 mm above z = 105.40 mm at a spacing of 0.600 mm"
    )


def test_one_missing_slice_is_one_slice_in_one_gap() -> None:
    series = ct_series(40)
    del series[10]
    assert refusal(series).detail == (
        "about 1 slice missing in 1 gap, the first of 2.00 mm above z = 109.00 mm at a spacing of 1.000 mm"
    )


def test_a_half_arrived_series_has_gaps_and_not_a_wrong_spacing() -> None:
    positions = np.zeros((400, 3))
    positions[:, 2] = np.arange(400) * 0.6
    kept = np.random.default_rng(3).permutation(400)[:180]
    caught = refusal(positions[kept], AXIAL, of=stack_geometry)
    assert caught.reason is Reason.GAP
    assert caught.detail.endswith("at a spacing of 0.600 mm")


def test_irregular_spacing_is_refused_with_the_range() -> None:
    series = ct_series(9)
    for ds in series[4:]:
        ds.ImagePositionPatient[2] += 0.3
    caught = refusal(series)
    assert (caught.reason, caught.detail) == (Reason.WRONG_SPACING, "intervals from 1.000 to 1.300 mm, mostly 1.000 mm")


def test_small_differences_that_add_up_are_refused() -> None:
    positions = np.zeros((200, 3))
    positions[:, 2] = np.cumsum(np.r_[np.full(100, 0.6), np.full(100, 0.65)])
    caught = refusal(positions, AXIAL, of=stack_geometry)
    assert caught.reason is Reason.WRONG_SPACING
    assert "from an even stack" in caught.detail


def test_slices_shifted_sideways_are_refused() -> None:
    series = ct_series(9)
    series[4].ImagePositionPatient[0] += 3.0
    caught = refusal(series)
    assert caught.reason is Reason.WRONG_SPACING
    assert "sideways" in caught.detail


def test_positions_rounded_to_a_tenth_of_a_millimetre_are_even() -> None:
    positions = np.zeros((300, 3))
    positions[:, 2] = np.round(np.arange(300) * 0.625, 1)
    assert stack_geometry(positions, AXIAL).spacing_mm == pytest.approx(0.625, abs=1e-3)


@pytest.mark.parametrize("decimals", [3, 6])
@pytest.mark.parametrize("orientation", [AXIAL, rotated("x", 10.0)])
@pytest.mark.parametrize("shown", [slice(0, 345), slice(55, 400)])
def test_what_has_come_of_rounded_positions_lies_where_it_will_when_all_are_there(
    decimals: int, orientation: tuple[float, ...], shown: slice
) -> None:
    along = np.arange(400)[:, None] * 0.41233 * np.array(normal_of(orientation))
    positions = (np.array([-120.3, -90.1, -81.2071]) + along).round(decimals)
    whole, part = stack_geometry(positions, orientation), stack_geometry(positions[shown], orientation)
    assert np.array_equal(part.step_lps_mm, whole.step_lps_mm)
    lowest = whole.origin_lps_mm + shown.start * whole.step_lps_mm
    assert np.allclose(part.origin_lps_mm, lowest, rtol=0, atol=1e-9)
    assert np.abs(whole.origin_lps_mm + np.arange(400)[:, None] * whole.step_lps_mm - positions).max() < 4e-3


@pytest.mark.parametrize(("count", "detail"), [(0, "0 slices"), (1, "1 slice")])
def test_fewer_than_two_slices_are_no_volume(count: int, detail: str) -> None:
    caught = refusal(ct_series(count))
    assert (caught.reason, caught.detail) == (Reason.TOO_FEW_SLICES, detail)


def test_the_stack_tells_the_order_and_the_extent_of_header_values_alone() -> None:
    order = np.random.default_rng(5).permutation(2000)
    positions = np.outer(order, normal_of(AXIAL)) * 0.5 + [1.0, 2.0, -100.0]
    stack = stack_geometry(positions, np.tile(AXIAL, (2000, 1)), frames_of_reference=["2.25.1"] * 2000)
    np.testing.assert_array_equal(order[stack.order], np.arange(2000))
    assert len(stack) == 2000
    assert stack.origin_lps_mm[2] == pytest.approx(-100.0)
    assert len(stack) * stack.step_lps_mm[2] == pytest.approx(1000.0)
