"""The drawn shape of a head, and its cranial cavity: what vessels and tissues are both laid out in."""

from dataclasses import dataclass, replace

import numpy as np

from training.phantom.frame import FloatArray
from training.phantom.shapes import Array, cone, ellipsoid, union


@dataclass(frozen=True)
class Head:
    """Parameters of a head in canonical mm; `noise_seed` draws its textures.

    `cistern_hu`: of the fluid about the vessels: bright where blood has run out, with or without an aneurysm.
    `holder`: whether a head rest is in the picture.  `base_shift_mm`: how far forward and up the middle of the skull base
    lies from its usual place under the circle of Willis.  `dorsum_mm`: half the thickness of the dorsum sellae.
    `sinus_wall_hu`: of the walls of the sphenoid sinus, low where they are thinner than a voxel; None where they are like other
    bone.  `recesses`: whether that sinus reaches into dorsum, clinoids and wings.  `wing_marrow_hu`, `roof_hu`: of thick sphenoid
    wings filled with marrow, and of orbital roofs and wings as thin as paper; 0 where they are ordinary bone.
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
    base_shift_mm: tuple[float, float] = (0.0, 0.0)
    dorsum_mm: float = 2.6
    sinus_wall_hu: float | None = None
    recesses: bool = False
    wing_marrow_hu: float = 0.0
    roof_hu: float = 0.0


def draw_head(rng: np.random.Generator) -> Head:
    """A head with an ordinary skull base: age shows as atrophy and wide ventricles, build as thickness and pneumatisation."""
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


def with_drawn_base(head: Head) -> Head:
    """The head with a skull base that varies as people's do; drawn from its noise seed, and nothing else of it changes."""
    base = np.random.default_rng([head.noise_seed, 1])
    return replace(
        head,
        base_shift_mm=(float(np.clip(base.normal(1.5, 2.5), -2, 7)), float(np.clip(base.normal(-0.5, 2.0), -5, 3))),
        dorsum_mm=float(base.uniform(0.9, 2.8)),
        sinus_wall_hu=float(base.uniform(150, 1100)),
        recesses=bool(base.uniform() < 0.3),
        wing_marrow_hu=float(base.uniform(300, 450)) if base.uniform() < 0.35 else 0.0,
        roof_hu=float(base.uniform(200, 310)) if base.uniform() < 0.5 else 0.0,
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
