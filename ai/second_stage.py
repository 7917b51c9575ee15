"""The second stage: a small network looks at a cube around each candidate, finer than the region, and says what it is.

    cube_DHW ─ level ─ ↓ ─ level ─ ↓ ─ level ─ whole mean, whole maximum, mean of the middle ─ linear ─ kinds

The first stage localises well and takes bends and forks for sacs at 0.7 mm; the cube is cut from the volume itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ai.preprocess import resample
from ai.unet import ConvBlock
from ai.volume import Volume

KINDS = ("sac", "bend", "fork", "infundibulum", "end", "vessel", "bone", "vein", "beside a sac")
"""What the middle of a cube may be; the first is an aneurysm."""
LARGEST_LOGIT = 12.0


@dataclass(frozen=True)
class CubeSettings:
    """What decides the shape of the weights and what they read; kept in a bundle's manifest.

    `widths`: channels per level, each at half the resolution of the one before, the first at half of the cube's.
    `spacing_mm`, `side`: of the cube.  `windows_hu`: (low, high) of each channel, mapped to -1..1.
    """

    widths: tuple[int, ...] = (16, 48, 96)
    groups: int = 8
    spacing_mm: float = 0.5
    side: int = 40
    windows_hu: tuple[tuple[float, float], ...] = ((-50.0, 150.0), (0.0, 600.0), (-1000.0, 2000.0))

    def __post_init__(self) -> None:
        if not 0.2 <= self.spacing_mm <= 1.0:
            raise ValueError(f"spacing_mm must lie in 0.2..1.0, got {self.spacing_mm}")
        if not self.widths or any(width % self.groups for width in self.widths):
            raise ValueError(f"every width in {self.widths} must be a multiple of groups = {self.groups}")
        if self.side < 2 ** (len(self.widths) + 1) or self.side % 2 ** len(self.widths):
            raise ValueError(
                f"side must be a multiple of {2 ** len(self.widths)} and at least twice that, got {self.side}"
            )
        if not self.windows_hu or any(low >= high for low, high in self.windows_hu):
            raise ValueError(f"windows_hu must be (low, high) pairs, got {self.windows_hu}")


class CubeNet(nn.Module):
    """N×C×S×S×S channels in, N×9 logits of `KINDS` out."""

    def __init__(self, settings: CubeSettings) -> None:
        super().__init__()
        self.settings = settings
        levels: list[nn.Module] = []
        fan_in = len(settings.windows_hu)
        for width in settings.widths:
            levels.append(
                nn.Sequential(
                    ConvBlock(fan_in, width, settings.groups, stride=2), ConvBlock(width, width, settings.groups)
                )
            )
            fan_in = width
        self.levels = nn.Sequential(*levels)
        self.kinds = nn.Sequential(nn.Linear(3 * fan_in, 64), nn.SiLU(inplace=True), nn.Linear(64, len(KINDS)))

    def forward(self, channels: Tensor) -> Tensor:
        x = self.levels(channels)
        low, high = x.shape[-1] // 2 - 1, x.shape[-1] // 2 + 1
        middle = x[..., low:high, low:high, low:high]
        pooled = (x.mean(dim=(2, 3, 4)), x.amax(dim=(2, 3, 4)), middle.mean(dim=(2, 3, 4)))
        kinds: Tensor = self.kinds(torch.cat(pooled, dim=1))
        return kinds

    @property
    def parameter_count(self) -> int:
        """How many numbers the network holds."""
        return sum(parameter.numel() for parameter in self.parameters())


def cube_channels(hu: Tensor, settings: CubeSettings) -> Tensor:
    """N×C×S×S×S: each window of N×S×S×S HU mapped to -1..1 and clipped there."""
    windows = [((hu - (low + high) / 2.0) * (2.0 / (high - low))).clamp(-1.0, 1.0) for low, high in settings.windows_hu]
    return torch.stack(windows, dim=1).contiguous(memory_format=torch.channels_last_3d)


def sac_logits(kinds: Tensor) -> Tensor:
    """Log odds that the middle of a cube is an aneurysm, from the logits of `KINDS`; N."""
    return kinds[:, 0] - kinds[:, 1:].logsumexp(dim=1)


def cube_around(volume: Volume, centre_lps_mm: tuple[float, float, float], settings: CubeSettings) -> NDArray[np.int16]:
    """The volume's HU in the cube around a point, its axes along z, y and x of the LPS frame; air beyond the volume."""
    affine = np.zeros((4, 4))
    for column, row in enumerate((2, 1, 0)):
        affine[row, column] = settings.spacing_mm
        affine[row, 3] = centre_lps_mm[row] - settings.spacing_mm * (settings.side - 1) / 2.0
    affine[3, 3] = 1.0
    return resample(volume, affine, (settings.side,) * 3)


@torch.inference_mode()
def looked_at(
    networks: Sequence[CubeNet],
    volume: Volume,
    centres_lps_mm: Sequence[tuple[float, float, float]],
    device: torch.device,
) -> list[float]:
    """The log odds that an aneurysm lies at each of the places, the mean over the weight sets, within ±`LARGEST_LOGIT`."""
    if not networks or not centres_lps_mm:
        return [0.0] * len(centres_lps_mm)
    settings = networks[0].settings
    cubes = np.stack([cube_around(volume, centre, settings) for centre in centres_lps_mm])
    channels = cube_channels(torch.from_numpy(cubes).to(device).float(), settings)
    logits = torch.stack([sac_logits(network.to(device)(channels)) for network in networks]).mean(dim=0)
    return [float(logit) for logit in logits.clamp(-LARGEST_LOGIT, LARGEST_LOGIT).cpu()]
