"""The arteries of one real brain as pieces of vessels: bent, scaled and recalibrated, so that no two are alike.

The files are those of `anatomy/` in the README of the shared data: an arterial centreline with radii near the voxel size of the
angiography, so its course is trusted and its calibre redrawn.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.spatial import cKDTree

from training.cubes.vessels import Place, Vessel, unit
from training.phantom.frame import FloatArray, rotation_matrix

_POINTS, _LINES = "POINTS", "CONNECTIVITY vtktypeint64"


@dataclass(frozen=True, eq=False)
class RealTree:
    """`paths`: indices of the points of each unbranched piece; `points` (N, 3) in mm, smoothed; `radius` (N,) in mm.

    `left`: whether a point lies in the half of the head that only validation draws from.
    `degree`: how many neighbours a point has; `turn_mm`: radius of curvature of the course there.
    """

    points: FloatArray
    radius: FloatArray
    paths: tuple[NDArray[np.intp], ...]
    left: NDArray[np.bool_]
    degree: NDArray[np.intp]
    turn_mm: FloatArray
    finder: cKDTree


@lru_cache(maxsize=1)
def read_tree(path: Path) -> RealTree:
    """Return the tree of an `arteries-centreline.vtk`.  Raises OSError, and ValueError for another kind of file."""
    data = path.read_bytes()
    if not data.startswith(b"# vtk DataFile Version 5"):
        raise ValueError(f"{path} is not a binary VTK file of version 5")
    count = int(data[data.find(b"POINTS ") :].split(maxsplit=2)[1])
    points = _numbers(data, b"POINTS ", ">f4", 3 * count).reshape(count, 3) * 1000.0
    lines = _numbers(data, b"CONNECTIVITY ", ">i8", 2 * (count - 1)).astype(int).reshape(-1, 2)
    radius = _numbers(data[data.find(b"POINT_DATA") :], b"LOOKUP_TABLE", ">f4", count) * 1000.0
    degree = np.bincount(lines.ravel(), minlength=count)
    paths = _paths(lines, count, degree)
    smooth, wide, turn = points.copy(), radius.copy(), np.full(count, 50.0)
    for piece in paths:
        if len(piece) < 5:
            continue
        line = ndimage.gaussian_filter1d(points[piece], 3.0, axis=0, mode="nearest")
        line[0], line[-1] = points[piece[0]], points[piece[-1]]
        smooth[piece] = ndimage.gaussian_filter1d(line, 1.0, axis=0, mode="nearest")
        smooth[piece[[0, -1]]] = points[piece[[0, -1]]]
        wide[piece] = ndimage.gaussian_filter1d(radius[piece], 5.0, mode="nearest")
        first = np.gradient(ndimage.gaussian_filter1d(smooth[piece], 3.0, axis=0, mode="nearest"), axis=0)
        second = np.gradient(first, axis=0)
        bent = np.linalg.norm(np.cross(first, second), axis=1) / (np.linalg.norm(first, axis=1) ** 3 + 1e-6)
        turn[piece] = 1.0 / (bent + 0.02)
    middle = float(np.median(smooth[:, 0]))
    return RealTree(smooth, wide, tuple(paths), smooth[:, 0] < middle, degree, turn, cKDTree(smooth))


def _numbers(data: bytes, after: bytes, kind: str, count: int) -> FloatArray:
    start = data.index(b"\n", data.index(after)) + 1
    return np.frombuffer(data, kind, count, start).astype(float)


def _paths(lines: NDArray[np.intp], count: int, degree: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """The pieces between ends and forks."""
    graph = coo_matrix((np.ones(len(lines)), (lines[:, 0], lines[:, 1])), (count, count))
    graph = (graph + graph.T).tocsr()
    found, seen = [], set()
    for start in np.flatnonzero(degree != 2):
        for step in graph.indices[graph.indptr[start] : graph.indptr[start + 1]]:
            if (start, step) in seen:
                continue
            piece = [int(start), int(step)]
            while degree[piece[-1]] == 2:
                near = graph.indices[graph.indptr[piece[-1]] : graph.indptr[piece[-1] + 1]]
                piece.append(int(near[0] if near[0] != piece[-2] else near[1]))
            seen.add((int(start), int(step)))
            seen.add((piece[-1], piece[-2]))
            found.append(np.array(piece))
    return found


def around(tree: RealTree, rng: np.random.Generator, *, validation: bool) -> tuple[list[Vessel], list[Place]]:
    """Vessels within reach of a place of the tree, which is moved to the origin, and what is special near there."""
    mine = tree.left == validation
    weight = mine * (0.05 + 30.0 * (tree.degree > 2) + np.clip(4.0 / tree.turn_mm - 0.5, 0, 1.2)) * tree.radius**2
    centre = int(rng.choice(len(tree.points), p=weight / weight.sum()))
    origin = tree.points[centre]
    scale = float(rng.uniform(0.8, 1.3))
    turned = rotation_matrix(tuple(rng.uniform(-180, 180, 3))) * np.array([1.0, 1.0, rng.choice([-1.0, 1.0])])
    waves = [
        (
            rng.normal(0, 1, 3) * rng.uniform(0.3, 2.2),
            unit(rng.normal(0, 1, 3)) * 2 * np.pi / rng.uniform(10, 40),
            rng.uniform(0, 6.3),
        )
        for _ in range(3)
    ]

    def placed(points: FloatArray) -> FloatArray:
        out: FloatArray = (points - origin) @ turned.T * scale
        bent: FloatArray = out + sum(a * (np.sin(out @ k + p) - np.sin(p))[:, None] for a, k, p in waves)
        return bent

    near = np.zeros(len(tree.points), bool)
    near[tree.finder.query_ball_point(origin, 24.0 / scale)] = True
    overall = float(rng.uniform(0.95, 1.75))
    vessels = []
    for piece in tree.paths:
        inside = np.flatnonzero(near[piece])
        if len(inside) < 4:
            continue
        for run in np.split(inside, np.flatnonzero(np.diff(inside) > 1) + 1):
            if len(run) < 4:
                continue
            run = run[::2] if len(run) > 8 else run  # every 0.7 mm
            points = placed(tree.points[piece[run]])
            knots = rng.normal(0, 1, max(len(run) // 5, 2) + 2)
            wave = np.interp(np.linspace(0, len(knots) - 1, len(run)), np.arange(len(knots)), knots)
            radius = overall * rng.uniform(0.8, 1.2) * (tree.radius[piece[run]] - 0.49 * rng.uniform(0.0, 0.45))
            vessels.append(Vessel(points, np.clip(radius * (1 + rng.uniform(0.04, 0.11) * wave), 0.25, 2.8)))
    point = np.zeros(3)
    tangents = [
        vessel.tangent(int(np.argmin(np.linalg.norm(vessel.points, axis=1))))
        for vessel in vessels
        if np.linalg.norm(vessel.points, axis=1).min() < 1.5
    ]
    width = overall * tree.radius[centre]
    along = tangents[0] if tangents else unit(rng.normal(0, 1, 3))
    way = unit(rng.normal(0, 1, 3))
    if tree.degree[centre] < 3:  # the outer side of a bend
        way = unit(way - (way @ along) * along + 0.3 * rng.normal() * along)
        inner = next((v for v in vessels if np.linalg.norm(v.points, axis=1).min() < 0.5), None)
        if inner is not None and rng.uniform() < 0.7:
            at = int(np.argmin(np.linalg.norm(inner.points, axis=1)))
            low, high = inner.points[max(at - 5, 0)], inner.points[min(at + 5, len(inner.points) - 1)]
            way = unit(-unit((low + high) / 2 - inner.points[at]) + rng.normal(0, 0.4, 3))
    else:  # away from where the branches come from, or in line with one
        near_points = np.concatenate([v.points for v in vessels])
        ring = near_points[np.abs(np.linalg.norm(near_points, axis=1) - 4.0) < 0.6]
        if len(ring):
            options = rng.normal(0, 1, (60, 3))
            options /= np.linalg.norm(options, axis=1, keepdims=True)
            free = (options @ (ring / np.linalg.norm(ring, axis=1, keepdims=True)).T).max(axis=1)
            way = options[int(np.argsort(free)[rng.integers(0, 12)])]
    kind = "fork" if tree.degree[centre] > 2 else "bend" if tree.turn_mm[centre] < 6 else "vessel"
    return vessels, [Place(kind, point, way, float(width))]
