"""Why the network marked a place: 3D Grad-CAM, and everything a picture of a case needs.

The score that is explained is the mean lesion logit around the finding's centre.  Its gradient weighs the activations of
an inner stage, cell by cell, and the map is warm where their sum over the channels raises the score (HiResCAM,
arXiv:2011.08891).  The first Grad-CAM (arXiv:1610.02391) averages the gradient over all cells before it weighs: made for
one answer per image, it warms tissue centimetres away from a lesion that one place in a dense map is about.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ai.affine import voxel_of
from ai.bundle import Bundle
from ai.decode import Candidate, lesion_of
from ai.device import chosen_device
from ai.findings import Findings, Lesion
from ai.inference import output_affine
from ai.predict import calibrated_findings, found_candidates, prepared_region
from ai.preprocess import Preprocessing, Region, channels, coordinates
from ai.unet import OUTPUT_STRIDE, UNet
from ai.volume import Volume

TILE = 96
"""Side in voxels of the part of the region that the network reads again."""
DEFAULT_STAGE = -2
"""The decoder whose activations are weighed: the last but one, whose cells are four voxels wide."""
_SCORED_MM = 2.5
"""The logits of cells this close to the centre are the score, at least those of the nearest."""


@dataclass(frozen=True, eq=False)
class HeatMap:
    """How much each voxel of a region speaks for a finding.

    `heat_DHW`: float32, 0 to 1, the shape of the region; 0 beyond the tile around the finding.  `affine_lps`: the
    region's, (d, h, w, 1) to LPS mm.
    """

    heat_DHW: NDArray[np.float32]
    affine_lps: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Explained:
    """A lesion and its heat map.  `listed`: it reached the threshold; else it is the best candidate below it."""

    lesion: Lesion
    heat: HeatMap
    listed: bool


@dataclass(frozen=True, eq=False)
class Explanation:
    """What the network read, what it found, and why; `shown` is empty when there is not even a candidate."""

    region: Region
    findings: Findings
    shown: tuple[Explained, ...]


def explain(volume: Volume, bundle: Bundle, device: str = "auto", *, require_contrast: bool = True) -> Explanation:
    """Return every listed finding of a head CT angiography with its heat map; without one, the best candidate's.

    Raises NotAnalysable as `ai.analyse` does.
    """
    region = prepared_region(volume, bundle, require_contrast=require_contrast)
    found = found_candidates(region, bundle, device, volume=volume)
    result = calibrated_findings(found, bundle)
    lesions: tuple[Lesion, ...] = result.lesions or tuple(_best(found, bundle))
    return Explanation(
        region,
        result,
        tuple(
            Explained(lesion, grad_cam(bundle, region, lesion.centre_lps_mm, chosen_device(device)), result.positive)
            for lesion in lesions
        ),
    )


def _best(found: tuple[Candidate, ...], bundle: Bundle) -> list[Lesion]:
    return [lesion_of(candidate, bundle.manifest.calibration) for candidate in found[:1]]


def grad_cam(
    bundle: Bundle,
    region: Region,
    centre_lps_mm: tuple[float, float, float],
    device: torch.device,
    stage: int = DEFAULT_STAGE,
) -> HeatMap:
    """Return the heat map of a place in the region, the mean over the weight sets.

    `stage`: which decoder, -1 the last; the first of a network that has fewer.  Raises ValueError when the centre lies
    outside the region.
    """
    shape = region.hu_DHW.shape
    at = voxel_of(region.affine_lps, centre_lps_mm)
    if not all(-0.5 <= index <= side - 0.5 for index, side in zip(at, shape, strict=True)):
        raise ValueError(f"centre {centre_lps_mm} mm lies outside the region")
    box = tuple(_interval(index, side) for index, side in zip(at, shape, strict=True))
    tile = _tile(region, box, bundle.manifest.preprocessing).to(device)
    scored = _scored_cells(region, box, centre_lps_mm).to(device)
    heat = np.zeros(shape, np.float32)
    for network in bundle.networks:
        heat[box] += _network_heat(network.to(device), tile, scored, stage) / len(bundle.networks)
    return HeatMap(heat, region.affine_lps)


def _interval(index: float, side: int) -> slice:
    """`TILE` voxels around an index, moved inside the region; it starts at an even voxel, as output cells do."""
    length = min(TILE, side)
    start = int(np.clip(round((index - length / 2) / OUTPUT_STRIDE) * OUTPUT_STRIDE, 0, side - length))
    return slice(start, start + length)


def _tile(region: Region, box: tuple[slice, ...], preprocessing: Preprocessing) -> Tensor:
    """The network's input in this part of the region, 1×C×D×H×W."""
    z, y, x = coordinates(region, preprocessing)
    hu = torch.from_numpy(region.hu_DHW[box])
    return channels(hu, (z[box[0]], y[box[1]], x[box[2]]), preprocessing).permute(3, 0, 1, 2)[None]


def _scored_cells(region: Region, box: tuple[slice, ...], centre_lps_mm: tuple[float, float, float]) -> Tensor:
    """Weights, sum 1, of the tile's output cells whose mean logit is explained; D×H×W, half the tile."""
    cells = output_affine(region.affine_lps)
    centre = voxel_of(cells, centre_lps_mm)
    lines = [
        (np.arange(axis.start // OUTPUT_STRIDE, axis.stop // OUTPUT_STRIDE) - index) * cells[row, column]
        for column, (axis, row, index) in enumerate(zip(box, (2, 1, 0), centre, strict=True))
    ]
    z, y, x = np.meshgrid(*lines, indexing="ij")
    apart_mm = np.sqrt(z**2 + y**2 + x**2)
    near = torch.from_numpy((apart_mm <= max(_SCORED_MM, float(apart_mm.min()))).astype(np.float32))
    return near / near.sum()


def _network_heat(network: UNet, tile: Tensor, scored: Tensor, stage: int) -> NDArray[np.float32]:
    """One weight set's map over the tile, 0 to 1; all 0 where nothing speaks for the score."""
    held: list[Tensor] = []

    def hold(_module: object, _inputs: object, output: Tensor) -> Tensor:
        held.append(output.detach().requires_grad_())  # the graph starts here: what lies before needs no memory
        return held[0]

    hook = network.decoders[max(stage, -len(network.decoders))].register_forward_hook(hold)
    try:
        with torch.enable_grad():
            score = (network(tile).lesion[0, 0] * scored).sum()
        (gradient,) = torch.autograd.grad(score, held)
    finally:
        hook.remove()
    warm = F.relu((gradient * held[0].detach()).sum(dim=1, keepdim=True))
    fine = F.interpolate(warm, size=tile.shape[2:], mode="trilinear", align_corners=False)[0, 0]
    most = float(fine.max())
    heat: NDArray[np.float32] = (fine / most if most > 0.0 else fine).cpu().numpy()
    return heat
