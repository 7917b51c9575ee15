"""The drawn shape of a head, and its cranial cavity: what vessels and tissues are both laid out in."""

from dataclasses import dataclass

import numpy as np

from training.phantom.frame import FloatArray
from training.phantom.shapes import Array, cone, ellipsoid, union


@dataclass(frozen=True)
class Head:
    """Parameters of a head in canonical mm; `noise_seed` draws its textures.

    `cistern_hu`: of the fluid about the vessels: bright where blood has run out, with or without an aneurysm.
    `holder`: whether a head rest is in the picture.
    """

    noise_seed: int
    skull_mm: float
    diploe_hu: float
    cortical_hu: float
    scalp_mm: float
    atrophy_mm: float
    ventricles: float
    pneumatised: float
    mastoid_cells: float
    sinus_mucosa: float
    clinoid_mm: float
    enhancement: float
    brain_length: float
    brain_height: float
    cistern_hu: float
    holder: bool


def draw_head(rng: np.random.Generator) -> Head:
    """A head: age shows as atrophy and wide ventricles, build as thickness and pneumatisation."""
    age = rng.uniform(0, 1)
    return Head(
        noise_seed=int(rng.integers(2**31)),
        skull_mm=float(rng.uniform(4.5, 8.5)),
        diploe_hu=float(rng.uniform(350, 900)),
        cortical_hu=float(rng.uniform(1050, 1650)),
        scalp_mm=float(rng.uniform(4, 8)),
        atrophy_mm=float(0.8 + 3.2 * age * rng.uniform(0.4, 1)),
        ventricles=float(0.75 + 0.8 * age * rng.uniform(0.2, 1)),
        pneumatised=float(rng.choice([0.0, 0.55, 0.8, 1.0, 1.15], p=[0.08, 0.17, 0.3, 0.3, 0.15])),
        mastoid_cells=float(rng.uniform(-0.6, 1.0)),
        sinus_mucosa=float(rng.choice([0.0, rng.uniform(1, 6), 30.0], p=[0.55, 0.37, 0.08])),
        clinoid_mm=float(rng.normal(0, 1.2)),
        enhancement=float(rng.uniform(0, 1)),
        brain_length=float(rng.normal(1, 0.03)),
        brain_height=float(rng.normal(1, 0.03)),
        cistern_hu=float(rng.uniform(40, 75)) if rng.uniform() < 0.1 else float(rng.uniform(0, 14)),
        holder=bool(rng.uniform() < 0.6),
    )


def cavity(head: Head, x: Array, y: Array, z: Array) -> Array:
    """Signed distance to the inner table of the skull, the foramen magnum and spinal canal included."""
    long, high = head.brain_length, head.brain_height
    side = np.abs(x)
    dome = ellipsoid(x, y, z, (0, -18 * long, 30 * high), (68, 85 * long, 64 * high))
    orbit_roof = 5.5 * np.exp(-(((side - 28) / 14) ** 2) - ((y - 42) / 22) ** 2)
    floor = np.float32(-1.0) + orbit_roof + 0.06 * np.maximum(y - 15, 0)
    out = np.maximum(dome, floor - z)
    out = union(out, ellipsoid(side, y, z, (37, -1, -10), (23, 31, 22)), 5)
    out = union(out, ellipsoid(side, y, z, (38, -34, -4), (27, 32, 18)), 5)
    out = union(out, ellipsoid(x, y, z, (0, -15, -6), (25, 12, 11)), 4)
    out = union(out, ellipsoid(x, y, z, (0, 1, -1), (19, 13, 8.5)), 4)
    out = union(out, ellipsoid(x, y, z, (0, -54, -16), (55, 43 * long, 34)), 5)
    out = union(out, ellipsoid(x, y, z, (0, -12, -12), (13, 8, 24)), 4)
    return union(out, cone(x, y, z, (0, -33, -38), (0, -38, -160), 15, 9), 4)


_PROBES = 0.5 * np.concatenate([np.zeros((1, 3)), np.eye(3)])


def cavity_at(head: Head, points: FloatArray) -> FloatArray:
    """`cavity` at points (..., 3)."""
    x, y, z = (points[..., i].astype(np.float32) for i in range(3))
    return cavity(head, x, y, z).astype(float)


def pulled_to(head: Head, points: FloatArray, level_mm: float, *, only_outside: bool = False) -> FloatArray:
    """Points moved along the gradient of the cavity to the distance `level_mm` from the inner table.

    With `only_outside`, points already deeper than that stay.
    """
    moved = points.copy()
    for _ in range(3):
        around = cavity_at(head, moved[..., None, :] + _PROBES)
        value = around[..., 0]
        gradient = (around[..., 1:] - value[..., None]) / 0.5
        gradient /= np.maximum(np.linalg.norm(gradient, axis=-1, keepdims=True), 0.3)
        excess = value - level_mm
        if only_outside:
            excess = np.maximum(excess, 0)
        moved -= np.clip(excess, -15, 15)[..., None] * gradient
    return moved
