"""Which of several acquisitions of a head shows its arteries filled best."""

from collections.abc import Iterable
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai.coverage import head_extent
from ai.distances import within
from ai.errors import NotAnalysable
from ai.preprocess import Preprocessing, region_of_interest
from ai.volume import Volume

_MARGIN = 8
_AROUND = Preprocessing(
    spacing_mm=1.0, size_DHW=(48 + 2 * _MARGIN, 80 + 2 * _MARGIN, 96 + 2 * _MARGIN), offset_lps_mm=(0.0, 0.0, 20.0)
)
"""Of the circle of Willis and what rises from it, and a margin; the large sinuses, which fill later and as well, lie outside."""
_INSIDE = (slice(_MARGIN, -_MARGIN),) * 3
_SOFT_HU = (-20.0, 130.0)
"""Without contrast: brain, fluid and blood, neither bone nor fat."""
_BRIGHTEST_MM3 = 200
_BONE_HU, _BESIDE_BONE_MM = 350.0, 4.0
"""Where most acquisitions are so dense there is bone, and what lies beside it seems to fill where the head has moved."""
_MOST_GAINED_HU = 500.0


def fullest(volumes: Iterable[Volume | None]) -> int:
    """The place of the volume whose arteries around the circle of Willis are filled best; 0 where no head is recognised.

    `volumes`: of one head in one frame of reference, of which one at a time is held; None for one that cannot be had.
    Filling is what soft tissue away from bone gains over the volume in which it is darkest, in the 200 mm³ that gain most.
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
    beside_bone = within(np.median(list(shown.values()), axis=0) > _BONE_HU, _BESIDE_BONE_MM)
    soft = ((darkest > _SOFT_HU[0]) & (darkest < _SOFT_HU[1]) & ~beside_bone)[_INSIDE]
    gained_hu = {
        place: np.sort((hu - darkest)[_INSIDE][soft].clip(max=_MOST_GAINED_HU))[-_BRIGHTEST_MM3:].sum()
        for place, hu in shown.items()
    }
    return max(gained_hu, key=lambda place: float(gained_hu[place]))
