"""A case's images for the browser: their order, where each finding lies on them, and one slice at a time in HU."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from ai.errors import NotAnalysable
from ai.frames import GARBLED, Frame, frame_hu, frames
from storage.errors import NotStored, ObjectsAway, StorageError
from storage.files.instances import Files
from storage.queries.receiving import Settling
from storage.records import Header, StoredFile

_CASES_KEPT = 8


class NoImages(Exception):
    """There is nothing to show; the message says why, for people."""

    status = 410


class ImagesAway(NoImages):
    """They cannot be had now; to ask again may help."""

    status = 503


@dataclass(frozen=True)
class Place:
    """A frame of a file, which `find` finds.  `along_mm`: its position along the normal of the slices."""

    find: Callable[[], Path]
    sop_instance_uid: str
    frame_number: int
    position_mm: tuple[float, ...]
    along_mm: float


@dataclass(frozen=True)
class Series:
    """The frames from feet to head.  `frame`: one of them, whose matrix, spacing and orientation all have.

    `has_geometry`: whether positions are known, so that findings can be drawn.
    """

    places: tuple[Place, ...]
    frame: Frame
    has_geometry: bool
    key: str

    @property
    def is_stack(self) -> bool:
        """Whether the slices lie exactly above each other, so that planes across them can be shown."""
        if not self.has_geometry or len(self.places) < 2:
            return False
        along_rows_mm = np.array([place.position_mm for place in self.places]) @ _in_plane(self.frame).T
        return bool(np.ptp(along_rows_mm, axis=0).max() <= max(self.frame.pixel_spacing_mm))

    @property
    def marks(self) -> str:
        """Which side of the patient is left, right, above and below on a slice, and above and below across them."""
        if not self.has_geometry:
            return ""
        across, down = _in_plane(self.frame)
        return "".join(
            _side(vector) for vector in (-across, across, -down, down, _normal(self.frame), -_normal(self.frame))
        )

    def slice_spacing_mm(self) -> float:
        """The median distance between neighbours; 1 where there is none."""
        if len(self.places) < 2 or not self.has_geometry:
            return 1.0
        return float(np.median(np.diff([place.along_mm for place in self.places]))) or 1.0


class Images:
    """Reads what is on disk; keeps the order of a few series in memory."""

    def __init__(self, settling: Settling, files: Files) -> None:
        """Nothing is read yet."""
        self._settling, self._files = settling, files
        self._kept: OrderedDict[int, Series] = OrderedDict()
        self._lock = threading.Lock()

    def series(self, case_id: int, key: str) -> Series:
        """The case's frames in order.  `key`: of these instances, what was kept for another is read anew.

        Raises NoImages.
        """
        with self._lock:
            found = self._kept.get(case_id)
            if found is not None and found.key == key:
                self._kept.move_to_end(case_id)
                return found
        made = self._read(case_id, key)
        with self._lock:
            self._kept[case_id] = made
            while len(self._kept) > _CASES_KEPT:
                self._kept.popitem(last=False)
        return made

    def _read(self, case_id: int, key: str) -> Series:
        instances = [(head, file) for head, file in self._settling.instances(case_id) if head.has_pixels]
        if not instances:
            raise NoImages("There are no images of this case.")
        middle = instances[len(instances) // 2]
        sample = next(iter(frames(self._header(middle[1]))))
        places = [place for each in instances for place in self._places(*each)]
        has_geometry = sample.has_geometry and all(len(place.position_mm) == 3 for place in places)
        if has_geometry:
            normal = _normal(sample)
            places = [_along(place, float(np.dot(place.position_mm, normal))) for place in places]
            places.sort(key=lambda place: place.along_mm)
        return Series(tuple(places), sample, has_geometry, key)

    def _places(self, head: Header, file: StoredFile) -> list[Place]:
        find = partial(self._files.here, file)
        if head.number_of_frames <= 1 and head.position_mm is not None:
            return [Place(find, head.sop_instance_uid, 1, head.position_mm, 0.0)]
        found = frames(self._header(file))
        uid = head.sop_instance_uid
        return [Place(find, uid, each.number, each.position_mm if each.has_geometry else (), 0.0) for each in found]

    def _header(self, file: StoredFile) -> Dataset:
        return _dataset(partial(self._files.here, file), stop_before_pixels=True)


def hounsfield(place: Place) -> NDArray[np.int16]:
    """The slice in HU (rows, columns), int16.  Raises NoImages when its file is gone or cannot be decoded."""
    ds = _dataset(place.find, stop_before_pixels=False)
    for frame in frames(ds):
        if frame.number == place.frame_number:
            try:
                return frame_hu(ds, frame)
            except NotAnalysable as error:
                raise NoImages(error.reason.explained) from None
    raise NoImages("This slice is no longer there.")


def _dataset(find: Callable[[], Path], stop_before_pixels: bool) -> Dataset:
    try:
        return dcmread(find(), stop_before_pixels=stop_before_pixels, force=True)
    except (NotStored, ObjectsAway):
        raise ImagesAway("The images of this case lie on another machine, and cannot be had now.") from None
    except (FileNotFoundError, StorageError):
        raise NoImages("The images of this case are no longer on this machine.") from None
    except (*GARBLED, InvalidDicomError, OSError):
        raise NoImages("The file of this slice cannot be read.") from None


def _normal(frame: Frame) -> NDArray[np.float64]:
    """Across the slices, towards the head."""
    normal = np.cross(frame.orientation[:3], frame.orientation[3:])
    return np.asarray(normal * (np.sign(normal[2]) or 1.0))


def _in_plane(frame: Frame) -> NDArray[np.float64]:
    """Unit vectors along a row and down a column, (2, 3)."""
    return np.asarray(frame.orientation, dtype=float).reshape(2, 3)


def _side(vector_lps: NDArray[np.float64]) -> str:
    """The letter of the side of the patient that the vector points to."""
    axis = int(np.abs(vector_lps).argmax())
    return ("RL", "AP", "FH")[axis][int(vector_lps[axis] > 0)]


def _along(place: Place, along_mm: float) -> Place:
    return replace(place, along_mm=along_mm)


def findings_on(series: Series, lesions: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Where each finding is drawn: slice (from 0), x and y in pixels from the corner of the first, radius, half height.

    `half_slices`: so many slices above and below its own it still reaches.  Empty without geometry.
    """
    if not series.has_geometry or not series.places:
        return []
    row, column = np.array(series.frame.orientation[:3]), np.array(series.frame.orientation[3:])
    between_rows, between_columns = series.frame.pixel_spacing_mm
    alongs = np.array([place.along_mm for place in series.places])
    drawn = []
    for lesion in lesions:
        centre = np.array(lesion["centre_lps_mm"], dtype=float)
        nearest = int(np.abs(alongs - centre @ _normal(series.frame)).argmin())
        offset = centre - np.array(series.places[nearest].position_mm)
        radius_mm = max(float(lesion["diameter_mm"]), 1.0) / 2
        drawn.append(
            {
                "slice": nearest,
                "x": float(offset @ row) / between_columns + 0.5,
                "y": float(offset @ column) / between_rows + 0.5,
                "radius": radius_mm / between_columns,
                "half_slices": radius_mm / series.slice_spacing_mm(),
                "radius_mm": radius_mm,
            }
        )
    return drawn
