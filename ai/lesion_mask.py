"""The cells of the lesion map that belong to one lesion: what the model took for it, no finer than the model saw."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import flood

from ai.affine import lps_of, voxel_of


@dataclass(frozen=True, eq=False)
class LesionMask:
    """Cells of a grid in the patient.

    `cells_DHW`: a small bool array around the lesion.  `affine_lps`: (d, h, w, 1) of a cell's centre to LPS mm.
    """

    cells_DHW: NDArray[np.bool_]
    affine_lps: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.cells_DHW.ndim != 3 or not self.cells_DHW.any():
            raise ValueError(f"a mask needs a cell, got an array of shape {self.cells_DHW.shape} without one")

    def contains(self, points_lps_mm: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which of the points, (..., 3) in LPS mm, lie in a cell of the mask."""
        index = np.rint(voxel_of(self.affine_lps, points_lps_mm.reshape(-1, 3))).astype(np.int64)
        index = np.asarray(index.reshape(points_lps_mm.shape))
        inside: NDArray[np.bool_] = np.all((index >= 0) & (index < self.cells_DHW.shape), axis=-1)
        d, h, w = np.moveaxis(np.where(inside[..., None], index, 0), -1, 0)
        return np.asarray(inside & self.cells_DHW[d, h, w])

    @property
    def centre_lps_mm(self) -> NDArray[np.float64]:
        """The middle of its cells."""
        return lps_of(self.affine_lps, np.argwhere(self.cells_DHW).mean(axis=0))

    @property
    def radius_mm(self) -> float:
        """No point of the mask is farther from its middle."""
        offsets = (np.argwhere(self.cells_DHW) - np.argwhere(self.cells_DHW).mean(axis=0)) @ self.affine_lps[:3, :3].T
        half_diagonal = np.linalg.norm(np.abs(self.affine_lps[:3, :3]).sum(axis=1)) / 2.0
        return float(np.linalg.norm(offsets, axis=1).max() + half_diagonal)


def around_peak(
    probability_DHW: NDArray[np.float32], peak: tuple[int, int, int], affine_lps: NDArray[np.float64]
) -> LesionMask:
    """The cells connected to the peak by faces whose probability is at least half of the peak's.

    `probability_DHW` is the neighbourhood in which to look, zero beyond it; `affine_lps` is that of its cells.
    """
    likely_DHW = probability_DHW >= 0.5 * probability_DHW[peak]
    return LesionMask(np.asarray(flood(likely_DHW, peak, connectivity=1)), affine_lps)
