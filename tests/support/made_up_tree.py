"""A file of arteries like the shared one, made of straight lines between its landmarks."""

from itertools import pairwise
from pathlib import Path

import numpy as np

from training import anatomy

Point = tuple[float, float, float]


def write_arteries(folder: Path) -> Path:
    """The folder, which then holds a centreline that `read_arteries` reads."""
    forward: dict[str, tuple[Point, Point]] = {
        "L_A2": (anatomy._L_ACOM, (79.0, 125.0, 95.0)),
        "R_A2": (anatomy._R_ACOM, (84.0, 126.0, 95.0)),
        "L_P2": (anatomy._L_P1, (68.0, 80.0, 62.0)),
        "R_P2": (anatomy._R_P1, (98.0, 80.0, 62.0)),
        "L_M2": (anatomy._L_M1, (40.0, 105.0, 80.0)),
        "R_M2": (anatomy._R_M1, (128.0, 105.0, 80.0)),
        "L_M2b": (anatomy._L_M1, (38.0, 100.0, 70.0)),
        "R_M2b": (anatomy._R_M1, (130.0, 100.0, 70.0)),
    }
    lines = [list(ends) for ends in (anatomy._TRUNKS | forward).values()]
    origin = anatomy._TRUNKS["L_PCOM"][0]
    lines[list(anatomy._TRUNKS).index("L_ICA_supra")].insert(1, origin)

    points: list[Point] = []
    numbers: dict[Point, int] = {}

    def number_of(point: Point) -> int:
        if point not in numbers:
            points.append(point)
            numbers[point] = len(points) - 1
        return numbers[point]

    edges: list[tuple[int, int]] = []
    for line in lines:
        for first, last in pairwise(line):
            count = int(np.linalg.norm(np.subtract(last, first)) / 0.4) + 2
            along = np.array(first) + np.linspace(0, 1, count)[1:-1, None] * np.subtract(last, first)
            stops = [first, *((float(x), float(y), float(z)) for x, y, z in along), last]
            edges += pairwise([number_of(stop) for stop in stops])
    place = np.array(points) / 1000
    body = b"# vtk DataFile Version 5.1\nmade up\nBINARY\nDATASET UNSTRUCTURED_GRID\n"
    body += b"POINTS %d float\n" % len(points) + place.astype(">f4").tobytes()
    body += b"\nCELLS %d %d\n" % (len(edges) + 1, 2 * len(edges))
    body += b"CONNECTIVITY vtktypeint64\n" + np.array(edges, ">i8").tobytes()
    body += b"\nPOINT_DATA %d\nSCALARS radius float\nLOOKUP_TABLE default\n" % len(points)
    body += np.full(len(points), 0.9e-3, ">f4").tobytes()
    (folder / anatomy.CENTRELINE).write_bytes(body)
    return folder
