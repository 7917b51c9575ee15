"""Stands in for the network, wherever the corpus is played: finds what the voxels say (`tests.corpus.images`)."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from ai.errors import NotAnalysable, Reason
from ai.findings import Findings, Lesion
from ai.locations import Location
from ai.volume import Volume
from tests.corpus.images import ANEURYSM_HU, FILLED_HU, PLAIN_HU
from tests.support.builders import PROBABILITIES


def network(volume: Volume, _bundle: Any, _device: str, *, require_contrast: bool, progress: Any, **_: Any) -> Findings:
    """Stands in for `ai.analyse`: finds what the voxels say."""
    progress(0.5)
    hu = float(np.median(volume.hu_DHW))
    if hu < 0:
        raise NotAnalysable(Reason.NOT_A_HEAD)
    if hu < (PLAIN_HU + FILLED_HU) / 2 and require_contrast:
        raise NotAnalysable(Reason.NO_CONTRAST)
    if hu < (FILLED_HU + ANEURYSM_HU) / 2:
        return Findings((0.02,) * 14, (), 0.5)
    middle = volume.affine_lps @ (*(np.array(volume.hu_DHW.shape) / 2), 1.0)
    centre = (float(middle[0]), float(middle[1]), float(middle[2]))
    return Findings(PROBABILITIES, (Lesion(Location.LEFT_MCA, 0.9, centre, 4.2),), 0.5)


def fullest(volumes: Iterable[Volume | None]) -> int:
    """Stands in for `ai.fullest`: the brightest."""
    return int(np.argmax([-np.inf if volume is None else np.median(volume.hu_DHW) for volume in volumes]))
