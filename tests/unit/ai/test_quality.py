"""Each fault of the images is measured where it is, and not where it is not."""

import numpy as np
import pytest
from scipy import ndimage

from ai.contrast import enhanced_tubes
from ai.measures import middle_of_largest, quality_of
from ai.quality import Quality
from ai.volume import Volume
from tests.unit.ai.test_contrast import CIRCLE, about, fine


def measured(volume: Volume) -> Quality:
    return quality_of(volume, CIRCLE, enhanced_tubes(volume, CIRCLE))


def noisy(volume: Volume, hu: float) -> Volume:
    noise = np.random.default_rng(0).normal(0, hu, volume.hu_DHW.shape)
    return Volume(np.clip(volume.hu_DHW + noise, -1024, 3071).astype(np.int16), volume.affine_lps)


def test_a_good_series_has_no_limits() -> None:
    quality = measured(noisy(fine(350.0), 10.0))
    assert quality.limits == () and quality.text == ""
    assert quality.noise_hu == pytest.approx(10.0, abs=1.5)


def test_noise_is_measured_and_limits() -> None:
    assert "noise" in measured(noisy(fine(350.0), 40.0)).limits


def test_hardly_filled_arteries_limit() -> None:
    assert measured(noisy(fine(140.0), 8.0)).limits == ("poor opacification of the arteries",)


def with_metal(at_mm: tuple[float, float, float], streak_hu: float) -> Volume:
    volume = noisy(fine(350.0), 8.0)
    x, y, z = about(volume)
    hu = volume.hu_DHW.astype(np.float32)
    away = np.hypot(x - at_mm[0], y - at_mm[1])
    rays = streak_hu * np.sign(np.sin(9 * np.arctan2(y - at_mm[1], x - at_mm[0]))) / (1 + away / 30)
    hu[(np.abs(z - at_mm[2]) < 3) & (hu > -300)] += rays[(np.abs(z - at_mm[2]) < 3) & (hu > -300)]
    hu[np.hypot(away, z - at_mm[2]) <= 2.0] = 3071
    return Volume(np.clip(hu, -1024, 3071).astype(np.int16), volume.affine_lps)


def test_a_clip_at_the_circle_limits_and_one_far_away_does_not() -> None:
    near = measured(with_metal((10.0, 0.0, 3.0), 150.0))
    assert near.limits == ("metal artefact at the circle of Willis",) and near.streak_hu > 15.0
    assert near.text == "limited: metal artefact at the circle of Willis"
    assert measured(with_metal((10.0, 60.0, 60.0), 150.0)).metal_mm3 == 0.0


@pytest.mark.parametrize(("shift", "limited"), [(0, False), (2, True)])
def test_a_head_that_moved_between_slices_limits(shift: int, limited: bool) -> None:
    volume = noisy(fine(350.0), 8.0)
    volume.hu_DHW[80:] = np.roll(volume.hu_DHW[80:], shift, axis=2)
    assert ("motion between slices" in measured(volume).limits) is limited


def test_marrow_that_comes_and_goes_with_the_noise_is_no_motion() -> None:
    volume = fine(350.0)
    x, y, _ = about(volume)
    volume.hu_DHW[(volume.hu_DHW == 1100) & (np.sin(x / 9) * np.sin(y / 7) > -0.4)] = 300
    assert measured(noisy(volume, 30.0)).step_mm < 0.5


def test_a_tree_filled_on_one_side_is_told() -> None:
    volume = fine(350.0)
    x, _, _ = about(volume)
    volume.hu_DHW[(x > 4) & (volume.hu_DHW == 350)] = 35
    assert measured(noisy(volume, 8.0)).limits == ("no filled arteries seen on the left",)


def test_a_circle_that_is_hardly_placed_limits() -> None:
    volume = fine(350.0)
    quality = quality_of(volume, CIRCLE, enhanced_tubes(volume, CIRCLE), spread_mm=12.0)
    assert quality.limits == ("uncertain position of the circle of Willis",)


def test_images_that_end_soon_below_the_circle_limit() -> None:
    volume = fine(350.0)
    tubes = enhanced_tubes(volume, CIRCLE)
    assert quality_of(volume, CIRCLE, tubes, below_mm=46.0).limits == ()
    quality = quality_of(volume, CIRCLE, tubes, below_mm=38.4)
    assert quality.limits == ("vertebral arteries not shown whole (images end 38 mm below the circle)",)


@pytest.mark.parametrize("wrong", [{"noise_hu": -1.0}, {"step_mm": float("nan")}, {"unfilled_side": "both"}])
def test_a_wrong_quality_cannot_be_built(wrong: dict) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Quality(**{"noise_hu": 5.0, "arterial_hu": 300.0, **wrong})


def test_quality_does_not_need_torch() -> None:
    import subprocess
    import sys

    code = "import ai.quality, ai.findings, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_middle_of_a_head_is_that_of_its_outline_with_its_holes_filled() -> None:
    plane = np.zeros((40, 50), bool)
    plane[5:25, 10:40] = True
    plane[8:20, 30:38] = False  # a hole
    plane[12:14, 5:20] = False  # a notch, open to the side
    plane[30:34, 0:30] = True  # what the head lies on
    head = plane.copy()
    head[30:] = False
    head[8:20, 30:38] = True
    assert middle_of_largest(plane) == pytest.approx(ndimage.center_of_mass(head))
