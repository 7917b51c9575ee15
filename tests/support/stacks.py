"""The stack that the headers of a series describe."""

from collections.abc import Sequence

from pydicom import Dataset

from ai.frames import frames
from ai.stack import Stack, stack_geometry


def stack_of(datasets: Sequence[Dataset]) -> Stack:
    """Raises NotAnalysable."""
    each = [frame for ds in datasets for frame in frames(ds)]
    return stack_geometry(
        [frame.position_mm for frame in each],
        [frame.orientation for frame in each],
        frames_of_reference=[frame.frame_of_reference_uid for frame in each],
    )
