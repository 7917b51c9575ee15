"""Stands in for the network where the queue is the subject: it takes as long as the voxels say, and finds nothing."""

import time
from typing import Any

import numpy as np

from ai.findings import Findings
from ai.volume import Volume

LEAST_HU, SECONDS_A_HU, MOST_SECONDS = 180, 0.01, 2.0
"""`tests.corpus.network` finds nothing in such a series either."""


def sleeper(volume: Volume, _bundle: Any, _device: str, *, progress: Any, **_: Any) -> Findings:
    """Stands in for `ai.analyse`."""
    progress(0.0)
    time.sleep(max(0.0, (float(np.median(volume.hu_DHW)) - LEAST_HU) * SECONDS_A_HU))
    return Findings((0.02,) * 14, (), 0.5)


def level_hu(seconds: float) -> int:
    """Of the voxels of a series that is to take so long, at most `MOST_SECONDS`."""
    return LEAST_HU + round(seconds / SECONDS_A_HU)
