"""The cube network looks at the cube around a candidate itself, in every direction alike, and says what is in its middle.

    cube ─ windows ─ convolutions ─ ↓ ─ ↓ ─ ↓ ─ largest, mean and middle ─ kinds

It sees what nobody thought to measure; `ai.shape` measures what a network of its size would need many more cubes to learn.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import permutations, product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ai.device import passes_in_bfloat16
from ai.remembered import Remembered
from ai.second_stage import KINDS, LARGEST_LOGIT, Place, cube_around, sac_logits
from ai.volume import Volume

SIDE, SPACING_MM = 32, 0.5
"""Of a cube that a network reads: 16 mm."""
WINDOWS_HU = ((-50.0, 150.0), (0.0, 600.0), (-1000.0, 2000.0))
_CORE_MM = 2.0
_LEAST_HU, _MOST_HU = 100.0, 900.0
"""Of the density that the middle is taken to have."""
TURNINGS = tuple(product(permutations(range(3)), product((False, True), repeat=3)))
"""The 48 ways to lay a cube on itself: the order of its axes, and which of them are reversed."""


@dataclass(frozen=True)
class CubeSettings:
    """What the weights depend on; kept in a bundle's manifest.

    `widths`: channels per level from full resolution down.  `side`, `spacing_mm`, `windows_hu`: what is read, and how.
    """

    widths: tuple[int, ...] = (16, 32, 64, 96)
    side: int = SIDE
    spacing_mm: float = SPACING_MM
    windows_hu: tuple[tuple[float, float], ...] = WINDOWS_HU

    def __post_init__(self) -> None:
        if (self.side, self.spacing_mm, self.windows_hu) != (SIDE, SPACING_MM, WINDOWS_HU):
            raise ValueError("cubes are not read as this version of Willis does: export the bundle again")
        if not self.widths or any(type(width) is not int or width < 1 for width in self.widths):
            raise ValueError(f"widths must be whole numbers from 1 on, got {self.widths}")
        if SIDE % 2 ** (len(self.widths) + 1):
            raise ValueError(f"widths must name at most 4 levels of a cube of {SIDE} voxels, got {self.widths}")


class CubeNet(nn.Module):
    """N×`SIDE`×`SIDE`×`SIDE` HU in, N×9 logits of `ai.second_stage.KINDS` out, float32."""

    def __init__(self, settings: CubeSettings) -> None:
        super().__init__()
        self.settings = settings
        blocks, fan_in = [], len(WINDOWS_HU) + 1
        for level, width in enumerate(settings.widths):
            blocks.append(_block(fan_in, width, 1 if level == 0 else 2))
            if level > 0:
                blocks.append(_block(width, width))
            fan_in = width
        self.blocks = nn.Sequential(*blocks)
        self.kinds = nn.Linear(3 * fan_in, len(KINDS))

    def forward(self, hu: Tensor) -> Tensor:
        read: Tensor = self.read(hu)
        with torch.autocast(hu.device.type, enabled=False):
            kinds: Tensor = self.kinds(read)
        return kinds

    def read(self, hu: Tensor) -> Tensor:
        """What the last level sees: the largest of each channel, its mean, and its mean in the middle; N×(3·width), float32."""
        seen = self.blocks(channels(hu)).float()
        low = seen.shape[-1] // 2 - 1
        middle = seen[:, :, low : low + 2, low : low + 2, low : low + 2]
        return torch.cat([seen.amax(dim=(2, 3, 4)), seen.mean(dim=(2, 3, 4)), middle.mean(dim=(2, 3, 4))], dim=1)

    @property
    def parameter_count(self) -> int:
        """How many numbers the network holds."""
        return sum(parameter.numel() for parameter in self.parameters())


def _block(fan_in: int, fan_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(fan_in, fan_out, 3, stride=stride, padding=1, bias=False), nn.BatchNorm3d(fan_out), nn.SiLU()
    )


def channels(hu: Tensor) -> Tensor:
    """Each of `WINDOWS_HU` mapped to −1..1, then the density relative to the middle's, 0 where it is half; N×4×D×H×W from N×D×H×W."""
    density = torch.quantile(hu[:, _core(hu.device)], 0.8, dim=1).clamp(_LEAST_HU, _MOST_HU)[:, None, None, None]
    windows = [((hu - (low + high) / 2.0) * (2.0 / (high - low))).clamp(-1.0, 1.0) for low, high in WINDOWS_HU]
    relative = (hu / density).clamp(-0.5, 2.0) - 0.5
    return torch.stack([*windows, relative], dim=1).contiguous(memory_format=torch.channels_last_3d)


def _core(device: torch.device) -> Tensor:
    """Which voxels of a cube lie near its middle."""
    line = (torch.arange(SIDE, device=device) - (SIDE - 1) / 2) * SPACING_MM
    return (line[:, None, None] ** 2 + line[:, None] ** 2 + line**2).sqrt() <= _CORE_MM


def turned(hu: Tensor, turning: int) -> Tensor:
    """Cubes laid on themselves in one of `TURNINGS`; N×D×H×W."""
    order, reversed_ = TURNINGS[turning]
    laid = hu.permute(0, *(1 + axis for axis in order))
    return laid.flip([1 + axis for axis, back in enumerate(reversed_) if back])


def odds_around(
    networks: Sequence[CubeNet],
    volume: Volume,
    place_lps_mm: Place,
    views: int,
    precision: str = "float32",
    remembered: Remembered | None = None,
) -> float:
    """The log odds that an aneurysm is at a place, as `cube_odds` has them of the cube around it."""
    cube = cube_around(volume, place_lps_mm, SIDE, SPACING_MM)
    step = ("cube", tuple(networks), views, precision)
    return (remembered or Remembered()).answer(step, (cube,), partial(cube_odds, networks, cube, views, precision))


@torch.inference_mode()
def cube_odds(networks: Sequence[CubeNet], hu_DHW: NDArray[np.int16], views: int, precision: str = "float32") -> float:
    """The log odds that the middle of one cube is an aneurysm: the mean over the networks and over so many of `TURNINGS`.

    Within ±`LARGEST_LOGIT`, and always those of this cube alone, whatever else is looked at.  Raises FloatingPointError when the
    networks' answer is no number.
    """
    hu = torch.from_numpy(hu_DHW.astype(np.float32))[None]
    laid = torch.cat([turned(hu, len(TURNINGS) // views * view) for view in range(views)])
    with torch.autocast("cpu", torch.bfloat16, enabled=passes_in_bfloat16(precision, torch.device("cpu"))):
        logits = [sac_logits(network(laid)).mean() for network in networks]
    odds = float(torch.stack(logits).mean().clamp(-LARGEST_LOGIT, LARGEST_LOGIT))
    if not math.isfinite(odds):
        raise FloatingPointError("the answer of a network that looks at cubes is no number")
    return odds
