"""Which of several acquisitions of a head shows its arteries filled best."""

from collections.abc import Iterable
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai.coverage import head_extent
from ai.errors import NotAnalysable
from ai.preprocess import Preprocessing, region_of_interest
from ai.volume import Volume

_AROUND = Preprocessing(spacing_mm=1.0, size_DHW=(48, 80, 96), offset_lps_mm=(0.0, 0.0, 20.0))
"""Of the circle of Willis and what rises from it; the large sinuses, which fill later and as well, lie outside."""
_SOFT_HU = (-20.0, 130.0)
"""Without contrast: brain, fluid and blood, neither bone nor fat."""
_BRIGHTEST_MM3 = 200


def fullest(volumes: Iterable[Volume | None]) -> int:
    """The place of the volume whose arteries around the circle of Willis are filled best; 0 where no head is recognised.

    `volumes`: of one head in one frame of reference, of which one at a time is held; None for one that cannot be had.
    Filling is what soft tissue gains over the volume in which it is darkest, in the 200 mm³ that gain most.
    """
    shown: dict[int, NDArray[np.float32]] = {}
    centre: tuple[float, float, float] | None = None
    for place, volume in enumerate(volumes):
        if volume is None:
            continue
        with suppress(NotAnalysable):
            centre = centre or head_extent(volume).circle_centre_lps_mm
        if centre is not None:
            hu = region_of_interest(volume, centre, _AROUND).hu_DHW.astype(np.float32)
            shown[place] = ndimage.gaussian_filter(hu, 1.0)
    if not shown:
        return 0
    darkest = np.minimum.reduce(list(shown.values()))
    soft = (darkest > _SOFT_HU[0]) & (darkest < _SOFT_HU[1])
    gained_hu = {place: np.sort((hu - darkest)[soft])[-_BRIGHTEST_MM3:].sum() for place, hu in shown.items()}
    return max(gained_hu, key=lambda place: float(gained_hu[place]))
