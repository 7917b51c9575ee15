"""The shape of what lies in the middle of a cube, as numbers: how wide, how round, and which vessels leave it.

A sac is a lumen wider than what leads to it, closed towards most sides; a bend has two ways out as wide as itself, a fork
three.  Everything is measured on the lumen that the middle belongs to, found by its own density, relative to the largest ball
that fits into it there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai.distances import depths, within

Float32Array = NDArray[np.float32]

SPACING_MM = 0.5
SIDE = 40
"""Voxels on a side of a cube, 20 mm."""
_CORE_MM, _SEARCH_MM, _AROUND_MM = 2.0, 2.6, 9.0
_LINE = ((np.arange(SIDE) - (SIDE - 1) / 2) * SPACING_MM).astype(np.float32)
_LINES = (_LINE[:, None, None], _LINE[:, None], _LINE)
_POINTS = np.stack(np.meshgrid(_LINE, _LINE, _LINE, indexing="ij"), axis=-1)
_FROM_MIDDLE = np.linalg.norm(_POINTS, axis=-1)
_WAYS = 200
_STEP_MM, _STEPS = 0.5, 24
_SHELLS = ("close", "near", "far", "twice", "6mm", "8mm")
_OUTER = ("near", "twice")
"""The shells whose crossings are also told by their direction."""
_EVERY = np.ones((3, 3, 3), bool)


def _spread_ways() -> Float32Array:
    """Directions spread evenly over the sphere (Fibonacci), (`_WAYS`, 3)."""
    number = np.arange(_WAYS) + 0.5
    polar, around = np.arccos(1 - 2 * number / _WAYS), np.pi * (1 + 5**0.5) * number
    ways = [np.cos(around) * np.sin(polar), np.sin(around) * np.sin(polar), np.cos(polar)]
    return np.stack(ways, axis=-1).astype(np.float32)


_DIRECTIONS = _spread_ways()

NAMES: tuple[str, ...] = (
    *("density", "radius", "radius_at_middle", "off_middle", "wide_elsewhere", "usual_elsewhere", "elsewhere"),
    *("over_wide_elsewhere", "over_usual_elsewhere", "wider_part"),
    *(
        f"{name}_{shell}"
        for shell in _SHELLS
        for name in ("exits", "exit_1", "exit_2", "exit_3", "over_exit_1", "over_exit_2", "filled")
    ),
    *(f"{name}_{shell}" for shell in _OUTER for name in ("angle_12", "angle_13", "angle_23", "beside_line")),
    *(f"{name}_{ball}" for ball in ("small", "middle", "5mm") for name in ("share", "second", "third", "one_sided")),
    *("dense_exits", "dense_filled", "uneven", "bone_4mm", "bone_8mm", "air_8mm", "vessels_6mm", "density_elsewhere"),
    *(
        "short_ways",
        "medium_ways",
        "long_ways",
        "way_25",
        "way_75",
        "way_90",
        "way_most",
        "closed_cap",
        "open_to_one_side",
    ),
)
"""What each number is, in order; lengths in mm or as multiples of the ball's radius, densities as multiples of the lumen's."""


def measured(hu_DHW: NDArray[np.int16]) -> Float32Array:
    """Return the numbers that `NAMES` names, of a cube of `SIDE` voxels of `SPACING_MM`; all 0 where nothing is filled."""
    hu = ndimage.gaussian_filter(hu_DHW.astype(np.float32), 0.6, truncate=2.5)
    density = max(float(np.percentile(hu[_FROM_MIDDLE <= _CORE_MM], 80)), 100.0)
    bone = hu > max(1.45 * density, density + 180.0)
    lumen = _lumen(hu, bone, 0.5 * density + 20.0)
    if lumen is None:
        return np.zeros(len(NAMES), np.float32)
    box = ndimage.find_objects(lumen.view(np.uint8))[0]
    depth, ridge = np.zeros(lumen.shape, np.float32), np.zeros(lumen.shape, bool)
    depth[box] = depths(lumen[box]) * np.float32(SPACING_MM)  # what ends with the cube counts as ending in a wall
    ridge[box] = depth[box] == ndimage.maximum_filter(depth[box], 3)
    at = np.unravel_index(int(np.where(_FROM_MIDDLE <= _SEARCH_MM, depth, 0).argmax()), depth.shape)
    radius, ball = float(depth[at]), _POINTS[at]
    away = np.sqrt(sum((line - at_mm) ** 2 for line, at_mm in zip(_LINES, ball, strict=True)))
    filled = _Lumen.of(lumen, away, np.sort(away, axis=None))
    values = [density / 300.0, radius, float(depth[_FROM_MIDDLE < 1.0].max()), float(np.linalg.norm(ball))]
    values += _elsewhere(depth, ridge, away, radius)
    shells = dict(zip(_SHELLS, (radius + 1.0, radius + 2.0, radius + 3.5, 2 * radius + 1, 6.0, 8.0), strict=True))
    turned: list[float] = []
    for name, at_mm in shells.items():
        numbers, ways = _exits(filled, ball, at_mm, radius)
        values += numbers
        turned += _angles(ways, at_mm) if name in _OUTER else []
    values += turned
    for reach in (1.6 * radius + 0.5, 2.5 * radius + 1.0, 5.0):
        values += _spread(filled, ball, reach)
    dense = _Lumen.of(lumen & (hu > 0.72 * density), away, filled.all_away)
    numbers, _ = _exits(dense, ball, shells["near"], radius)
    elsewhere = lumen & (away > radius + 2.0) & (depth > 0.6)
    values += [
        numbers[0],
        numbers[-1],
        float(hu[away <= max(radius, 0.6)].std()) / density,
        float(bone[_FROM_MIDDLE < 4.0].mean()),
        float(bone[_FROM_MIDDLE < 8.0].mean()),
        float((hu[_FROM_MIDDLE < 8.0] < -300.0).mean()),
        float((hu[_FROM_MIDDLE < 6.0] > 0.4 * density).mean()),
        float(hu[elsewhere].mean()) / density if elsewhere.any() else 1.0,
    ]
    values += _ways_out(lumen, ball, radius)
    return np.array(values, np.float32)


def _lumen(hu: Float32Array, bone: NDArray[np.bool_], least_hu: float) -> NDArray[np.bool_] | None:
    """What is as dense as a filled vessel and connected to the middle, clear of bone; None where there is nothing."""
    filled = (hu > least_hu) & ~(within(bone, 1.0) if bone.any() else bone)
    labels, _ = ndimage.label(filled)
    inside = labels[_FROM_MIDDLE <= _CORE_MM]
    inside = inside[inside > 0]
    if len(inside) == 0:
        return None
    found: NDArray[np.bool_] = labels == np.bincount(inside).argmax()
    return found


def _elsewhere(depth: Float32Array, ridge: NDArray[np.bool_], away: Float32Array, radius: float) -> list[float]:
    """How wide the lumen is beyond the ball, how the ball compares, and the part of it that is wider than the rest."""
    widths = depth[ridge & (depth > 0.6) & (away > radius + 2.0) & (away < _AROUND_MM)]
    wide, usual = (float(np.percentile(widths, 90)), float(np.median(widths))) if len(widths) else (0.0, 0.0)
    wider = (depth > 1.1 * wide + 0.1) & (away < radius + 3.0)
    part = float(np.cbrt(wider.sum() * SPACING_MM**3))
    return [wide, usual, len(widths) / 50.0, radius / (wide + 0.4), radius / (usual + 0.4), part]


@dataclass(frozen=True, eq=False)
class _Lumen:
    """The filled voxels: their indices (N, 3), points (N, 3) and distances from the ball's middle; all distances, sorted."""

    index: NDArray[np.intp]
    points: Float32Array
    away: Float32Array
    all_away: Float32Array

    @classmethod
    def of(cls, filled: NDArray[np.bool_], away: Float32Array, all_away: Float32Array) -> "_Lumen":
        index = np.argwhere(filled)
        return cls(index, _POINTS[filled], away[filled], all_away)

    def voxels(self, low_mm: float, high_mm: float) -> int:
        """How many voxels of the cube lie between two distances."""
        low, high = np.searchsorted(self.all_away, [low_mm, high_mm], side="right")
        return int(high - low)


def _exits(lumen: _Lumen, ball: Float32Array, at_mm: float, radius: float) -> tuple[list[float], list[Float32Array]]:
    """Where the lumen crosses a shell about the ball: how often, how wide, how much of it; and the ways to the largest three."""
    crossing = np.abs(lumen.away - np.float32(at_mm)) <= 0.5
    index, points = lumen.index[crossing], lumen.points[crossing]
    if len(index) == 0:
        return [0.0, 0.0, 0.0, 0.0, radius / 0.4, radius / 0.4, 0.0], []
    corner = index.min(axis=0)
    grid = np.zeros(index.max(axis=0) - corner + 1, bool)
    inside = tuple((index - corner).T)
    grid[inside] = True
    labels = ndimage.label(grid, _EVERY)[0][inside]
    sizes = np.bincount(labels)[1:]
    largest = [int(i) for i in np.argsort(-sizes)[:3] if sizes[i] >= 3]
    widths = [float(np.sqrt(sizes[i] * SPACING_MM**3 / np.pi)) for i in largest] + [0.0] * (3 - len(largest))
    ways = [points[labels == i + 1].mean(axis=0) - ball for i in largest]
    exits = float(min((sizes >= 3).sum(), 5))
    filled = len(index) / max(lumen.voxels(at_mm - 0.5, at_mm + 0.5), 1)
    return [exits, *widths, radius / (widths[0] + 0.4), radius / (widths[1] + 0.4), filled], ways


def _angles(ways: Sequence[Float32Array], at_mm: float) -> list[float]:
    """Cosines between the ways to the largest exits, 1 where there is none; how far the ball lies beside the line of two."""
    units = [way / (np.linalg.norm(way) + 1e-6) for way in ways]
    cosines = [float(units[a] @ units[b]) if len(units) > max(a, b) else 1.0 for a, b in ((0, 1), (0, 2), (1, 2))]
    beside = 1.5
    if len(ways) > 1:
        along = ways[1] - ways[0]
        beside = float(np.linalg.norm(np.cross(ways[0], along)) / (np.linalg.norm(along) + 1e-6)) / at_mm
    return [*cosines, beside]


def _spread(lumen: _Lumen, ball: Float32Array, reach_mm: float) -> list[float]:
    """The lumen's share of a ball, its second and third axis over its first, and how far its middle lies to one side."""
    points = lumen.points[lumen.away <= reach_mm] - ball
    share = len(points) / max(lumen.voxels(-1.0, reach_mm), 1)
    if len(points) < 7:
        return [share, 1.0, 1.0, 0.0]
    first, second, third = np.linalg.eigvalsh(np.cov(points.T) + 1e-3 * np.eye(3))[::-1]
    one_sided = float(np.linalg.norm(points.mean(axis=0))) / reach_mm
    return [share, float(np.sqrt(second / first)), float(np.sqrt(third / first)), one_sided]


def _ways_out(lumen: NDArray[np.bool_], ball: Float32Array, radius: float) -> list[float]:
    """How far it is to the wall in all directions, as multiples of the ball's radius, and the widest cap without a way out."""
    steps = (np.arange(1, _STEPS + 1, dtype=np.float32) * np.float32(_STEP_MM))[:, None, None]
    index = np.rint((ball + steps * _DIRECTIONS - _LINE[0]) / SPACING_MM).astype(int)
    inside = ((index >= 0) & (index < SIDE)).all(axis=-1)
    index = np.clip(index, 0, SIDE - 1)
    filled = lumen[index[..., 0], index[..., 1], index[..., 2]] & inside
    wall_mm = np.where(filled.all(axis=0), _STEPS, (~filled).argmax(axis=0)) * _STEP_MM
    scale = radius + 0.3
    values = [
        float((wall_mm < 1.25 * radius + 0.5).mean()),
        float((wall_mm < 1.6 * radius + 0.5).mean()),
        float((wall_mm > 2.5 * radius + 1.0).mean()),
        *(float(np.percentile(wall_mm, share)) / scale for share in (25, 75, 90)),
        float(wall_mm.max()) / scale,
    ]
    out = _DIRECTIONS[wall_mm > 2.2 * radius + 1.0]
    if len(out) == 0:
        return [*values, 1.0, 1.0]
    nearest = (_DIRECTIONS @ out.T).max(axis=1)
    return [*values, float(np.arccos(np.clip(nearest.min(), -1, 1)) / np.pi), float(np.linalg.norm(out.mean(axis=0)))]
