"""A scan of 64 mm with two carotids and perhaps a sac: training's shapes and labels without the phantom's cost."""

from typing import Any

import numpy as np

from ai.locations import LOCATIONS, Location
from ai.volume import Volume
from tests.support.made_up_head import affine
from training.phantom.scan import PhantomScan, TrueLesion

AFFINE = affine((1.0, 1.0, 1.0), (-32.0, -40.0, 100.0))


def scan(seed: int, **_: Any) -> PhantomScan:
    """Odd seeds have a 6 mm aneurysm on the left carotid; the patient's left is the right of the array."""
    rng = np.random.default_rng(seed)
    hu = rng.normal(35, 8, (66, 64, 64))
    vessel = np.zeros(hu.shape, np.uint8)
    lesion = np.zeros(hu.shape, np.uint8)
    d, h, w = np.indices(hu.shape)
    for side, location in ((-1, Location.RIGHT_SUPRACLINOID_ICA), (1, Location.LEFT_SUPRACLINOID_ICA)):
        tube = (np.hypot(h - 32, w - 32 - 12 * side) <= 2.5) & (d > 8) & (d < 50)
        vessel[tube] = 1 + LOCATIONS.index(location)
        hu[tube] = 350
    lesions: tuple[TrueLesion, ...] = ()
    if seed % 2:
        sac = np.sqrt((d - 30) ** 2 + (h - 26) ** 2 + (w - 44) ** 2) <= 3
        hu[sac], lesion[sac] = 340, 1
        lesions = (TrueLesion(Location.LEFT_SUPRACLINOID_ICA, (12.0, -14.0, 130.0), 6.0),)
    return PhantomScan(seed, Volume(hu.astype(np.int16), AFFINE), lesions, lesion, vessel, ("infundibulum",))
