"""What is one acquisition?  Pure rules on the headers of a series' CT slices (PS3.3 C.7.6.1, C.8.2.1, C.8.15).

One acquisition is one gathering of data: one pass of the patient through the scanner, one tube voltage, one moment of the
contrast's passage.  Its reconstructions show the same; another phase, and a copy from which something was taken away, do
not.  Scanners tell acquisitions apart by number, by UID, by time, or by nothing at all: so every sign counts, and doubt
is never "the same".
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations
from statistics import median

import numpy as np

from ai.wording import counted, unpadded
from node.config.spellings import DERIVED, texts
from storage.records import Header

MOST_DIGITS = 9
"""Of an Acquisition Number; a longer one is none."""

_PAUSE_SECONDS = 1.5
"""Between the slices of one pass, which may be timed to the second."""
_EXTENT_TOLERANCE_MM = 10.0
"""Reconstructions of one pass begin and end up to a collimation apart."""
_OVERLAP_MM = 5.0
"""Steps of one acquisition meet within less."""
_SAME_PLACE_MM = 0.02
_NO_COARSER = 1.25
"""An answer on slices up to so many times as thick and as far apart holds for finer ones."""
_FAR_MM = 20.0
"""Slices at one place so far from the others are no step of their acquisition: those that watch the contrast's arrival, say."""
_DERIVED_WORDS = re.compile("|".join(texts(DERIVED)), re.IGNORECASE)


def is_derived(header: Header) -> bool:
    """Whether the pixels were made from those of other images, as far as Image Type and description tell."""
    words = " ".join((*header.image_type, header.series_description)).replace("_", " ")
    return _DERIVED_WORDS.search(words) is not None


@dataclass(frozen=True)
class Acquisition:
    """What the slices of a series tell of the acquisition that they show.

    `seconds`: when its first and its last slice were acquired, since an arbitrary moment; `content_seconds`: when their
    pixels were made; `extent_mm`: from its lowest to its highest slice along their normal; `spacing_mm` and `thickness_mm`:
    the usual ones; None where nothing tells.  `is_one`: they are of one, see `split`.
    """

    is_derived: bool = False
    seconds: tuple[float, float] | None = None
    extent_mm: tuple[float, float] | None = None
    kvp: frozenset[str] = frozenset()
    temporal_positions: frozenset[str] = frozenset()
    contrast_agents: frozenset[str] = frozenset()
    is_one: bool = True
    content_seconds: tuple[float, float] | None = None
    spacing_mm: float | None = None
    thickness_mm: float | None = None


def acquisition_of(headers: Sequence[Header]) -> Acquisition:
    """What these slices tell together."""
    times = [seconds for header in headers if (seconds := _acquired_seconds(header)) is not None]
    made = [seconds for header in headers if (seconds := _seconds(header.content_at)) is not None]
    places = [place for header in headers if (place := _along_normal_mm(header)) is not None]
    return Acquisition(
        any(is_derived(header) for header in headers),
        (min(times), max(times)) if times else None,
        (min(places), max(places)) if places else None,
        _stated(header.kvp for header in headers),
        _stated(header.temporal_position for header in headers),
        _stated(header.contrast_agent.casefold() for header in headers),
        len(split(headers)) <= 1,
        (min(made), max(made)) if made else None,
        spacing_mm(headers),
        thickness_mm(headers),
    )


def shows_all_of(other: Acquisition, mine: Acquisition) -> bool:
    """Whether an answer on `other` holds for `mine`, of which the scanner says that they are one acquisition.

    Not when `other` was made from other images, shows less of the patient or shows it more coarsely, or any sign tells the
    two apart, nor where one of them is several: then both are analysed.
    """
    if other.is_derived or not (other.is_one and mine.is_one):
        return False
    if _is_coarser(other.spacing_mm, mine.spacing_mm) or _is_coarser(other.thickness_mm, mine.thickness_mm):
        return False
    if (other.kvp, other.temporal_positions, other.contrast_agents) != (
        mine.kvp,
        mine.temporal_positions,
        mine.contrast_agents,
    ):
        return False
    if other.seconds is mine.seconds is None and not _at_one_time(other.content_seconds, mine.content_seconds):
        return False  # made at another time, and nothing says that they were acquired together
    return _at_one_time(other.seconds, mine.seconds) and _reaches(other.extent_mm, mine.extent_mm)


def split(headers: Sequence[Header]) -> list[list[int]]:
    """The slices of each acquisition, as indices into `headers`; acquisitions in the order of their times and numbers.

    Passes at different places are one acquisition (step and shoot); two over the same place are two.  Whether the
    slices of one form a volume is for whoever makes it to find.
    """
    places = [_along_normal_mm(header) for header in headers]
    parts = [list(range(len(headers)))]
    for tell in _SIGNS:
        parts = [each for part in parts for each in _by_sign(headers, part, tell)]
    for tell in _SIGNS_OF_COPIES:
        parts = [each for part in parts for each in _by_sign_over_one_place(headers, places, part, tell)]
    parts = [each for part in parts for each in _by_pass(headers, places, part)]
    parts = [each for part in parts for each in _by_repetition(headers, places, part)]
    return sorted(parts, key=lambda part: min(_order(headers[index]) for index in part))


def described(headers: Sequence[Header]) -> str:
    """What tells the acquisition of these slices from others, in numbers and in words that no patient has."""
    numbers = {header.acquisition_number for header in headers}
    number = numbers.pop() if len(numbers) == 1 else ""
    kernels = {header.convolution_kernel for header in headers}
    kernel = kernels.pop() if len(kernels) == 1 else ""
    clock = min(header.acquired_at.partition(".")[0][-6:] for header in headers)
    kvp = _stated(header.kvp for header in headers)
    words = [
        f"number {number}" if number.isdecimal() and len(number) <= MOST_DIGITS else "",
        f"{next(iter(kvp))} kV" if len(kvp) == 1 else "",
        f"kernel {kernel.split(chr(92))[0]}" if _KERNEL.match(kernel) else "",
        f"{clock[:2]}:{clock[2:4]}:{clock[4:]}" if re.fullmatch(r"\d{6}", clock, re.ASCII) else "",
        counted(len(headers), "slice"),
    ]
    return ", ".join(filter(None, words))


_KERNEL = re.compile(
    r"([A-Z][a-z]?\d{2}[a-z]?|FC\d{2}|[A-Z]{1,2}|STANDARD|SOFT|DETAIL|BONE|BONEPLUS|EDGE|LUNG|ULTRA)(\\[\w.%-]*)*\Z",
    re.ASCII,
)
"""What may be shown: as vendors name kernels (`node.config.spellings`), and no free text."""


def spacing_mm(headers: Sequence[Header]) -> float | None:
    """The usual distance between neighbouring slices of one acquisition; None where positions do not tell.

    Copies of a slice, and others at its place, have none.
    """
    places = [place for header in headers if (place := _along_normal_mm(header)) is not None]
    apart = np.diff(np.sort(places))
    apart = apart[apart > _SAME_PLACE_MM]
    return float(np.median(apart)) if len(apart) else None


def thickness_mm(headers: Sequence[Header]) -> float | None:
    """The usual thickness of slices; None where no header tells."""
    told = [header.slice_thickness_mm for header in headers if header.slice_thickness_mm is not None]
    return median(told) if told else None


def _is_coarser(one_mm: float | None, other_mm: float | None) -> bool:
    return one_mm is not None and other_mm is not None and one_mm > _NO_COARSER * other_mm


def _main_axis(header: Header) -> str:
    """Whether the slice is sagittal, coronal or axial, roughly."""
    if header.orientation is None:
        return ""
    return "xyz"[int(np.abs(np.cross(header.orientation[:3], header.orientation[3:])).argmax())]


Tell = Callable[[Header], str]
_SIGNS: tuple[Tell, ...] = (
    lambda header: unpadded(header.kvp),
    lambda header: unpadded(header.convolution_kernel).casefold(),
    lambda header: unpadded(header.temporal_position),
    lambda header: unpadded(header.contrast_agent).casefold(),
    _main_axis,
)
"""Two values, and not only one beside none, are two acquisitions."""
_SIGNS_OF_COPIES: tuple[Tell, ...] = (
    lambda header: "" if header.slice_thickness_mm is None else f"{header.slice_thickness_mm:.2f}",
    lambda header: "derived" if is_derived(header) else "original",
)
"""Two values at one place are; at different places they may be of one: thin below, thick above."""


def _by_sign(headers: Sequence[Header], part: list[int], tell: Tell) -> list[list[int]]:
    groups: dict[str, list[int]] = {}
    for index in part:
        groups.setdefault(tell(headers[index]), []).append(index)
    return list(groups.values()) if len(groups.keys() - {""}) > 1 else [part]


def _by_sign_over_one_place(
    headers: Sequence[Header], places: Sequence[float | None], part: list[int], tell: Tell
) -> list[list[int]]:
    groups = _by_sign(headers, part, tell)
    extents = [_extent(places, group) for group in groups]
    known = [extent for extent in extents if extent is not None]
    return groups if any(_lies_over(*pair) for pair in combinations(known, 2)) else [part]


def _by_pass(headers: Sequence[Header], places: Sequence[float | None], part: list[int]) -> list[list[int]]:
    """A pass over a place where the acquisition has been begins another; one beside it belongs to it."""
    if any(places[index] is None for index in part):
        return [part]
    acquisitions: list[tuple[list[int], tuple[float, float]]] = []
    for slices in _passes(headers, places, part):
        extent = _extent(places, slices)
        assert extent is not None
        if acquisitions and _belong_together(extent, acquisitions[-1][1]):
            before, reached = acquisitions.pop()
            slices, extent = [*before, *slices], (min(extent[0], reached[0]), max(extent[1], reached[1]))
        acquisitions.append((slices, extent))
    return [slices for slices, _ in acquisitions]


def _belong_together(extent: tuple[float, float], reached: tuple[float, float]) -> bool:
    """Whether a pass is a further step of the acquisition before it: beside it, and not at one place somewhere else."""
    gap_mm = max(extent[0] - reached[1], reached[0] - extent[1])
    smaller_mm = min(extent[1] - extent[0], reached[1] - reached[0])
    return (gap_mm <= _FAR_MM or smaller_mm > _OVERLAP_MM) and not _lies_over(extent, reached)


def _passes(headers: Sequence[Header], places: Sequence[float | None], part: list[int]) -> list[list[int]]:
    """The slices of each acquisition number, UID, stack and time without a pause, in the order of time and number."""
    by_number: dict[tuple[str, ...], list[int]] = {}
    for index in part:
        header = headers[index]
        named = header.acquisition_number, header.acquisition_uid, header.stack
        by_number.setdefault(tuple(map(unpadded, named)), []).append(index)
    passes: list[list[int]] = []
    for slices in by_number.values():
        slices.sort(key=lambda index: (_acquired_seconds(headers[index]) or 0.0, places[index] or 0.0))
        seconds = np.array([_acquired_seconds(headers[index]) or 0.0 for index in slices])
        pauses = np.flatnonzero(np.diff(seconds) > _PAUSE_SECONDS) + 1
        passes += [each.tolist() for each in np.split(np.array(slices), pauses)]
    return sorted(passes, key=lambda slices: _order(headers[slices[0]]))


def _by_repetition(headers: Sequence[Header], places: Sequence[float | None], part: list[int]) -> list[list[int]]:
    """Every place equally often, and Instance Number or time going through all of them as often: so many acquisitions."""
    numbers = [headers[index].instance_number for index in part]
    at = [round(place, 2) for index in part if (place := places[index]) is not None]
    count = len(set(at))
    if None in numbers or len(set(numbers)) < len(part) or len(at) < len(part) or count in (0, 1, len(part)):
        return [part]
    by_number = sorted(part, key=lambda index: headers[index].instance_number or 0)
    runs = [by_number[start : start + count] for start in range(0, len(part), count)]
    if all(len({round(places[index] or 0.0, 2) for index in run}) == count for run in runs):
        return runs
    return _by_time_at_each_place(headers, places, part)


def _by_time_at_each_place(
    headers: Sequence[Header], places: Sequence[float | None], part: list[int]
) -> list[list[int]]:
    """The first at every place, the second at every place and so on, where times tell them apart and all have as many."""
    at: dict[float, list[int]] = {}
    for index in sorted(part, key=lambda index: _acquired_seconds(headers[index]) or 0.0):
        at.setdefault(round(places[index] or 0.0, 2), []).append(index)
    counts = {len(mine) for mine in at.values()}
    are_timed = all(len({_acquired_seconds(headers[index]) for index in mine}) == len(mine) for mine in at.values())
    return [list(one) for one in zip(*at.values(), strict=True)] if len(counts) == 1 and are_timed else [part]


def _order(header: Header) -> tuple[float, int, str]:
    number = unpadded(header.acquisition_number)
    return (
        _acquired_seconds(header) or 0.0,
        int(number) if number.isdecimal() and len(number) <= MOST_DIGITS else 0,
        "/".join(
            (
                number,
                *(tell(header) for tell in (*_SIGNS, *_SIGNS_OF_COPIES)),
                f"{header.instance_number or 0:09}",
                header.acquisition_uid,
                header.stack,
            )
        ),
    )


def _extent(places: Sequence[float | None], part: Sequence[int]) -> tuple[float, float] | None:
    known = [place for index in part if (place := places[index]) is not None]
    return (min(known), max(known)) if known else None


def _lies_over(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """More of the one than a step of one acquisition has in common with the next lies in the other."""
    overlap = min(one[1], other[1]) - max(one[0], other[0])
    smaller = min(one[1] - one[0], other[1] - other[0])
    return overlap > min(_OVERLAP_MM, smaller / 2.0) - _SAME_PLACE_MM


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


def _stated(values: Iterable[str]) -> frozenset[str]:
    return frozenset(filter(None, map(unpadded, values)))


def _along_normal_mm(header: Header) -> float | None:
    if header.position_mm is None or header.orientation is None:
        return None
    return float(np.cross(header.orientation[:3], header.orientation[3:]) @ np.array(header.position_mm))


def _acquired_seconds(header: Header) -> float | None:
    """Seconds since the beginning of the year 1; of a time without a date, since midnight."""
    return _seconds(header.acquired_at)


def _seconds(at: str) -> float | None:
    digits, _, fraction = at.partition(".")
    try:
        day = datetime.strptime(digits[:8], "%Y%m%d").toordinal() if len(digits) == 14 else 0  # noqa: DTZ007
        clock = digits[-6:]
        hours, minutes, whole = int(clock[:2]), int(clock[2:4]), int(clock[4:6])
        return day * 86_400.0 + hours * 3600 + minutes * 60 + whole + float(f"0.{fraction or 0}")
    except ValueError:
        return None
