"""A dry skull as a real scanner saw it, with soft tissue put in where air was, for arteries to be painted into.

Bone, marrow and how sharp they are are then real; brain, cisterns and sinuses are one grey, whose noise is drawn like other scans'.
"""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from scipy import ndimage

from ai.circle import locate
from ai.errors import NotAnalysable
from ai.predict import volume_in
from training.config import ConfigError
from training.phantom.frame import Float32Array, FloatArray, Grid

_AIR_HU, _TISSUE_HU, _BONE_HU = -1000.0, 38.0, 300.0
_PLASTIC_HU = (-600.0, 200.0)
_EDGE_VOXELS = 4
"""Voxels at the edge of bone have the HU of plastic too, but nowhere so many in a row."""


@dataclass(frozen=True, eq=False)
class RealSkull:
    """HU on a grid of the scanner's own voxels, and where the middle of the circle of Willis is taken to be, in LPS mm."""

    hu_DHW: Float32Array
    grid: Grid
    circle_lps: FloatArray

    def mirrored(self) -> "RealSkull":
        """The skull with left and right exchanged, on the same grid."""
        columns = self.grid.axis(2)
        circle = self.circle_lps * [-1.0, 1.0, 1.0] + [columns[0] + columns[-1], 0.0, 0.0]
        return replace(self, hu_DHW=self.hu_DHW[:, :, ::-1], circle_lps=circle)

    def box(self, centre_lps: FloatArray, size_mm_DHW: tuple[float, ...]) -> Grid:
        """The grid of its own voxels about a place, which is its middle, as large as the skull is shown to both sides."""
        origin, shape = [], []
        for axis, size in enumerate(size_mm_DHW):
            start, step, count = self.grid.origin_DHW[axis], self.grid.spacing_DHW[axis], self.grid.shape_DHW[axis]
            middle = round(float(centre_lps[2 - axis] - start) / step)
            half = min(round(size / step / 2), middle, count - 1 - middle)
            origin.append(start + step * (middle - half))
            shape.append(2 * half + 1)
        return Grid((origin[0], origin[1], origin[2]), self.grid.spacing_DHW, (shape[0], shape[1], shape[2]))

    def within(self, box: Grid) -> Float32Array:
        """Its HU in a box of `box`."""
        first = [
            round((low - start) / step)
            for low, start, step in zip(box.origin_DHW, self.grid.origin_DHW, self.grid.spacing_DHW, strict=True)
        ]
        return self.hu_DHW[tuple(slice(low, low + side) for low, side in zip(first, box.shape_DHW, strict=True))]


@cache
def read_skull(folder: Path) -> RealSkull:
    """The dry skull of a folder with one CT series.  Raises ConfigError."""
    try:
        volume = volume_in(folder)
    except (OSError, NotAnalysable) as error:
        raise ConfigError(
            f"{folder} is not a folder with one CT series of a dry skull ({error}): name another"
        ) from error
    steps = volume.affine_lps[[2, 1, 0], [0, 1, 2]]
    if not np.allclose(volume.affine_lps[:3, :3][::-1], np.diag(steps)) or (steps <= 0).any():
        raise ConfigError(f"{folder} is not of axial slices: name another series of the skull")
    z, y, x = (float(volume.affine_lps[2 - axis, 3]) for axis in range(3))
    d, h, w = volume.hu_DHW.shape
    grid = Grid((z, y, x), (float(steps[0]), float(steps[1]), float(steps[2])), (d, h, w))
    hu = _filled(_without_plastic(volume.hu_DHW.astype(np.float32)))
    return RealSkull(hu, grid, np.array(locate(volume).centre_lps_mm))


def _without_plastic(hu: Float32Array) -> Float32Array:
    """The targets of plastic in the skull become air."""
    smooth = ndimage.uniform_filter(hu, 3)
    plastic = ndimage.binary_erosion((smooth > _PLASTIC_HU[0]) & (smooth < _PLASTIC_HU[1]), iterations=_EDGE_VOXELS)
    plastic = ndimage.binary_dilation(plastic, iterations=_EDGE_VOXELS + 3) & (smooth < _BONE_HU)
    return np.where(plastic, np.float32(_AIR_HU), hu)


def _filled(hu: Float32Array) -> Float32Array:
    """Soft tissue in place of air: what is less dense than bone is mapped between the two."""
    share = (np.maximum(hu, _AIR_HU) - _AIR_HU) / (_BONE_HU - _AIR_HU)
    return np.where(hu < _BONE_HU, _TISSUE_HU + share * (_BONE_HU - _TISSUE_HU), hu).astype(np.float32)
