"""What is one acquisition?  Pure rules on the headers of a series' CT slices (PS3.3 C.7.6.1, C.8.2.1, C.8.15).

One acquisition is one gathering of data: one pass of the patient through the scanner, one tube voltage, one moment of the
contrast's passage.  Its reconstructions show the same; another phase, and a copy from which something was taken away, do
not.  Scanners tell acquisitions apart by number, by UID, by time, or by nothing at all: so every sign counts, and doubt
is never "the same".
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations

import numpy as np

from ai.wording import counted
from storage.records import Header

_PAUSE_SECONDS = 1.5
"""Between the slices of one pass, which may be timed to the second."""
_EXTENT_TOLERANCE_MM = 10.0
"""Reconstructions of one pass begin and end up to a collimation apart."""
_OVERLAP_MM = 5.0
"""Steps of one acquisition meet within less."""
_DERIVED_WORDS = re.compile(
    r"\b(derived|subtract\w*|masked|resampled|filtered|average|mean|addition|bone.?remov\w*|bone.?free|no.?bone|iodine|vnc|vmi)\b",
    re.IGNORECASE,
)
"""In Image Type (PS3.3 C.8.15.2.1.1, and vendors' own values) or in a description: made from other images."""


def values_of(text: str) -> tuple[str, ...]:
    """The values of an attribute that may have several, without the padding that its VR allows (PS3.5 6.2, 6.4)."""
    return tuple(value.strip() for value in text.split("\\"))


def is_derived(header: Header) -> bool:
    """Whether the pixels were made from those of other images, as far as Image Type and description tell."""
    words = " ".join((*header.image_type, header.series_description)).replace("_", " ")
    return _DERIVED_WORDS.search(words) is not None


@dataclass(frozen=True)
class Acquisition:
    """What the slices of a series tell of the acquisition that they show.

    `seconds`: when its first and its last slice were acquired, since an arbitrary moment; `extent_mm`: from its lowest
    to its highest slice along their normal; None where nothing tells.
    """

    is_derived: bool = False
    seconds: tuple[float, float] | None = None
    extent_mm: tuple[float, float] | None = None
    kvp: frozenset[str] = frozenset()
    temporal_positions: frozenset[str] = frozenset()
    contrast_agents: frozenset[str] = frozenset()


def acquisition_of(headers: Sequence[Header]) -> Acquisition:
    """What these slices tell together."""
    times = [seconds for header in headers if (seconds := _acquired_seconds(header)) is not None]
    places = [place for header in headers if (place := _along_normal_mm(header)) is not None]
    return Acquisition(
        any(is_derived(header) for header in headers),
        (min(times), max(times)) if times else None,
        (min(places), max(places)) if places else None,
        _said(header.kvp for header in headers),
        _said(header.temporal_position for header in headers),
        _said(header.contrast_agent.casefold() for header in headers),
    )


def shows_all_of(other: Acquisition, mine: Acquisition) -> bool:
    """Whether an answer on `other` holds for `mine`, of which the scanner says that they are one acquisition.

    Not when `other` was made from other images, shows less of the patient, or any sign tells the two apart: then both
    are analysed.
    """
    if other.is_derived:
        return False
    if (other.kvp, other.temporal_positions, other.contrast_agents) != (
        mine.kvp,
        mine.temporal_positions,
        mine.contrast_agents,
    ):
        return False
    return _at_one_time(other.seconds, mine.seconds) and _reaches(other.extent_mm, mine.extent_mm)


def several_in_one(headers: Sequence[Header]) -> str:
    """Why these slices are not of one acquisition, in words and numbers of ours; "" when they may be.

    Passes at different places are one acquisition (step and shoot); two over the same place are two.
    """
    for what, values in (
        ("tube voltage", _said(header.kvp for header in headers)),
        ("convolution kernel", _said(header.convolution_kernel.casefold() for header in headers)),
        ("temporal position", _said(header.temporal_position for header in headers)),
        ("contrast agent", _said(header.contrast_agent.casefold() for header in headers)),
    ):
        if len(values) > 1:
            return counted(len(values), what)
    passes = _passes(headers)
    overlap = any(_overlap_mm(*pair) > _OVERLAP_MM for pair in combinations(passes, 2))
    return f"{len(passes)} passes, some over the same place" if overlap else ""


def _passes(headers: Sequence[Header]) -> list[tuple[float, float]]:
    """The extents, in mm along the normal, of the slices of each acquisition number and of each time without a pause."""
    by_number: dict[str, list[tuple[float, float]]] = {}
    for header in headers:
        place, seconds = _along_normal_mm(header), _acquired_seconds(header)
        if place is not None:
            by_number.setdefault(header.acquisition_number, []).append((seconds if seconds is not None else 0.0, place))
    passes = []
    for slices in by_number.values():
        slices.sort()
        times = np.array([seconds for seconds, _ in slices])
        for part in np.split(
            np.array([place for _, place in slices]), np.flatnonzero(np.diff(times) > _PAUSE_SECONDS) + 1
        ):
            passes.append((float(part.min()), float(part.max())))
    return passes


def _overlap_mm(one: tuple[float, float], other: tuple[float, float]) -> float:
    return min(one[1], other[1]) - max(one[0], other[0])


def _at_one_time(one: tuple[float, float] | None, other: tuple[float, float] | None) -> bool:
    """Both say nothing, or their times touch; one that is timed beside one that is not is in doubt."""
    if one is None or other is None:
        return one is other
    return one[0] <= other[1] + _PAUSE_SECONDS and other[0] <= one[1] + _PAUSE_SECONDS


def _reaches(one: tuple[float, float] | None, other: tuple[float, float] | None) -> bool:
    """`one` extends as far as `other`."""
    if one is None or other is None:
        return True  # without positions neither is analysed
    return one[0] <= other[0] + _EXTENT_TOLERANCE_MM and one[1] >= other[1] - _EXTENT_TOLERANCE_MM


def _said(values: Iterable[str]) -> frozenset[str]:
    return frozenset(value.strip() for value in values if value.strip())


def _along_normal_mm(header: Header) -> float | None:
    if header.position_mm is None or header.orientation is None:
        return None
    return float(np.cross(header.orientation[:3], header.orientation[3:]) @ np.array(header.position_mm))


def _acquired_seconds(header: Header) -> float | None:
    """Seconds since the beginning of the year 1; of a time without a date, since midnight."""
    digits, _, fraction = header.acquired_at.partition(".")
    try:
        day = datetime.strptime(digits[:8], "%Y%m%d").toordinal() if len(digits) == 14 else 0  # noqa: DTZ007
        clock = digits[-6:]
        hours, minutes, whole = int(clock[:2]), int(clock[2:4]), int(clock[4:6])
        return day * 86_400.0 + hours * 3600 + minutes * 60 + whole + float(f"0.{fraction or 0}")
    except ValueError:
        return None
