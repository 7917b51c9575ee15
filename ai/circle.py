"""Where the circle of Willis is in a CT volume, by a small network on a grid of 6 mm, and how sure that is.

Each cell holds shares of what is averaged in it (air, dense bone, how bright soft tissue is), so that walls thinner than a
voxel still count.  The network answers with a probability for every cell of 12 mm, and one that the circle is in none of them:
a head that is cut off, or no head.  What it says is used by the analysis; the node itself judges by `ai.coverage`, which
needs no torch.
"""

import hashlib
import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional as F

from ai.coverage import HeadExtent, extent_about, head_extent
from ai.errors import BundleError, NotAnalysable, Reason
from ai.separable import along_axes
from ai.volume import Volume

Float32Array = NDArray[np.float32]

CELL_MM = 6.0
CHANNELS = 4
DEPTH_CELLS = 40
"""From the top down, so much is looked at: a head and the upper neck, and not the chest below them."""
STRIDE = 2
"""An output cell covers 2×2×2 input cells."""
DIVISOR = 8
WIDTHS = (8, 24, 48)
SAMPLE_MM = 1.4
"""Voxels are picked no finer than this before they are averaged."""
WEIGHTS = Path(__file__).parent / "models" / "circle"

_NEAR_CELLS = 2.0
WINDOW_BELOW_MM, WINDOW_ABOVE_MM, WINDOW_STEP_MM = 56.0, 50.0, 16.0
"""What is looked at once more: so much about the level of the circle, which counts in such steps."""
SAME_PLACE_MM = 6.0
"""A second look that is further from the first than this is not believed."""
MOST_SPREAD_MM = 15.0
"""A centre whose probability is spread wider than this is not one,"""
MOST_SPREAD_AGREED_MM, AGREED_MM = 25.0, 15.0
"""unless the landmarks of the bone lie so near: then up to this."""


@dataclass(frozen=True)
class Circle:
    """`centre_lps_mm`: the middle of the circle of Willis.  `spread_mm`: how far from there it may well lie.

    `elsewhere`: the probability that it is not in the volume.
    """

    centre_lps_mm: tuple[float, float, float]
    spread_mm: float
    elsewhere: float


class CircleNet(nn.Module):
    """N×4×D×H×W shares of cells of 6 mm in; out come log probabilities, N×(cells of 12 mm + 1), the last for "elsewhere",
    and N×3×D/2×H/2×W/2, how far the circle lies from each cell's centre along d, h and w, in cells of 12 mm."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.stem = _block(CHANNELS, widths[0], 4, stride=2, padding=1)
        self.levels = nn.ModuleList()
        below = widths[0]
        for number, width in enumerate(widths):
            self.levels.append(
                nn.Sequential(
                    _block(below, width, 3, stride=1 if number == 0 else 2, padding=1),
                    _block(width, width, 3, stride=1, padding=1),
                )
            )
            below = width
        self.joins = nn.ModuleList(
            _block(widths[level + 1] + widths[level], widths[level], 3, stride=1, padding=1)
            for level in reversed(range(len(widths) - 1))
        )
        self.heat = nn.Conv3d(widths[0], 4, 1)
        self.elsewhere = nn.Linear(widths[-1], 1)

    def forward(self, shares: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(shares)
        skips = []
        for level in self.levels:
            x = level(x)
            skips.append(x)
        deepest = x.amax(dim=(2, 3, 4))
        for join, skip in zip(self.joins, skips[-2::-1], strict=True):
            x = join(torch.cat((F.interpolate(x, size=skip.shape[2:], mode="trilinear"), skip), dim=1))
        heat = self.heat(x)
        logits = torch.cat((heat[:, 0].flatten(1), self.elsewhere(deepest)), dim=1)
        return torch.log_softmax(logits, dim=1), heat[:, 1:]


def _block(fan_in: int, fan_out: int, kernel: int, stride: int, padding: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(fan_in, fan_out, kernel, stride=stride, padding=padding, bias=False),
        nn.BatchNorm3d(fan_out),
        nn.ReLU(inplace=True),
    )


def shares_of(hu: Float32Array) -> list[Float32Array]:
    """What is averaged over a cell, of each voxel: air, dense bone, brightness of soft tissue (0 to 1 each)."""
    return [
        np.clip((-200.0 - hu) / 600.0, 0.0, 1.0),
        np.clip((hu - 150.0) / 500.0, 0.0, 1.0),
        np.clip((hu + 50.0) / 200.0, 0.0, 1.0),
    ]


def cells(volume: Volume) -> tuple[Float32Array, NDArray[np.float64]]:
    """The shares in cells of 6 mm along the volume's own axes, (4, d, h, w), and the affine of the cells' centres to LPS mm.

    The last channel is 1 inside the volume.  Sides are filled up to multiples of 8 cells.  Air around the head is cut off.
    """
    spacing = volume.spacing_mm_DHW
    strides = [max(1, int(SAMPLE_MM / each)) for each in spacing]
    picked = volume.hu_DHW[:: strides[0], :: strides[1], :: strides[2]]
    along = [_averaging(side, stride * each) for side, stride, each in zip(picked.shape, strides, spacing, strict=True)]
    shares = [np.zeros([len(each) for each in along], np.float32) for _ in range(3)]
    for first in range(0, len(picked), 16):  # a few slices at a time: only their averages are held
        across = along[0][:, first : first + 16]
        rows = across.any(axis=1)
        for sums, share in zip(shares, shares_of(picked[first : first + 16].astype(np.float32)), strict=True):
            sums[rows] += along_axes(share, across[rows], along[1], along[2])
    out = np.stack([*shares, np.ones_like(shares[0])])
    inside = np.argwhere(out[0] < 0.6)
    low, high = (inside.min(axis=0), inside.max(axis=0) + 1) if len(inside) else (np.zeros(3, int), out.shape[1:])
    low, high = np.maximum(low - 2, 0), np.minimum(np.asarray(high) + 2, out.shape[1:])
    low[0] = max(low[0], high[0] - DEPTH_CELLS)
    out = out[:, low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    out = np.pad(out, [(0, 0), *((0, -side % DIVISOR) for side in out.shape[1:])])
    step = CELL_MM / np.array(spacing)
    affine = volume.affine_lps @ np.diag([*step, 1.0])
    affine[:3, 3] = (volume.affine_lps @ np.append((low + 0.5) * step - 0.5, 1.0))[:3]
    return out.astype(np.float32), affine


def _averaging(count: int, step_mm: float) -> Float32Array:
    """(cells × samples): each row averages the samples whose extent lies in one cell of 6 mm."""
    number = max(1, round(count * step_mm / CELL_MM))
    edge_mm = np.arange(count)[None, :] * step_mm
    low_mm = np.arange(number)[:, None] * CELL_MM
    overlap = np.clip(np.minimum(edge_mm + step_mm, low_mm + CELL_MM) - np.maximum(edge_mm, low_mm), 0.0, None)
    averaged: Float32Array = (overlap / np.maximum(overlap.sum(axis=1, keepdims=True), 1e-6)).astype(np.float32)
    return averaged


@torch.inference_mode()
def locate(volume: Volume, network: CircleNet | None = None) -> Circle:
    """Where the network sees the middle of the circle of Willis.  Raises BundleError when its weights are damaged.

    The mirror image is asked as well: where the two disagree, the spread is wide.
    """
    shares, affine = cells(volume)
    asked = torch.from_numpy(shares)[None]
    net = network or shipped()
    log_upright, off_upright = net(asked)
    log_mirrored, off_mirrored = net(asked.flip(-1))
    sides = off_upright.shape[2:]
    heat = torch.stack((log_upright[0, :-1].view(sides), log_mirrored[0, :-1].view(sides).flip(-1))).exp()
    off_mirrored = off_mirrored.flip(-1) * torch.tensor([1.0, 1.0, -1.0]).view(1, 3, 1, 1, 1)
    line = torch.meshgrid(*(torch.arange(side, dtype=torch.float32) for side in sides), indexing="ij")
    at = torch.stack(line) + torch.cat((off_upright, off_mirrored))
    elsewhere = float(log_upright[0, -1].exp() + log_mirrored[0, -1].exp()) / 2.0
    return _circle(heat.flatten().numpy(), at.movedim(1, -1).reshape(-1, 3).numpy(), elsewhere, affine)


def _circle(heat: Float32Array, at: Float32Array, elsewhere: float, affine: NDArray[np.float64]) -> Circle:
    """The centre of gravity of where all cells put the circle, and how far from there they put it."""
    weight = heat / (heat.sum() + 1e-12)
    cell = (weight[:, None] * at).sum(axis=0)
    near = weight * (np.linalg.norm(at - cell, axis=1) < _NEAR_CELLS)  # once more without what lies far off
    if near.sum() > 0.5:
        cell = (near[:, None] * at).sum(axis=0) / near.sum()
    spread = np.sqrt((weight * np.square(at - cell).sum(axis=1)).sum())
    centre = (affine @ np.append(STRIDE * cell + 0.5, 1.0))[:3]
    return Circle((float(centre[0]), float(centre[1]), float(centre[2])), float(spread) * STRIDE * CELL_MM, elsewhere)


def located_extent(volume: Volume, *, sure: bool = True) -> HeadExtent:
    """Where the head lies, its circle of Willis told by the network.  Raises NotAnalysable (NOT_A_HEAD, COVERAGE, TOO_LARGE).

    COVERAGE when `sure` and the network does not know: a centre that may be anywhere is no centre.
    """
    by_bone = head_extent(volume)
    found = locate(volume)
    if sure and found.elsewhere > 0.5:
        raise NotAnalysable(Reason.COVERAGE, "the circle of Willis is not in the images")
    if sure and found.spread_mm > (MOST_SPREAD_AGREED_MM if _agreed(found, by_bone) else MOST_SPREAD_MM):
        raise NotAnalysable(
            Reason.COVERAGE, f"the circle of Willis could not be placed to better than {found.spread_mm:.0f} mm"
        )
    return extent_about(volume, found.centre_lps_mm, vertex_inside=by_bone.vertex_inside, spread_mm=found.spread_mm)


@dataclass(frozen=True)
class Window:
    """The slices `first` to `last` about the circle of Willis.

    `missing`: how many must still come, below and above, until one lies below and one above them.
    """

    first: int
    last: int
    missing: tuple[int, int]


def window_about(volume: Volume, centre_lps_mm: tuple[float, float, float]) -> Window:
    """The slices from 56 mm below to 50 mm above the circle's level, which is rounded to 16 mm in the patient's frame.

    So what lies further off, and may not have come yet, mostly does not decide which slices these are.
    """
    across = np.cross(volume.affine_lps[:3, 2], volume.affine_lps[:3, 1])
    across *= np.sign(across[2]) / np.linalg.norm(across)
    step_mm = float(across @ volume.affine_lps[:3, 0])
    level_mm = WINDOW_STEP_MM * round(float(across @ centre_lps_mm) / WINDOW_STEP_MM)
    lowest_mm = float(across @ volume.affine_lps[:3, 3])
    first = math.ceil(round((level_mm - WINDOW_BELOW_MM - lowest_mm) / step_mm, 4))
    last = math.floor(round((level_mm + WINDOW_ABOVE_MM - lowest_mm) / step_mm, 4))
    top = len(volume.hu_DHW) - 1
    return Window(max(0, first), max(-1, min(top, last)), (max(0, 1 - first), max(0, last + 1 - top)))


def steady_centre(volume: Volume, centre_lps_mm: tuple[float, float, float]) -> tuple[float, float, float]:
    """The middle of the circle as the slices about it alone show it, to 0.01 mm; as it was where these put it elsewhere.

    The same bit for bit whatever else the volume holds, as long as `window_about` names the same slices and both looks agree.
    """
    window = window_about(volume, centre_lps_mm)
    affine = volume.affine_lps.copy()
    affine[:3, 3] += window.first * affine[:3, 0]
    about = Volume(volume.hu_DHW[window.first : window.last + 1], affine)
    seen = locate(about).centre_lps_mm if len(about.hu_DHW) > 1 else centre_lps_mm
    x, y, z = seen if math.dist(seen, centre_lps_mm) <= SAME_PLACE_MM else centre_lps_mm
    return round(x, 2), round(y, 2), round(z, 2)


def _agreed(found: Circle, by_bone: HeadExtent) -> bool:
    """Whether the bone's landmarks, of which the network knows nothing, put the circle at about the same place."""
    if by_bone.circle_centre_lps_mm is None:
        return False
    apart_mm = np.linalg.norm(np.subtract(found.centre_lps_mm, by_bone.circle_centre_lps_mm))
    return bool(apart_mm < AGREED_MM)


@cache
def shipped() -> CircleNet:
    """The network as it is shipped.  Raises BundleError."""
    path = WEIGHTS / "circle.safetensors"
    try:
        digest = json.loads((WEIGHTS / "manifest.json").read_text())["sha256"]
        data = path.read_bytes()
    except (OSError, ValueError, KeyError) as error:
        raise BundleError(f"{WEIGHTS} cannot be read: install Willis again") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise BundleError(f"{path} does not have the sha256 in manifest.json: install Willis again")
    network = CircleNet()
    try:
        network.load_state_dict(load(data))
    except (SafetensorError, RuntimeError) as error:
        raise BundleError(f"{path} does not fit the network that reads it: install Willis again") from error
    return network.eval()
