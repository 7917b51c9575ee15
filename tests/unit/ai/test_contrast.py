"""What is as bright as an artery and is none: thin bone, marrow, calcium; and arteries that are hardly filled."""

from pathlib import Path

import numpy as np
import pytest

from ai.contrast import enhanced_tubes
from ai.coverage import head_extent
from ai.volume import Volume
from tests.support.absent import absent
from tests.support.made_up_head import head

PHILIPS = Path(__file__).parents[4] / "shared" / "data" / "philips-head-study" / "S2020"
CIRCLE = (3.0, -12.0, 40.0)


def fine(contrast_hu: float | None) -> Volume:
    return head(spacing_mm_DHW=(1.0, 1.0, 1.0), contrast_hu=contrast_hu, low_mm=-45.0, high_mm=95.0)


def about(volume: Volume) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every voxel, mm to the left, to the back and to the head of the circle."""
    d, h, w = np.indices(volume.hu_DHW.shape)
    x, y, z = (volume.affine_lps[row, 3] - CIRCLE[row] for row in range(3))
    return x + w, y + h, z + d


@pytest.mark.parametrize("hu", [350.0, 500.0])
def test_wide_arteries_filled_with_contrast_are_seen(hu: float) -> None:
    volume = head(spacing_mm_DHW=(1.0, 1.0, 1.0), contrast_hu=hu)
    circle_centre_lps_mm = head_extent(volume).circle_centre_lps_mm
    assert circle_centre_lps_mm is not None
    assert enhanced_tubes(volume, circle_centre_lps_mm).filled


@pytest.mark.parametrize("hu", [125, 150, 200, 350])
def test_arteries_of_ordinary_calibre_are_seen_however_filled(hu: int) -> None:
    volume = fine(None)
    x, y, z = about(volume)
    for side in (-1, 1):
        radius = np.hypot(y - 2 - 4 * np.sin(side * x / 6), z - 4)
        volume.hu_DHW[(radius <= 1.5) & (side * x > 6) & (side * x < 45)] = hu
    assert enhanced_tubes(volume, CIRCLE).filled


def test_a_plain_head_has_no_contrast_even_with_a_calcified_gland() -> None:
    volume = fine(None)
    x, y, z = about(volume)
    volume.hu_DHW[np.hypot(np.hypot(x, y - 35), z - 10) <= 5] = 250
    noise = np.random.default_rng(0).normal(0, 20, volume.hu_DHW.shape)
    assert not enhanced_tubes(Volume((volume.hu_DHW + noise).astype(np.int16), volume.affine_lps), CIRCLE).filled


@pytest.mark.parametrize("hu", [200, 250, 310])
def test_bone_as_thin_as_paper_is_a_sheet_and_no_artery(hu: int) -> None:
    volume = fine(None)
    x, y, z = about(volume)
    for side in (-1, 1):  # the lesser wings: brain above and below
        wing = (np.abs(z - 4 - 0.15 * (y + 20)) <= 1.0) & (side * x > 12) & (side * x < 45) & (y > -32) & (y < -8)
        volume.hu_DHW[wing] = hu
    assert enhanced_tubes(volume, CIRCLE).length_mm == 0.0


def test_bone_beside_the_fat_of_an_orbit_is_no_artery() -> None:
    volume = fine(None)
    x, y, z = about(volume)
    for side in (-1, 1):
        near = np.hypot(np.hypot(side * x - 25, y + 25), z - 10)
        volume.hu_DHW[near <= 12] = -90
        ridge = (np.abs(near - 13) <= 1.2) & (np.abs(z - 14) <= 1.5)  # a ridge, which is as thin as a tube
        volume.hu_DHW[ridge] = 280
    assert not enhanced_tubes(volume, CIRCLE).filled


def test_marrow_between_tables_is_no_artery() -> None:
    volume = fine(None)
    x, y, z = about(volume)
    for side in (-1, 1):
        wing = np.hypot(y + 18, z - 6)
        inside = (side * x > 10) & (side * x < 48)
        volume.hu_DHW[(wing <= 5) & inside] = 900
        volume.hu_DHW[(wing <= 3) & inside] = 380
    assert not enhanced_tubes(volume, CIRCLE).filled


def test_the_side_of_filled_arteries_is_told() -> None:
    volume = fine(350.0)
    x, _, _ = about(volume)
    volume.hu_DHW[(x > 4) & (volume.hu_DHW == 350)] = 35
    tubes = enhanced_tubes(volume, CIRCLE)
    assert tubes.filled and tubes.left_mm3 == 0.0 and tubes.right_mm3 > 150.0


def test_a_real_scanner_s_plain_skull_phantom_has_no_contrast() -> None:
    if not PHILIPS.exists():
        absent(f"the scanner's study is not at {PHILIPS}")
    import pydicom

    from ai.volume import volume_from_datasets

    datasets = [pydicom.dcmread(path) for path in sorted(PHILIPS.glob("I*"))]
    volume = volume_from_datasets([ds for ds in datasets if "PixelData" in ds])
    assert enhanced_tubes(volume, (-3.0, 85.0, 743.0)).length_mm == 0.0


def test_a_crumb_of_bone_is_no_artery_whose_filling_could_be_told() -> None:
    volume = fine(None)
    left, back, up = about(volume)
    volume.hu_DHW[(np.abs(left - 20) < 1.2) & (np.abs(back + 5) < 1.2) & (np.abs(up - 20) < 4)] = 400
    seen = enhanced_tubes(volume, CIRCLE)
    assert 5 <= seen.length_mm < 12 and not seen.filled
    assert np.isnan(seen.hu) and (seen.left_mm3, seen.right_mm3) == (0, 0)
