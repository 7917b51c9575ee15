"""The tissues of a head as smooth fields on a coarse grid: from them a scan of any spacing is interpolated."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from training.phantom import skullbase
from training.phantom.canvas import Canvas
from training.phantom.frame import Float32Array, Grid, Pose, smooth_noise
from training.phantom.head import Head, cavity
from training.phantom.shapes import Array, Vector, box, cone, ellipsoid, rising, union

COARSE_MM = 1.3
"""Step of the coarse grid; edges are sharper than this, since they are where an interpolated distance is zero."""


_EVERYWHERE = (slice(None), slice(None), slice(None))


@dataclass(frozen=True, eq=False)
class Tissues:
    """Fields on `grid`: soft tissue in HU, signed distances to bone and to air, and the HU of bone."""

    grid: Grid
    soft_hu: Float32Array
    bone_mm: Float32Array
    bone_hu: Float32Array
    air_mm: Float32Array


def _around(*points: Vector, margin: float) -> tuple[Vector, Vector]:
    low = tuple(min(p[k] for p in points) - margin for k in range(3))
    high = tuple(max(p[k] for p in points) + margin for k in range(3))
    return (low[0], low[1], low[2]), (high[0], high[1], high[2])


def draw_tissues(head: Head, pose: Pose, grid: Grid, inner_mm: Array | None = None) -> Tissues:
    """Skull, base, face, scalp, brain and fluid of a head on a coarse grid.

    `inner_mm`: the signed distance to the inner table on `grid`, of a real head; drawn when None.
    """
    rng = np.random.default_rng(head.noise_seed)
    canvas = Canvas(grid, pose)
    x, y, z = canvas.x, canvas.y, canvas.z
    wobble = smooth_noise(grid, 9.0, rng)
    inner = cavity(head, x, y, z) + wobble * (0.25 + 0.55 * (1 - rising(z, -10, 8))) if inner_mm is None else inner_mm
    fine = smooth_noise(grid, 2.6, rng)
    canvas.fields["soft"] = _outside_tissue(wobble, fine, rng)
    _brain(canvas, head, inner, wobble, fine, rng)
    thickness = np.float32(head.skull_mm) * (1 + 0.18 * smooth_noise(grid, 30.0, rng))
    thickness *= np.where(z > 5, 1, 0.62 + 0.38 * rising(z, -12, 5)).astype(np.float32)
    thickness *= 1 - 0.45 * (1 - rising(z, -26, -14)) * rising(y, -25, -10)
    thickness *= 1 - 0.62 * rising(y, 12, 22) * (1 - rising(np.abs(x), 36, 50)) * (1 - rising(z, 7, 14))
    thickness *= 1 - 0.35 * rising(np.abs(x), 45, 62) * (1 - rising(z, 10, 45))
    shell = np.maximum(-inner - 0.2, inner - thickness)
    below = (-52 - z) * np.float32(0.8)
    canvas.fields["bone"] = np.maximum(shell, below)
    depth = np.minimum(inner, thickness - inner)  # distance from the nearer table
    canvas.fields["bone_hu"] = np.float32(head.cortical_hu) - np.float32(head.cortical_hu - head.diploe_hu) * rising(
        depth, 0.9, 2.2
    )
    canvas.fields["air"] = _skin(head, x, y, z, inner)
    outside = inner - np.float32(head.skull_mm + head.scalp_mm + 9)  # the head rest is foam and plastic
    canvas.fill("soft", np.maximum(-outside, y + 40), _EVERYWHERE, -250.0)
    skin = np.maximum(canvas.fields["air"] - np.float32(1.9), outside - 3)
    canvas.fill("soft", skin, _EVERYWHERE, 45.0)
    skullbase.paint(canvas, head, rng, fine, wobble)
    bone_hu = canvas.fields["bone_hu"]  # marrow is coarser grained than cortex
    bone_hu *= 1 + (0.1 + 0.22 * (1 - rising(bone_hu, 500, 1100))) * fine
    return Tissues(grid, canvas.fields["soft"], canvas.fields["bone"], canvas.fields["bone_hu"], canvas.fields["air"])


def _outside_tissue(wobble: Array, fine: Array, rng: np.random.Generator) -> Float32Array:
    """Muscle and fat in lobes, for scalp, face and neck."""
    muscle = float(rng.uniform(45, 75))
    fat = float(rng.uniform(-110, -70))
    mix = rising(wobble + 0.15 * fine, -0.6, 0.1)
    out: Float32Array = np.float32(fat) + np.float32(muscle - fat) * mix
    return out


def _skin(head: Head, x: Array, y: Array, z: Array, inner: Array) -> Float32Array:
    """Distance that is negative in the air around the head."""
    body = inner - np.float32(head.skull_mm + head.scalp_mm)
    body = union(body, ellipsoid(x, y, z, (0, 22, -42), (62, 62, 66)), 20)
    body = union(body, cone(x, y, z, (0, -28, -50), (0, -26, -230), 52, 58), 25)
    body = union(body, cone(x, y, z, (0, 80, -22), (0, 96, -46), 5, 9), 8)
    for side in (-1, 1):
        body = union(body, ellipsoid(x, y, z, (side * 74, -24, -26), (5, 13, 26)), 8)
    if head.holder:
        rest = np.sqrt((x / 92) ** 2 + ((y + 25) / 108) ** 2) * np.float32(100) - np.float32(100)
        body = np.minimum(body, np.maximum(np.abs(rest) - np.float32(1.6), y + 45))
    out: Float32Array = -body
    return out


def _brain(canvas: Canvas, head: Head, inner: Array, wobble: Array, fine: Array, rng: np.random.Generator) -> None:
    """Cortex with sulci, white matter, deep grey matter, brain stem, cisterns and ventricles."""
    grid = canvas.grid
    x, z = canvas.x, canvas.z
    csf, grey, white = float(rng.uniform(0, 14)), float(rng.uniform(34, 48)), float(rng.uniform(24, 33))
    folds = smooth_noise(grid, 8.0, rng) + 0.3 * wobble
    depth = -inner - np.float32(head.atrophy_mm)
    reach = np.float32(15.0)
    sulcus = np.float32(0.10 + 0.055 * head.atrophy_mm) * (1.2 - np.clip(depth / reach, 0, 1)) - np.abs(folds)
    lateral = np.abs(x)
    falx = 0.6 + 0.5 * head.atrophy_mm - lateral
    gap = np.maximum(sulcus * 7, np.where(z > 6, falx, -5))
    cortex = np.minimum(depth, -gap)
    tissue = np.float32(grey) + np.float32(white - grey) * rising(cortex + 1.2 * fine, 2.2, 4.2)
    tissue += 2.0 * wobble
    brain = np.float32(csf) + (tissue - csf) * rising(cortex, -0.9, 0.9)
    dura = float(rng.uniform(45, 85))
    brain += (dura - brain) * (1 - rising(np.abs(inner + 0.8), 0.3, 1.4))
    field = canvas.fields["soft"]
    field += (brain - field) * (1 - rising(inner, -0.8, 0.8))
    wet, wet_hu = 1.0 + 0.12 * head.atrophy_mm, head.cistern_hu

    def pool(points: tuple[Vector, ...], radius: tuple[float, float], value: float, both: bool = True) -> None:
        for sign in (1, -1) if both else (1,):
            for a, b in pairwise(points):
                start, end = (sign * a[0], a[1], a[2]), (sign * b[0], b[1], b[2])
                where, px, py, pz = canvas.near(*_around(start, end, margin=max(radius) * 1.4 + 2))
                canvas.fill("soft", cone(px, py, pz, start, end, *radius) + 0.5 * fine[where], where, value)

    def mass(centre: Vector, radii: Vector, value: float, edge: float = 0.9) -> None:
        where, px, py, pz = canvas.near(*_around(centre, margin=max(radii) * 1.4 + 2))
        canvas.fill("soft", ellipsoid(px, py, pz, centre, radii) + 0.5 * fine[where], where, value, edge)

    for sign in (1, -1):  # basal ganglia and thalamus
        mass((sign * 22, 0, 8), (7, 16, 10), grey + 2, 2.0)
        mass((sign * 9, -18, 9), (7, 13, 9), grey + 1, 2.0)
        mass((sign * 11, 14, 12), (4.5, 8, 9), grey + 1, 2.0)
    mass((0, -22, 0), (19 * wet, 15, 12), wet_hu)
    mass((0, -27, -18), (17 * wet, 15 * wet, 15), wet_hu)
    pool(((0, -30, -30), (0, -36, -60)), (13 * wet, 11), wet_hu, both=False)
    mass((0, 3, -2), (15 * wet, 13 * wet, 8.5 * wet), wet_hu)
    mass((0, -6, -4), (12 * wet, 9, 7), wet_hu)
    pool(((0, -12, -8), (0, -17, -34)), (6 * wet, 6), wet_hu, both=False)
    pool(((12, 3, 1), (24, 4, 2), (36, 2, 2)), (4.2 * wet, 4.0 * wet), wet_hu)
    for sign in (1, -1):  # the Sylvian fissure, folded over the insula
        where, px, py, pz = canvas.near(*_around((sign * 43, -6, 9), margin=28))
        sheet = box(px + sign * 2.5 * wobble[where], py, pz, (sign * 43, -6, 9), (0.8 * wet + 0.6, 17, 11))
        canvas.fill("soft", sheet, where, wet_hu)
        sheet = box(px, py, pz + 2.0 * wobble[where] - 0.25 * py, (sign * 54, -14, 10), (12, 17, 0.7 * wet + 0.4))
        canvas.fill("soft", sheet, where, wet_hu)
    mass((0, -41, 6), (9 * wet, 6, 8), wet_hu)
    mass((0, -58, -46), (12, 10, 6), wet_hu)
    mass((0, 24, 8), (2.5 * wet, 14, 14), wet_hu)
    mass((0, -25, -2), (15.5, 11.5, 11), grey - 4)  # midbrain
    mass((0, -33, -18), (16, 12.5, 13), grey - 6)  # pons
    pool(((0, -34, -28), (0, -35, -52), (0, -38, -110)), (8, 6), grey - 6, both=False)
    pool(((1.6, 9, -4), (8, 20, -9)), (1.8, 1.8), grey - 2)  # optic nerves
    wide = head.ventricles
    mass((0, -8, 6), (1.6 * wide, 13, 9), csf)
    pool(((4, 20, 14), (6, 8, 19), (10, -14, 23), (15, -34, 17)), (3.4 * wide, 4.4 * wide), csf)
    pool(((16, -34, 16), (17, -52, 12)), (5.5 * wide, 2.5 * wide), csf)
    pool(((17, -34, 13), (28, -24, -2), (29, -8, -12)), (2.6 * wide, 1.6 * wide), csf)
    mass((0, -47, -19), (6 * wide, 4 * wide, 7), csf)
    gland = float(rng.uniform(60, 95) + 70 * head.enhancement)  # pituitary gland and stalk take up contrast
    pool(((0, 1.0, -9), (0, 0.0, -2)), (1.2, 0.9), gland - 10, both=False)
    plexus = float(rng.uniform(45, 70) + 70 * head.enhancement)
    for sign in (1, -1):
        mass((sign * 16, -33, 15), (3, 6, 4), plexus, 1.5)
        pool(((sign * 9, -14, 21), (sign * 15, -31, 15)), (1.0, 1.8), plexus - 10, both=False)
    sheet_where, px, py, pz = canvas.near((-55, -100, -12), (55, -20, 22))
    tent = pz - (16 - 0.016 * px * px - 0.22 * np.maximum(-45 - py, 0)) + 1.5 * wobble[sheet_where]
    tent = np.maximum(np.maximum(np.abs(tent) - 0.7, py + 30 - 0.25 * np.abs(px)), inner[sheet_where])
    canvas.fill("soft", tent, sheet_where, dura + 8)
    where, px, py, pz = canvas.near((-6, -100, 8), (6, 70, 98))
    falx_sheet = np.maximum(np.abs(px + 0.5 * wobble[where]) - 0.7, inner[where])
    falx_sheet = np.maximum(falx_sheet, -(ellipsoid(px, py, pz, (0, -14, 8), (20, 46, 42))))
    canvas.fill("soft", falx_sheet, where, dura + 5)


__all__ = ["COARSE_MM", "Canvas", "Tissues", "draw_tissues"]
