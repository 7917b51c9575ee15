"""Slices of a series are read, and turned into HU, while the rest of it still arrives and the worker is idle.

Only a cache, and never evidence: the claim asks the database which files the series has, takes from here what was read
from exactly those, and reads the others itself.  Compressed pixels stay as they are: a codec that crashes must cost an
attempt, and here none is counted.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian

from ai.remembered import Remembered
from ai.volume import ReadSlice, read_slice
from node.config.sections import Eligibility
from node.rules import eligibility
from node.runtime import log
from storage.files.instances import Files
from storage.queries.receiving import Settling
from storage.records import Header, Series, StoredFile

MOST_BYTES = 1 << 30
"""Of files read ahead; what comes beyond is read after the claim."""
_DEFLATED = DeflatedExplicitVRLittleEndian
"""Takes more memory than its file says."""
AT_ONCE = 8
"""Slices between two looks at whether there is something to analyse."""
PAUSE_SECONDS = 0.2
"""Until one looks again for slices that have come."""
SAME_MM = 0.01
"""By less an end of a stack has not moved."""
FORGET_SECONDS = 10.0
"""After a series is no longer being received, if nobody has taken its slices."""


@dataclass
class Ends:
    """How far the slices of a series reach, from the lowest to the highest, and for how long neither end has moved.

    `low_mm` and `high_mm` along the normal.  `moved_mm`: the reach at which each end moved last.
    """

    low_mm: float = 0.0
    high_mm: float = 0.0
    moved_mm: tuple[float, float] = (0.0, 0.0)

    @property
    def reach_mm(self) -> float:
        return self.high_mm - self.low_mm

    def move(self, low_mm: float, high_mm: float) -> None:
        """They reach from here to there now."""
        reach_mm = high_mm - low_mm
        pairs = zip((self.low_mm, self.high_mm), (low_mm, high_mm), self.moved_mm, strict=True)
        low, high = (at if abs(now - before) < SAME_MM else reach_mm for before, now, at in pairs)
        self.low_mm, self.high_mm, self.moved_mm = low_mm, high_mm, (low, high)

    def open_by(self, still_mm: float) -> tuple[bool, bool]:
        """Whether more may come below and above: of an end that has not moved while the reach grew by so much, none."""
        low, high = (self.reach_mm - at < still_mm for at in self.moved_mm)
        return low, high


@dataclass
class Ahead:
    """What was read of one series, and what was answered of it.

    `last`: the number of the latest instance that was looked at.  `headers`: of the `slices`, in their order.  `was_met`: it
    was being received when this process looked for the first time.  `passes`, `judged`, `next_look_mm` and `ends` are those
    of `node.analysis.early`.
    """

    case: int
    seen_at: float = 0.0
    is_wanted: bool = True
    last: int = 0
    slices: dict[StoredFile, ReadSlice] = field(default_factory=dict)
    headers: list[Header] = field(default_factory=list)
    remembered: Remembered = field(default_factory=Remembered)
    passes: int = 0
    judged: int = 0
    next_look_mm: float = 0.0
    ends: Ends = field(default_factory=Ends)
    was_met: bool = False

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.slices)

    def forget_answers(self) -> None:
        """Nothing was answered of it yet."""
        self.remembered, self.passes, self.judged, self.next_look_mm = Remembered(), 0, 0, 0.0

    def give_up(self) -> None:
        """All is left for after the claim, and the memory that it took is free."""
        self.is_wanted = False
        self.slices.clear()
        self.headers.clear()
        self.forget_answers()


class ReadAhead:
    """Belongs to the worker's one thread."""

    def __init__(
        self,
        settling: Settling,
        files: Files,
        rules: Eligibility,
        monotonic: Callable[[], float] = time.monotonic,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        """`monotonic` in seconds."""
        self._settling, self._files, self._rules, self._monotonic = settling, files, rules, monotonic
        self._most_bytes = most_bytes
        self._series: dict[int, Ahead] = {}
        self._looked_at = 0.0
        self._has_looked = False

    def take(self, case: int) -> Ahead:
        """What was read of the case, which is no longer kept here."""
        return self._series.pop(case, None) or Ahead(case)

    def held(self) -> list[Ahead]:
        """What was read of each series that was being received when one last looked."""
        return [each for each in self._series.values() if each.seen_at == self._looked_at]

    def forget(self) -> None:
        """Nothing was read yet."""
        self._series.clear()

    def forget_answers(self) -> None:
        """Those of every series are gone, as when another bundle is to give them; what was read stays."""
        for each in self._series.values():
            each.forget_answers()

    def read_some(self) -> float | None:
        """A few more slices were read; returns the seconds after which to come back, None if nothing is received that is read here.

        Nothing is raised.  A series with a file that cannot be read is left to the analysis.
        """
        try:
            return self._read_some()
        except Exception as error:  # noqa: BLE001  the edge: the database does not answer, and the next run asks again
            log.get().warning("read_ahead_failed", error=type(error).__name__)
            return None

    def _read_some(self) -> float | None:
        now = self._monotonic()
        receiving = self._settling.receiving()
        self._looked_at = now
        for series in receiving:
            self._series.setdefault(series.id, Ahead(series.id, was_met=not self._has_looked)).seen_at = now
        self._has_looked = True
        self._series = {case: it for case, it in self._series.items() if now - it.seen_at <= FORGET_SECONDS}
        wanted = [series for series in receiving if self._series[series.id].is_wanted]
        more = any(self._read_of(series) for series in wanted)
        return (0.0 if more else PAUSE_SECONDS) if wanted else None

    def _read_of(self, series: Series) -> bool:
        """Whether more of it may wait to be read."""
        ahead = self._series[series.id]
        room_bytes = self._most_bytes - sum(each.size_bytes for each in self._series.values())
        if room_bytes <= 0:
            return False
        arrived = self._settling.instances_since(series.id, ahead.last, AT_ONCE)
        if arrived and ahead.last == 0:
            ahead.is_wanted = self._is_wanted(arrived[0][1])
        try:
            for number, header, file in arrived if ahead.is_wanted else ():
                if self._files.objects and not self._files.path(file).exists():
                    ahead.is_wanted = False  # received elsewhere: what is fetched is fetched for the claim
                    return False
                is_slice = bool(eligibility.ct_slices([header], self._rules))
                if is_slice and header.number_of_frames == 1 and header.transfer_syntax_uid != _DEFLATED:
                    if (room_bytes := room_bytes - file.size_bytes) < 0:
                        return False
                    ahead.slices[file] = read_slice(dcmread(self._files.path(file)))
                    ahead.headers.append(header)
                ahead.last = number
        except Exception as error:  # noqa: BLE001  the edge: the claim will see whatever it is
            ahead.give_up()
            log.get().warning("read_ahead_failed", case=series.id, error=type(error).__name__)
        return ahead.is_wanted and len(arrived) == AT_ONCE

    def _is_wanted(self, first: Header) -> bool:
        """Whether it will be analysed, as far as its first instance tells."""
        return bool(eligibility.ct_slices([first], self._rules))
