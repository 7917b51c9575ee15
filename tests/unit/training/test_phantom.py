"""Phantom scans: deterministic, with a truth that matches their pixels."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest

from ai.affine import lps_of
from ai.locations import LOCATIONS, Location
from tests.support.absent import absent
from training.phantom import PhantomScan, make_scan, picture, write_series
from training.phantom.frame import draw_pose, rotation_matrix
from training.phantom.make import draw_lesions, is_confounded
from training.phantom.scanner import (
    ARTERIAL_HU,
    HELD_OUT_ARTERIAL_HU,
    HELD_OUT_KERNEL,
    HELD_OUT_SPACING_MM,
    HELD_OUT_TORTUOSITY,
    KERNELS,
    SPACINGS_MM,
    TORTUOSITY,
    draw_scanner,
)

COARSE_MM = 1.4
"""Spacing at which most tests look at a region of interest, to be quick."""


@pytest.fixture(scope="module")
def positive() -> PhantomScan:
    return make_scan(5, extent="roi", spacing_mm=0.7, location=Location.LEFT_MCA, diameter_mm=6.0)


@pytest.fixture(scope="module")
def negatives() -> list[PhantomScan]:
    """Three heads without an aneurysm, which between them have every vessel."""
    return [make_scan(seed, extent="roi", spacing_mm=COARSE_MM, positive=False) for seed in range(3)]


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> tuple[PhantomScan, list[Path]]:
    scan = make_scan(3, matrix=128, spacing_mm=3.0, location=Location.ACOM, diameter_mm=9.0)
    return scan, write_series(scan, tmp_path_factory.mktemp("series"), accession_number="A1")


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(negatives: list[PhantomScan]) -> None:
    first, other, *_ = negatives
    second = make_scan(first.seed, extent="roi", spacing_mm=COARSE_MM, positive=False)
    assert first.volume.hu_DHW.tobytes() == second.volume.hu_DHW.tobytes()
    assert first.lesions == second.lesions
    assert first.settings == second.settings
    assert first.vessel_DHW.tobytes() == second.vessel_DHW.tobytes()
    assert first.volume.hu_DHW.tobytes() != other.volume.hu_DHW.tobytes()


def test_the_diameter_asked_for_is_the_diameter_in_truth_and_mask(positive: PhantomScan) -> None:
    (truth,) = positive.lesions
    assert truth.diameter_mm == pytest.approx(6.0, rel=0.03)
    volume_mm3 = np.count_nonzero(positive.lesion_DHW) * float(np.prod(positive.volume.spacing_mm_DHW))
    assert (6 * volume_mm3 / np.pi) ** (1 / 3) == pytest.approx(truth.diameter_mm, rel=0.08)


def test_the_centre_in_truth_is_the_centre_of_the_mask(positive: PhantomScan) -> None:
    middle = np.argwhere(positive.lesion_DHW).mean(axis=0)
    centre = lps_of(positive.volume.affine_lps, middle)
    assert np.linalg.norm(centre - positive.lesions[0].centre_lps_mm) < 0.5


def test_the_lumen_of_a_sac_is_as_bright_as_its_artery(positive: PhantomScan) -> None:
    inside = positive.volume.hu_DHW[positive.lesion_DHW > 0]
    assert float(np.median(inside)) > 0.75 * float(positive.settings["arterial_hu"])


def test_a_left_location_lies_on_the_left_of_the_head(positive: PhantomScan) -> None:
    mirrored = make_scan(5, extent="roi", spacing_mm=COARSE_MM, location=Location.RIGHT_MCA, diameter_mm=6.0)
    middle = positive.volume.affine_lps[:3, :3] @ (np.array(positive.volume.hu_DHW.shape) / 2)
    middle = middle + positive.volume.affine_lps[:3, 3]
    assert positive.lesions[0].centre_lps_mm[0] > middle[0] + 5
    assert mirrored.lesions[0].centre_lps_mm[0] < middle[0] - 5


@pytest.mark.parametrize("first", range(3))
def test_every_location_can_be_asked_for(first: int) -> None:
    asked = LOCATIONS[first::3]
    scan = make_scan(40 + first, extent="roi", spacing_mm=COARSE_MM, lesions=[(location, 7.0) for location in asked])
    assert tuple(lesion.location for lesion in scan.lesions) == asked
    for number, location in enumerate(asked, start=1):
        labels = scan.vessel_DHW[scan.lesion_DHW == number]
        assert set(labels.tolist()) == {LOCATIONS.index(location) + 1}


def test_all_thirteen_locations_are_labelled_in_a_head_that_has_every_vessel(negatives: list[PhantomScan]) -> None:
    found: set[int] = set()
    for scan in negatives:
        found |= set(np.unique(scan.vessel_DHW).tolist())
    assert found == set(range(16))


def test_a_negative_scan_has_no_lesion(negatives: list[PhantomScan]) -> None:
    for scan in negatives:
        assert scan.lesions == ()
        assert not scan.lesion_DHW.any()


def test_explicit_lesions_are_painted_in_their_order() -> None:
    asked = [(Location.BASILAR_TIP, 5.0), (Location.RIGHT_PCOM, 4.0)]
    scan = make_scan(9, extent="roi", spacing_mm=COARSE_MM, lesions=asked)
    assert [lesion.location for lesion in scan.lesions] == [where for where, _ in asked]


@pytest.mark.parametrize(
    "arguments",
    [
        {"positive": False, "location": Location.ACOM},
        {"positive": False, "lesions": 2},
        {"contrast": False, "lesions": 1},
        {"confounders": ("unicorn",)},
    ],
)
def test_contradictory_arguments_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        make_scan(1, extent="roi", spacing_mm=COARSE_MM, **arguments)  # type: ignore[arg-type]


def test_held_out_ranges_and_scanner_are_disjoint_from_training() -> None:
    assert HELD_OUT_KERNEL[0] not in {name for name, _, _ in KERNELS}
    assert HELD_OUT_SPACING_MM not in SPACINGS_MM
    assert HELD_OUT_TORTUOSITY[0] >= TORTUOSITY[1]
    assert HELD_OUT_ARTERIAL_HU[0][1] <= ARTERIAL_HU[0]
    assert HELD_OUT_ARTERIAL_HU[1][0] >= ARTERIAL_HU[1]
    for seed in range(200):
        rng = np.random.default_rng(seed)
        seen, unseen = draw_scanner(rng, held_out=False), draw_scanner(rng, held_out=True)
        assert ARTERIAL_HU[0] <= seen.arterial_hu <= ARTERIAL_HU[1]
        assert not ARTERIAL_HU[0] < unseen.arterial_hu < ARTERIAL_HU[1]
        assert (unseen.kernel, unseen.slice_spacing_mm) == (HELD_OUT_KERNEL[0], HELD_OUT_SPACING_MM)
        nods = [np.degrees(np.arcsin(draw_pose(rng, held_out=held).rotation[2, 1])) for held in (False, True)]
        assert abs(nods[0]) < abs(nods[1])


def test_rotations_turn_about_the_axis_they_name() -> None:
    assert rotation_matrix((90, 0, 0)) @ [0, 1, 0] == pytest.approx([0, 0, 1])
    assert rotation_matrix((0, 0, 90)) @ [1, 0, 0] == pytest.approx([0, 1, 0])


def test_half_of_all_scans_have_a_lesion_and_half_a_confounder() -> None:
    drawn = [
        draw_lesions(np.random.default_rng([seed, 1]), None, None, None, None, contrast=True) for seed in range(600)
    ]
    assert 0.42 < np.mean([bool(lesions) for lesions in drawn]) < 0.58
    assert 0.42 < np.mean([is_confounded(seed) for seed in range(600)]) < 0.58


def test_sizes_and_numbers_follow_the_published_distribution() -> None:
    drawn = [draw_lesions(np.random.default_rng(seed), None, None, None, True, contrast=True) for seed in range(2000)]
    sizes = np.array([size for lesions in drawn for _, size in lesions])
    assert float(np.median(sizes)) == pytest.approx(4.92, rel=0.06)
    assert float(np.mean(sizes >= 10)) == pytest.approx(0.064, abs=0.03)
    assert float(np.mean([len(lesions) == 1 for lesions in drawn])) == pytest.approx(0.88, abs=0.03)


def test_a_head_without_contrast_has_no_bright_artery() -> None:
    scan = make_scan(4, extent="roi", spacing_mm=COARSE_MM, contrast=False, confounders=())
    assert float(np.median(scan.volume.hu_DHW[scan.vessel_DHW == LOCATIONS.index(Location.LEFT_MCA) + 1])) < 90


def test_a_cropped_scan_misses_part_of_the_circle() -> None:
    whole, part = (make_scan(2, matrix=96, spacing_mm=3.0, cropped=cropped) for cropped in (False, True))
    arteries = [set(np.unique(scan.vessel_DHW).tolist()) & set(range(1, 14)) for scan in (whole, part)]
    assert len(arteries[1]) < len(arteries[0])


def test_a_written_series_reads_back_as_the_same_pixels_and_geometry(series: tuple[PhantomScan, list[Path]]) -> None:
    scan, paths = series
    slices = [pydicom.dcmread(path) for path in paths]
    assert len({one.SOPInstanceUID for one in slices}) == len(scan.volume.hu_DHW)
    assert {one.AccessionNumber for one in slices} == {"A1"}
    assert "PHANTOM" in slices[0].SeriesDescription
    assert list(slices[0].ImageType) == ["ORIGINAL", "PRIMARY", "AXIAL"]
    hu = np.stack([one.pixel_array + int(one.RescaleIntercept) for one in slices])
    assert np.array_equal(hu, scan.volume.hu_DHW)
    for index in (0, len(slices) - 1):
        expected = scan.volume.affine_lps @ np.array([index, 0, 0, 1.0])
        assert [float(v) for v in slices[index].ImagePositionPatient] == pytest.approx(expected[:3], abs=1e-4)


def test_writing_the_same_scan_twice_gives_the_same_files(
    series: tuple[PhantomScan, list[Path]], tmp_path: Path
) -> None:
    scan, paths = series
    again = write_series(scan, tmp_path, accession_number="A1")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in paths]


def test_dciodvfy_finds_no_error_in_a_written_series(series: tuple[PhantomScan, list[Path]]) -> None:
    tool = shutil.which("dciodvfy")
    if tool is None:
        absent("dciodvfy (dicom3tools) is not installed, so the DICOM files were not checked against the standard")
    _, paths = series
    for path in (paths[0], paths[-1]):
        said = subprocess.run([tool, "-new", str(path)], capture_output=True, text=True, check=False)
        assert "Error" not in said.stdout + said.stderr, said.stdout + said.stderr


def test_a_picture_sheet_is_written(series: tuple[PhantomScan, list[Path]], tmp_path: Path) -> None:
    picture(series[0], tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 10_000
