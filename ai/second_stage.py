"""The second stage: a cube around each candidate, finer than the region, is measured, and a small network says what it is.

    cube ─ measured shape ─ standardised ─ hidden layers ─ kinds

The first stage localises well and takes bends and forks for sacs at 0.7 mm; the cube is cut from the volume itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

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
        if self.hidden < 1 or self.layers < 1:
            raise ValueError(f"hidden and layers must be at least 1, got {self.hidden} and {self.layers}")


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


def looked_at(
    networks: Sequence[ShapeNet],
    volume: Volume,
    centres_lps_mm: Sequence[Place],
    remembered: Remembered | None = None,
) -> list[float]:
    """The log odds that an aneurysm lies at each of the places, the mean over the weight sets, within ±`LARGEST_LOGIT`."""
    if not networks or not centres_lps_mm:
        return [0.0] * len(centres_lps_mm)
    known = remembered or Remembered()
    cubes = [cube_around(volume, centre) for centre in centres_lps_mm]
    return log_odds(networks, np.stack([known.answer("shape", (cube,), partial(measured, cube)) for cube in cubes]))


@torch.inference_mode()
def log_odds(networks: Sequence[ShapeNet], measures: NDArray[np.float32]) -> list[float]:
    """The same from N×M measurements."""
    if len(measures) == 0:
        return []
    read = torch.from_numpy(measures)
    logits = torch.stack([sac_logits(network(read)) for network in networks]).mean(dim=0)
    return [float(logit) for logit in logits.clamp(-LARGEST_LOGIT, LARGEST_LOGIT)]
