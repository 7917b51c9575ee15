"""Which source image shows a point of the patient, and where on it: pure geometry on headers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from pydicom import Dataset

from ai.frames import MAX_FRAMES, Frame, frames, text_of
from ai.wording import unpadded


@dataclass(frozen=True)
class KeySlice:
    """A source frame and a position on it.

    `frame_number` counts from 1 and is None for a single-frame instance.  `column` and `row` are in pixels from the
    outer corner of the first pixel, whose centre is (0.5, 0.5), as SCOORD counts them.  `distance_mm`: from the plane.
    `instance_number`: as the sender counts, None where it does not.  `modality`, `body_part`: as the header says.
    """

    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    frame_number: int | None
    frame: Frame
    column: float = 0.0
    row: float = 0.0
    distance_mm: float = 0.0
    instance_number: int | None = None
    modality: str = ""
    body_part: str = ""

    @property
    def name(self) -> str:
        """What a viewer calls it: "image 156", of a multi-frame instance "frame 12"; "" where it has no number."""
        if self.frame_number is not None:
            return f"frame {self.frame_number}"
        return "" if self.instance_number is None else f"image {self.instance_number}"


def key_slices(headers: Sequence[Dataset], points_lps_mm: Sequence[tuple[float, float, float]]) -> list[KeySlice]:
    """For each point the frame nearest to it, and the point's projection on it.

    Headers without geometry are passed over.  Raises ValueError when no frame has geometry.
    """
    if not points_lps_mm:
        return []
    known = [(ds, frame) for ds in headers for frame in frames(ds) if frame.has_geometry]
    if not known:
        raise ValueError("no source image states its position, orientation and pixel spacing")
    orientation = np.array([frame.orientation for _, frame in known])
    rows, columns = orientation[:, :3], orientation[:, 3:]
    normals, positions = np.cross(rows, columns), np.array([frame.position_mm for _, frame in known])
    found = []
    for point in points_lps_mm:
        offsets = np.asarray(point) - positions
        distances = np.abs((offsets * normals).sum(axis=1))
        nearest = int(distances.argmin())
        ds, frame = known[nearest]
        between_rows, between_columns = frame.pixel_spacing_mm
        column = float(offsets[nearest] @ rows[nearest]) / between_columns + 0.5
        row = float(offsets[nearest] @ columns[nearest]) / between_rows + 0.5
        found.append(_slice(ds, frame, column, row, float(distances[nearest])))
    return found


def representative_slices(headers: Sequence[Dataset]) -> list[KeySlice]:
    """The lowest, the middle and the highest frame, for a report without a lesion to show; fewer when there are fewer.

    Ordered by patient z where positions are known, else as given.  Of more than `MAX_FRAMES` the first are looked at.  A
    frame without a place in an image of several belongs to another acquisition (`node.analysis.examination`), unless
    none has a place.
    """
    every = list(islice(((ds, frame) for ds in headers for frame in frames(ds)), MAX_FRAMES))
    known = [pair for pair in every if pair[1].has_geometry or not pair[1].multi_frame] or every
    if all(frame.has_geometry for _, frame in known):
        known.sort(key=lambda pair: (pair[1].position_mm[2], pair[1].sop_instance_uid))
    picked = sorted({0, len(known) // 2, len(known) - 1})
    return [_slice(*known[index]) for index in picked]


def _slice(ds: Dataset, frame: Frame, column: float = 0.0, row: float = 0.0, distance_mm: float = 0.0) -> KeySlice:
    number = text_of(ds, "InstanceNumber").strip()
    return KeySlice(
        study_instance_uid=text_of(ds, "StudyInstanceUID"),
        series_instance_uid=text_of(ds, "SeriesInstanceUID"),
        sop_class_uid=text_of(ds, "SOPClassUID"),
        sop_instance_uid=text_of(ds, "SOPInstanceUID"),
        frame_number=frame.number if frame.multi_frame else None,
        frame=frame,
        column=column,
        row=row,
        distance_mm=distance_mm,
        modality=unpadded(text_of(ds, "Modality")).upper(),
        body_part=unpadded(text_of(ds, "BodyPartExamined")).upper(),
        instance_number=int(number) if re.fullmatch(r"[+-]?[0-9]{1,10}", number) else None,
    )
