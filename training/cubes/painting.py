"""Vessels and sacs become signed distances, and what surrounds them becomes HU, on a cube's grid."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.cubes.vessels import Vessel, across, random_unit, tube
from training.phantom.frame import Float32Array, FloatArray, Grid, smooth_noise
from training.phantom.lesions import Sac

STEP_MM = 0.5
SIDE = 48
"""Drawn; what is learned from is cut out of it at a drawn offset."""
FAR_MM = 2.5
_ORIGIN = -STEP_MM * (SIDE - 1) / 2
GRID = Grid((_ORIGIN,) * 3, (STEP_MM,) * 3, (SIDE,) * 3)
LINE = (_ORIGIN + STEP_MM * np.arange(SIDE)).astype(np.float32)
X, Y, Z = LINE, LINE[:, None], LINE[:, None, None]


@dataclass(frozen=True)
class Contrast:
    """HU of what is filled: arteries, and veins as a share of what arteries have above blood."""

    arterial_hu: float
    venous_share: float
    blood_hu: float = 45.0

    def filled_hu(self, share: float) -> float:
        """HU of a lumen that is filled to this share."""
        return self.blood_hu + share * (self.arterial_hu - self.blood_hu)


def distances(vessels: Sequence[Vessel], within_mm: float = 1e3) -> tuple[Float32Array, NDArray[np.int16]]:
    """Distance in mm to the nearest wall, negative in a lumen, at most `FAR_MM`; and the nearest vessel or −1.

    `within_mm`: pieces further than this from the middle along an axis are left out.
    """
    distance = np.full((SIDE,) * 3, FAR_MM, np.float32)
    nearest = np.full((SIDE,) * 3, -1, np.int16)
    for number, vessel in enumerate(vessels):
        pieces = np.arange(0, len(vessel.points), 2)
        if pieces[-1] != len(vessel.points) - 1:
            pieces = np.append(pieces, len(vessel.points) - 1)
        points, radius = vessel.points[pieces].astype(np.float32), vessel.radius[pieces].astype(np.float32)
        reach = np.maximum(radius[:-1], radius[1:])[:, None] + np.float32(0.8)
        lows, highs = np.minimum(points[:-1], points[1:]) - reach, np.maximum(points[:-1], points[1:]) + reach
        first = np.clip(np.ceil((lows - _ORIGIN) / STEP_MM), 0, SIDE).astype(int)
        last = np.clip(np.floor((highs - _ORIGIN) / STEP_MM) + 1, 0, SIDE).astype(int)
        used = (last > first).all(axis=1) & (lows < within_mm).all(axis=1) & (highs > -within_mm).all(axis=1)
        along = points[1:] - points[:-1]
        squared = np.maximum((along * along).sum(axis=1), np.float32(1e-6))
        for i in np.flatnonzero(used):
            (x0, y0, z0), (x1, y1, z1) = first[i], last[i]
            ax, ay, az = along[i]
            sx, sy, sz = points[i]
            px, py, pz = X[x0:x1] - sx, Y[y0:y1] - sy, Z[z0:z1] - sz
            t = (px * (ax / squared[i]) + py * (ay / squared[i])) + pz * (az / squared[i])
            np.minimum(np.maximum(t, 0, out=t), 1, out=t)
            qx, qy, qz = px - t * ax, py - t * ay, pz - t * az
            qx *= qx
            qy *= qy
            qz *= qz
            qx += qy
            qx += qz
            near = np.sqrt(qx, out=qx)
            t *= radius[i + 1] - radius[i]
            near -= t
            near -= radius[i]
            view = distance[z0:z1, y0:y1, x0:x1]
            closer = near < view
            np.copyto(view, near, where=closer)
            np.copyto(nearest[z0:z1, y0:y1, x0:x1], np.int16(number), where=closer)
    return distance, nearest


def sac_distance(sac: Sac) -> Float32Array:
    """What `Sac.distance` gives, everywhere in the cube, `FAR_MM` beyond its reach; in single precision, axis by axis."""
    out = np.full((SIDE,) * 3, FAR_MM, np.float32)
    where = GRID.box(sac.centre - sac.reach_mm, sac.centre + sac.reach_mm)
    if min(part.stop - part.start for part in where) <= 0:
        return out
    zs, ys, xs = where

    def from_point(point: FloatArray) -> tuple[Float32Array, Float32Array, Float32Array]:
        x, y, z = (np.float32(value) for value in point)
        return X[xs] - x, Y[ys] - y, Z[zs] - z

    def along(parts: tuple[Float32Array, ...], way: FloatArray) -> Float32Array:
        turned: Float32Array = (
            parts[0] * np.float32(way[0]) + parts[1] * np.float32(way[1]) + parts[2] * np.float32(way[2])
        )
        return turned

    def length(parts: tuple[Float32Array, ...]) -> Float32Array:
        whole: Float32Array = np.sqrt(parts[0] ** 2 + parts[1] ** 2 + parts[2] ** 2)
        return whole

    offset = from_point(sac.centre)
    local = tuple(along(offset, axis) for axis in sac.axes)
    scaled = tuple(part / np.float32(radius) for part, radius in zip(local, sac.radii, strict=True))
    k0 = length(scaled)
    k1 = length(tuple(part / np.float32(radius) for part, radius in zip(scaled, sac.radii, strict=True)))
    dome = k0 * (k0 - 1) / (k1 + np.float32(1e-6))
    for direction, depth in sac.dents:
        dome += np.float32(depth) * np.sin(along(scaled, direction) / (k0 + np.float32(1e-6)))
    for direction, share in sac.lobules:
        size = share * float(sac.radii.min())
        middle = direction * sac.radii * 0.85
        apart = length(tuple(part - np.float32(value) for part, value in zip(local, middle, strict=True)))
        dome = _joined(dome, apart - np.float32(size), 0.5 * size)
    base = from_point(sac.base)
    height = along(base, sac.axes[2])
    reached = np.clip(height, 0, np.float32(np.linalg.norm(sac.centre - sac.base)))
    stem = tuple(part - reached * np.float32(value) for part, value in zip(base, sac.axes[2], strict=True))
    out[where] = np.maximum(_joined(dome, length(stem) - np.float32(sac.neck_mm), 0.4 * sac.neck_mm), -height)
    return out


def _joined(a: Float32Array, b: Float32Array, blend_mm: float) -> Float32Array:
    h = np.maximum(np.float32(blend_mm) - np.abs(a - b), 0) / np.float32(blend_mm)
    out: Float32Array = np.minimum(a, b) - h * h * np.float32(blend_mm / 4)
    return out


def blend(image: Float32Array, distance: Float32Array, hu: float | np.float32 | Float32Array) -> None:
    """Put `hu` into the image where `distance` is negative, by the share of the voxel that is filled."""
    cover = np.clip(np.float32(0.5) - distance / np.float32(STEP_MM), 0, 1)
    image += cover * (hu - image)


def blob(centre: FloatArray, radii: FloatArray, axes: FloatArray) -> Float32Array:
    """Approximate distance to an ellipsoid."""
    local = [
        (X - np.float32(centre[0])) * np.float32(axis[0])
        + (Y - np.float32(centre[1])) * np.float32(axis[1])
        + (Z - np.float32(centre[2])) * np.float32(axis[2])
        for axis in axes
    ]
    k0 = np.sqrt(sum((part / np.float32(r)) ** 2 for part, r in zip(local, radii, strict=True)))
    out: Float32Array = ((k0 - 1) * np.float32(np.mean(radii))).astype(np.float32)
    return out


def turned_axes(rng: np.random.Generator) -> FloatArray:
    """Three axes at right angles, turned without preference."""
    first = random_unit(rng)
    second = across(first, rng)
    return np.stack([first, second, np.cross(first, second)])


def tissue(rng: np.random.Generator) -> Float32Array:
    """Brain, liquor, and in some cubes muscle or fat, in patches."""
    csf, brain = rng.uniform(0, 18), rng.uniform(26, 46)
    level = rng.uniform(-1.5, 1.5)
    share = np.clip(0.5 + 1.5 * (smooth_noise(GRID, float(rng.uniform(4, 12)), rng) - np.float32(level)), 0, 1)
    image = np.float32(csf) + np.float32(brain - csf) * share
    image += np.float32(rng.uniform(1, 5)) * smooth_noise(GRID, 2.5, rng)
    if rng.uniform() < 0.2:
        other = np.float32(rng.choice([-90.0, 60.0, 70.0, 95.0]))
        share = np.clip(0.5 + 2.0 * (smooth_noise(GRID, float(rng.uniform(6, 14)), rng) - np.float32(0.4)), 0, 1)
        image += share * (other - image)
    painted: Float32Array = image.astype(np.float32)
    return painted


def add_bone(image: Float32Array, distance: Float32Array, rng: np.random.Generator, nearer_mm: float = 0.0) -> None:
    """Shells of bone with air, marrow or tissue behind them, rods, islands of marrow and canals, where a skull base has some."""
    for _ in range(int(rng.choice([1, 2, 3], p=[0.6, 0.3, 0.1]))):
        kind = rng.choice(["shell", "rod", "island", "canal"], p=[0.55, 0.2, 0.13, 0.12])
        cortex = np.float32(rng.uniform(350, 1400)) * (1 + np.float32(0.15) * smooth_noise(GRID, 1.5, rng))
        if kind == "shell":
            way = random_unit(rng)
            curve_mm = float(rng.uniform(8, 60)) * rng.choice([-1.0, 1.0])
            start = float(rng.uniform(0.5, 9.0)) - nearer_mm
            centre = way * (start + curve_mm)
            away = np.sqrt(
                (X - np.float32(centre[0])) ** 2 + (Y - np.float32(centre[1])) ** 2 + (Z - np.float32(centre[2])) ** 2
            )
            into = (np.float32(abs(curve_mm)) - away) * np.float32(np.sign(curve_mm))
            into += np.float32(rng.uniform(0, 1.2)) * smooth_noise(GRID, float(rng.uniform(3, 8)), rng)
            thick = np.float32(np.exp(rng.uniform(np.log(0.35), np.log(4.0))))
            thick = thick * np.clip(1 + np.float32(0.4) * smooth_noise(GRID, 6.0, rng), 0.1, 3)
            behind = rng.choice(["air", "marrow", "tissue", "bone"], p=[0.35, 0.35, 0.15, 0.15])
            if behind == "air":
                inner: float | Float32Array = -990.0
            elif behind == "marrow":
                inner = (rng.uniform(-40, 450) * (1 + np.float32(0.3) * smooth_noise(GRID, 2.0, rng))).astype(
                    np.float32
                )
            else:
                inner = rng.uniform(20, 80) if behind == "tissue" else cortex
            blend(image, -into, cortex)
            blend(image, thick - into, inner)
        elif kind == "rod":
            rod = tube(random_unit(rng) * rng.uniform(2, 9), random_unit(rng), float(rng.uniform(0.8, 4.0)), rng)
            own, _ = distances([rod])
            blend(image, own, cortex)
            if rng.uniform() < 0.5:
                blend(image, own + np.float32(rng.uniform(0.8, 2.0)), np.float32(rng.uniform(60, 400)))
        elif kind == "island":
            centre = random_unit(rng) * rng.uniform(0, 9)
            shape = blob(centre, rng.uniform(1.5, 7, 3), turned_axes(rng))
            shape += np.float32(rng.uniform(0, 0.8)) * smooth_noise(GRID, 2.5, rng)
            blend(image, shape - np.float32(rng.uniform(0, 1.5)), cortex)
            blend(
                image,
                shape,
                (rng.uniform(150, 480) * (1 + np.float32(0.15) * smooth_noise(GRID, 1.5, rng))).astype(np.float32),
            )
        else:
            far = ndimage.distance_transform_edt(distance > 0).astype(np.float32) * np.float32(STEP_MM)
            gap, thick_mm = np.float32(rng.uniform(0.2, 1.8)), np.float32(rng.uniform(0.8, 5))
            way = random_unit(rng).astype(np.float32)
            half = X * way[0] + Y * way[1] + Z * way[2] - np.float32(rng.uniform(-6, 6))
            wall = np.maximum(np.abs(far - gap - thick_mm / 2) - thick_mm / 2, half)
            blend(image, wall, cortex)


def add_veins(image: Float32Array, contrast: Contrast, rng: np.random.Generator) -> None:
    """Veins, and in some cubes a sinus that is filled unevenly, all weaker than arteries as a rule."""
    for _ in range(int(rng.choice([0, 1, 2, 3], p=[0.45, 0.3, 0.15, 0.1]))):
        start = random_unit(rng) * rng.uniform(2, 10)
        radius = float(np.clip(rng.lognormal(np.log(1.0), 0.5), 0.4, 4.0))
        own, _ = distances([tube(start, way, radius, rng) for way in (lambda w: (w, -w))(random_unit(rng))])
        blend(image, own, contrast.filled_hu(min(contrast.venous_share * rng.uniform(0.6, 1.3), 1.0)))
    if rng.uniform() < 0.22:
        shape = blob(random_unit(rng) * rng.uniform(0, 6), rng.uniform(3, 9, 3), turned_axes(rng))
        shape += np.float32(rng.uniform(0.3, 1.2)) * smooth_noise(GRID, 3.0, rng)
        filled = contrast.filled_hu(min(contrast.venous_share * rng.uniform(0.6, 1.3), 1.0))
        uneven = np.clip(1 + np.float32(rng.uniform(0, 0.35)) * smooth_noise(GRID, 2.5, rng), 0.2, 1.6)
        blend(image, shape, (filled * uneven).astype(np.float32))


def add_calcium(image: Float32Array, distance: Float32Array, rng: np.random.Generator) -> None:
    """Calcified pieces of wall."""
    for _ in range(int(rng.integers(1, 5))):
        centre = random_unit(rng) * rng.uniform(0, 8)
        patch = blob(centre, rng.uniform(0.8, 3.5, 3), turned_axes(rng))
        wall = np.maximum(np.abs(distance - np.float32(0.1)) - np.float32(rng.uniform(0.15, 0.6)), patch)
        blend(image, wall, np.float32(rng.uniform(350, 1300)))


def scanned(image: Float32Array, rng: np.random.Generator) -> Float32Array:
    """The image as a scanner gives it: blurred within and through the plane, sharpened by some kernels, with grained noise."""
    fwhm = rng.uniform(0.5, 1.1)
    pixel = rng.uniform(0.33, 0.5)
    spacing = float(rng.choice([0.4, 0.5, 0.6, 0.7, 0.8, 1.0]))
    thick = max(spacing, float(rng.choice([0.5, 0.6, 0.75, 1.0, 1.25])))
    in_plane = np.sqrt(max((fwhm / 2.355) ** 2 + pixel**2 / 6 - STEP_MM**2 / 12, 0.01)) / STEP_MM
    through = np.sqrt(max(thick**2 / 12 + spacing**2 / 6 - STEP_MM**2 / 12, 0.005)) / STEP_MM
    out = ndimage.gaussian_filter(image, (through, in_plane, in_plane), truncate=3.0)
    edge = rng.uniform(0.1, 0.5) if rng.uniform() < 0.4 else 0.0
    if edge:
        wide = ndimage.gaussian_filter(out, (0, 1.8 * in_plane, 1.8 * in_plane), truncate=3.0)
        out += np.float32(edge) * (out - wide)
    grain = rng.uniform(0.45, 1.0)
    white = rng.standard_normal(image.shape, dtype=np.float32)
    noise = ndimage.gaussian_filter(white, (max(0.35 * through, 0.3), grain, grain), truncate=3.0)
    noise *= np.float32(np.clip(rng.lognormal(np.log(10.0), 0.5), 2, 32)) / noise.std()
    noisy: Float32Array = out + noise
    return noisy
