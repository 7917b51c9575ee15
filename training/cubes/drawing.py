"""A cube from a seed: vessels or a piece of the real tree, with a sac or with what passes for one, in its surroundings."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai.locations import LOCATIONS
from training.cubes import vessels as shapes
from training.cubes.painting import (
    GRID,
    STEP_MM,
    Contrast,
    X,
    Y,
    Z,
    add_bone,
    add_calcium,
    add_veins,
    blend,
    blob,
    distances,
    sac_distance,
    scanned,
    tissue,
    turned_axes,
)
from training.cubes.real_tree import RealTree, around
from training.cubes.vessels import Place, Vessel, random_unit, unit
from training.phantom.frame import Float32Array, FloatArray, smooth_noise
from training.phantom.lesions import Sac

LEAST_MM = 1.8
"""Sacs that show less outside their parents are not drawn."""
HIT_MM = 3.0


@dataclass(frozen=True, eq=False)
class Cube:
    """`hu_DHW`: int16, `SIDE` voxels of `STEP_MM`, the candidate in the middle.  `kind`: "sac", or what passes for one.

    `diameter_mm`: of the sac, 0 without.  `setting`: the piece of vessels that it was drawn on.
    """

    hu_DHW: NDArray[np.int16]
    kind: str
    setting: str
    diameter_mm: float

    @property
    def is_sac(self) -> bool:
        """Whether an aneurysm is in the middle."""
        return self.kind == "sac"


def draw_cube(seed: int, tree: RealTree | None = None, *, validation: bool = False, sac: bool | None = None) -> Cube:
    """Return the cube of a seed; the same arguments give the same cube.

    `tree`: half of the cubes come from it, all of them when `validation`, from the half of the head that training never
    sees.  `sac`: whether there is one in the middle; drawn when None.
    """
    rng = np.random.default_rng([seed, 77, int(validation)])
    wanted = bool(rng.uniform() < 0.47) if sac is None else sac
    for _ in range(30):
        cube = _tried(rng, tree, wanted, validation)
        if cube is not None:
            return cube
    raise ValueError(f"seed {seed} gave no cube in 30 tries")


def _setting(
    rng: np.random.Generator, tree: RealTree | None, validation: bool
) -> tuple[str, list[Vessel], list[Place]]:
    if tree is not None and (validation or rng.uniform() < 0.5):
        parts, places = around(tree, rng, validation=validation)
        return f"real {places[0].kind}", parts, places
    radius = float(np.clip(rng.lognormal(np.log(1.35), 0.35), 0.6, 2.7))
    name = str(
        rng.choice(
            ["fork2", "fork3", "bend", "infundibulum", "end", "crossing", "straight"],
            p=[0.18, 0.12, 0.32, 0.11, 0.11, 0.08, 0.08],
        )
    )
    if name.startswith("fork"):
        return name, *shapes.fork(rng, int(name[-1]), radius)
    wide = float(np.clip(rng.normal(1.75, 0.35), 0.9, 2.8))
    made = {
        "bend": lambda: shapes.bend(rng, wide if rng.uniform() < 0.7 else radius),
        "infundibulum": lambda: shapes.infundibulum(rng, wide if rng.uniform() < 0.6 else radius),
        "end": lambda: shapes.blunt_end(rng, wide),
        "crossing": lambda: shapes.crossing(rng, radius),
        "straight": lambda: shapes.straight(rng, radius),
    }
    return name, *made[name]()


def _tried(rng: np.random.Generator, tree: RealTree | None, wanted: bool, validation: bool) -> Cube | None:
    name, parts, places = _setting(rng, tree, validation)
    parts = [*parts, *_perforators(parts, rng)]
    place = places[int(rng.integers(len(places)))]
    sac, kind, diameter = None, place.kind, 0.0
    beside = not wanted and rng.uniform() < 0.12
    centre = place.point
    if wanted or beside:
        sac, centre, diameter = _draw_sac(place, parts, rng)
        if sac is None:
            return None
        kind = "sac"
    if beside:
        kind, centre = "beside a sac", _elsewhere(parts, centre, diameter, rng)
        diameter = 0.0
    contrast = Contrast(
        float(np.clip(rng.lognormal(np.log(340), 0.3), 150, 620)),
        float(np.clip(rng.lognormal(np.log(0.35), 0.6), 0.05, 1.0)),
    )
    other = None
    if not wanted and not beside:
        drawn = rng.uniform()
        if drawn < 0.11:
            other = "bone"
        elif drawn < 0.19:
            other = "vein"
        elif drawn < 0.29:
            other = "tissue"
        elif drawn < 0.4 and len(parts):  # anywhere on a vessel
            vessel = parts[int(rng.integers(len(parts)))]
            near = np.flatnonzero(np.linalg.norm(vessel.points, axis=1) < 9)
            if len(near):
                kind, centre = "vessel", vessel.points[int(rng.choice(near))]
    shift = -(centre + random_unit(rng) * 1.3 * rng.uniform() ** (1 / 3))
    if other is not None:
        shift = random_unit(rng) * rng.uniform(2, 12)
    hu = _painted([part.moved(shift) for part in parts], _moved(sac, shift), contrast, other, rng)
    return Cube(np.clip(np.rint(hu), -1024, 3071).astype(np.int16), other or kind, name, diameter)


def _moved(sac: Sac | None, shift: FloatArray) -> Sac | None:
    return None if sac is None else replace(sac, base=sac.base + shift)


def _perforators(parts: list[Vessel], rng: np.random.Generator) -> list[Vessel]:
    found = []
    for _ in range(int(rng.choice([0, 1, 2, 3], p=[0.5, 0.25, 0.15, 0.1]))):
        parent = parts[int(rng.integers(len(parts)))]
        at = int(rng.integers(1, len(parent.points) - 1))
        way = shapes.across(parent.tangent(at), rng)
        found.append(shapes.tube(parent.points[at], way, float(rng.uniform(0.18, 0.45)), rng))
    return found


def draw_diameter_mm(rng: np.random.Generator) -> float:
    """Small ones more often than in people."""
    if rng.uniform() < 0.55:
        return float(rng.uniform(2.2, 5.5))
    return float(np.clip(np.exp(rng.normal(np.log(5.2), 0.5)), 2.2, 15.0))


def _draw_sac(place: Place, parts: list[Vessel], rng: np.random.Generator) -> tuple[Sac | None, FloatArray, float]:
    """A sac that springs from a place, its centre outside the parents, and its diameter; None when too little shows."""
    diameter = draw_diameter_mm(rng)
    if place.radius_mm > diameter * 0.75 and rng.uniform() < 0.6:
        diameter = place.radius_mm * float(rng.uniform(1.4, 5.0))
    outward = unit(place.outward + rng.normal(0, 0.25, 3))
    lateral = shapes.across(outward, rng)
    axes = np.stack([lateral, np.cross(outward, lateral), outward])
    long = float(np.clip(rng.lognormal(np.log(1.5), 0.22), 1.0, 2.6))
    middle = float(rng.uniform(1.0, long)) if long > 1 else 1.0
    shape = np.array([1.0, middle, long]) if rng.uniform() < 0.65 else rng.permutation([1.0, middle, long])
    radii = diameter / 2 * shape / np.prod(shape) ** (1 / 3)
    lobules = []
    if rng.uniform() < (0.3 if diameter < 6 else 0.5):
        for _ in range(int(rng.integers(1, 4))):
            lobules.append((unit(rng.normal(0, 1, 3) + np.array([0, 0, 0.5])), float(rng.uniform(0.25, 0.65))))
    dents = tuple((rng.normal(0, 2.2, 3), float(rng.uniform(0, 0.11) * diameter / 2)) for _ in range(3))
    neck = float(rng.uniform(0.4, 0.95)) * float(radii[:2].mean())
    thrombus = float(rng.uniform(0.1, 0.4)) if diameter > 8 and rng.uniform() < 0.15 else 0.0
    base = (
        place.point if place.kind not in ("infundibulum", "origin") else place.point - place.outward * place.radius_mm
    )
    sac = Sac(
        LOCATIONS[0],
        base,
        place.radius_mm,
        axes,
        radii,
        neck,
        float(rng.uniform(0.35, 1.05)),
        tuple(lobules),
        dents,
        thrombus,
    )
    back = [part.moved(-sac.centre) for part in parts]
    lumen, _ = distances(back, float(sac.reach_mm))
    own = sac_distance(replace(sac, base=sac.base - sac.centre))
    share = np.clip(0.5 - own / STEP_MM, 0, 1) * np.clip(0.5 + lumen / STEP_MM, 0, 1)
    volume = float(share.sum())
    shown = (6 * volume * STEP_MM**3 / np.pi) ** (1 / 3)
    if shown < LEAST_MM or shown < 0.75 * 2 * place.radius_mm * 0.8:
        return None, place.point, 0.0
    middle_mm = np.array([(share * X).sum(), (share * Y).sum(), (share * Z).sum()]) / volume
    return sac, sac.centre + middle_mm, shown


def _elsewhere(parts: list[Vessel], centre: FloatArray, diameter: float, rng: np.random.Generator) -> FloatArray:
    """A point on a vessel near a sac that is no hit of it."""
    points = np.concatenate([part.points for part in parts])
    apart = np.linalg.norm(points - centre, axis=1)
    fit = points[(apart > max(HIT_MM, diameter / 2) + 1.8) & (apart < 14.0)]
    return fit[int(rng.integers(len(fit)))] if len(fit) else centre + random_unit(rng) * (diameter / 2 + 6.0)


def _painted(
    parts: list[Vessel], sac: Sac | None, contrast: Contrast, other: str | None, rng: np.random.Generator
) -> Float32Array:
    distance, nearest = distances(parts)
    if sac is not None:
        own = sac_distance(sac)
        distance = np.minimum(distance, own)
    if rng.uniform() < 0.7:  # walls are not as even as a formula, and angles are rounded
        distance = distance + np.float32(rng.uniform(0.02, 0.14)) * smooth_noise(
            GRID, float(rng.uniform(1.2, 3.5)), rng
        )
        distance = ndimage.gaussian_filter(distance, rng.uniform(0.2, 1.1), truncate=2.5)
    image = tissue(rng)
    if rng.uniform() < {None: 0.55, "tissue": 0.4}.get(other, 0.9):
        add_bone(image, distance, rng, 1.5 if other == "bone" else 0.0)
    add_veins(image, contrast, rng)
    if other == "bone" and rng.uniform() < 0.35:
        _crumb(image, rng)
    elif other == "bone":
        _island(image, rng)
    elif other == "tissue":
        _enhancing(image, contrast, rng)
    elif other == "vein":
        _vein(image, contrast, rng)
    filling = np.array([part.filling * np.clip(rng.normal(0.99, 0.05), 0.7, 1.1) for part in parts] + [1.0])
    level = (contrast.blood_hu + filling[nearest] * (contrast.arterial_hu - contrast.blood_hu)).astype(np.float32)
    if sac is not None:
        inside = own < distance + 0.3
        level[inside] = contrast.filled_hu(float(rng.uniform(0.88, 1.03)))
        if sac.thrombus:
            z, y, x = np.meshgrid(GRID.axis(0), GRID.axis(1), GRID.axis(2), indexing="ij")
            clot = np.clip(0.5 - sac.clot(np.stack([x, y, z], axis=-1)) / STEP_MM, 0, 1) * (own < 0.3)
            level += (clot * (55.0 - level)).astype(np.float32)
    blend(image, distance, level)
    if rng.uniform() < 0.2:
        add_calcium(image, distance, rng)
    return scanned(image, rng)


def _island(image: Float32Array, rng: np.random.Generator) -> None:
    """Marrow or thin bone that is as dense as a filled vessel, in the middle."""
    shape = blob(random_unit(rng) * rng.uniform(0, 1.5), rng.uniform(1.2, 5.5, 3), turned_axes(rng))
    shape += np.float32(rng.uniform(0, 0.8)) * smooth_noise(GRID, 2.5, rng)
    if rng.uniform() < 0.7:
        blend(image, shape - np.float32(rng.uniform(0.2, 1.5)), np.float32(rng.uniform(350, 1200)))
    uneven = 1 + np.float32(rng.uniform(0, 0.25)) * smooth_noise(GRID, 1.5, rng)
    blend(image, shape, (rng.uniform(160, 520) * uneven).astype(np.float32))


def _crumb(image: Float32Array, rng: np.random.Generator) -> None:
    """A crumb of bone or calcium, in fat or mucosa in some cubes, that the scanner blurs to what a filled vessel has."""
    centre = random_unit(rng) * rng.uniform(0, 1.0)
    if rng.uniform() < 0.5:
        around = blob(centre, rng.uniform(4, 12, 3), turned_axes(rng)) + 0.8 * smooth_noise(GRID, 3.0, rng)
        blend(image, around, np.float32(rng.choice([-95.0, 45.0, 70.0])))
    for _ in range(int(rng.integers(1, 4))):
        shape = blob(centre, rng.uniform(0.5, 2.2, 3), turned_axes(rng))
        blend(image, shape, np.float32(rng.uniform(250, 1100)))
        centre = centre + random_unit(rng) * rng.uniform(0.5, 2.5)


def _enhancing(image: Float32Array, contrast: Contrast, rng: np.random.Generator) -> None:
    """Lobes of tissue that takes up contrast in the middle: choroid plexus, a meningioma, mucosa, the pituitary gland."""
    centre = random_unit(rng) * rng.uniform(0, 1.5)
    level = np.clip(contrast.filled_hu(float(rng.uniform(0.1, 0.6))), 70, 230)
    largest = float(np.exp(rng.uniform(np.log(1.3), np.log(7.0))))
    for _ in range(int(rng.integers(1, 6))):
        shape = blob(centre, largest * rng.uniform(0.5, 1.0, 3), turned_axes(rng))
        shape += np.float32(rng.uniform(0, 0.6)) * smooth_noise(GRID, 2.5, rng)
        uneven = 1 + np.float32(rng.uniform(0, 0.2)) * smooth_noise(GRID, 2.0, rng)
        blend(image, shape * np.float32(rng.uniform(0.4, 1.0)), (level * uneven).astype(np.float32))
        centre = centre + random_unit(rng) * rng.uniform(0.5, 1.6) * largest
    if rng.uniform() < 0.2:
        add_calcium(image, blob(centre, rng.uniform(1, 4, 3), turned_axes(rng)), rng)


def _vein(image: Float32Array, contrast: Contrast, rng: np.random.Generator) -> None:
    """Veins that join, or a lump of a sinus, in the middle."""
    filled = contrast.filled_hu(min(contrast.venous_share * rng.uniform(0.7, 1.4), 1.05))
    if rng.uniform() < 0.5:
        parts, _ = shapes.fork(rng, int(rng.integers(2, 4)), float(rng.uniform(0.7, 3.0)))
        own, _ = distances(parts)
    else:
        own = blob(random_unit(rng) * rng.uniform(0, 2), rng.uniform(1.5, 6, 3), turned_axes(rng))
        own += np.float32(rng.uniform(0.1, 0.9)) * smooth_noise(GRID, 2.5, rng)
    blend(image, own, np.float32(filled))
