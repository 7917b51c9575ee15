"""The quality of a series, measured about its circle of Willis: metal and its streaks, steps between slices, contrast, noise."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai.contrast import Tubes
from ai.preprocess import Preprocessing, region_of_interest
from ai.quality import LEAST_ARTERIAL_HU, Quality
from ai.volume import Volume

Float32Array = NDArray[np.float32]

METAL_HU = 3000
"""Neither teeth nor the densest bone reach this."""
_ONE_SIDED, _SIDE_MM3 = 0.05, 150.0
_AROUND = Preprocessing(spacing_mm=1.0, size_DHW=(64, 80, 80), offset_lps_mm=(0.0, 4.0, 6.0))
_VAULT_MM = (15.0, 65.0)
_SKIN_HU = -200


def quality_of(
    volume: Volume,
    circle_centre_lps_mm: tuple[float, float, float],
    tubes: Tubes,
    spread_mm: float = 0.0,
    below_mm: float = math.inf,
) -> Quality:
    """The quality of a series about its circle of Willis; `tubes` as `ai.contrast.enhanced_tubes` saw them.

    `spread_mm`, `below_mm`: as `ai.coverage.HeadExtent` has them.
    """
    hu = region_of_interest(volume, circle_centre_lps_mm, _AROUND).hu_DHW.astype(np.float32)
    smooth = ndimage.gaussian_filter(hu, 1.5)
    metal = hu >= METAL_HU
    return Quality(
        noise_hu=_noise_hu(volume, circle_centre_lps_mm),
        arterial_hu=tubes.hu,
        metal_mm3=float(metal.sum()),
        streak_hu=_streak_hu(smooth, metal),
        step_mm=_step_mm(volume, circle_centre_lps_mm),
        spread_mm=spread_mm,
        unfilled_side=_unfilled_side(tubes),
        below_mm=below_mm,
    )


def _noise_hu(volume: Volume, circle_centre_lps_mm: tuple[float, float, float]) -> float:
    """Robust standard deviation in soft tissue of the slices as they are, 60 mm about the circle; interpolation would hide it."""
    index = np.linalg.solve(volume.affine_lps, np.append(circle_centre_lps_mm, 1.0))[:3]
    reach = 30.0 / np.array(volume.spacing_mm_DHW)
    low, high = (np.clip(np.rint(index + side * reach), 0, volume.hu_DHW.shape).astype(int) for side in (-1, 1))
    levels = np.unique(np.linspace(low[0], max(low[0], high[0] - 1), 8).astype(int))
    hu = volume.hu_DHW[levels[levels < high[0]], low[1] : high[1], low[2] : high[2]].astype(np.float32)
    if hu.size == 0:
        return 0.0
    wide = 2.0 / np.array(volume.spacing_mm_DHW[1:])
    smooth = ndimage.gaussian_filter(hu, (0.0, float(wide[0]), float(wide[1])))
    rest = (hu - smooth)[(smooth > -20.0) & (smooth < 100.0)]
    return float(1.4826 * np.median(np.abs(rest))) if rest.size else 0.0


def _streak_hu(smooth: Float32Array, metal: NDArray[np.bool_]) -> float:
    """By how much soft tissue is more uneven in slices with metal than in those without; 0 without metal."""
    with_metal = ndimage.binary_dilation(metal.any(axis=(1, 2)), iterations=1)
    if not metal.any() or with_metal.all():
        return 0.0
    near_metal = ndimage.binary_dilation(metal, iterations=4)
    soft = (smooth > -150.0) & (smooth < 250.0) & ~near_metal
    uneven = [_spread_hu(smooth[slices][soft[slices]]) for slices in (with_metal, ~with_metal)]
    return uneven[0] - uneven[1]


def _spread_hu(values: Float32Array) -> float:
    return float(1.4826 * np.median(np.abs(values - np.median(values)))) if values.size else 0.0


def _step_mm(volume: Volume, circle_centre_lps_mm: tuple[float, float, float]) -> float:
    """The largest sideways jump of the vault from one slice to the next, by the centre of gravity of its outline.

    The outline of the skin, filled: bone that comes and goes with noise and marrow would move the centre of bone.
    """
    spacing = volume.spacing_mm_DHW
    level = float(np.linalg.solve(volume.affine_lps, np.append(circle_centre_lps_mm, 1.0))[0])
    first, last = (round(level + mm / spacing[0]) for mm in _VAULT_MM)
    slice_step, pixel_step = (max(1, round(1.0 / each)) for each in spacing[:2])
    planes = volume.hu_DHW[max(0, first) : max(0, last) : slice_step, ::pixel_step, ::pixel_step] > _SKIN_HU
    if len(planes) < 5 or not planes.any(axis=(1, 2)).all():
        return 0.0
    centre_mm = np.array([middle_of_largest(plane) for plane in planes]) * pixel_step * np.array(spacing[1:])
    jump = np.diff(centre_mm, axis=0)
    usual = ndimage.median_filter(jump, size=(5, 1), mode="nearest")
    return float(np.linalg.norm(jump - usual, axis=1).max())


def middle_of_largest(plane: NDArray[np.bool_]) -> tuple[float, float]:
    """Centre of gravity (row, column) of the largest part of a plane, its holes filled: the head, not what it lies on."""
    labels, _ = ndimage.label(plane)
    size = np.bincount(labels.ravel())
    size[0] = 0
    around, _ = ndimage.label(np.pad(labels != size.argmax(), 1, constant_values=True))
    filled = around[1:-1, 1:-1] != around[0, 0]  # a hole is not connected to what surrounds the plane
    rows, columns = (filled.sum(axis=axis) @ np.arange(filled.shape[1 - axis]) for axis in (1, 0))
    return float(rows / filled.sum()), float(columns / filled.sum())


def _unfilled_side(tubes: Tubes) -> str:
    """The side without filled arteries where the other has plenty and they are well filled."""
    if not tubes.hu >= LEAST_ARTERIAL_HU or max(tubes.left_mm3, tubes.right_mm3) < _SIDE_MM3:
        return ""
    if tubes.left_mm3 < _ONE_SIDED * tubes.right_mm3:
        return "left"
    return "right" if tubes.right_mm3 < _ONE_SIDED * tubes.left_mm3 else ""
