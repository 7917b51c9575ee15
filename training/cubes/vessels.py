"""Pieces of arteries in a cube's own frame: the candidate is at the origin, (x, y, z) in mm, no direction preferred."""

from dataclasses import dataclass, replace

import numpy as np

from training.phantom.frame import FloatArray

STEP_MM = 0.5
REACH_MM = 21.0
"""Vessels are drawn this far from the origin: beyond the corners of a cube."""


@dataclass(frozen=True, eq=False)
class Vessel:
    """A tube: `points` (N, 3) in mm, `radius` (N,) in mm, `filling` as a fraction of the arterial enhancement."""

    points: FloatArray
    radius: FloatArray
    filling: float = 1.0

    def moved(self, by_mm: FloatArray) -> "Vessel":
        """The same vessel elsewhere."""
        return replace(self, points=self.points + by_mm)

    def tangent(self, index: int) -> FloatArray:
        """The unit vector along the vessel at a point."""
        low, high = max(index - 2, 0), min(index + 2, len(self.points) - 1)
        return unit(self.points[high] - self.points[low])


@dataclass(frozen=True, eq=False)
class Place:
    """Somewhere that a candidate is found or a sac springs from.

    `outward`: the direction in which a sac would grow.  `radius_mm`: of the vessel there.
    """

    kind: str
    point: FloatArray
    outward: FloatArray
    radius_mm: float


def unit(vector: FloatArray) -> FloatArray:
    """The vector at length 1."""
    out: FloatArray = vector / (np.linalg.norm(vector) + 1e-9)
    return out


def random_unit(rng: np.random.Generator) -> FloatArray:
    """A direction, all alike."""
    return unit(rng.normal(0, 1, 3))


def across(direction: FloatArray, rng: np.random.Generator) -> FloatArray:
    """A unit vector at right angles to `direction`."""
    way = rng.normal(0, 1, 3)
    return unit(way - (way @ direction) * direction)


def tilted(direction: FloatArray, degrees: float, sideways: FloatArray) -> FloatArray:
    """`direction` turned by an angle towards `sideways`, which is at right angles to it."""
    angle = np.deg2rad(degrees)
    return unit(np.cos(angle) * direction + np.sin(angle) * sideways)


def course(
    start: FloatArray,
    direction: FloatArray,
    length_mm: float,
    rng: np.random.Generator,
    bend_mm: tuple[float, float] = (6.0, 40.0),
    bending: FloatArray | None = None,
) -> FloatArray:
    """Points every `STEP_MM` of a path whose radius of curvature is drawn anew every few mm from `bend_mm`.

    `bending`: the way of the first bend.
    """
    count = max(int(length_mm / STEP_MM), 3)
    points = np.empty((count, 3))
    at, along = start.astype(float), unit(direction)
    side = unit(bending - (bending @ along) * along) if bending is not None else across(along, rng)
    left, curvature, wanted = 0.0, 0.0, 0.0
    for i in range(count):
        points[i] = at
        if left <= 0:
            left = float(rng.uniform(3, 9))
            wanted = 1.0 / float(np.exp(rng.uniform(*np.log(bend_mm))))
            if i:
                side = unit(side * rng.normal(0.2, 0.8) + np.cross(along, side) * rng.normal(0, 0.8))
        curvature += 0.35 * (wanted - curvature) if i else wanted
        along = unit(along + curvature * STEP_MM * side)
        side = unit(side - (side @ along) * along)
        at = at + STEP_MM * along
        left -= STEP_MM
    return points


def calibre(count: int, radius_mm: float, rng: np.random.Generator, end: float | None = None) -> FloatArray:
    """Radii along a vessel: `end` times as wide at its end, varying by 4 to 12 % (standard deviation) on the way."""
    taper = np.linspace(1.0, rng.uniform(0.8, 1.02) if end is None else end, count)
    knots = rng.normal(0, 1, max(int(count * STEP_MM / rng.uniform(2, 5)), 2) + 2)
    wave = np.interp(np.linspace(0, len(knots) - 1, count), np.arange(len(knots)), knots)
    spread = rng.uniform(0.04, 0.12)
    out: FloatArray = radius_mm * taper * np.clip(1 + spread * 1.2 * wave, 0.7, 1.35)
    return out


def tube(
    start: FloatArray,
    direction: FloatArray,
    radius_mm: float,
    rng: np.random.Generator,
    length_mm: float = 26.0,
    bend_mm: tuple[float, float] | None = None,
    end: float | None = None,
) -> Vessel:
    """An artery from a point on; wide ones bend in wider arcs."""
    bends = bend_mm or (max(3.0, 2.2 * radius_mm), 45.0)
    points = course(start, direction, length_mm, rng, bends)
    return Vessel(points, calibre(len(points), radius_mm, rng, end))


def fork(rng: np.random.Generator, branches: int, radius_mm: float) -> tuple[list[Vessel], list[Place]]:
    """A parent that ends at the origin in two or three branches, as an artery forks (Murray's law, loosely)."""
    along = random_unit(rng)
    shares = rng.dirichlet(np.full(branches, 2.2))
    radii = radius_mm * np.clip(shares, 0.06, 0.92) ** (1 / 3) * rng.uniform(0.85, 1.12, branches)
    radii = np.clip(radii, 0.35, 1.15 * radius_mm)
    parent = tube(np.zeros(3), -along, radius_mm * rng.uniform(0.95, 1.12), rng)
    side = across(along, rng)
    other = np.cross(along, side)
    vessels = [parent]
    for number in range(branches):
        turn = 2 * np.pi * number / branches + rng.normal(0, 0.25 if branches == 2 else 0.5)
        sideways = np.cos(turn) * side + np.sin(turn) * other
        degrees = float(np.clip(rng.normal(58 - 25 * radii[number] / radius_mm + 12, 18), 8, 115))
        start = rng.normal(0, 0.12, 3) * radius_mm
        vessels.append(tube(start, tilted(along, degrees, unit(sideways)), float(radii[number]), rng))
    middle = unit(sum((vessel.tangent(1) for vessel in vessels[1:]), np.zeros(3)) + 0.4 * along)
    outward = unit(middle + rng.normal(0, 0.35, 3))
    places = [Place("fork", along * radius_mm * rng.uniform(-0.4, 0.9), outward, radius_mm)]
    return vessels, places


def bend(rng: np.random.Generator, radius_mm: float) -> tuple[list[Vessel], list[Place]]:
    """A siphon or another tight arc with its top at the origin; arc over chord 1.1 to 3."""
    arc_mm = radius_mm * float(np.exp(rng.uniform(np.log(1.15), np.log(3.6))))
    half_turn = float(rng.uniform(35, 125))
    along = random_unit(rng)
    inward = across(along, rng)
    third = np.cross(along, inward)
    count = max(int(arc_mm * np.deg2rad(half_turn) / STEP_MM), 3)
    angle = np.deg2rad(np.linspace(-half_turn, half_turn, 2 * count + 1))
    rise = third * rng.normal(0, 0.25) * arc_mm  # arcs are seldom plane
    middle = (
        np.outer(np.sin(angle) * arc_mm, along) + np.outer((1 - np.cos(angle)) * arc_mm, inward) + np.outer(angle, rise)
    )
    left, right = unit(middle[0] - middle[1]), unit(middle[-1] - middle[-2])
    opposite = rng.uniform(-1, 1, 2)
    bends = (max(2.0, 1.4 * radius_mm), 25.0)
    before = course(middle[0], left, 22.0, rng, bends, -opposite[0] * inward + 0.3 * third)
    after = course(middle[-1], right, 22.0, rng, bends, -opposite[1] * inward - 0.3 * third)
    points = np.concatenate([before[:0:-1], middle, after[1:]])
    vessel = Vessel(points, calibre(len(points), radius_mm, rng))
    vessels = [vessel]
    top = len(before) - 1 + count
    places = [Place("bend", np.zeros(3), unit(-inward + rng.normal(0, 0.35, 3)), radius_mm)]
    for _ in range(int(rng.choice([0, 1, 2], p=[0.45, 0.35, 0.2]))):  # ophthalmic, communicating, choroidal
        at = int(np.clip(top + rng.integers(-14, 15), 2, len(points) - 3))
        way = unit(across(vessel.tangent(at), rng) - 0.5 * inward)
        small = float(np.clip(rng.lognormal(np.log(0.5), 0.35), 0.25, 0.9))
        vessels.append(tube(points[at] + way * 0.5 * radius_mm, way, small, rng))
        outward = unit(way + rng.normal(0, 0.3, 3))
        places.append(Place("origin", points[at] + way * radius_mm, outward, radius_mm))
    return vessels, places


def infundibulum(rng: np.random.Generator, radius_mm: float) -> tuple[list[Vessel], list[Place]]:
    """A branch that leaves its parent from a cone at most 3 mm wide; with `origin`, a plain branch."""
    parent = bend(rng, radius_mm)[0][0] if rng.uniform() < 0.5 else _through(rng, radius_mm)
    middle = int(np.argmin(np.linalg.norm(parent.points, axis=1)))
    way = across(parent.tangent(middle), rng)
    way = unit(way + rng.normal(0, 0.4) * parent.tangent(middle))
    small = float(np.clip(rng.lognormal(np.log(0.55), 0.3), 0.3, 1.0))
    wide = float(np.clip(rng.uniform(1.0, 2.6), 1.0, max(1.5 / small, 1.0)))
    length = float(rng.uniform(1.2, 3.2))
    points = course(parent.points[middle] + 0.4 * radius_mm * way, way, 22.0, rng, (4.0, 25.0))
    radius = calibre(len(points), small, rng)
    from_wall = np.arange(len(points)) * STEP_MM - 0.6 * radius_mm
    radius = radius * (1 + (wide - 1) * np.clip(1 - from_wall / length, 0, 1) ** 0.8)
    place = Place("infundibulum", parent.points[middle] + way * (radius_mm + 0.4 * length), way, radius_mm)
    return [parent, Vessel(points, radius)], [replace(place, point=place.point * rng.uniform(0.7, 1.0))]


def blunt_end(rng: np.random.Generator, radius_mm: float) -> tuple[list[Vessel], list[Place]]:
    """A wide carotid that ends in branches of which one or both are thin."""
    along = random_unit(rng)
    parent = tube(np.zeros(3), -along, radius_mm, rng)
    widening = 1 + rng.uniform(0.0, 0.25) * np.exp(-np.arange(len(parent.points)) * STEP_MM / 2.0)
    parent = replace(parent, radius=parent.radius * widening)
    side = across(along, rng)
    thin = rng.uniform(0.2, 0.5)
    first = tube(np.zeros(3), tilted(along, rng.uniform(45, 100), side), radius_mm * rng.uniform(0.35, 0.8), rng)
    second = tube(np.zeros(3), tilted(along, rng.uniform(45, 105), -side), max(radius_mm * thin, 0.3), rng)
    place = Place("end", along * rng.uniform(-0.8, 0.6) * radius_mm, unit(along + rng.normal(0, 0.3, 3)), radius_mm)
    return [parent, first, second], [place]


def crossing(rng: np.random.Generator, radius_mm: float) -> tuple[list[Vessel], list[Place]]:
    """Two vessels that touch, cross or run beside each other."""
    one = _through(rng, radius_mm)
    at = int(np.argmin(np.linalg.norm(one.points, axis=1)))
    way = across(one.tangent(at), rng)
    small = radius_mm * rng.uniform(0.4, 1.1)
    offset = way * (radius_mm + small) * rng.uniform(0.55, 1.25)
    direction = unit(one.tangent(at) * rng.normal(0, 1) + np.cross(way, one.tangent(at)))
    halves = [
        course(one.points[at] + offset, sign * direction, 21.0, rng, (max(4, 2 * small), 40.0)) for sign in (1, -1)
    ]
    points = np.concatenate([halves[0][:0:-1], halves[1]])
    place = Place("crossing", one.points[at] + 0.5 * offset, way, radius_mm)
    return [one, Vessel(points, calibre(len(points), small, rng))], [place]


def straight(rng: np.random.Generator, radius_mm: float) -> tuple[list[Vessel], list[Place]]:
    """A vessel without anything special, wider for a stretch in some (ectasia)."""
    vessel = _through(rng, radius_mm)
    if rng.uniform() < 0.4:
        apart = np.linalg.norm(vessel.points, axis=1)
        wider = 1 + rng.uniform(0.1, 0.3) * np.exp(-0.5 * (apart / rng.uniform(2.0, 6.0)) ** 2)
        vessel = replace(vessel, radius=vessel.radius * wider)
    at = int(np.argmin(np.linalg.norm(vessel.points, axis=1)))
    outward = across(vessel.tangent(at), rng)
    return [vessel], [Place("vessel", vessel.points[at], outward, radius_mm)]


def _through(rng: np.random.Generator, radius_mm: float) -> Vessel:
    """A vessel that passes through the origin."""
    along = random_unit(rng)
    bends = (max(3.0, 2.0 * radius_mm), 45.0)
    halves = [course(np.zeros(3), sign * along, 22.0, rng, bends) for sign in (1, -1)]
    points = np.concatenate([halves[0][:0:-1], halves[1]])
    return Vessel(points, calibre(len(points), radius_mm, rng))
