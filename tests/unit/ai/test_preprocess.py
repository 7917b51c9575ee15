from dataclasses import replace

import numpy as np
import pytest
import torch

from ai.preprocess import (
    HU_RANGE,
    Preprocessing,
    channels,
    coordinates,
    region_of_interest,
    resample,
)
from ai.volume import Volume
from tests.support.made_up_head import affine

SMALL = Preprocessing(spacing_mm=1.0, size_DHW=(32, 32, 48), offset_lps_mm=(0.0, 0.0, 0.0))
CIRCLE = (3.0, -12.0, 40.0)


def ramp(spacing: tuple[float, float, float]) -> Volume:
    """HU = 2·x + 3·y + 5·z in LPS mm, so that any right resampling can be told by its values."""
    matrix = affine(spacing, (-40.0, -60.0, 0.0))
    d, h, w = np.indices((round(80 / spacing[0]), round(96 / spacing[1]), round(86 / spacing[2])))
    x, y, z = (-40.0 + w * spacing[2], -60.0 + h * spacing[1], d * spacing[0])
    return Volume(np.rint(2 * x + 3 * y + 5 * z).astype(np.int16), matrix)


def expected(region_affine: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    d, h, w = np.indices(shape)
    lps = np.einsum("ij,jdhw->idhw", region_affine, np.stack([d, h, w, np.ones_like(d)]))
    values: np.ndarray = 2 * lps[0] + 3 * lps[1] + 5 * lps[2]
    return values


@pytest.mark.parametrize("spacing", [(0.5, 0.5, 0.5), (1.0, 0.4, 0.4), (3.0, 1.5, 1.5), (0.2, 0.9, 0.9)])
def test_every_spacing_is_resampled_to_the_same_place(spacing: tuple[float, float, float]) -> None:
    region = region_of_interest(ramp(spacing), CIRCLE, SMALL)
    assert region.hu_DHW.shape == SMALL.size_DHW
    assert np.abs(region.hu_DHW - expected(region.affine_lps, SMALL.size_DHW)).max() <= 1.5


def test_a_tilted_grid_is_resampled_to_the_same_place() -> None:
    straight = ramp((1.0, 1.0, 1.0))
    sheared = straight.affine_lps.copy()
    sheared[1, 0] = 0.2
    d, h, w = np.indices(straight.hu_DHW.shape)
    lps = np.einsum("ij,jdhw->idhw", sheared, np.stack([d, h, w, np.ones_like(d)]))
    tilted = Volume(np.rint(2 * lps[0] + 3 * lps[1] + 5 * lps[2]).astype(np.int16), sheared)
    region = region_of_interest(tilted, CIRCLE, SMALL)
    assert np.abs(region.hu_DHW - expected(region.affine_lps, SMALL.size_DHW)).max() <= 1.5


@pytest.mark.parametrize("step_mm", [0.5, 0.7, 1.0, 1.3])
def test_noise_is_averaged_alike_on_a_grid_that_is_turned_or_mirrored(step_mm: float) -> None:
    noise = np.random.default_rng(1).normal(0.0, 300.0, (140, 140, 140)).astype(np.int16)
    straight = affine((0.4, 0.4, 0.4), (-28.0, -28.0, -28.0))
    grid = affine((step_mm,) * 3, (-12 * step_mm,) * 3)
    along = resample(Volume(noise, straight), grid, (24, 24, 24)).std()
    for degrees in (1.0, 10.0, 30.0):
        turned = np.eye(4)
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        turned[1:3, 1:3] = [[c, -s], [s, c]]
        assert resample(Volume(noise, turned @ straight), grid, (24, 24, 24)).std() == pytest.approx(along, rel=0.2)
    mirrored = np.diag([-1.0, 1.0, 1.0, 1.0]) @ straight
    assert resample(Volume(noise, mirrored), grid, (24, 24, 24)).std() == pytest.approx(along, rel=0.2)


@pytest.mark.parametrize("shear", [0.0, 0.2])
def test_beyond_the_volume_there_is_air(shear: float) -> None:
    volume = Volume(np.full((10, 40, 40), 50, np.int16), affine((1.0, 1.0, 1.0), (0.0, 0.0, 0.0)))
    volume.affine_lps[1, 0] = shear
    grid = affine((1.0, 1.0, 1.0), (5.0, 8.0, -20.0))
    out = resample(volume, grid, (48, 16, 16))
    assert (out[:18] == HU_RANGE[0]).all() and (out[31:] == HU_RANGE[0]).all()
    assert (out[21:29] == 50).all()
    assert (resample(volume, affine((1.0, 1.0, 1.0), (500.0, 0.0, 0.0)), (16, 16, 16)) == HU_RANGE[0]).all()


@pytest.mark.parametrize("value", [-2000, -3024, -32768, 32767])
def test_padding_and_overflow_are_clipped_before_they_are_interpolated(value: int) -> None:
    volume = Volume(np.full((40, 40, 40), value, np.int16), affine((1.0, 1.0, 1.0), (0.0, 0.0, 0.0)))
    out = resample(volume, affine((1.0, 1.0, 1.0), (10.3, 10.3, 10.3)), (16, 16, 16))
    assert (out == np.clip(value, *HU_RANGE)).all()


def test_channels_are_windows_then_coordinates_counted_from_the_circle() -> None:
    region = region_of_interest(ramp((1.0, 1.0, 1.0)), CIRCLE, SMALL)
    made = channels(torch.from_numpy(region.hu_DHW), coordinates(region, SMALL), SMALL).numpy()
    assert made.shape == (32, 32, 48, 6) and made.dtype == np.float32
    assert made[..., :3].min() >= -1.0 and made[..., :3].max() <= 1.0
    d, h, w = 5, 7, 11
    lps = (region.affine_lps @ [d, h, w, 1])[:3]
    z, y, x = made[d, h, w, 3:] * SMALL.coordinate_scale_mm
    assert np.allclose([x, y, z], lps - np.array(CIRCLE), atol=1e-3)
    hu = float(region.hu_DHW[d, h, w])
    assert made[d, h, w, 1] == pytest.approx(np.clip(hu / 300.0 - 1.0, -1, 1), abs=1e-5)


def test_without_coordinates_the_channels_are_the_windows_alone() -> None:
    region = region_of_interest(ramp((1.0, 1.0, 1.0)), CIRCLE, SMALL)
    without = replace(SMALL, coordinates=False)
    hu = torch.from_numpy(region.hu_DHW)
    made = channels(hu, coordinates(region, without), without)
    assert without.channel_count == 3
    assert torch.equal(made, channels(hu, coordinates(region, SMALL), SMALL)[..., :3])


@pytest.mark.parametrize(
    "wrong",
    [
        {"spacing_mm": 0.0},
        {"spacing_mm": 5.0},
        {"size_DHW": (160, 160, 100)},
        {"windows_hu": ()},
        {"windows_hu": ((5.0, 5.0),)},
    ],
)
def test_a_wrong_setting_cannot_be_built(wrong: dict) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Preprocessing(**wrong)
