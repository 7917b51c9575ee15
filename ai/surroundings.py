"""What lies around a candidate, as shares of tissue: they tell a crumb in an orbit from a sac on an artery.

Measured in two shells beyond the candidate itself.  Sacs lie in cisterns and beside the siphons, hardly ever in the fat of an
orbit, in the mucosa of a sinus or in the bone of a face.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ai.affine import lps_of, voxel_of
from ai.preprocess import Region
from ai.volume import Volume

Float32Array = NDArray[np.float32]

_TISSUES = {"fat": (-150, -25), "bone": (350, 4000), "air": (-2000, -300)}
"""HU above the first and below the second."""
_SHELLS_MM = {"near": (6.0, 12.0), "far": (12.0, 20.0)}
_EVERY = 2
"""Of the region's voxels along each axis, every second is read."""

NAMES: tuple[str, ...] = tuple(f"{tissue}_{shell}" for shell in _SHELLS_MM for tissue in _TISSUES)
"""What each number is, in order: shares of a shell, from 0 to 1."""


def surroundings(
    region: Region, centres_lps_mm: Sequence[tuple[float, float, float]], volume: Volume | None = None
) -> Float32Array:
    """The numbers that `NAMES` names for each place, (N, 6).

    `volume`: what the region was cut from; the air that the region holds beyond it is no tissue.  None: nothing lies beyond.
    """
    found = [_tissue(region, centre, volume) for centre in centres_lps_mm]
    return np.array(found, np.float32).reshape(-1, len(NAMES))


def _tissue(region: Region, centre_lps_mm: tuple[float, float, float], volume: Volume | None) -> list[float]:
    """The share of each shell that each tissue fills; 0 where a shell lies outside the region or the volume."""
    step_mm = np.linalg.norm(region.affine_lps[:3, :3], axis=0)
    at = voxel_of(region.affine_lps, centre_lps_mm)
    reach = max(high for _, high in _SHELLS_MM.values()) / step_mm
    corner = np.clip(np.rint(at - reach).astype(int), 0, None)
    box = tuple(
        slice(low, max(high, low), _EVERY)
        for low, high in zip(corner, np.rint(at + reach).astype(int) + 1, strict=True)
    )
    hu = np.asarray(region.hu_DHW[box])
    lines = [
        (low + _EVERY * np.arange(side) - middle) * mm
        for low, side, middle, mm in zip(corner, hu.shape, at, step_mm, strict=True)
    ]
    squared = lines[0][:, None, None] ** 2 + lines[1][:, None] ** 2 + lines[2] ** 2
    if volume is not None:
        squared[~_within(volume, region, box, hu.shape)] = np.inf
    shares: list[float] = []
    for low, high in _SHELLS_MM.values():
        shell = hu[(squared >= low**2) & (squared < high**2)]
        for darkest, brightest in _TISSUES.values():
            shares.append(float(((shell > darkest) & (shell < brightest)).mean()) if shell.size else 0.0)
    return shares


def _within(volume: Volume, region: Region, box: tuple[slice, ...], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Which of the box's voxels lie between voxels of the volume."""
    steps = np.indices(shape).reshape(3, -1).T * [part.step for part in box] + [part.start for part in box]
    index = voxel_of(volume.affine_lps, lps_of(region.affine_lps, steps))
    last = np.array(volume.hu_DHW.shape) - 1
    return np.asarray(((index >= 0) & (index <= last)).all(axis=1).reshape(shape))


def place_scores(measures: Float32Array, weights: Sequence[float], limit: float) -> list[float]:
    """What each place takes from a candidate's score: nothing from `limit` on, or without weights; never in its favour."""
    if not weights:
        return [0.0] * len(measures)
    return [float(score) for score in np.minimum(measures @ np.array(weights) - limit, 0.0)]
