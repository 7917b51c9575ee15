"""The second stage: a cube around each candidate, finer than the region, is measured, and a small network says what it is.

    cube ─ measured shape ─ standardised ─ hidden layers ─ kinds ┐
    the best also from four places about it ─────────────────────┼─ fusion ─ log odds
    what the first stage says ───────────────────────────────────┘

The first stage localises well and takes bends and forks for sacs at 0.7 mm; the cube is cut from the volume itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ai.preprocess import resample
from ai.remembered import Remembered
from ai.shape import NAMES, SIDE, SPACING_MM, measured
from ai.volume import Volume

KINDS = ("sac", "bend", "fork", "infundibulum", "end", "vessel", "bone", "vein", "beside a sac")
"""What the middle of a cube may be; the first is an aneurysm."""
LARGEST_LOGIT = 8.0
Place = tuple[float, float, float]
"""In LPS mm."""
_FARTHEST = 4.0
"""Standard deviations from the mean that a measurement is clipped to."""


@dataclass(frozen=True)
class ShapeSettings:
    """What decides the shape of the weights; kept in a bundle's manifest.

    `measures`: the names of what is read, in order, as `ai.shape` measures it.  `hidden`: width of each hidden layer.
    `layers`: how many of them there are.
    """

    measures: tuple[str, ...] = NAMES
    hidden: int = 64
    layers: int = 1

    def __post_init__(self) -> None:
        if self.measures != NAMES:
            raise ValueError("measures are not those of this version of Willis: export the bundle again")
        if any(type(each) is not int or each < 1 for each in (self.hidden, self.layers)):
            raise ValueError(f"hidden and layers must be whole numbers from 1 on, got {self.hidden} and {self.layers}")


_CORNERS_MM = 0.3 * np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], float)
"""Of a tetrahedron about a centre, .52 mm off: about as far as the first stage's centres are from the true ones."""


class ShapeNet(nn.Module):
    """N×M measurements in, N×9 logits of `KINDS` out; `mean` and `spread` (M) belong to the weights."""

    mean: Tensor
    spread: Tensor

    def __init__(self, settings: ShapeSettings) -> None:
        super().__init__()
        self.settings = settings
        count = len(settings.measures)
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("spread", torch.ones(count))
        widths = (count, *[settings.hidden] * settings.layers)
        hidden = [part for pair in pairwise(widths) for part in (nn.Linear(*pair), nn.SiLU())]
        self.kinds = nn.Sequential(*hidden, nn.Linear(settings.hidden, len(KINDS)))

    def forward(self, measures: Tensor) -> Tensor:
        kinds: Tensor = self.kinds(self.standardised(measures))
        return kinds

    def standardised(self, measures: Tensor) -> Tensor:
        """Measurements with mean 0 and spread 1, the odd ones clipped."""
        return ((measures - self.mean) / self.spread).clamp(-_FARTHEST, _FARTHEST)

    @property
    def parameter_count(self) -> int:
        """How many numbers the network holds."""
        return sum(parameter.numel() for parameter in self.parameters())


@dataclass(frozen=True)
class FusionSettings:
    """What decides the shape of a fusion's weights; kept in a bundle's manifest.  `hidden`: width of its hidden layer."""

    hidden: int = 64

    def __post_init__(self) -> None:
        if type(self.hidden) is not int or self.hidden < 1:
            raise ValueError(f"hidden must be a whole number from 1 on, got {self.hidden}")


FACTS = ("log_odds", "score", "diameter_mm", "rank", "below_best")
"""What a fusion reads of a candidate before its measurements: the second stage's log odds, the mean over its places; the first
stage's score and diameter; how many of the scan's candidates have a higher score, and by how much its own is below the highest.
"""


class FusionNet(nn.Module):
    """N×(5 + 2·M) in, as `fusion_input` has it, N log odds out: a sum of the two stages' and what the rest adds to it."""

    mean: Tensor
    spread: Tensor

    def __init__(self, settings: FusionSettings) -> None:
        super().__init__()
        self.settings = settings
        count = len(FACTS) + 2 * len(NAMES)
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("spread", torch.ones(count))
        self.stages = nn.Linear(2, 1)
        self.rest = nn.Sequential(nn.Linear(count, settings.hidden), nn.SiLU(), nn.Linear(settings.hidden, 1))

    def forward(self, read: Tensor) -> Tensor:
        log_odds: Tensor = self.stages(read[:, :2]) + self.rest(self.standardised(read))
        return log_odds[:, 0]

    def standardised(self, read: Tensor) -> Tensor:
        """What is read with mean 0 and spread 1, the odd numbers clipped."""
        return ((read - self.mean) / self.spread).clamp(-_FARTHEST, _FARTHEST)


def sac_logits(kinds: Tensor) -> Tensor:
    """Log odds that the middle of a cube is an aneurysm, from the logits of `KINDS`; N."""
    return kinds[:, 0] - kinds[:, 1:].logsumexp(dim=1)


def cube_around(
    volume: Volume, centre_lps_mm: Place, side: int = SIDE, spacing_mm: float = SPACING_MM
) -> NDArray[np.int16]:
    """The volume's HU in the cube around a point, its axes along z, y and x of the LPS frame; air beyond the volume."""
    affine = np.zeros((4, 4))
    for column, row in enumerate((2, 1, 0)):
        affine[row, column] = spacing_mm
        affine[row, 3] = centre_lps_mm[row] - spacing_mm * (side - 1) / 2.0
    affine[3, 3] = 1.0
    return resample(volume, affine, (side,) * 3)


def around(centre_lps_mm: Place) -> list[Place]:
    """Four places about a centre, as a cube around each of which is measured a little otherwise."""
    x, y, z = centre_lps_mm
    return [(x + dx, y + dy, z + dz) for dx, dy, dz in _CORNERS_MM.tolist()]


def leading(log_odds: Sequence[float], count: int) -> list[int]:
    """Which candidates are the best `count` by the log odds at their centres."""
    return [int(index) for index in np.argsort(-np.asarray(log_odds, float), kind="stable")[:count]]


def measured_at(
    volume: Volume, places_lps_mm: Sequence[Place], remembered: Remembered | None = None
) -> NDArray[np.float32]:
    """What `ai.shape` measures in the cubes around P places; (P, M)."""
    known = remembered or Remembered()
    cubes = [cube_around(volume, place) for place in places_lps_mm]
    return np.stack([known.answer("shape", (cube,), partial(measured, cube)) for cube in cubes])


@torch.inference_mode()
def log_odds(networks: Sequence[ShapeNet], measures: NDArray[np.float32]) -> list[float]:
    """The log odds that an aneurysm is what was measured, (N, M), the mean over the weight sets, within ±`LARGEST_LOGIT`."""
    if len(measures) == 0:
        return []
    read = torch.from_numpy(measures)
    logits = torch.stack([sac_logits(network(read)) for network in networks]).mean(dim=0)
    return [float(logit) for logit in logits.clamp(-LARGEST_LOGIT, LARGEST_LOGIT)]


def looked_at(
    networks: Sequence[ShapeNet],
    centres: NDArray[np.float32],
    count: int,
    measured_around: Callable[[int], NDArray[np.float32]],
) -> list[NDArray[np.float32]]:
    """What is measured of each candidate, (places, M): at its centre, and around it too where it is among the best `count`.

    `centres`: (N, M), measured at the centres.  `measured_around`: of a candidate by its index, (4, M).
    """
    seen = list(centres[:, None])
    for best in leading(log_odds(networks, centres), count):
        seen[best] = np.concatenate([seen[best], measured_around(best)])
    return seen


def opinions(
    networks: Sequence[ShapeNet],
    fusion: Sequence[FusionNet],
    seen: Sequence[NDArray[np.float32]],
    scores: Sequence[float],
    diameters_mm: Sequence[float],
) -> list[float]:
    """The log odds that each candidate is an aneurysm: what a fusion says, or the mean over its places where there is none.

    `seen` as `looked_at` returns it; `scores` and `diameters_mm` are the first stage's.
    """
    if fusion:
        return fused(fusion, fusion_input(networks, seen, scores, diameters_mm))
    return [fmean(log_odds(networks, each)) for each in seen]


def fusion_input(
    networks: Sequence[ShapeNet],
    seen: Sequence[NDArray[np.float32]],
    scores: Sequence[float],
    diameters_mm: Sequence[float],
) -> NDArray[np.float32]:
    """What a fusion reads of all N candidates of a scan: `FACTS`, then means and spreads of what was measured, (places, M) each."""
    odds = [fmean(log_odds(networks, each)) for each in seen]
    score = np.asarray(scores)
    rank = (score[None, :] > score[:, None]).sum(axis=1)
    facts = np.stack([odds, score, diameters_mm, rank, score - score.max(initial=-np.inf)], axis=1)
    means, spreads = (
        np.array([over(each, axis=0) for each in seen]).reshape(len(seen), len(NAMES)) for over in (np.mean, np.std)
    )
    return np.concatenate([facts, means, spreads], axis=1).astype(np.float32)


@torch.inference_mode()
def fused(fusion: Sequence[FusionNet], read: NDArray[np.float32]) -> list[float]:
    """The log odds that each candidate is an aneurysm, from its `fusion_input`, the mean over the weight sets, within ±`LARGEST_LOGIT`."""
    logits = torch.stack([network(torch.from_numpy(read)) for network in fusion]).mean(dim=0)
    return [float(logit) for logit in logits.clamp(-LARGEST_LOGIT, LARGEST_LOGIT)]
