"""The arteries of one real head, read from the shared anatomical data and named.

Source: the centreline that accompanies supplements S7 and S8 of PLOS Comput Biol 2019, e1007073 (CC BY 4.0).  The folder is
not part of the repository; `willis train` and `willis evaluate` are given its path.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order

from training.config import ConfigError

CENTRELINE = "arteries-centreline.vtk"
FloatArray = NDArray[np.float64]

_L_ICA_END, _R_ICA_END = (69.2, 110.5, 37.8), (100.2, 111.5, 37.3)
_L_GENU, _R_GENU = (69.7, 122.3, 51.1), (95.0, 121.5, 48.5)
_L_FORK, _R_FORK = (65.3, 113.4, 60.4), (96.2, 110.5, 61.4)
_L_ACOM, _R_ACOM = (80.0, 111.0, 68.7), (82.5, 115.9, 68.7)
_L_P1, _R_P1 = (75.1, 100.2, 61.4), (89.4, 102.1, 59.9)
_L_M1, _R_M1 = (51.1, 115.9, 61.9), (122.3, 122.3, 67.3)
_TIP = (83.0, 100.2, 57.5)
_TRUNKS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "L_ICA_infra": (_L_ICA_END, _L_GENU),
    "R_ICA_infra": (_R_ICA_END, _R_GENU),
    "L_ICA_supra": (_L_GENU, _L_FORK),
    "R_ICA_supra": (_R_GENU, _R_FORK),
    "L_M1": (_L_FORK, _L_M1),
    "R_M1": (_R_FORK, _R_M1),
    "L_A1": (_L_FORK, _L_ACOM),
    "R_A1": (_R_FORK, _R_ACOM),
    "ACOM": (_L_ACOM, _R_ACOM),
    "L_PCOM": ((70.7, 112.0, 55.5), _L_P1),
    "L_P1": (_TIP, _L_P1),
    "R_P1": (_TIP, _R_P1),
    "basilar": ((84.0, 104.1, 37.8), _TIP),
}
"""Ends of the great arteries in mm of the file, found by looking at it; its x grows to the right, y forward, z up."""
_ONWARD = {
    "L_A2": ("L_A1", -1),
    "R_A2": ("R_A1", -1),
    "L_P2": ("L_P1", -1),
    "R_P2": ("R_P1", -1),
    "L_M2_superior": ("L_M1", -1),
    "R_M2_superior": ("R_M1", -1),
    "L_M2_inferior": ("L_M1", -1),
    "R_M2_inferior": ("R_M1", -1),
}
"""Arteries that go on from the end of another, along their longest branch."""


@dataclass(frozen=True, eq=False)
class Branch:
    """A stretch of artery: `points` (N, 3) in canonical mm, from its origin on, and `radius` (N,) in mm as measured.

    `parent`: the name of the branch that it leaves; empty for one that begins at the edge of the data.
    """

    name: str
    points: FloatArray
    radius: FloatArray
    parent: str = ""


@cache
def read_arteries(folder: Path) -> tuple[Branch, ...]:
    """The arteries in the frame of `training.phantom.frame`, the great ones first.  Raises ConfigError."""
    path = folder / CENTRELINE
    if not path.is_file():
        raise ConfigError(
            f"{path} is missing: put the anatomical data there, or name its folder with [data] anatomy or --anatomy"
        )
    points, radius, edges = _read_vtk(path)
    return _named(_canonical(points), points, radius, edges)


def _read_vtk(path: Path) -> tuple[FloatArray, FloatArray, NDArray[np.int64]]:
    """Points and radii in mm and the lines between points of a binary legacy VTK file of lines."""
    raw = path.read_bytes()

    def block(after: bytes, kind: str, count: int) -> NDArray[np.generic]:
        at = raw.find(after)
        if at < 0:
            raise ConfigError(f"{path} has no {after.decode()!r}: it is not the centreline of the anatomical data")
        start = raw.index(b"\n", at) + 1
        return np.frombuffer(raw, kind, count, start)

    try:
        count = int(raw.split(b"POINTS ", 1)[1].split(b" ", 1)[0])
        links = int(raw.split(b"CELLS ", 1)[1].split(b"\n", 1)[0].split()[1])
    except (IndexError, ValueError) as error:
        raise ConfigError(f"{path} is not a VTK file of lines: fetch it again") from error
    points = block(b"POINTS ", ">f4", 3 * count).reshape(-1, 3).astype(float) * 1000
    radius = block(b"LOOKUP_TABLE default", ">f4", count).astype(float) * 1000
    edges = block(b"CONNECTIVITY ", ">i8", links).reshape(-1, 2).astype(np.int64)
    return points, radius, edges


def _canonical(points: FloatArray) -> FloatArray:
    """Canonical mm of mm in the file: the nod of 15° lays basilar artery and siphons along the drawn base of the skull."""
    x, y, z = (points - [83.0, 110.0, 59.0]).T
    nod = np.deg2rad(15.0)
    return np.stack([-x, y * np.cos(nod) + z * np.sin(nod), z * np.cos(nod) - y * np.sin(nod)], axis=1)


def _named(
    canonical: FloatArray, points: FloatArray, radius: FloatArray, edges: NDArray[np.int64]
) -> tuple[Branch, ...]:
    count = len(points)
    neighbours: list[list[int]] = [[] for _ in range(count)]
    for a, b in edges:
        neighbours[a].append(int(b))
        neighbours[b].append(int(a))
    graph = coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), (count, count)).tocsr()
    owner: dict[int, str] = {}
    found: list[Branch] = []

    def nearest(where: tuple[float, float, float]) -> int:
        return int(np.argmin(np.linalg.norm(points - where, axis=1)))

    def add(name: str, path: list[int], parent: str) -> None:
        found.append(Branch(name, canonical[path], radius[path], parent))
        for node in path:
            owner.setdefault(node, name)

    ends = {}
    for name, (first, last) in _TRUNKS.items():
        start, end = nearest(first), nearest(last)
        _, before = breadth_first_order(graph, start, directed=False)
        path = [end]
        while path[-1] != start:
            path.append(int(before[path[-1]]))
        add(name, path[::-1], owner.get(start, ""))
        ends[name] = end
    for name, (parent, _) in _ONWARD.items():
        path = _longest(ends[parent], neighbours, owner, canonical)
        if len(path) > 5:
            add(name, path, parent)
    number = 0
    while True:  # the rest, the longest side branch of what is named first
        starts = [node for node in owner if any(n not in owner for n in neighbours[node])]
        if not starts:
            return tuple(found)
        for start in starts:
            path = _longest(start, neighbours, owner, canonical)
            if len(path) > 1:
                add(f"branch_{number}", path, owner[start])
                number += 1


def _longest(start: int, neighbours: list[list[int]], owner: dict[int, str], points: FloatArray) -> list[int]:
    """The longest path from a point over points that have no name yet."""
    before, length = {start: -1}, {start: 0.0}
    stack = [start]
    while stack:
        node = stack.pop()
        for other in neighbours[node]:
            if other not in before and other not in owner:
                before[other] = node
                length[other] = length[node] + float(np.linalg.norm(points[other] - points[node]))
                stack.append(other)
    node = max(length, key=lambda key: length[key])
    path = []
    while node >= 0:
        path.append(node)
        node = before[node]
    return path[::-1]
