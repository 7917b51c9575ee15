"""The veins and dural sinuses of a head, in canonical mm."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from training.phantom.frame import FloatArray
from training.phantom.head import Head, pulled_to
from training.phantom.scan import VEIN
from training.phantom.tree import Point, mirror
from training.phantom.tubes import Tube, curve


class _Lay(Protocol):
    def __call__(
        self,
        name: str,
        through: Sequence[Point],
        diameters: Sequence[float],
        *,
        spread_mm: float = 1.5,
        wiggle_mm: float = 0.8,
        level_mm: float | None = None,
        filling: float | None = None,
    ) -> FloatArray: ...


def draw_veins(head: Head, rng: np.random.Generator) -> list[Tube]:
    """All veins of a head; their filling varies from vein to vein as contrast arrives."""
    tubes: list[Tube] = []

    def lay(
        name: str,
        through: Sequence[Point],
        diameters: Sequence[float],
        *,
        spread_mm: float = 1.5,
        wiggle_mm: float = 0.8,
        level_mm: float | None = None,
        filling: float | None = None,
    ) -> FloatArray:
        points, radius = curve(
            np.array(through) + rng.normal(0, spread_mm, (len(through), 3)),
            np.asarray(diameters),
            rng,
            wiggle_mm=wiggle_mm,
        )
        if level_mm is not None:
            points = pulled_to(head, points, level_mm)
        fill = float(np.clip(rng.normal(1.0, 0.2), 0.3, 1.5)) if filling is None else filling
        tubes.append(Tube(name, points, radius, VEIN, venous=True, filling=fill))
        return points

    crest = lay(
        "superior sagittal sinus",
        ((0, 62, 25), (0, 52, 62), (0, 10, 90), (0, -40, 90), (0, -80, 65), (0, -98, 25), (0, -94, -6)),
        (1.5, 3.5, 5.0, 6.0, 7.0),
        level_mm=-2.8,
        wiggle_mm=0.4,
    )
    lay("inferior sagittal sinus", ((0, 25, 45), (0, 5, 52), (0, -25, 48), (0, -44, 22)), (0.8, 1.4), wiggle_mm=0.4)
    lay("straight sinus", ((0, -46, 17), (0, -65, 6), (0, -92, -6)), (3.0, 4.0), spread_mm=1.0, wiggle_mm=0.3)
    lay("vein of Galen", ((0, -34, 15), (0, -40, 12), (0, -46, 17)), (3.0, 4.0), spread_mm=1.0, wiggle_mm=0.3)
    dominant = rng.choice(["L", "R"], p=[0.35, 0.65])
    for side in "LR":
        share = 1.0 if side == dominant else rng.uniform(0.25, 0.95)

        def at(*points: Point, side: str = side) -> tuple[Point, ...]:
            return tuple(mirror(side, point) for point in points)

        lay(
            f"{side} transverse sinus",
            at((1, -94, -6), (25, -88, -9), (46, -66, -11), (53, -46, -14)),
            (7 * share, 7.5 * share),
            level_mm=-2.2,
            wiggle_mm=0.4,
        )
        lay(
            f"{side} sigmoid sinus",
            at((53, -46, -14), (49, -38, -24), (41, -35, -36), (32, -31, -42), (27, -25, -41)),
            (7.5 * share, 8 * share),
            wiggle_mm=0.5,
            spread_mm=0.8,
        )
        bulb = rng.uniform(7, 12) * share
        lay(
            f"{side} jugular bulb",
            at((27, -25, -41), (27, -24, -36 + rng.uniform(-3, 4)), (28, -23, -46)),
            (bulb, bulb),
            spread_mm=0.8,
            wiggle_mm=0.1,
        )
        lay(
            f"{side} jugular vein",
            at((28, -23, -46), (30, -22, -70), (32, -18, -120), (32, -16, -170)),
            (8 * share, 11 * share),
            wiggle_mm=0.8,
        )
        lay(
            f"{side} internal cerebral vein",
            at((1.6, 2, 15), (1.4, -18, 18), (0.5, -34, 15)),
            (1.2, 2.0),
            spread_mm=0.6,
            wiggle_mm=0.4,
        )
        lay(f"{side} thalamostriate vein", at((1.8, 2, 15), (8, -4, 19), (14, -18, 21)), (1.5, 0.8), spread_mm=1.0)
        lay(f"{side} septal vein", at((1.6, 2, 15), (2, 12, 18), (6, 20, 18)), (1.2, 0.7), spread_mm=0.8)
        lay(
            f"{side} basal vein",
            at((14, 3, -1), (11, -4, -1), (15, -14, -1), (17, -26, 3), (10, -38, 10), (1, -38, 13)),
            (1.0, 1.4, 2.2),
            spread_mm=1.0,
        )
        sylvian = at((56, -20, 12), (50, -2, 4), (44, 12, -2), (36, 20, -6), (25, 17, -8), (16, 10, -12))
        if rng.uniform() < 0.75:
            lay(f"{side} superficial Sylvian vein", sylvian, (1.2, 2.2, 2.4), spread_mm=2.0, wiggle_mm=1.2)
            for number in range(2):
                lay(
                    f"{side} Sylvian tributary {number}",
                    (sylvian[1 + number], mirror(side, (52, 16 - 8 * number, 14)), mirror(side, (58, 6, 34))),
                    (1.4, 0.9),
                    wiggle_mm=1.4,
                    level_mm=-2.5,
                )
        _cavernous(side, lay, rng)
        lay(
            f"{side} superior petrosal sinus",
            at((15, -9, -17), (28, -20, -15), (50, -40, -17)),
            (1.4, 1.8),
            spread_mm=0.8,
        )
        lay(
            f"{side} inferior petrosal sinus",
            at((13, -10, -21), (18, -19, -32), (26, -24, -40)),
            (1.8, 2.4),
            spread_mm=0.8,
        )
        lay(
            f"{side} ophthalmic vein",
            at((15, 9, -12), (19, 20, -8), (27, 34, -4), (22, 50, -3)),
            (2.0, 1.4),
            spread_mm=1.0,
        )
        lay(
            f"{side} retromandibular vein", at((56, -6, -50), (50, -8, -80), (42, -10, -120)), (2.5, 4.0), spread_mm=2.5
        )
        lay(f"{side} facial vein", at((18, 64, -30), (34, 48, -62), (44, 20, -95)), (1.5, 2.5), spread_mm=3.0)
        lay(
            f"{side} anastomotic vein",
            at((50, -10, 10), (60, -32, 2), (58, -50, -8)),
            (1.2, 2.2),
            spread_mm=2.5,
            level_mm=-2.2,
        )
        for number in range(int(rng.integers(3, 9))):  # pterygoid plexus
            start = np.array(
                mirror(side, (float(rng.uniform(28, 48)), float(rng.uniform(-2, 26)), float(rng.uniform(-58, -38))))
            )
            lay(
                f"{side} pterygoid plexus {number}",
                [tuple(start + rng.normal(0, 6, 3)) for _ in range(3)],
                (rng.uniform(1, 2.8), rng.uniform(1, 2.8)),
            )
        for number in range(int(rng.integers(5, 10))):  # bridging cortical veins
            joins = crest[int(rng.uniform(0.1, 0.85) * len(crest))]
            down = [
                tuple(joins + np.array(mirror(side, (12.0 * k + 2, float(rng.normal(4 * k, 3)), -10.0 * k**1.3))))
                for k in range(4)
            ]
            lay(f"{side} cortical vein {number}", down, (2.2, 1.6, 0.9), level_mm=-2.0, wiggle_mm=1.5)
    lay("clival plexus", ((8, -11, -14), (2, -14, -26), (-4, -17, -38)), (1.5, 1.5), spread_mm=2.0)
    return tubes


def _cavernous(side: str, lay: _Lay, rng: np.random.Generator) -> None:
    """The cavernous sinus: a bundle of channels about the siphon, filled anywhere from not at all to like a vein."""
    filling = float(rng.choice([rng.uniform(0.15, 0.5), rng.uniform(0.5, 1.1)]))
    for number in range(4):
        aside = rng.normal(0, 1.6, 3)
        through = [
            tuple(np.array(mirror(side, p)) + aside)
            for p in ((15.5, -9, -18), (15.5, -1, -17), (15.5, 7, -14.5), (14.5, 11, -11.5))
        ]
        size = rng.uniform(3.0, 6.0)
        lay(
            f"{side} cavernous sinus {number}",
            through,
            (size * 0.7, size, size * 0.6),
            spread_mm=0.7,
            wiggle_mm=0.4,
            filling=filling,
        )
