"""Vessels as tubes: a centreline with a radius at each point, and the curves that centrelines follow."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.interpolate import CubicSpline

from training.phantom.frame import FloatArray, Pose

STEP_MM = 0.8
"""Distance between neighbouring points of a centreline."""


@dataclass(frozen=True, eq=False)
class Tube:
    """A vessel: `points` (N, 3) in mm, `radius` (N,) in mm, the label it gets, and its contrast.

    `filling`: HU of the lumen above blood that has no contrast, as a fraction of the arterial (or, for veins, the
    venous) enhancement.
    """

    name: str
    points: FloatArray
    radius: FloatArray
    label: int
    venous: bool = False
    filling: float = 1.0

    def tangent(self, index: int) -> FloatArray:
        """The unit vector along the centreline at a point."""
        low, high = max(index - 2, 0), min(index + 2, len(self.points) - 1)
        along = self.points[high] - self.points[low]
        unit: FloatArray = along / (np.linalg.norm(along) + 1e-9)
        return unit

    def nearest(self, point: FloatArray) -> int:
        """The index of the centreline point nearest to `point`."""
        return int(np.argmin(np.linalg.norm(self.points - point, axis=1)))

    def posed(self, pose: Pose) -> "Tube":
        """The same vessel in LPS mm."""
        return replace(self, points=pose.to_lps(self.points))


def curve(
    through: FloatArray,
    diameters: FloatArray,
    rng: np.random.Generator,
    *,
    wiggle_mm: float = 0.5,
    wave_mm: float = 14.0,
) -> tuple[FloatArray, FloatArray]:
    """Points every STEP_MM along a smooth path `through` the given ones, and radii between the given diameters.

    The path strays by about `wiggle_mm` in waves of about `wave_mm`, but keeps its ends.
    """
    through = np.asarray(through, float)
    steps = np.linalg.norm(np.diff(through, axis=0), axis=1)
    keep = np.concatenate([[True], steps > 1e-6])
    through, knots = through[keep], np.concatenate([[0.0], np.cumsum(steps[steps > 1e-6])])
    if len(through) < 2:
        raise ValueError("a curve needs two distinct points")
    length = float(knots[-1])
    where = np.linspace(0, length, max(int(length / STEP_MM) + 1, 3))
    path = (
        CubicSpline(knots, through)(where)
        if len(through) > 2
        else through[0] + np.outer(where / length, through[1] - through[0])
    )
    fade = np.sqrt(np.clip(np.sin(np.pi * where / length), 0, 1))
    for octave in (1.0, 0.45):
        number = 2 * np.pi / (wave_mm * octave * rng.uniform(0.7, 1.4, 3))
        path = path + wiggle_mm * octave * (fade[:, None] * np.sin(where[:, None] * number + rng.uniform(0, 6.3, 3)))
    spread = np.linspace(0, length, len(diameters))
    radius = np.interp(where, spread, diameters) / 2
    ripple = 1 + rng.uniform(0.01, 0.1) * np.sin(where * 2 * np.pi / rng.uniform(5, 20) + rng.uniform(0, 6.3))
    return path, radius * ripple
