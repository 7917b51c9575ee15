import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ai.coverage import HeadExtent, extent_about, head_extent, require_coverage
from ai.errors import NotAnalysable, Reason
from ai.volume import Volume
from tests.support.absent import absent
from tests.support.made_up_head import head

PHILIPS = Path(__file__).parents[4] / "shared" / "data" / "philips-head-study" / "S2020"


def part(volume: Volume, low: int, high: int | None) -> Volume:
    affine = volume.affine_lps.copy()
    affine[:3, 3] += affine[:3, 0] * low
    return Volume(volume.hu_DHW[low:high], affine)


def apart_mm(extent: HeadExtent, circle: tuple[float, float, float]) -> float:
    assert extent.circle_centre_lps_mm is not None
    return float(np.linalg.norm(np.subtract(extent.circle_centre_lps_mm, circle)))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 2.0, 2.0), (5.0, 2.0, 2.0), (3.0, 3.0, 3.0)])
def test_the_circle_is_found_in_a_whole_head_at_any_spacing(spacing: tuple[float, float, float]) -> None:
    extent = head_extent(head(spacing_mm_DHW=spacing))
    assert extent.vertex_inside
    assert extent.covers_circle_of_willis(margin_mm=5.0)
    assert apart_mm(extent, (3.0, -12.0, 40.0)) < 15.0


def test_under_a_tilted_gantry_coverage_is_counted_across_the_slices_and_not_along_the_table() -> None:
    volume = head()
    tilted = volume.affine_lps.copy()
    tilted[1, 0] = tilted[2, 0] * np.tan(np.radians(25.0))
    centre = tuple((tilted @ np.array([30.0, 60.0, 60.0, 1.0]))[:3])
    extent = extent_about(replace(volume, affine_lps=tilted), centre, vertex_inside=True)
    assert extent.below_mm == pytest.approx(30 * tilted[2, 0])
    assert extent.above_mm == pytest.approx((len(volume.hu_DHW) - 31) * tilted[2, 0])


def test_the_lower_part_of_a_head_does_not_cover_the_circle() -> None:
    lower = head(low_mm=-90.0, high_mm=10.0)
    with pytest.raises(NotAnalysable) as caught:
        require_coverage(head_extent(lower))
    assert caught.value.reason in {Reason.COVERAGE, Reason.NOT_A_HEAD}


def test_the_upper_part_of_a_head_does_not_cover_the_circle() -> None:
    extent = head_extent(head(low_mm=20.0))
    assert extent.vertex_inside
    assert extent.below_mm < 0.0
    assert not extent.covers_circle_of_willis()
    with pytest.raises(NotAnalysable) as caught:
        require_coverage(extent)
    assert caught.value.reason is Reason.COVERAGE


def test_every_start_of_a_series_that_stops_short_of_the_circle_is_refused_from_either_end() -> None:
    whole = head()
    circle = 37  # slices from the bottom
    for count in range(10, circle + 15, 5):
        with pytest.raises(NotAnalysable):
            require_coverage(head_extent(part(whole, 0, count)))
    for first in range(circle - 12, len(whole.hu_DHW) - 5, 5):
        with pytest.raises(NotAnalysable):
            require_coverage(head_extent(part(whole, first, None)))


def test_air_is_not_a_head() -> None:
    with pytest.raises(NotAnalysable) as caught:
        head_extent(Volume(np.full((80, 100, 100), -1000, np.int16), head().affine_lps))
    assert caught.value.reason is Reason.NOT_A_HEAD


def test_a_volume_of_padding_is_not_a_head() -> None:
    with pytest.raises(NotAnalysable):
        head_extent(Volume(np.full((80, 100, 100), -3024, np.int16), head().affine_lps))


def test_magnetic_resonance_is_not_a_head_in_hounsfield_units() -> None:
    made = head()
    with pytest.raises(NotAnalysable) as caught:
        head_extent(Volume(np.clip(made.hu_DHW, 0, None), made.affine_lps))
    assert caught.value.reason is Reason.NOT_A_HEAD


def test_a_chest_is_not_a_head() -> None:
    made = head(fov_mm=380.0, low_mm=-150.0, high_mm=150.0, spacing_mm_DHW=(3.0, 2.0, 2.0))
    d, h, w = np.indices(made.hu_DHW.shape)
    x, y = (w - 95) * 2.0, (h - 95) * 2.0
    hu = np.full(made.hu_DHW.shape, -1000, np.int16)
    body = (x / 170) ** 2 + (y / 115) ** 2
    hu[body <= 1] = 40
    hu[((np.abs(x) - 70) / 60) ** 2 + (y / 80) ** 2 <= 1] = -850
    ribs = (body > 0.78) & (body < 0.9) & ((d * 3.0 + 0.6 * np.abs(x)) % 28 < 9)
    hu[ribs] = 600
    hu[np.hypot(x, y - 75) <= 18] = 500
    hu[np.hypot(x, y - 90) <= 9] = 40
    with pytest.raises(NotAnalysable) as caught:
        head_extent(Volume(hu, made.affine_lps))
    assert caught.value.reason is Reason.NOT_A_HEAD


def test_a_single_row_or_slice_is_not_a_head() -> None:
    with pytest.raises(NotAnalysable):
        head_extent(Volume(np.zeros((1, 64, 64), np.int16), head().affine_lps))


def test_a_head_is_not_looked_for_in_a_volume_that_is_too_large_even_when_subsampled() -> None:
    vast = np.broadcast_to(np.int16(-1000), (410, 410, 400))  # takes no memory
    with pytest.raises(NotAnalysable) as caught:
        head_extent(Volume(vast, np.diag([5.0, 5.0, 5.0, 1.0])))
    assert caught.value.reason is Reason.TOO_LARGE


def test_an_extent_without_a_centre_covers_nothing() -> None:
    extent = HeadExtent(None, vertex_inside=False)
    assert not extent.covers_circle_of_willis()
    with pytest.raises(NotAnalysable):
        require_coverage(extent)


def test_a_subsampled_head_is_judged_within_a_fifth_of_a_second() -> None:
    coarse = head(spacing_mm_DHW=(4.0, 2.0, 2.0), high_mm=150.0)
    head_extent(coarse)
    began = time.perf_counter()
    head_extent(coarse)
    assert time.perf_counter() - began < 0.2


def test_coverage_does_not_need_torch() -> None:
    code = "import ai, ai.coverage, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_real_scanner_s_skull_phantom_is_a_head_that_shows_the_region() -> None:
    if not PHILIPS.exists():
        absent(f"the scanner's study is not at {PHILIPS}")
    import pydicom

    from ai.volume import volume_from_datasets

    datasets = [pydicom.dcmread(path) for path in sorted(PHILIPS.glob("I*"))]
    extent = head_extent(volume_from_datasets([ds for ds in datasets if "PixelData" in ds]))
    assert extent.covers_circle_of_willis()
    assert apart_mm(extent, (-3.0, 85.0, 743.0)) < 8.0  # the clinoids, read off the images
