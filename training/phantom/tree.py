"""Arteries under construction: how a vessel is laid through points and how branches leave it, in canonical mm."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ai.locations import LOCATIONS, Location
from training.phantom.frame import FloatArray
from training.phantom.head import Head, pulled_to
from training.phantom.tubes import STEP_MM, Tube, curve

Point = tuple[float, float, float]


def label_of(location: Location) -> int:
    """The value of a location in `vessel_DHW`."""
    return LOCATIONS.index(location) + 1


def sided(side: str, left: Location) -> Location:
    """The location on side "L" or "R", given the left one."""
    return left if side == "L" else left.mirrored


def widened(tube: Tube, rng: np.random.Generator) -> Tube:
    """The vessel with its last 3 mm a little wider, as arteries are where they fork."""
    back = np.arange(len(tube.points))[::-1] * STEP_MM
    return replace(tube, radius=tube.radius * (1 + rng.uniform(0, 0.22) * np.exp(-((back / 2.2) ** 2))))


def mirror(side: str, point: Point) -> Point:
    """A point given for the left side, on the side asked for."""
    return point if side == "L" else (-point[0], point[1], point[2])


@dataclass
class Tree:
    """Arteries under construction: tubes by name, and the names of the variants drawn."""

    head: Head
    rng: np.random.Generator
    tortuosity: float
    tubes: dict[str, Tube] = field(default_factory=dict)
    variants: list[str] = field(default_factory=list)

    def near(self, point: Sequence[float], spread_mm: float = 1.0) -> FloatArray:
        """`point` moved at random."""
        return np.asarray(point, float) + self.rng.normal(0, spread_mm, 3)

    def lay(
        self,
        name: str,
        through: Sequence[FloatArray],
        diameters: Sequence[float],
        label: int,
        *,
        wiggle_mm: float = 0.6,
        wave_mm: float = 14.0,
        level_mm: float | None = None,
        inside_mm: float | None = None,
    ) -> Tube:
        """A vessel through the given points, added; kept at, or deeper than, a depth if asked."""
        points, radius = curve(
            np.array(through),
            np.asarray(diameters, float),
            self.rng,
            wiggle_mm=wiggle_mm * self.tortuosity,
            wave_mm=wave_mm,
        )
        if level_mm is not None:
            fade = np.clip(np.arange(len(points)) * STEP_MM / 12, 0, 1)[:, None]
            points = points + fade * (pulled_to(self.head, points, level_mm) - points)
        elif inside_mm is not None:
            points = pulled_to(self.head, points, -inside_mm, only_outside=True)
        self.tubes[name] = Tube(name, points, radius, label)
        return self.tubes[name]

    def offshoot(
        self,
        name: str,
        parent: Tube,
        where: float,
        length_mm: float,
        diameters: tuple[float, float],
        *,
        toward: FloatArray | None = None,
        bend: float = 0.35,
        surface: bool = False,
        label: int | None = None,
    ) -> Tube:
        """A branch that leaves `parent` at the fraction `where` of its length and wanders, added."""
        index = int(np.clip(where, 0, 1) * (len(parent.points) - 1))
        start = parent.points[index]
        across = np.cross(parent.tangent(index), self.rng.normal(0, 1, 3))
        heading = parent.tangent(index) * self.rng.uniform(0.2, 0.9) + across / (np.linalg.norm(across) + 1e-9)
        if toward is not None:
            heading = 0.4 * heading + toward / np.linalg.norm(toward)
        steps = [start]
        for _ in range(max(int(length_mm / 4.0), 2)):
            heading = heading / np.linalg.norm(heading) + self.rng.normal(0, bend, 3)
            if toward is not None:
                heading = heading + 0.25 * toward / np.linalg.norm(toward)
            steps.append(steps[-1] + 4.0 * heading / np.linalg.norm(heading))
        through = np.array(steps)
        if surface:
            through[1:] = pulled_to(self.head, through[1:], -self.rng.uniform(1.5, 4.0))
        else:
            through[1:] = pulled_to(self.head, through[1:], -2.0, only_outside=True)
        points, radius = curve(through, np.asarray(diameters), self.rng, wiggle_mm=0.4)
        radius = np.minimum(radius, parent.radius[index] * 0.95)
        self.tubes[name] = Tube(name, points, radius, parent.label if label is None else label)
        return self.tubes[name]
