"""What the instances of a series show at one moment."""

from collections.abc import Callable
from functools import cached_property

import numpy as np

from ai.coverage import head_extent
from ai.errors import NotAnalysable
from ai.stack import Stack, stack_geometry
from ai.volume import subsampled_volume
from node.rules.completion import Geometry
from storage.files.instances import Files
from storage.records import Header, StoredFile


class Slices:
    """The instances of a series at one moment, and what they show; each question is worked out once."""

    def __init__(self, load: Callable[[], list[tuple[Header, StoredFile]]], files: Files, margin_mm: float) -> None:
        """`load` gives the instances in any order."""
        self._load = load
        self._files = files
        self._margin_mm = margin_mm

    @cached_property
    def _instances(self) -> list[tuple[Header, StoredFile]]:
        return self._load()

    @property
    def headers(self) -> list[Header]:
        """Of every instance."""
        return [header for header, _ in self._instances]

    @property
    def is_multi_frame(self) -> bool:
        """One instance that holds the whole volume."""
        return len(self.headers) == 1 and self.headers[0].number_of_frames > 1

    @cached_property
    def stack(self) -> Stack | None:
        """The slices' geometry, None when they form no even stack."""
        nowhere = (np.nan,) * 3
        try:
            return stack_geometry(
                [header.position_mm or nowhere for header in self.headers],
                [header.orientation or nowhere * 2 for header in self.headers],
                frames_of_reference=[header.frame_of_reference_uid for header in self.headers],
            )
        except NotAnalysable:
            return None

    @cached_property
    def shows_both_ends(self) -> bool:
        """Whether the region around the circle of Willis lies inside the slices with a margin.

        Never of compressed slices: a codec that crashes would end the node here, and costs an attempt in the worker.
        """
        if self.stack is None:
            return False
        try:
            volume = subsampled_volume([self._files.path(file) for _, file in self._instances], self.stack)
            return head_extent(volume).covers_circle_of_willis(self._margin_mm)
        except Exception:  # noqa: BLE001  the edge: whatever cannot be read shows nothing, and the quiet timer decides
            return False

    @property
    def geometry(self) -> Geometry:
        """The questions as completion asks them."""
        return Geometry(lambda: self.is_multi_frame, lambda: self.stack is not None, lambda: self.shows_both_ends)
