"""Saccular aneurysms: where they sit, their shape, and the exact truth about each."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ai.locations import LOCATIONS, Location
from training.phantom.frame import FloatArray, Grid, Pose
from training.phantom.head import cavity_at
from training.phantom.painting import Segments, paint, voxel_points
from training.phantom.scan import TrueLesion
from training.phantom.tree import Tree, mirror
from training.phantom.tubes import Tube

RSNA_POSITIVES = (78, 98, 331, 277, 219, 294, 363, 46, 56, 86, 101, 110, 113)
"""Positive series by location in the RSNA 2025 `train.csv`, in the order of LOCATIONS."""
MEDIAN_MM, LOG_SD = 4.92, 0.5
"""Equivalent diameters are lognormal (1,373 public CTA annotations)."""
TRUTH_STEP_MM = 0.3
Family = Literal["plain", "varied", "unseen"]
"""How a sac's shape is drawn: nearly round, as irregular as in people, or irregular in ways that training never draws."""


@dataclass(frozen=True, eq=False)
class Sac:
    """An aneurysm's solid in LPS mm: ellipsoid dome, neck, lobules.

    `base`: point on the parent's centreline; `axes`: 3×3, rows are two lateral axes and the direction the dome points;
    `radii`: of the dome along them; `neck_mm`: radius of the neck; `rise_mm`: from `base` to the dome's centre;
    `lobules`: (direction 3, size as a fraction of the dome) each; `thrombus`: share of the dome's height, from its top,
    that is filled with clot.
    """

    location: Location
    base: FloatArray
    parent_mm: float
    axes: FloatArray
    radii: FloatArray
    neck_mm: float
    sink: float
    lobules: tuple[tuple[FloatArray, float], ...]
    dents: tuple[tuple[FloatArray, float], ...]
    thrombus: float = 0.0

    @property
    def centre(self) -> FloatArray:
        """The centre of the dome."""
        rise = self.parent_mm + self.radii[2] * self.sink
        middle: FloatArray = self.base + rise * self.axes[2]
        return middle

    def distance(self, points: FloatArray) -> FloatArray:
        """Approximate signed distance in mm, negative inside, at points (..., 3)."""
        local = (points - self.centre) @ self.axes.T
        scaled = local / self.radii
        k0 = np.linalg.norm(scaled, axis=-1)
        k1 = np.linalg.norm(scaled / self.radii, axis=-1)
        out = k0 * (k0 - 1) / (k1 + 1e-6)
        unit = scaled / (k0[..., None] + 1e-6)
        for direction, depth in self.dents:
            out = out + depth * np.sin(unit @ direction)
        for direction, share in self.lobules:
            size = share * float(self.radii.min())
            middle = direction * self.radii * 0.85
            out = _join(out, np.linalg.norm(local - middle, axis=-1) - size, 0.5 * size)
        along = np.clip((points - self.base) @ self.axes[2], 0, np.linalg.norm(self.centre - self.base))
        neck = np.linalg.norm(points - self.base - along[..., None] * self.axes[2], axis=-1) - self.neck_mm
        behind = -((points - self.base) @ self.axes[2])  # a wide neck must not show on the parent's far side
        joined: FloatArray = np.maximum(_join(out, neck, 0.4 * self.neck_mm), behind)
        return joined

    def clot(self, points: FloatArray) -> FloatArray:
        """Signed distance in mm to the clotted part, negative inside; positive everywhere without a clot."""
        local = (points - self.centre) @ self.axes.T
        tilted = 0.8 * local[..., 2] + 0.6 * local[..., 0]
        level = self.radii[2] * (1 - 2 * self.thrombus) if self.thrombus else np.inf
        out: FloatArray = level - tilted
        return out

    @property
    def reach_mm(self) -> float:
        """Radius about the dome's centre that holds all of the sac."""
        return float(1.9 * self.radii.max() + self.parent_mm + 1.5)


def _join(a: FloatArray, b: FloatArray, blend: float) -> FloatArray:
    h = np.maximum(blend - np.abs(a - b), 0) / blend
    out: FloatArray = np.minimum(a, b) - h * h * blend / 4
    return out


def draw_diameter_mm(rng: np.random.Generator) -> float:
    """A diameter from the published distribution, within 1.8 and 22 mm."""
    return float(np.clip(np.exp(rng.normal(np.log(MEDIAN_MM), LOG_SD)), 1.8, 22.0))


def draw_small_diameter_mm(rng: np.random.Generator) -> float:
    """A diameter from the published distribution, or for half of all sacs one of 2.5 to 5 mm."""
    return float(rng.uniform(2.5, 5.0)) if rng.uniform() < 0.5 else draw_diameter_mm(rng)


def draw_location(rng: np.random.Generator) -> Location:
    """A location at the frequency of the RSNA training data."""
    share = np.array(RSNA_POSITIVES, float)
    return LOCATIONS[int(rng.choice(len(LOCATIONS), p=share / share.sum()))]


def draw_sac(
    location: Location,
    diameter_mm: float,
    tree: Tree,
    parents: Segments,
    pose: Pose,
    rng: np.random.Generator,
    family: Family = "plain",
) -> tuple[Sac, TrueLesion]:
    """A sac at one of the location's usual sites, sized so that its volume outside the parents has `diameter_mm`.

    `tree` is canonical, `parents` are the arteries in LPS mm.  The truth is measured on a 0.3 mm grid.
    """
    point, radius, direction = _site(location, tree.tubes, rng)
    for _ in range(0 if family == "plain" or "Infraclinoid" in location.value else 8):
        if cavity_at(tree.head, point + direction * (radius + diameter_mm / 2)) < -diameter_mm / 4:
            break  # it grows into the cistern, not into bone
        point, radius, direction = _site(location, tree.tubes, rng)
    base = pose.to_lps(point)
    toward = pose.to_lps(point + direction) - base
    toward /= np.linalg.norm(toward)
    lateral = np.cross(toward, rng.normal(0, 1, 3))
    lateral /= np.linalg.norm(lateral)
    axes = np.stack([lateral, np.cross(toward, lateral), toward])
    half = diameter_mm / 2
    shape, lobules, dents = _plain_form(diameter_mm, rng) if family == "plain" else _varied_form(half, family, rng)
    thrombus = float(rng.uniform(0.15, 0.45)) if diameter_mm >= 10 and rng.uniform() < 0.3 else 0.0
    sac = Sac(
        location,
        base,
        radius,
        axes,
        shape * half,
        float(rng.uniform(*_NECK[family])) * half,
        float(rng.uniform(0.5, 1.12)),
        lobules,
        dents,
        thrombus,
    )
    truth = measure(sac, parents)
    for _ in range(3):
        factor = float(np.clip(diameter_mm / max(truth.diameter_mm, 0.3), 0.6, 1.7))
        if abs(factor - 1) < 0.01:
            break
        sac = replace(sac, radii=sac.radii * factor, neck_mm=sac.neck_mm * factor)
        truth = measure(sac, parents)
    return sac, truth


_Form = tuple[FloatArray, tuple[tuple[FloatArray, float], ...], tuple[tuple[FloatArray, float], ...]]
_NECK = {"plain": (0.4, 0.8), "varied": (0.5, 0.85), "unseen": (0.4, 0.95)}
"""Radius of the neck as a fraction of the sac's."""


def _plain_form(diameter_mm: float, rng: np.random.Generator) -> _Form:
    """Proportions of the dome, lobules and dents of a nearly round sac."""
    shape = np.array([1.0, float(np.clip(rng.normal(1, 0.13), 0.7, 1.4)), rng.uniform(0.75, 1.7)])
    lobules = []
    if rng.uniform() < (0.15 if diameter_mm < 8 else 0.35):
        for _ in range(rng.integers(1, 3)):
            way = rng.normal(0, 1, 3) + np.array([0, 0, 0.5])
            lobules.append((way / np.linalg.norm(way), float(rng.uniform(0.35, 0.65))))
    dents = tuple((rng.normal(0, 2.2, 3), float(rng.uniform(0, 0.09) * diameter_mm / 2)) for _ in range(3))
    return shape, tuple(lobules), dents


def _varied_form(half: float, family: Family, rng: np.random.Generator) -> _Form:
    """The same of a sac as in people, half of them longer than wide by more than 1.6.

    Unseen ones are dented more finely, and often of two lobes that are nearly as large as the dome.
    """
    unseen = family == "unseen"
    long = float(np.clip(rng.lognormal(np.log(1.5), 0.24), 1.0, 2.6))
    flat = float(np.clip(rng.normal(1, 0.15), 0.65, 1.35))
    shape = np.array([1.0, flat, long] if rng.uniform() < 0.7 else [long, flat, 1.0])
    shape = shape / np.cbrt(shape.prod())
    lobules = []
    if rng.uniform() < 0.4:
        for _ in range(int(rng.integers(1, 3))):
            way = rng.normal(0, 1, 3) + np.array([0, 0, 0.5])
            share = rng.uniform(0.7, 0.9) if unseen else rng.uniform(0.3, 0.7)
            lobules.append((way / np.linalg.norm(way), float(share)))
    waves = 3.6 if unseen else 2.2
    dents = tuple((rng.normal(0, waves, 3), float(rng.uniform(0, 0.12) * half)) for _ in range(3))
    return shape, tuple(lobules), dents


def measure(sac: Sac, parents: Segments) -> TrueLesion:
    """Centre of mass and equivalent diameter of a sac less the lumen of the vessels it sits on."""
    reach = sac.reach_mm
    step = max(TRUTH_STEP_MM, reach / 24)
    count = int(2 * reach / step) + 1
    corner = sac.centre - step * (count - 1) / 2
    grid = Grid((corner[2], corner[1], corner[0]), (step, step, step), (count, count, count))
    lumen, _ = paint(grid, parents)
    points = voxel_points(grid)
    share = np.clip(0.5 - sac.distance(points) / step, 0, 1) * np.clip(0.5 + lumen / step, 0, 1)
    volume = float(share.sum())
    if volume <= 0:
        return TrueLesion(sac.location, (float(sac.centre[0]), float(sac.centre[1]), float(sac.centre[2])), 0.0)
    centre = (points * share[..., None]).sum(axis=(0, 1, 2)) / volume
    diameter = (6 * volume * step**3 / np.pi) ** (1 / 3)
    return TrueLesion(sac.location, (float(centre[0]), float(centre[1]), float(centre[2])), float(diameter))


def _at(tube: Tube, low: float, high: float, rng: np.random.Generator) -> tuple[FloatArray, float, FloatArray]:
    """Point, radius and tangent somewhere between two fractions of a tube's length."""
    index = round(rng.uniform(low, high) * (len(tube.points) - 1))
    return tube.points[index], float(tube.radius[index]), tube.tangent(index)


def _sideways(
    tangent: FloatArray, hint: Sequence[float] | FloatArray, rng: np.random.Generator, spread: float
) -> FloatArray:
    """A direction across a vessel, near the hint."""
    way = np.asarray(hint, float) / (np.linalg.norm(hint) + 1e-9) + rng.normal(0, spread, 3)
    way = way - 0.85 * (way @ tangent) * tangent
    out: FloatArray = way / (np.linalg.norm(way) + 1e-9)
    return out


def _site(location: Location, tubes: dict[str, Tube], rng: np.random.Generator) -> tuple[FloatArray, float, FloatArray]:
    """Where an aneurysm of this location springs from: point, parent radius and direction, canonical."""
    side = "R" if location.value.startswith("Right") else "L"

    def hint(x: float, y: float, z: float) -> tuple[float, float, float]:
        return mirror(side, (x, y, z))

    def ahead(tube: Tube, spread: float = 0.35) -> tuple[FloatArray, float, FloatArray]:
        way = tube.tangent(len(tube.points) - 1) + rng.normal(0, spread, 3)
        return tube.points[-1], float(tube.radius[-1]), way / np.linalg.norm(way)

    def wall(
        tube: Tube, low: float, high: float, toward: Sequence[float] | FloatArray, spread: float = 0.35
    ) -> tuple[FloatArray, float, FloatArray]:
        point, radius, tangent = _at(tube, low, high, rng)
        return point, radius, _sideways(tangent, toward, rng, spread)

    if location in (Location.LEFT_INFRACLINOID_ICA, Location.RIGHT_INFRACLINOID_ICA):
        return wall(tubes[f"{side}_ICA_infra"], 0.5, 0.97, rng.normal(0, 1, 3))
    if location in (Location.LEFT_SUPRACLINOID_ICA, Location.RIGHT_SUPRACLINOID_ICA):
        supra = tubes[f"{side}_ICA_supra"]
        kind = rng.choice(5, p=[0.3, 0.25, 0.15, 0.15, 0.15])
        if kind == 0:
            return ahead(supra)
        toward = (hint(-0.3, 0.3, 1), hint(-1, -0.2, 0.1), hint(0.6, -0.8, 0.3), hint(0.3, 0.8, 0.5))[kind - 1]
        low, high = ((0.08, 0.25), (0.2, 0.4), (0.62, 0.78), (0.1, 0.8))[kind - 1]
        return wall(supra, low, high, toward)
    if location in (Location.LEFT_MCA, Location.RIGHT_MCA):
        kind = rng.choice(3, p=[0.78, 0.14, 0.08])
        if kind == 0:
            return ahead(tubes[f"{side}_M1"])
        if kind == 1:
            return wall(tubes[f"{side}_M1"], 0.25, 0.85, (0, 0.4, float(rng.choice([-1, 1]))))
        branch = tubes[f"{side}_M2_{rng.choice(['superior', 'inferior'])}"]
        return wall(branch, 0.08, 0.5, rng.normal(0, 1, 3))
    if location in (Location.LEFT_ACA, Location.RIGHT_ACA):
        kind = rng.choice(3, p=[0.6, 0.2, 0.2])
        if kind == 1:
            return wall(tubes[f"{side}_A1"], 0.2, 0.8, (0, -0.5, float(rng.choice([-1, 1]))))
        start = tubes[f"{side}_callosomarginal"].points[0]
        parent = tubes[f"{side}_A2"]
        index = parent.nearest(start) if kind == 0 else int(rng.uniform(0.35, 0.7) * len(parent.points))
        way = parent.tangent(index) + rng.normal(0, 0.4, 3)
        return parent.points[index], float(parent.radius[index]), way / np.linalg.norm(way)
    if location is Location.ACOM:
        tube = tubes["ACOM"]
        end = float(rng.choice([0.0, 0.5, 1.0], p=[0.4, 0.2, 0.4]))
        return wall(
            tube, end, end, (float(rng.normal(0, 0.3)), float(rng.uniform(0.1, 1)), float(rng.normal(0.1, 0.8))), 0.25
        )
    if location in (Location.LEFT_PCOM, Location.RIGHT_PCOM):
        supra = tubes[f"{side}_ICA_supra"]
        where = 0.45
        if f"{side}_PCOM" in tubes:
            where = supra.nearest(tubes[f"{side}_PCOM"].points[0]) / (len(supra.points) - 1)
        return wall(supra, where, where, hint(0.5, -1.0, -0.35), 0.3)
    if location is Location.BASILAR_TIP:
        point, radius, _ = ahead(tubes["basilar_tip"])
        way = np.array([0, 0.1, 1]) + rng.normal(0, 0.3, 3)
        return point, radius, way / np.linalg.norm(way)
    side = str(rng.choice(["L", "R"]))
    return _posterior_site(side, tubes, rng)


def _posterior_site(
    side: str, tubes: dict[str, Tube], rng: np.random.Generator
) -> tuple[FloatArray, float, FloatArray]:
    """A site on the posterior circulation other than the basilar tip."""
    kind = rng.choice(
        ["PICA", "SCA", "AICA", "join", "P1", "trunk", "V4"], p=[0.34, 0.17, 0.08, 0.09, 0.14, 0.06, 0.12]
    )
    if kind == "PICA" and f"{side}_PICA" not in tubes:
        kind = "V4"
    if kind in ("PICA", "SCA", "AICA"):
        branch = tubes[f"{side}_{kind}"]
        options = (f"{side}_V4",) if kind == "PICA" else ("basilar", "basilar_tip")
        start = branch.points[0]
        parent = min(
            (tubes[name] for name in options),
            key=lambda tube: float(np.min(np.linalg.norm(tube.points - start, axis=1))),
        )
        index = parent.nearest(start)
        return start, float(parent.radius[index]), _sideways(parent.tangent(index), branch.tangent(1), rng, 0.4)
    if kind == "join":
        tube = tubes["basilar"]
        return tube.points[0], float(tube.radius[0]), _sideways(tube.tangent(0), rng.normal(0, 1, 3), rng, 0.3)
    if kind == "P1":
        tube = tubes[f"{side}_P1"]
        way = tube.tangent(len(tube.points) - 1) + rng.normal(0, 0.4, 3)
        return tube.points[-1], float(tubes[f"{side}_P2"].radius[0]), way / np.linalg.norm(way)
    tube = tubes["basilar"] if kind == "trunk" else tubes[f"{side}_V4"]
    point, radius, tangent = _at(tube, 0.15, 0.85, rng)
    return point, radius, _sideways(tangent, rng.normal(0, 1, 3), rng, 0.3)
