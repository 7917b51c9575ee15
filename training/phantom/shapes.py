"""Signed distances of simple solids (negative inside, about mm), on canonical coordinates."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Vector = tuple[float, float, float]


def ellipsoid(x: Array, y: Array, z: Array, centre: Vector, radii: Vector) -> Array:
    """Approximate distance to an ellipsoid with axes along x, y and z."""
    px, py, pz = x - np.float32(centre[0]), y - np.float32(centre[1]), z - np.float32(centre[2])
    rx, ry, rz = (np.float32(radius) for radius in radii)
    k0 = np.sqrt((px / rx) ** 2 + (py / ry) ** 2 + (pz / rz) ** 2)
    k1 = np.sqrt((px / rx**2) ** 2 + (py / ry**2) ** 2 + (pz / rz**2) ** 2)
    out: Array = k0 * (k0 - 1) / (k1 + np.float32(1e-6))
    return out


def box(x: Array, y: Array, z: Array, centre: Vector, half: Vector, nod_degrees: float = 0.0) -> Array:
    """Distance to a box, turned about x so that its top leans forward by `nod_degrees`."""
    c, s = np.float32(np.cos(np.deg2rad(nod_degrees))), np.float32(np.sin(np.deg2rad(nod_degrees)))
    px, py, pz = x - np.float32(centre[0]), y - np.float32(centre[1]), z - np.float32(centre[2])
    py, pz = c * py - s * pz, s * py + c * pz
    qx, qy, qz = np.abs(px) - np.float32(half[0]), np.abs(py) - np.float32(half[1]), np.abs(pz) - np.float32(half[2])
    outside = np.sqrt(np.maximum(qx, 0) ** 2 + np.maximum(qy, 0) ** 2 + np.maximum(qz, 0) ** 2)
    inside = np.minimum(np.maximum(np.maximum(qx, qy), qz), np.float32(0))
    out: Array = outside + inside
    return out


def cone(x: Array, y: Array, z: Array, start: Vector, end: Vector, r_start: float, r_end: float) -> Array:
    """Distance to a capsule whose radius changes from `r_start` to `r_end`."""
    ax, ay, az = (np.float32(b - a) for a, b in zip(start, end, strict=True))
    px, py, pz = x - np.float32(start[0]), y - np.float32(start[1]), z - np.float32(start[2])
    t = np.clip((px * ax + py * ay + pz * az) / np.float32(ax * ax + ay * ay + az * az), 0, 1)
    distance = np.sqrt((px - t * ax) ** 2 + (py - t * ay) ** 2 + (pz - t * az) ** 2)
    out: Array = distance - (np.float32(r_start) + t * np.float32(r_end - r_start))
    return out


def union(a: Array, b: Array, blend_mm: float) -> Array:
    """The smooth minimum of two distances: the two solids joined, creases rounded over about `blend_mm`."""
    h = np.maximum(np.float32(blend_mm) - np.abs(a - b), 0) / np.float32(blend_mm)
    out: Array = np.minimum(a, b) - h * h * np.float32(blend_mm / 4)
    return out


def rising(value: Array, low: float, high: float) -> Array:
    """0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((value - np.float32(low)) / np.float32(high - low), 0, 1)
    out: Array = t * t * (3 - 2 * t)
    return out
