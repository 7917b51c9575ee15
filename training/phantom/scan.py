"""The values that a phantom consists of."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ai.locations import Location
from ai.volume import Volume

OTHER_ARTERY, VEIN = 14, 15
"""Labels in `vessel_DHW` beside 1..13, which are the index in `LOCATIONS` plus one."""


@dataclass(frozen=True)
class TrueLesion:
    """An aneurysm that was painted: centre of mass in LPS mm and diameter in mm of the sphere of equal volume."""

    location: Location
    centre_lps_mm: tuple[float, float, float]
    diameter_mm: float


@dataclass(frozen=True, eq=False)
class PhantomScan:
    """A synthetic CTA with its truth.

    `volume`: as `ai.volume.Volume`.  `lesion_DHW`: uint8, 0 or the index in `lesions` plus one.  `vessel_DHW`: uint8
    vessel labels, 0 elsewhere.  `confounders`: names of what was painted to mislead.  `settings`: the scanner and
    anatomy parameters drawn, by name with unit.
    """

    seed: int
    volume: Volume
    lesions: tuple[TrueLesion, ...]
    lesion_DHW: NDArray[np.uint8]
    vessel_DHW: NDArray[np.uint8]
    confounders: tuple[str, ...] = ()
    settings: dict[str, float | str] = field(default_factory=dict)
