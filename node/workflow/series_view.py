"""What the instances of a series show at one moment."""

from collections.abc import Callable
from functools import cached_property

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian

from ai.coverage import head_extent
from ai.errors import NotAnalysable
from ai.stack import Stack, stack_geometry
from ai.volume import subsampled_volume
from node.config.sections import Eligibility
from node.dicom.frame_headers import frame_headers, is_part_of_concatenation
from node.rules.completion import Geometry
from node.rules.eligibility import ct_slices, holds_ct
from storage.errors import ObjectsAway
from storage.files.instances import Files
from storage.records import Header, StoredFile

LONGEST_ELEMENT_BYTES = 1 << 20
"""A longer one is not read: what is kept only because it is of the study may hold gigabytes in one."""


class Slices:
    """The instances of a series at one moment, and what they show; each question is worked out once."""

    def __init__(
        self, load: Callable[[], list[tuple[Header, StoredFile]]], files: Files, margin_mm: float, rules: Eligibility
    ) -> None:
        """`load` gives the instances in any order; `rules` tell which of them are CT slices."""
        self._load = load
        self._files = files
        self._margin_mm = margin_mm
        self._rules = rules

    @cached_property
    def _instances(self) -> list[tuple[Header, StoredFile]]:
        return self._load()

    @cached_property
    def headers(self) -> list[Header]:
        """Of every slice: a multi-frame instance has one for each frame."""
        return [each for header, file in self._instances for each in self._frames(header, file)]

    def _frames(self, header: Header, file: StoredFile) -> list[Header]:
        if header.number_of_frames == 1 or (ds := self._functional_groups(header, file)) is None:
            return [header]
        return frame_headers(header, ds)

    def _functional_groups(self, header: Header, file: StoredFile) -> Dataset | None:
        """The instance without its pixels; None where it cannot be had without inflating them, or not at all."""
        if header.transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
            return None
        try:
            return dcmread(self._files.here(file), stop_before_pixels=True, defer_size=LONGEST_ELEMENT_BYTES)
        except ObjectsAway:  # the next run asks again
            raise
        except Exception:  # noqa: BLE001  the edge: pydicom raises whatever its parser stumbles over
            return None

    @cached_property
    def ct_slices(self) -> list[Header]:
        """What is judged and analysed: the original CT slices, whatever else came in the series."""
        return ct_slices(self.headers, self._rules)

    @cached_property
    def holds_ct(self) -> bool:
        """Whether any instance is of a class that slices are of, be it a stray."""
        return holds_ct([header for header, _ in self._instances])

    @cached_property
    def is_multi_frame(self) -> bool:
        """One instance that holds the whole volume."""
        if len(self._instances) != 1 or self._instances[0][0].number_of_frames == 1:
            return False
        ds = self._functional_groups(*self._instances[0])
        return ds is None or not is_part_of_concatenation(ds)

    @cached_property
    def stack(self) -> Stack | None:
        """The CT slices' geometry, None when they form no even stack."""
        if not self.ct_slices:
            return None
        nowhere = (np.nan,) * 3
        try:
            return stack_geometry(
                [header.position_mm or nowhere for header in self.ct_slices],
                [header.orientation or nowhere * 2 for header in self.ct_slices],
                frames_of_reference=[header.frame_of_reference_uid for header in self.ct_slices],
            )
        except NotAnalysable:
            return None

    @cached_property
    def shows_both_ends(self) -> bool:
        """Whether the region around the circle of Willis lies inside the slices with a margin.

        Never of slices that lie elsewhere, nor of compressed ones: a codec that crashes would end the node here, and
        costs an attempt in the worker.
        """
        if self.stack is None:
            return False
        try:
            used = {header.sop_instance_uid for header in self.ct_slices}
            paths = [self._files.path(file) for header, file in self._instances if header.sop_instance_uid in used]
            volume = subsampled_volume(paths, self.stack)
            return head_extent(volume).covers_circle_of_willis(self._margin_mm)
        except Exception:  # noqa: BLE001  the edge: whatever cannot be read shows nothing, and the quiet timer decides
            return False

    @property
    def geometry(self) -> Geometry:
        """The questions as completion asks them."""
        return Geometry(
            lambda: self.is_multi_frame,
            lambda: self.stack is not None,
            lambda: self.shows_both_ends,
            lambda: self.holds_ct,
        )
