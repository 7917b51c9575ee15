"""A head drawn with a few ellipsoids and tubes: enough to test geometry without the phantom's cost."""

import numpy as np
from numpy.typing import NDArray

from ai.volume import Volume


def affine(spacing_mm_DHW: tuple[float, float, float], origin_lps: tuple[float, float, float]) -> NDArray[np.float64]:
    """The affine of an axial grid."""
    matrix = np.zeros((4, 4))
    for column, row in enumerate((2, 1, 0)):
        matrix[row, column] = spacing_mm_DHW[column]
        matrix[row, 3] = origin_lps[row]
    matrix[3, 3] = 1.0
    return matrix


def head(
    low_mm: float = -75.0,
    high_mm: float = 110.0,
    spacing_mm_DHW: tuple[float, float, float] = (2.0, 2.0, 2.0),
    contrast_hu: float | None = 350.0,
    circle_lps_mm: tuple[float, float, float] = (3.0, -12.0, 40.0),
    fov_mm: float = 230.0,
) -> Volume:
    """A head shown from `low_mm` to `high_mm` relative to its circle of Willis; arteries only with `contrast_hu`."""
    shape = (
        round((high_mm - low_mm) / spacing_mm_DHW[0]),
        round(fov_mm / spacing_mm_DHW[1]),
        round(fov_mm / spacing_mm_DHW[2]),
    )
    x0, y0, z0 = circle_lps_mm
    matrix = affine(spacing_mm_DHW, (x0 - fov_mm / 2, y0 - fov_mm / 2 + 10.0, z0 + low_mm))
    z, y, x = (
        matrix[row, 3] + matrix[row, column] * np.arange(side) - circle_lps_mm[row]
        for column, (row, side) in enumerate(zip((2, 1, 0), shape, strict=True))
    )
    z, y, x = z[:, None, None], y[None, :, None], x[None, None, :]
    hu = np.full(shape, -1000, np.int16)

    def inside(width: float, length: float, height: float) -> NDArray[np.bool_]:
        scaled: NDArray[np.bool_] = (x / width) ** 2 + ((y - 12.0) / length) ** 2 + ((z - 24.0) / height) ** 2 <= 1.0
        return scaled

    hu[inside(82, 100, 80)] = 30
    hu[inside(76, 94, 72)] = 1100
    hu[inside(69, 87, 65)] = 35
    if contrast_hu is not None:
        for side in (-1, 1):
            tube = ((y - 2.0) ** 2 + (z - 2.0) ** 2 <= 9.0) & (side * x > 8.0) & (side * x < 40.0)
            hu[tube] = contrast_hu
        hu[(x**2 + (y + 12.0) ** 2 <= 9.0) & (z > 0.0) & (z < 30.0)] = contrast_hu
    return Volume(hu, matrix)
