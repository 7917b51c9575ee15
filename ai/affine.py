"""Between the voxels of a grid and the patient: one 4×4 affine maps (d, h, w, 1) to LPS mm."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def lps_of(affine_lps: NDArray[np.float64], index_DHW: ArrayLike) -> NDArray[np.float64]:
    """Where in the patient an index lies, (3,) in LPS mm; of many, (N, 3), row by row."""
    return np.asarray(np.asarray(index_DHW) @ affine_lps[:3, :3].T + affine_lps[:3, 3])


def voxel_of(affine_lps: NDArray[np.float64], lps_mm: ArrayLike) -> NDArray[np.float64]:
    """The fractional index (d, h, w) of a point in LPS mm; the inverse of `lps_of`.

    Raises numpy.linalg.LinAlgError when the affine has no inverse.
    """
    return np.asarray(np.linalg.solve(affine_lps[:3, :3], (np.asarray(lps_mm) - affine_lps[:3, 3]).T).T)


def starting_at(affine_lps: NDArray[np.float64], index_DHW: ArrayLike) -> NDArray[np.float64]:
    """The affine of the part of the grid whose first voxel has this index."""
    moved = affine_lps.copy()
    moved[:3, 3] = lps_of(affine_lps, index_DHW)
    return moved
