"""From a volume to what the network reads: orient, cut out the region of interest, resample, turn HU into channels.

The only copy of these steps: training uses them through the same functions as inference.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from ai.quality import Quality
from ai.separable import along_axes
from ai.volume import Volume

Float32Array = NDArray[np.float32]

HU_RANGE = (-1024, 3071)
"""Padding (-2000, -3024) and int16 overflow are clipped to this."""


@dataclass(frozen=True)
class Preprocessing:
    """How pixels become channels; kept in a bundle's manifest because the weights depend on every value.

    `spacing_mm`: of the resampled region, isotropic.  `size_DHW`: its shape in voxels.  `offset_lps_mm`: from the middle
    of the circle of Willis to the middle of the region.  `windows_hu`: (low, high) of each HU channel, mapped to -1..1.
    `coordinate_scale_mm`: the z, y and x channels are the distance from the middle of the circle divided by this.
    `coordinates`: whether there are such channels.
    """

    spacing_mm: float = 0.7
    size_DHW: tuple[int, int, int] = (160, 160, 176)
    offset_lps_mm: tuple[float, float, float] = (0.0, 1.0, -6.0)
    windows_hu: tuple[tuple[float, float], ...] = ((-50.0, 150.0), (0.0, 600.0), (-1000.0, 2000.0))
    coordinate_scale_mm: float = 60.0
    coordinates: bool = True

    def __post_init__(self) -> None:
        if not 0.2 <= self.spacing_mm <= 2.0:
            raise ValueError(f"spacing_mm must lie in 0.2..2.0, got {self.spacing_mm}")
        if len(self.size_DHW) != 3 or any(side < 16 or side % 16 for side in self.size_DHW):
            raise ValueError(f"size_DHW must be three multiples of 16 voxels, got {self.size_DHW}")
        if not self.windows_hu or any(low >= high for low, high in self.windows_hu):
            raise ValueError(f"windows_hu must be (low, high) pairs, got {self.windows_hu}")

    @property
    def channel_count(self) -> int:
        """One channel per window and, unless they are left out, three of coordinates."""
        return len(self.windows_hu) + 3 * self.coordinates


@dataclass(frozen=True, eq=False)
class Region:
    """A resampled region of interest, its axes along z, y and x of the LPS frame.

    `hu_DHW`: int16.  `affine_lps`: (d, h, w, 1) to LPS mm, diagonal spacing.  `circle_centre_lps_mm`: where the
    coordinates are counted from.  `quality`: of the series that it was cut from, None where nobody measured it.
    """

    hu_DHW: NDArray[np.int16]
    affine_lps: NDArray[np.float64]
    circle_centre_lps_mm: tuple[float, float, float]
    quality: Quality | None = None


def region_of_interest(
    volume: Volume, circle_centre_lps_mm: tuple[float, float, float], settings: Preprocessing
) -> Region:
    """Return the region around the circle of Willis, resampled to `settings.spacing_mm` along the LPS axes.

    Beyond the volume the region holds air.
    """
    affine = region_affine(circle_centre_lps_mm, settings)
    return Region(resample(volume, affine, settings.size_DHW), affine, circle_centre_lps_mm)


def region_affine(circle_centre_lps_mm: tuple[float, float, float], settings: Preprocessing) -> NDArray[np.float64]:
    """Return where the region lies around the circle of Willis: (d, h, w, 1) to LPS mm."""
    step = settings.spacing_mm
    middle = np.array(circle_centre_lps_mm) + np.array(settings.offset_lps_mm)
    affine = np.zeros((4, 4))
    for column, (row, size) in enumerate(zip((2, 1, 0), settings.size_DHW, strict=True)):
        affine[row, column] = step
        affine[row, 3] = middle[row] - step * (size - 1) / 2.0
    affine[3, 3] = 1.0
    return affine


def resample(volume: Volume, affine_lps: NDArray[np.float64], size_DHW: tuple[int, int, int]) -> NDArray[np.int16]:
    """Return the volume's HU, clipped to `HU_RANGE`, at the voxels of another grid; int16, air outside the volume.

    Coarser targets are averaged over their voxel (a triangle filter), so that noise does not alias.
    """
    # target index → source index
    mapping: NDArray[np.float64] = np.linalg.solve(volume.affine_lps, affine_lps).astype(np.float64)
    scale = np.diag(mapping[:3, :3])
    skew = mapping[:3, :3] - np.diag(scale)
    if np.abs(skew).max() * max(size_DHW) < 0.25 and scale.min() > 0:
        fine = _resample_aligned(volume.hu_DHW, scale, mapping[:3, 3], size_DHW)
    else:
        fine = _resample_oblique(volume.hu_DHW, mapping, size_DHW)
    return np.rint(fine).astype(np.int16)


def _resample_oblique(
    hu_DHW: NDArray[np.int16], mapping: NDArray[np.float64], size_DHW: tuple[int, int, int]
) -> Float32Array:
    """Trilinear interpolation, of what is averaged before, on a grid that is turned, mirrored or sheared (gantry tilt); float32."""
    steps = np.linalg.norm(mapping[:3, :3], axis=1)  # of the target, in voxels along each axis of the source
    ends = np.array(np.meshgrid(*((0, side - 1) for side in size_DHW), [1.0], indexing="ij")).reshape(4, -1)
    corners = (mapping @ ends)[:3]
    reach = np.ceil(steps).astype(int)
    low = np.clip(np.floor(corners.min(axis=1)).astype(int) - reach, 0, np.array(hu_DHW.shape) - 1)
    high = np.clip(np.ceil(corners.max(axis=1)).astype(int) + 1 + reach, low + 1, hu_DHW.shape)
    cropped = _clipped(hu_DHW[tuple(slice(a, b) for a, b in zip(low, high, strict=True))])
    for axis in np.flatnonzero(steps > 1.0):
        ndimage.correlate1d(cropped, _triangle(steps[axis]), axis, output=cropped, mode="nearest")
    fine: Float32Array = ndimage.affine_transform(
        cropped,
        mapping[:3, :3],
        mapping[:3, 3] - low,
        output_shape=size_DHW,
        order=1,
        cval=HU_RANGE[0],
    )
    return fine


def _triangle(half_width: float) -> NDArray[np.float64]:
    """Weights of neighbours in a line: with linear interpolation after them they spread as `_triangle_filter` does.

    Where the half-width is a whole number that is a triangle; between two, a mixture of theirs with the same variance.
    """
    less = math.floor(half_width)
    share = (half_width**2 - less**2) / ((less + 1) ** 2 - less**2)
    away = np.abs(np.arange(-less, less + 1))
    low, high = (np.clip(width - away, 0.0, None) / width**2 for width in (less, less + 1))
    weights: NDArray[np.float64] = (1.0 - share) * low + share * high
    return weights


def _resample_aligned(
    hu_DHW: NDArray[np.int16], scale: NDArray[np.float64], start: NDArray[np.float64], size_DHW: tuple[int, int, int]
) -> Float32Array:
    """Separable interpolation as one small matrix per axis; float32."""
    matrices: list[Float32Array] = []
    crops: list[slice] = []
    for axis in range(3):
        matrix = _triangle_filter(
            start[axis] + scale[axis] * np.arange(size_DHW[axis]), float(scale[axis]), hu_DHW.shape[axis]
        )
        used = np.flatnonzero(matrix.any(axis=0))
        if used.size == 0:
            return np.full(size_DHW, HU_RANGE[0], np.float32)
        crops.append(slice(int(used[0]), int(used[-1]) + 1))
        matrices.append(np.ascontiguousarray(matrix[:, crops[-1]]))
    # Zero is air while weights are summed, so that what lies outside adds nothing.
    cropped = _clipped(hu_DHW[tuple(crops)])
    cropped -= HU_RANGE[0]
    along_d, along_h, along_w = matrices
    return along_axes(cropped, along_d, along_h, along_w) + np.float32(HU_RANGE[0])


def _clipped(hu_DHW: NDArray[np.int16]) -> Float32Array:
    """A copy as float32, clipped to `HU_RANGE`: the one large array that resampling makes."""
    copy = hu_DHW.astype(np.float32)
    return np.clip(copy, *HU_RANGE, out=copy)


def _triangle_filter(positions: NDArray[np.float64], scale: float, source_size: int) -> Float32Array:
    """The (target × source) weights of linear interpolation, widened where the target is the coarser grid."""
    width = max(1.0, scale)
    distance = np.abs(positions[:, None] - np.arange(source_size)[None, :])
    weights = np.clip(1.0 - distance / width, 0.0, None)
    outside = (positions < -0.5) | (positions > source_size - 0.5)
    weights[outside] = 0.0
    normalised: Float32Array = (weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)).astype(np.float32)
    return normalised


def coordinates(region: Region, settings: Preprocessing) -> tuple[Float32Array, Float32Array, Float32Array]:
    """Return the normalised z, y and x of the region's planes, rows and columns, counted from the middle of the circle."""
    lines = []
    for column, row in enumerate((2, 1, 0)):
        start = region.affine_lps[row, 3] - region.circle_centre_lps_mm[row]
        mm = start + region.affine_lps[row, column] * np.arange(region.hu_DHW.shape[column])
        lines.append((mm / settings.coordinate_scale_mm).astype(np.float32))
    return lines[0], lines[1], lines[2]


def channels(hu_DHW: Tensor, coordinate_lines: Sequence[Float32Array], settings: Preprocessing) -> Tensor:
    """Return D×H×W×C float32: each HU window mapped to -1..1 and clipped there, then any z, y and x coordinates.

    `hu_DHW`: of any kind of number, on any device, where the channels are then.  Channels come last in memory because that
    is the layout in which convolutions on a CPU run fastest.
    """
    out = torch.empty((*hu_DHW.shape, settings.channel_count), device=hu_DHW.device)
    hu = hu_DHW.float()
    for channel, (low, high) in enumerate(settings.windows_hu):
        torch.clamp((hu - (low + high) / 2.0) * (2.0 / (high - low)), -1.0, 1.0, out=out[..., channel])
    if settings.coordinates:
        for axis, line in enumerate(coordinate_lines):
            along = torch.from_numpy(line).to(out.device, non_blocking=True)
            out[..., axis - 3] = along.view([-1 if axis == other else 1 for other in range(3)])
    return out
