"""The forward pass over a region of interest, in overlapping tiles, on a CPU or a GPU."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ai.affine import lps_of
from ai.device import passes_in_bfloat16
from ai.errors import DeviceLost
from ai.heap import kept_heap
from ai.locations import LOCATIONS
from ai.preprocess import Preprocessing, Region, channels, coordinates
from ai.unet import FINDING_MAPS, LESION_MAP, LOCATION_MAPS, LOG_DIAMETER_MAP, OUTPUT_STRIDE, UNet

Float32Array = NDArray[np.float32]
Progress = Callable[[float], None]
"""Called before each level of a network with the share of all levels done (0: nothing is computed yet), and at the end
with 1; may raise to cancel."""

MIRRORED_LOCATIONS = tuple(LOCATIONS.index(location.mirrored) for location in LOCATIONS)
"""At position i, the index that location i becomes when left and right are exchanged."""
_MIRRORED_MAPS = [LESION_MAP, LOG_DIAMETER_MAP, *(LOCATION_MAPS.start + index for index in MIRRORED_LOCATIONS)]


@dataclass(frozen=True)
class Tiling:
    """How the region is cut: sides and least overlap in voxels, and whether the mirrored region is read as well.

    `size`: one side for all, or D, H and W.  Tiles as large as the region compute nothing twice.
    """

    size: int | tuple[int, int, int] = 96
    overlap: int = 16
    flip: bool = False

    def __post_init__(self) -> None:
        sides = self.size_DHW
        if (
            len(sides) != 3
            or any(side % 16 for side in sides)
            or not 0 < self.overlap <= min(sides) // 2
            or self.overlap % (2 * OUTPUT_STRIDE)
        ):
            raise ValueError(
                f"size must be a multiple of 16 and overlap a multiple of 4 up to half of it, got {self.size} and {self.overlap}"
            )

    @property
    def size_DHW(self) -> tuple[int, int, int]:
        """The three sides in voxels."""
        return self.size if isinstance(self.size, tuple) else (self.size, self.size, self.size)

    @property
    def halved(self) -> "Tiling":
        """Tiles that need about an eighth of the memory."""
        d, h, w = (max(32, side // 32 * 16) for side in self.size_DHW)
        return Tiling(d if d == h == w else (d, h, w), 16, self.flip)


@dataclass(frozen=True, eq=False)
class Maps:
    """What the networks say at half the region's resolution, averaged over weight sets and mirror images.

    `lesion_DHW`: float32 logits.  `location_CDHW`: 13 float16 logits.  `log_diameter_DHW`: float32, ln mm.
    `affine_lps`: (d, h, w, 1) of an output cell's centre to LPS mm.  `note`: what was unusual about the pass.
    """

    lesion_DHW: Float32Array
    location_CDHW: NDArray[np.float16]
    log_diameter_DHW: Float32Array
    affine_lps: NDArray[np.float64]
    note: str = ""


def output_affine(affine_lps: NDArray[np.float64]) -> NDArray[np.float64]:
    """The affine of the output grid whose input grid has this one: cells twice as wide, centred on their 2×2×2 voxels."""
    affine = affine_lps.copy()
    affine[:3, :3] *= OUTPUT_STRIDE
    affine[:3, 3] = lps_of(affine_lps, (0.5, 0.5, 0.5))
    return affine


@torch.inference_mode()
@kept_heap()
def infer(
    networks: Sequence[UNet],
    region: Region,
    preprocessing: Preprocessing,
    tiling: Tiling,
    device: torch.device,
    progress: Progress | None = None,
    precision: str = "float32",
) -> Maps:
    """Return the maps of a region.  `precision`: as `ai.device.passes_in_bfloat16` reads it.

    Raises what `progress` raises, torch.OutOfMemoryError when a tile does not fit, and where the network's answer is no number
    DeviceLost of a GPU, else FloatingPointError: it would read like one of a scan without an aneurysm.
    """
    shape = region.hu_DHW.shape
    lines = coordinates(region, preprocessing)
    half = tuple(-(-side // OUTPUT_STRIDE) for side in shape)
    hu = torch.from_numpy(region.hu_DHW)
    total: Tensor | None = None
    weight = torch.zeros(half)
    tiles = list(_tiles(shape, tiling))
    passes = [(network, flip) for network in networks for flip in ((False, True) if tiling.flip else (False,))]
    levels = len(tiles) * sum(len(network.levels) + len(network.decoders) for network, _ in passes)
    begun = 0
    bfloat16 = passes_in_bfloat16(precision, device)

    def tell() -> None:
        nonlocal begun
        if progress is not None:
            progress(begun / levels)
        begun += 1

    for corner in tiles:
        box = tuple(
            slice(start, start + min(size, side))
            for start, size, side in zip(corner, tiling.size_DHW, shape, strict=True)
        )
        cut = (lines[0][box[0]], lines[1][box[1]], lines[2][box[2]])
        tile = channels(hu[box].to(device), cut, preprocessing).permute(3, 0, 1, 2)[None]
        target = tuple(slice(axis.start // OUTPUT_STRIDE, -(-axis.stop // OUTPUT_STRIDE)) for axis in box)
        extent = tuple(axis.stop - axis.start for axis in target)
        ramp = _ramp(extent, tiling.overlap // OUTPUT_STRIDE)
        for network, flip in passes:
            with _called_before_each_level(network, tell):
                answer = _forward(network, tile, flip, preprocessing.coordinates, bfloat16)
            if total is None:  # where the network answers
                total = answer.new_zeros((FINDING_MAPS, *half))
            total[(slice(None), *target)] += answer[:, : extent[0], : extent[1], : extent[2]] * ramp.to(total.device)
            weight[target] += ramp
    tell()
    assert total is not None
    total /= weight.to(total.device)
    if not total.isfinite().all():
        raise (FloatingPointError if device.type == "cpu" else DeviceLost)("the network's answer is no number")
    return Maps(
        total[LESION_MAP].clone().cpu().numpy(),  # a view would keep all maps
        total[LOCATION_MAPS].half().cpu().numpy(),
        total[LOG_DIAMETER_MAP].clone().cpu().numpy(),
        output_affine(region.affine_lps),
    )


@contextmanager
def _called_before_each_level(network: UNet, verb: Callable[[], None]) -> Iterator[None]:
    """While `network` passes through a tile, which may be as large as the region, `verb` can end it in between."""

    def before(_module: nn.Module, _inputs: object) -> None:
        verb()

    hooks = [level.register_forward_pre_hook(before) for level in (*network.levels, *network.decoders)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _forward(network: UNet, tile: Tensor, flip: bool, with_x: bool, bfloat16: bool) -> Tensor:
    """`UNet.finding_maps` of one tile, (15, d, h, w); mirrored in and back when `flip`."""
    if flip:
        tile = tile.flip(-1)
        if with_x:
            tile[:, -1] *= -1.0  # the x coordinate
    maps = network.finding_maps(tile.contiguous(memory_format=torch.channels_last_3d), bfloat16)[0]
    return maps[_MIRRORED_MAPS].flip(-1) if flip else maps


def _tiles(shape: tuple[int, ...], tiling: Tiling) -> Iterator[tuple[int, int, int]]:
    """Corners of evenly spread tiles that cover the region with at least the overlap, at even positions."""

    def starts(side: int, size: int) -> list[int]:
        if side <= size:
            return [0]
        count = 1 + -(-(side - size) // (size - tiling.overlap))
        return [min(round(i * (side - size) / (count - 1) / 2.0) * 2, side - size) for i in range(count)]

    yield from product(*map(starts, shape, tiling.size_DHW))


def _ramp(extent: tuple[int, ...], rise: int) -> Tensor:
    """Weights that fall towards a tile's sides, where the network sees least of the surroundings."""
    lines = []
    for side in extent:
        index = torch.arange(side)
        lines.append(torch.clamp((torch.minimum(index, side - 1 - index) + 1.0) / (rise + 1.0), max=1.0))
    return lines[0][:, None, None] * lines[1][None, :, None] * lines[2][None, None, :]
