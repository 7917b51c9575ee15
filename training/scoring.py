"""What a scan's candidates score by what all parts say of them, and what each part weighs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from ai.bundle import Bundle
from ai.cube_net import SIDE, CubeNet, cube_odds
from ai.decode import rescored
from ai.naming import NamingNet, named
from ai.second_stage import FusionNet, ShapeNet, fusion_input, looked_at, opinions
from ai.surroundings import place_scores
from training.candidates import Marked
from training.cases import Scored
from training.config import ConfigError

AROUND = 5
"""So many of a scan's candidates are looked at from four more places."""
PLACE_RIDGE = 3.0
"""How strongly the weights of a place, each for one standard deviation, are kept small."""
PLACE_SHARE = 0.10
"""A place counts against a candidate where the surroundings are worse than those of all but so many aneurysms, and nowhere in
its favour: what lies in clear brain is not to be believed for that.
"""


@dataclass(frozen=True)
class Weights:
    """What the first and the second stage's log odds weigh in a score, and each of `ai.surroundings.NAMES`; none: the place counts nothing.

    `limit`: the sum of the latter from which a place takes nothing from a score.  `cube`: of the log odds of the networks that look
    at the cubes themselves.
    """

    first: float
    second: float
    place: tuple[float, ...] = ()
    limit: float = 0.0
    cube: float = 0.0


def seconds_of(
    networks: Sequence[ShapeNet], marked: Sequence[Marked], count: int = AROUND, fusion: Sequence[FusionNet] = ()
) -> list[NDArray[np.float64]]:
    """The second stage's log odds of each scan's candidates, the best `count` of which are looked at from around too."""
    return [np.array(opinions(networks, fusion, *_told(networks, scan, count)), float) for scan in marked]


def read_of(networks: Sequence[ShapeNet], scan: Marked, count: int = AROUND) -> NDArray[np.float32]:
    """What a fusion reads of the candidates of a scan."""
    return fusion_input(networks, *_told(networks, scan, count))


def _told(
    networks: Sequence[ShapeNet], scan: Marked, count: int
) -> tuple[list[NDArray[np.float32]], list[float], list[float]]:
    """What is measured of each candidate, as `looked_at` returns it, its score and its diameter in mm."""
    found = scan.scored.candidates
    seen = looked_at(networks, scan.measures, count, lambda index: scan.around[index])
    return seen, [one.score for one in found], [one.diameter_mm for one in found]


def fitted_weights(
    marked: Sequence[Marked], seconds: Sequence[NDArray[np.float64]], *, with_place: bool = True
) -> Weights:
    """What stages and place weigh in a logistic regression of "on an aneurysm"; neither stage weighs less than 0."""
    first = np.concatenate([[one.score for one in scan.scored.candidates] for scan in marked])
    hit = np.concatenate([scan.hits for scan in marked]).astype(float)
    odds = [np.ones(len(hit)), first, np.concatenate(list(seconds))]
    if with_cubes := all(scan.cube_odds is not None for scan in marked):
        odds.append(np.concatenate([cube_odds_of(scan) for scan in marked]))
    read, spread = np.stack(odds, axis=1), np.ones(0)
    if with_place:
        places = np.concatenate([scan.places for scan in marked]).astype(np.float64)
        spread = places.std(axis=0) + 1e-3
        read = np.concatenate([read, (places - places.mean(axis=0)) / spread], axis=1)
    ridge = np.array([0.0, *(0.05 for _ in odds[1:]), *(PLACE_RIDGE for _ in spread)])

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logit = read @ weights
        wrong = 1.0 / (1.0 + np.exp(-logit)) - hit
        value = (np.logaddexp(0.0, logit) - hit * logit).sum() + (ridge * weights**2).sum()
        return float(value), read.T @ wrong + 2.0 * ridge * weights

    start = np.array([-1.0, 0.5, *(0.3 for _ in odds[2:]), *(0.0 for _ in spread)])
    bounds = [(None, None), (0.02, None), *((0.0, None) for _ in odds[2:]), *((None, None) for _ in spread)]
    found = minimize(loss, start, method="L-BFGS-B", jac=True, bounds=bounds).x
    cube = float(found[3]) if with_cubes else 0.0
    if not with_place:
        return Weights(float(found[1]), float(found[2]), cube=cube)
    place = found[len(odds) :] / spread
    on_aneurysms = np.concatenate([scan.places[scan.hits] for scan in marked]) @ place
    limit = float(np.quantile(on_aneurysms, PLACE_SHARE))
    return Weights(float(found[1]), float(found[2]), tuple(float(x) for x in place), limit, cube)


def combined(marked: Sequence[Marked], seconds: Sequence[NDArray[np.float64]], weights: Weights) -> list[Scored]:
    """The scans with their candidates scored by both stages, their cubes and their places."""
    scored = []
    for scan, second in zip(marked, seconds, strict=True):
        added = place_scores(scan.places, weights.place, weights.limit) + weights.cube * cube_odds_of(scan)
        both = [float(x) for x in second], weights.first, weights.second, added.tolist()
        scored.append(replace(scan.scored, candidates=rescored(scan.scored.candidates, *both)))
    return scored


def cube_odds_of(scan: Marked) -> NDArray[np.float64]:
    """What networks said of the cubes of a scan; 0 where none were asked."""
    return np.zeros(len(scan.places)) if scan.cube_odds is None else scan.cube_odds


Seen = tuple[Sequence[Marked], Sequence[NDArray[np.float64]]]
"""Scans with the second stage's log odds of each one's candidates."""


def seen_by(bundle: Bundle, marked: Sequence[Marked]) -> Seen:
    """The scans with as many candidates as a bundle looks at, and its second stage's log odds of those, 0 where it has none.

    Their locations are those that its networks name.  Raises ConfigError where it looks at cubes, and a scan has none, or names
    locations, and a scan does not say where the circle is.
    """
    scans, stage = [scan.best(bundle.manifest.candidates) for scan in marked], bundle.manifest.second_stage
    if stage is None:
        return scans, [np.zeros(len(scan.hits)) for scan in scans]
    views = stage.cubes.views if stage.cubes else 0
    scans = [renamed(looked_into(scan, bundle.cubes, views, bundle.precision), bundle.naming) for scan in scans]
    return scans, seconds_of(bundle.second, scans, stage.around, bundle.fusion)


def looked_into(scan: Marked, cubes: Sequence[CubeNet], views: int, precision: str = "float32") -> Marked:
    """The scan with what networks say of its cubes, or of none where there is no network.  Raises ConfigError without cubes."""
    if not cubes:
        return replace(scan, cube_odds=None)
    if scan.cubes is None:
        raise ConfigError(f"scan {scan.scored.seed} was marked without cubes: mark the scans anew, into another folder")
    low = (scan.cubes.shape[-1] - SIDE) // 2
    middle = slice(low, low + SIDE)
    odds = [cube_odds(cubes, cube[middle, middle, middle], views, precision) for cube in scan.cubes]
    return replace(scan, cube_odds=np.array(odds, float))


def renamed(scan: Marked, networks: Sequence[NamingNet]) -> Marked:
    """The scan with the locations that networks name, as they are where there is none.  Raises ConfigError."""
    if not networks:
        return scan
    found = named(scan.scored.candidates, circle_of(scan), networks)
    return replace(scan, scored=replace(scan.scored, candidates=found))


def circle_of(scan: Marked) -> tuple[float, float, float]:
    """Where the middle of the circle of Willis is taken to be.  Raises ConfigError for scans that were marked before that was kept."""
    if scan.circle_lps_mm is None:
        raise ConfigError(
            f"scan {scan.scored.seed} was marked without the place of the circle: mark the scans anew, into another folder"
        )
    return scan.circle_lps_mm
