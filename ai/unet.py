"""The network: a 3D U-Net that reads a region of interest and answers at half its resolution.

    channels_DHW ─ stem ─ ↓ ─ stage ─ ↓ ─ stage ─ ↓ ─ stage ─ ↓ ─ bottom
                           │           │           │             │
                        decoder ← ↑ ─ decoder ← ↑ ─ decoder ← ↑ ─┘
                           │
                        1×1×1 heads: lesion, vessel, location, diameter

The stem keeps full resolution with few channels; everything expensive happens at half resolution and below.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ai.locations import LOCATIONS

VESSEL_CLASSES = len(LOCATIONS) + 3
"""Background, the 13 locations, other artery, vein."""

OUTPUT_STRIDE = 2
"""One output cell covers 2×2×2 input voxels."""

LESION_MAP, LOG_DIAMETER_MAP, LOCATION_MAPS = 0, 1, slice(2, 2 + len(LOCATIONS))
"""Where each head's maps stand in what `UNet.finding_maps` returns."""
FINDING_MAPS = LOCATION_MAPS.stop


@dataclass(frozen=True)
class UNetSettings:
    """What decides the shape of the weights; kept in a bundle's manifest.

    `widths`: channels per level from full resolution down.  `convolutions`: how many at each level on the way down.
    `groups`: of GroupNorm.  `attention`: gate the skip connections (Attention U-Net, arXiv:1804.03999).
    """

    in_channels: int = 6
    widths: tuple[int, ...] = (16, 32, 64, 96, 128)
    convolutions: tuple[int, ...] = (1, 2, 2, 2, 2)
    groups: int = 8
    attention: bool = False

    def __post_init__(self) -> None:
        if len(self.widths) < 3 or len(self.widths) != len(self.convolutions):
            raise ValueError(
                f"widths {self.widths} and convolutions {self.convolutions} must name the same three or more levels"
            )
        if any(width % self.groups for width in self.widths):
            raise ValueError(f"every width in {self.widths} must be a multiple of groups = {self.groups}")


class Outputs(NamedTuple):
    """Raw network output; N patches, D H W half of the input's.

    lesion: N×1×D×H×W logits.  vessel: N×16×D×H×W logits.  location: N×13×D×H×W logits, meaningful inside a lesion.
    log_diameter: N×1×D×H×W, natural logarithm of mm, meaningful inside a lesion.
    """

    lesion: Tensor
    vessel: Tensor
    location: Tensor
    log_diameter: Tensor


class ConvBlock(nn.Sequential):
    """3×3×3 convolution, GroupNorm, SiLU."""

    def __init__(self, fan_in: int, fan_out: int, groups: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv3d(fan_in, fan_out, 3, stride=stride, padding=1, bias=False),
            nn.GroupNorm(groups, fan_out),
            nn.SiLU(inplace=True),
        )


class AttentionGate(nn.Module):
    """Scales a skip connection by where the level below says it matters."""

    def __init__(self, skip: int, below: int) -> None:
        super().__init__()
        inner = max(8, skip // 2)
        self.of_skip = nn.Conv3d(skip, inner, 1)
        self.of_below = nn.Conv3d(below, inner, 1)
        self.score = nn.Conv3d(inner, 1, 1)

    def forward(self, skip: Tensor, below: Tensor) -> Tensor:
        gate = torch.sigmoid(self.score(F.relu(self.of_skip(skip) + self.of_below(below))))
        return skip * gate


class Decoder(nn.Module):
    """One level up: narrow, enlarge twofold, join the skip connection, convolve."""

    def __init__(self, below: int, skip: int, groups: int, attention: bool) -> None:
        super().__init__()
        self.narrow = nn.Conv3d(below, skip, 1)
        self.gate = AttentionGate(skip, skip) if attention else None
        self.join = ConvBlock(2 * skip, skip, groups)

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        below = self.narrow(below)
        if self.gate is None and not torch.is_grad_enabled():
            convolution, normalised, activated = self.join
            assert isinstance(convolution, nn.Conv3d)
            answered: Tensor = activated(normalised(_joined(below, skip, convolution.weight)))
            return answered
        below = F.interpolate(below, scale_factor=2.0, mode="nearest")
        if self.gate is not None:
            skip = self.gate(skip, below)
        joined: Tensor = self.join(torch.cat((below, skip), dim=1))
        return joined


_ENLARGED = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
"""(4×3) A convolution by 3 weights of what was enlarged twofold is a transposed one by these 4 sums of them, of stride 2."""


def _joined(below: Tensor, skip: Tensor, weight: Tensor) -> Tensor:
    """A 3×3×3 convolution of `below`, enlarged twofold, and `skip` behind it, with a third of the multiplications of `below`.

    Each of its values meets 8 sums of weights instead of 27 weights, because 2×2×2 enlarged voxels are one.  The answer, and
    with it normalisation and SiLU, is float32 also where the convolutions are in bfloat16: half of the rounding of a pass.
    (A decoder with a gate goes another way, and stays in bfloat16.)
    """
    of_below, of_skip = weight[:, : below.shape[1]], weight[:, below.shape[1] :]
    enlarged = _ENLARGED.to(weight)
    sums = torch.einsum("oiabc,xa,yb,zc->ioxyz", of_below, enlarged, enlarged, enlarged)
    answered = F.conv3d(skip, of_skip, padding=1).float()
    answered += F.conv_transpose3d(below, sums, stride=2, padding=1)
    return answered


class UNet(nn.Module):
    """N×C×D×H×W channels in, `Outputs` at half resolution out."""

    def __init__(self, settings: UNetSettings) -> None:
        super().__init__()
        self.settings = settings
        widths, groups = settings.widths, settings.groups
        levels: list[nn.Module] = []
        fan_in = settings.in_channels
        for level, (width, convolutions) in enumerate(zip(widths, settings.convolutions, strict=True)):
            blocks = [ConvBlock(fan_in, width, groups, stride=1 if level == 0 else 2)]
            blocks += [ConvBlock(width, width, groups) for _ in range(convolutions - 1)]
            levels.append(nn.Sequential(*blocks))
            fan_in = width
        self.levels = nn.ModuleList(levels)
        self.decoders = nn.ModuleList(
            Decoder(widths[level + 1], widths[level], groups, settings.attention)
            for level in range(len(widths) - 2, 0, -1)
        )
        self.lesion = nn.Conv3d(widths[1], 1, 1)
        self.vessel = nn.Conv3d(widths[1], VESSEL_CLASSES, 1)
        self.location = nn.Conv3d(widths[1], len(LOCATIONS), 1)
        self.log_diameter = nn.Conv3d(widths[1], 1, 1)
        nn.init.constant_(_bias(self.lesion), -4.0)  # lesions are rare: start near "none" instead of at one half
        nn.init.constant_(_bias(self.log_diameter), 1.6)  # 5 mm, the median

    def forward(self, channels: Tensor) -> Outputs:
        return self.heads(self.features(channels))

    def heads(self, x: Tensor) -> Outputs:
        """What is read of the `features`."""
        return Outputs(self.lesion(x), self.vessel(x), self.location(x), self.log_diameter(x))

    def finding_maps(self, channels: Tensor, bfloat16: bool = False) -> Tensor:
        """What findings are read from: lesion logit, log diameter and the 13 location logits, N×15×D×H×W.

        The same numbers as `forward` gives, as one matrix product; the vessel head, which only teaches, is left out.
        `bfloat16`: all but the heads passes in it; their sums would be rounded to 2 % of an odds.
        """
        with torch.autocast(channels.device.type, torch.bfloat16, enabled=bfloat16):
            x = self.features(channels)
        heads = (
            self.lesion,
            self.log_diameter,
            self.location,
        )  # in the order of LESION_MAP, LOG_DIAMETER_MAP, LOCATION_MAPS
        weight = torch.cat([head.weight.flatten(1) for head in heads])
        bias = torch.cat([_bias(head) for head in heads])
        return F.linear(x.float().movedim(1, -1), weight, bias).movedim(-1, 1)

    def features(self, channels: Tensor) -> Tensor:
        """What the heads read, at half resolution."""
        skips = []
        x = channels
        for level in self.levels:
            x = level(x)
            skips.append(x)
        for decoder, skip in zip(self.decoders, skips[-2:0:-1], strict=True):
            x = decoder(x, skip)
        return x

    @property
    def parameter_count(self) -> int:
        """How many numbers the network holds."""
        return sum(parameter.numel() for parameter in self.parameters())


def _bias(convolution: nn.Conv3d) -> Tensor:
    assert convolution.bias is not None
    return convolution.bias
