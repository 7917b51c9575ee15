"""Where in the head a candidate lies, and what lies around it: numbers that tell a crumb in an orbit from a sac on an artery.

The place is counted from the middle of the circle of Willis, the tissue in two shells beyond the candidate itself.  Sacs lie in
cisterns and beside the siphons, not in the fat of an orbit, in mucosa or in a ventricle.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ai.affine import voxel_of
from ai.preprocess import Region

Float32Array = NDArray[np.float32]

_TISSUES = {"fat": (-150, -25), "bone": (350, 4000), "air": (-2000, -300), "soft": (0, 90)}
"""HU above the first and below the second."""
_SHELLS_MM = {"near": (6.0, 12.0), "far": (12.0, 20.0)}
_EVERY = 2
"""Of the region's voxels along each axis, every second is read."""
_FARTHEST_CM = 5.0

NAMES: tuple[str, ...] = (
    *("aside", "behind", "above"),
    *(f"{tissue}_{shell}" for shell in _SHELLS_MM for tissue in _TISSUES),
)
"""What each number is, in order: cm beside the midline, behind and above the middle of the circle; then shares of a shell."""
TERMS: tuple[str, ...] = (
    *NAMES[:3],
    *("aside_squared", "behind_squared", "above_squared", "behind_times_above"),
    *NAMES[3:],
)
"""What is weighed: the place may be best anywhere, and worse in all directions from there."""


def surroundings(region: Region, centres_lps_mm: Sequence[tuple[float, float, float]]) -> Float32Array:
    """The numbers that `NAMES` names for each place, (N, 11)."""
    found = np.zeros((len(centres_lps_mm), len(NAMES)), np.float32)
    for row, centre in zip(found, centres_lps_mm, strict=True):
        x, y, z = np.subtract(centre, region.circle_centre_lps_mm) / 10.0
        row[:3] = abs(x), y, z
        row[3:] = _tissue(region, centre)
    return found


def _tissue(region: Region, centre_lps_mm: tuple[float, float, float]) -> list[float]:
    """The share of each shell that each tissue fills; 0 where a shell lies outside the region."""
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
    shares: list[float] = []
    for low, high in _SHELLS_MM.values():
        shell = hu[(squared >= low**2) & (squared < high**2)]
        for darkest, brightest in _TISSUES.values():
            shares.append(float(((shell > darkest) & (shell < brightest)).mean()) if shell.size else 0.0)
    return shares


def terms(measures: Float32Array) -> NDArray[np.float64]:
    """What is weighed, (N, 15) in the order of `TERMS`, of what was measured."""
    place = np.clip(measures[:, :3].astype(np.float64), -_FARTHEST_CM, _FARTHEST_CM)
    return np.concatenate([place, place**2, place[:, 1:2] * place[:, 2:3], measures[:, 3:]], axis=1)


def place_scores(
    weights: Sequence[float], region: Region, centres_lps_mm: Sequence[tuple[float, float, float]]
) -> list[float]:
    """What the surroundings of each place add to its score; nothing without weights."""
    if not weights or not centres_lps_mm:
        return [0.0] * len(centres_lps_mm)
    return [float(score) for score in terms(surroundings(region, centres_lps_mm)) @ np.array(weights)]
