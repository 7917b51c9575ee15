"""Slices become a volume in the patient's frame, or the reason why not, with a number a person can act on."""

import subprocess
import sys
import threading
import time
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.filebase import DicomFileLike
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, JPEGLSLossless, RLELossless

from ai.errors import Reason
from ai.frames import AIR_HU, Frame
from ai.volume import Volume, decoders, subsampled_volume, volume_from_datasets, volume_from_files
from tests.support.absent import absent
from tests.support.dicom_factory import (
    AXIAL,
    PHILIPS_STUDY,
    change,
    ct_series,
    enhanced_ct,
    lps_of,
    marked,
    rotated,
    save,
    shuffled,
)
from tests.support.refusal import refusal
from tests.support.stacks import stack_of


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


def test_a_multi_frame_image_that_describes_more_frames_than_it_has_is_refused() -> None:
    caught = refusal([enhanced_ct(ct_series(5), NumberOfFrames=3)])
    assert (caught.reason, caught.detail) == (
        Reason.CONTRADICTORY_HEADER,
        "functional groups of 5 frames in an image of 3",
    )


# Files


def test_once_the_threads_that_decode_run_no_further_one_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = volume_from_datasets(ct_series(5)).hu_DHW

    def no_memory(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    assert decoders(0) is decoders(0)
    monkeypatch.setattr(threading.Thread, "start", no_memory)
    assert np.array_equal(volume_from_datasets(ct_series(5)).hu_DHW, expected)


def test_where_the_system_gives_no_more_threads_a_process_ends_all_the_same() -> None:
    program = """
import threading
from ai.volume import decoders
real, started = threading.Thread.start, []
def start(thread):
    started.append(thread)
    if len(started) == 3:
        raise RuntimeError("can't start new thread")
    real(thread)
threading.Thread.start = start
decoders(4)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (1, "RuntimeError: can't start new thread")


def test_when_a_plane_cannot_be_decoded_nothing_is_decoded_any_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    series = ct_series(5)
    begun, ended = [], []

    def plane(pair: tuple[object, Frame]) -> NDArray[np.int16]:
        begun.append(pair)
        if len(begun) == 1:
            raise ValueError("broken")
        time.sleep(0.2)
        ended.append(pair)
        return np.zeros((8, 9), np.int16)

    monkeypatch.setattr("ai.volume._plane", plane)
    with pytest.raises(ValueError, match="broken"):
        volume_from_datasets(series, 2)
    assert len(ended) == len(begun) - 1


def test_a_child_process_has_threads_of_its_own_that_decode() -> None:
    expected = volume_from_datasets(ct_series(5)).hu_DHW
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        assert np.array_equal(pool.submit(_volume_of_five).result(60), expected)


def _volume_of_five() -> NDArray[np.int16]:
    return volume_from_datasets(ct_series(5)).hu_DHW


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


def test_a_coarse_volume_that_is_too_large_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = ct_series(12)
    paths = save(series, tmp_path)
    Path(paths[5]).unlink()
    monkeypatch.setattr("ai.limits.MOST_COARSE_VOXELS", 12 * series[0].Rows * series[0].Columns - 1)
    assert refusal(paths, stack_of(series), 0.1, 0.1, of=subsampled_volume).reason is Reason.TOO_LARGE


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


@pytest.mark.parametrize("syntax", [JPEGLSLossless, RLELossless, DeflatedExplicitVRLittleEndian, None])
def test_a_subsampled_volume_decodes_and_inflates_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syntax: UID | None
) -> None:
    series = ct_series(6)
    stack, paths = stack_of(series), save(series, tmp_path)
    for ds, path in zip(series, paths, strict=True):
        change(ds.file_meta, TransferSyntaxUID=syntax)
        with path.open("wb") as file:
            file.write(b"\0" * 128 + b"DICM")
            write_file_meta_info(DicomFileLike(file), ds.file_meta, enforce_standard=False)
    monkeypatch.setattr("ai.volume.dcmread", None)
    assert refusal(paths, stack, of=subsampled_volume).reason is Reason.PIXELS_UNDECODABLE


@pytest.mark.parametrize(("series", "count", "spacing"), [("S2020", 140, 1.0), ("S2030", 140, 1.0), ("S2010", 28, 5.0)])
def test_a_real_scanner_s_series_becomes_a_volume(series: str, count: int, spacing: float) -> None:
    if not PHILIPS_STUDY.is_dir():
        absent(f"the real scanner study is absent: {PHILIPS_STUDY}")
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
        absent(f"the real scanner study is absent: {PHILIPS_STUDY}")
    caught = refusal(sorted((PHILIPS_STUDY / "S1000").glob("I*")), of=volume_from_files)
    assert caught.reason is Reason.TOO_FEW_SLICES


@pytest.mark.parametrize("enhanced", [False, True])
def test_an_exact_copy_of_a_slice_under_a_new_uid_costs_nothing(enhanced: bool) -> None:
    series = ct_series(4)
    copy = deepcopy(series[2])
    copy.SOPInstanceUID = copy.file_meta.MediaStorageSOPInstanceUID = UID("2.25.77")
    doubled = [*series, copy]
    volume = volume_from_datasets([enhanced_ct(doubled)] if enhanced else doubled)
    np.testing.assert_array_equal(volume.hu_DHW, volume_from_datasets(series).hu_DHW)


def test_a_repeated_position_with_other_pixels_is_no_copy() -> None:
    series = ct_series(4)
    other = deepcopy(series[2])
    other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = UID("2.25.77")
    other.PixelData = series[1].PixelData
    assert refusal([*series, other]).reason is Reason.DUPLICATE_POSITION
