"""Slices become a volume in the patient's frame, or the reason why not, with a number a person can act on."""

import tracemalloc
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRBigEndian, JPEG2000Lossless, RLELossless

from ai.errors import NotAnalysable, Reason
from ai.frames import AIR_HU, frames, text_of
from ai.stack import stack_geometry
from ai.volume import Volume, stack_of, subsampled_volume, volume_from_datasets, volume_from_files
from tests.dicom_factory import AXIAL, PHILIPS_STUDY, change, ct_series, enhanced_ct, lps_of, marked, normal_of, save


def refusal(*args: Any, of: Any = volume_from_datasets, **kwargs: Any) -> NotAnalysable:
    with pytest.raises(NotAnalysable) as caught:
        of(*args, **kwargs)
    return caught.value


def shuffled(series: list[Dataset], seed: int = 1) -> list[Dataset]:
    return [series[i] for i in np.random.default_rng(seed).permutation(len(series))]


def assert_every_voxel_is_where_the_headers_say(volume: Volume, series: list[Dataset], rows: int, columns: int) -> None:
    inverse = np.linalg.inv(volume.affine_lps)
    assert volume.hu_DHW.size == len(series) * rows * columns
    for index, ds in enumerate(series):
        for row in range(rows):
            for column in range(columns):
                d, h, w, _ = inverse @ [*lps_of(ds, row, column), 1.0]
                place = np.rint([d, h, w]).astype(int)
                np.testing.assert_allclose([d, h, w], place, atol=1e-3)
                assert (place >= 0).all()
                assert volume.hu_DHW[tuple(place)] == 100 * index + 10 * row + column


def jpeg_2000(pixels: NDArray[np.uint16]) -> bytes:
    buffer = BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "JPEG2000", irreversible=False)
    return buffer.getvalue()


def rotated(about: str, degrees: float) -> tuple[float, ...]:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = {"x": [[1, 0, 0], [0, c, -s], [0, s, c]], "z": [[c, -s, 0], [s, c, 0], [0, 0, 1]]}[about]
    return tuple(np.concatenate([np.array(turn) @ AXIAL[:3], np.array(turn) @ AXIAL[3:]]))


ORIENTATIONS = {
    "supine head first": AXIAL,
    "supine feet first, stored upside down": (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "prone": (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
    "bottom row first": (1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
    "lying on the left side": (0.0, 1.0, 0.0, -1.0, 0.0, 0.0),
    "lying on the right side": (0.0, -1.0, 0.0, 1.0, 0.0, 0.0),
    "columns run along x": (0.0, 1.0, 0.0, 1.0, 0.0, 0.0),
    "tipped 20 degrees to the orbitomeatal line": rotated("x", 20.0),
    "head turned 30 degrees": rotated("z", 30.0),
}


@pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS.keys())
def test_d_runs_to_the_head_h_to_the_back_w_to_the_left_and_every_voxel_keeps_its_place(
    orientation: tuple[float, ...],
) -> None:
    series = ct_series(5, orientation=orientation, spacing_mm=0.7)
    volume = volume_from_datasets(shuffled(series))
    d, h, w = volume.affine_lps[:3, :3].T
    assert d[2] > 0
    assert h[1] > 0
    assert w[0] > 0
    assert volume.hu_DHW.dtype == np.int16
    assert volume.hu_DHW.flags.c_contiguous
    assert volume.spacing_mm_DHW[0] == pytest.approx(0.7)
    assert_every_voxel_is_where_the_headers_say(volume, series, 8, 9)


def test_each_slice_names_the_instance_it_came_from_feet_first() -> None:
    series = ct_series(4)
    volume = volume_from_datasets(series[::-1])
    assert volume.sop_instance_uids == tuple(ds.SOPInstanceUID for ds in series)
    assert volume.frame_numbers == (1, 1, 1, 1)


def test_the_instance_number_does_not_order_the_slices() -> None:
    series = ct_series(5)
    for ds, number in zip(series, (3, 1, 5, 2, 4), strict=True):
        ds.InstanceNumber = number
    assert_every_voxel_is_where_the_headers_say(volume_from_datasets(series), series, 8, 9)


@pytest.mark.parametrize("lie", [0.3, 5.0, -1.0, 0.0])
def test_a_lying_spacing_between_slices_is_ignored(lie: float) -> None:
    volume = volume_from_datasets(ct_series(5, spacing_mm=0.6, SpacingBetweenSlices=lie, SliceThickness=lie))
    assert volume.spacing_mm_DHW == pytest.approx((0.6, 0.5, 0.4))


def test_a_gantry_tilt_is_kept_as_the_true_sheared_affine() -> None:
    orientation = rotated("x", 20.0)
    series = ct_series(6, orientation=orientation, step_mm=(0.0, 0.0, 1.0))
    volume = volume_from_datasets(shuffled(series))
    assert_every_voxel_is_where_the_headers_say(volume, series, 8, 9)
    np.testing.assert_allclose(volume.affine_lps[:3, 0], [0.0, 0.0, 1.0], atol=1e-6)
    stack = stack_of(series)
    assert stack.tilt_degrees == pytest.approx(20.0, abs=0.01)
    assert stack.spacing_mm == pytest.approx(np.cos(np.radians(20.0)), abs=1e-6)


def test_a_shear_steeper_than_any_gantry_is_refused() -> None:
    caught = refusal(ct_series(6, step_mm=(0.0, 0.8, 1.0)))
    assert (caught.reason, caught.detail) == (Reason.GANTRY_TILT, "38.7 degrees, at most 30.5")


def test_multi_frame_ct_gives_the_same_volume_as_its_slices() -> None:
    series = ct_series(5)
    expected = volume_from_datasets(series)
    for shared in (True, False):
        frames_out_of_order = [series[i] for i in (2, 0, 4, 1, 3)]
        volume = volume_from_datasets([enhanced_ct(frames_out_of_order, shared=shared)])
        np.testing.assert_array_equal(volume.hu_DHW, expected.hu_DHW)
        np.testing.assert_allclose(volume.affine_lps, expected.affine_lps)
        assert volume.frame_numbers == (2, 4, 1, 5, 3)
        assert set(volume.sop_instance_uids) == {"2.25.30000"}


def test_a_multi_frame_image_with_fewer_positions_than_frames_is_refused() -> None:
    ds = enhanced_ct(ct_series(5))
    del ds.PerFrameFunctionalGroupsSequence[3:]
    caught = refusal([ds])
    assert (caught.reason, caught.detail) == (Reason.MISSING_GEOMETRY, "2 of 5 slices without position")


# Pixels to Hounsfield units


def test_rescale_is_applied_slice_by_slice() -> None:
    series = ct_series(2) + ct_series(2, slope=2.0, intercept=-1000.0, origin_mm=(-20.0, -30.0, 102.0))
    for index, ds in enumerate(series):
        ds.SOPInstanceUID = f"2.25.{index + 1}"
        hu = np.full((8, 9), 40 + 2 * index)
        ds.PixelData = ((hu - float(ds.RescaleIntercept)) / float(ds.RescaleSlope)).astype("<u2").tobytes()
    assert volume_from_datasets(series).hu_DHW[:, 0, 0].tolist() == [40, 42, 44, 46]


def test_a_fractional_slope_is_rounded_to_whole_hounsfield_units() -> None:
    series = ct_series(2, slope=0.5, intercept=-1024.5)
    for ds in series:
        ds.PixelData = np.full((8, 9), 2200, "<u2").tobytes()
    assert (volume_from_datasets(series).hu_DHW == 76).all()  # 75.5


def test_values_beyond_int16_are_clipped_and_never_wrap() -> None:
    series = ct_series(2, slope=1.0, intercept=1000.0)
    for ds in series:
        ds.PixelData = np.full((8, 9), 65535, "<u2").tobytes()
    assert (volume_from_datasets(series).hu_DHW == 32767).all()
    for ds in series:
        ds.RescaleIntercept = 5e9
    assert (volume_from_datasets(series).hu_DHW == 32767).all()
    for ds in series:
        ds.RescaleSlope, ds.RescaleIntercept = -3.5, 0
    assert (volume_from_datasets(series).hu_DHW == AIR_HU).all()


@pytest.mark.parametrize("padding_hu", [-2000, -3024, -1025])
def test_what_lies_below_air_becomes_air(padding_hu: int) -> None:
    series = ct_series(2, hu=lambda _: np.full((8, 9), padding_hu, np.int16), signed=True, intercept=0.0)
    assert (volume_from_datasets(series).hu_DHW == AIR_HU).all()


@pytest.mark.parametrize(
    ("signed", "stored", "value", "limit"),
    [
        (False, 63536, 63536, None),
        (True, -2000, -2000, None),
        (True, -2000, 63536, None),
        (False, 63536, -2000, None),
        (False, 3000, 2990, 3010),
        (False, 3000, 3010, 2990),
    ],
)
def test_pixel_padding_becomes_air_in_either_sign_and_as_a_range(
    signed: bool, stored: int, value: int, limit: int | None
) -> None:
    series = ct_series(2, signed=signed, intercept=3000.0)
    pixels = np.full((8, 9), 50, "<i2" if signed else "<u2")
    pixels[0, 0] = stored
    for ds in series:
        ds.PixelData = pixels.tobytes()
        for keyword, number in (("PixelPaddingValue", value), ("PixelPaddingRangeLimit", limit)):
            if number is not None:
                ds.add_new(keyword, "US" if number >= 0 else "SS", number)
    hu = volume_from_datasets(series).hu_DHW
    assert hu[0, 0, 0] == AIR_HU
    assert hu[0, 0, 1] == 3050


def test_the_bits_above_the_high_bit_are_not_pixel_value() -> None:
    for signed, stored, expected in ((False, 0xF0FF, 0x0FF), (True, 0x0FFE, -2)):
        series = ct_series(2, signed=signed, intercept=0.0, BitsStored=12, HighBit=11)
        for ds in series:
            ds.PixelData = np.full((8, 9), stored, "<u2").tobytes()
        assert (volume_from_datasets(series).hu_DHW == expected).all()
    series = ct_series(2, intercept=0.0, BitsStored=12, HighBit=None)
    assert (volume_from_datasets(series).hu_DHW[0] == marked(8, 9)(0)).all()


def test_big_endian_pixels_are_read_as_such() -> None:
    series = ct_series(3)
    for ds in series:
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
        ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    assert_every_voxel_is_where_the_headers_say(volume_from_datasets(series), series, 8, 9)


def test_a_dataset_without_file_meta_information_is_little_endian() -> None:
    series = ct_series(3)
    for ds in series:
        del ds.file_meta
    assert_every_voxel_is_where_the_headers_say(volume_from_datasets(series), series, 8, 9)


def test_compressed_pixels_are_decoded_single_frame_and_multi_frame() -> None:
    series = ct_series(3)
    multi = enhanced_ct(series)
    multi.compress(RLELossless)
    for ds in series:
        ds.compress(RLELossless)
    expected = np.stack([marked(8, 9)(index) for index in range(3)])
    for datasets in (series, [multi]):
        np.testing.assert_array_equal(volume_from_datasets(datasets).hu_DHW, expected)


def test_the_datasets_are_not_changed() -> None:
    series = ct_series(3)
    before = [ds.to_json() for ds in series]
    volume_from_datasets(series)
    assert [ds.to_json() for ds in series] == before


def test_missing_pixels_are_refused() -> None:
    for changes in ({"PixelData": None}, {"PixelData": b""}, {"Rows": None}, {"Rows": 0}):
        assert refusal(ct_series(3, **changes)).reason is Reason.MISSING_PIXELS


def test_truncated_pixels_are_refused_with_the_byte_counts() -> None:
    series = ct_series(3)
    series[1].PixelData = series[1].PixelData[:-10]
    caught = refusal(series)
    assert (caught.reason, caught.detail) == (Reason.PIXELS_TRUNCATED, "134 bytes of at least 144")
    multi = enhanced_ct(ct_series(3))
    multi.PixelData = multi.PixelData[:300]
    assert refusal([multi]).reason is Reason.PIXELS_TRUNCATED


def test_a_file_that_ends_too_early_is_refused(tmp_path: Path) -> None:
    paths = save(ct_series(3), tmp_path)
    paths[1].write_bytes(paths[1].read_bytes()[:-20])
    assert refusal(paths, of=volume_from_files).reason is Reason.PIXELS_TRUNCATED
    paths[1].write_bytes(paths[1].read_bytes()[:100])
    assert refusal(paths, of=volume_from_files).reason is Reason.PIXELS_TRUNCATED


def test_a_file_that_is_gone_is_not_the_series_fault(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        volume_from_files([*save(ct_series(3), tmp_path), tmp_path / "gone.dcm"])


def test_no_garbled_file_escapes_as_anything_but_a_reason(tmp_path: Path) -> None:
    paths = save(ct_series(3), tmp_path)
    whole, random = paths[1].read_bytes(), np.random.default_rng(4)
    damaged = [whole[:length] for length in range(0, len(whole), 37)]
    for _ in range(150):
        noisy = bytearray(whole)
        for place in random.integers(132, len(noisy), 3):
            noisy[place] = random.integers(256)
        damaged.append(bytes(noisy))
    refused = 0
    for data in damaged:
        paths[1].write_bytes(data)
        try:
            volume_from_files(paths)
        except NotAnalysable:
            refused += 1
    assert refused > len(damaged) / 3


def test_undecodable_pixels_are_refused_without_text_from_the_dataset() -> None:
    series = ct_series(3)
    for ds in series:
        ds.file_meta.TransferSyntaxUID = JPEG2000Lossless
    caught = refusal(series)
    assert caught.reason is Reason.PIXELS_UNDECODABLE
    assert caught.detail.startswith("transfer syntax 1.2.840.10008.1.2.4.90")
    assert "Doe" not in str(caught)
    for ds in series:
        ds.file_meta.TransferSyntaxUID = UID("1.2.840.113619.5.2")
    assert refusal(series).detail == "a transfer syntax that is not in the Standard"


@pytest.mark.parametrize(
    "changes",
    [
        {"BitsAllocated": 12},
        {"BitsAllocated": None},
        {"SamplesPerPixel": 3},
        {"BitsStored": 17},
        {"BitsStored": 12, "HighBit": 16},
        {"BitsStored": 12, "HighBit": 5},
    ],
)
def test_pixel_descriptions_that_contradict_themselves_are_refused(changes: dict[str, Any]) -> None:
    assert refusal(ct_series(3, **changes)).reason is Reason.PIXELS_UNDECODABLE


def test_a_matrix_or_a_frame_count_that_is_only_claimed_costs_no_memory() -> None:
    assert refusal(ct_series(3, Rows=65535, Columns=65535)).reason is Reason.PIXELS_TRUNCATED
    assert refusal([enhanced_ct(ct_series(3), NumberOfFrames=2_000_000_000)]).reason is Reason.MISSING_GEOMETRY


def test_pixels_that_decode_to_another_matrix_are_refused() -> None:
    series = ct_series(3)
    for ds in series:
        ds.PixelData = encapsulate([jpeg_2000(np.zeros((16, 16), np.uint16))])
        ds["PixelData"].is_undefined_length = True
        ds.file_meta.TransferSyntaxUID = JPEG2000Lossless
        ds.Rows, ds.Columns = 16, 16
    assert volume_from_datasets(series).hu_DHW.shape == (3, 16, 16)
    for ds in series:
        ds.Rows = 8
    assert refusal(series).reason is Reason.PIXELS_UNDECODABLE


@pytest.mark.parametrize("changes", [{"RescaleSlope": None}, {"RescaleIntercept": None}, {"RescaleSlope": 0}])
def test_a_slice_that_does_not_say_its_hounsfield_units_is_refused(changes: dict[str, Any]) -> None:
    series = ct_series(3)
    change(series[1], **changes)
    assert refusal(series).reason is Reason.MISSING_RESCALE


# Headers that do not make one stack


@pytest.mark.parametrize(
    ("keyword", "value", "what"),
    [
        ("ImagePositionPatient", None, "position"),
        ("ImagePositionPatient", [1.0, 2.0], "position"),
        ("ImagePositionPatient", [1.0, 2.0, float("nan")], "position"),
        ("ImageOrientationPatient", None, "orientation"),
        ("PixelSpacing", None, "pixel spacing"),
        ("PixelSpacing", [0.0, 0.4], "pixel spacing"),
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
    assert caught.detail == "1 slices repeat a position, the first at z = 102.00 mm"


def test_a_gap_is_refused_with_its_place_and_the_number_of_missing_slices() -> None:
    series = ct_series(40, spacing_mm=0.6)
    del series[10:13]
    del series[30]
    caught = refusal(shuffled(series))
    assert caught.reason is Reason.GAP
    assert caught.detail == (
        "about 4 slices missing in 2 gaps, the first of 2.40 mm above z = 105.40 mm at a spacing of 0.600 mm"
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


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_slices_are_no_volume(count: int) -> None:
    caught = refusal(ct_series(count))
    assert (caught.reason, caught.detail) == (Reason.TOO_FEW_SLICES, f"{count} slices")


def test_the_stack_tells_the_order_and_the_extent_of_header_values_alone() -> None:
    order = np.random.default_rng(5).permutation(2000)
    positions = np.outer(order, normal_of(AXIAL)) * 0.5 + [1.0, 2.0, -100.0]
    stack = stack_geometry(positions, np.tile(AXIAL, (2000, 1)), frames_of_reference=["2.25.1"] * 2000)
    np.testing.assert_array_equal(order[stack.order], np.arange(2000))
    assert len(stack) == 2000
    assert stack.extent_mm == pytest.approx((-100.0, 899.5))


# Files


def test_files_give_the_same_volume_as_datasets(tmp_path: Path) -> None:
    series = ct_series(6)
    expected = volume_from_datasets(series)
    for paths in (save(shuffled(series), tmp_path), save([enhanced_ct(series)], tmp_path)):
        volume = volume_from_files(paths)
        np.testing.assert_array_equal(volume.hu_DHW, expected.hu_DHW)
        np.testing.assert_allclose(volume.affine_lps, expected.affine_lps)


def test_files_need_little_more_memory_than_their_volume(tmp_path: Path) -> None:
    paths = save(ct_series(60, rows=256, columns=256, hu=lambda _: np.zeros((256, 256), np.int16)), tmp_path)
    volume_from_files(paths[:2])  # what is imported and cached on first use is not counted
    tracemalloc.start()
    volume_from_files(paths)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * 60 * 256 * 256 * 2


def test_a_subsampled_volume_picks_voxels_of_the_full_one(tmp_path: Path) -> None:
    series = ct_series(12, rows=9, columns=10, hu=lambda k: np.asarray(marked(9, 10)(0) + 100 * k, np.int16))
    mixed = shuffled(series)
    full = volume_from_datasets(mixed)
    for paths in (save(mixed, tmp_path), save([enhanced_ct(mixed)], tmp_path)):
        coarse = subsampled_volume(paths, stack_of(mixed), slice_mm=4.0, pixel_mm=1.5)
        assert coarse.hu_DHW.shape == (3, 3, 4)
        np.testing.assert_array_equal(coarse.hu_DHW, full.hu_DHW[::4, ::3, ::3])
        np.testing.assert_allclose(coarse.affine_lps @ [1, 1, 1, 1], full.affine_lps @ [4, 3, 3, 1])
    assert coarse.frame_numbers == tuple(int(stack_of(mixed).order[k]) + 1 for k in (0, 4, 8))


def test_a_flipped_subsampled_volume_keeps_its_place(tmp_path: Path) -> None:
    series = ct_series(6, rows=9, columns=10, orientation=ORIENTATIONS["prone"], hu=marked(9, 10))
    coarse = subsampled_volume(save(series, tmp_path), stack_of(series), slice_mm=2.0, pixel_mm=1.0)
    place = np.linalg.inv(coarse.affine_lps) @ [*lps_of(series[2], 4, 4), 1.0]
    np.testing.assert_allclose(place, np.rint(place), atol=1e-6)
    assert coarse.hu_DHW[tuple(np.rint(place[:3]).astype(int))] == 244


def test_a_subsampled_volume_refuses_files_that_are_not_the_stack(tmp_path: Path) -> None:
    series = ct_series(6)
    stack, paths = stack_of(series), save(series, tmp_path)
    for wrong in (paths[:3], save([enhanced_ct(series[:5])], tmp_path)):
        assert refusal(wrong, stack, of=subsampled_volume).reason is Reason.MISSING_GEOMETRY
    series[4].PixelSpacing = [0.9, 0.9]
    paths = save(series, tmp_path)
    assert refusal(paths, stack, of=subsampled_volume).reason is Reason.MIXED_MATRIX
    del series[4].PixelSpacing
    paths = save(series, tmp_path)
    assert refusal(paths, stack, of=subsampled_volume).reason is Reason.MISSING_GEOMETRY


def test_reading_text_leaves_the_bytes_as_received(tmp_path: Path) -> None:
    series = ct_series(1)
    ds = dcmread(save(series, tmp_path)[0])
    assert text_of(ds, "PatientID") == "P-0001"
    assert isinstance(ds.get_item("PatientID"), RawDataElement)
    assert text_of(ds, "AdmissionID") == ""
    assert text_of(ds, "NotAKeyword") == ""
    assert next(frames(Dataset())).has_geometry is False


@pytest.mark.parametrize(("series", "count", "spacing"), [("S2020", 140, 1.0), ("S2030", 140, 1.0), ("S2010", 28, 5.0)])
def test_a_real_scanner_s_series_becomes_a_volume(series: str, count: int, spacing: float) -> None:
    if not PHILIPS_STUDY.is_dir():
        pytest.skip(f"the real scanner study is absent: {PHILIPS_STUDY}")
    paths = sorted((PHILIPS_STUDY / series).glob("I*"))
    volume = volume_from_files(paths)
    assert volume.hu_DHW.shape == (count, 512, 512)
    assert volume.spacing_mm_DHW == pytest.approx((spacing, 0.451171875, 0.451171875))
    assert volume.hu_DHW.min() == AIR_HU
    stack = stack_of([dcmread(path, stop_before_pixels=True) for path in paths])
    coarse = subsampled_volume(paths, stack)
    every, stride = max(1, round(4.0 / spacing)), 4
    np.testing.assert_array_equal(coarse.hu_DHW, volume.hu_DHW[::every, ::stride, ::stride])


def test_a_real_localizer_is_no_stack() -> None:
    if not PHILIPS_STUDY.is_dir():
        pytest.skip(f"the real scanner study is absent: {PHILIPS_STUDY}")
    caught = refusal(sorted((PHILIPS_STUDY / "S1000").glob("I*")), of=volume_from_files)
    assert caught.reason is Reason.TOO_FEW_SLICES
