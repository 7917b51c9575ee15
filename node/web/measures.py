"""Proportions with their interval, percentiles, and what the plots are drawn from.  Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from math import ceil, sqrt

from node.results.rejections import REJECTIONS
from node.web import wording
from storage.queries.reviews import Rejection
from storage.queries.statistics import Judged

SIZES_MM = ((3.0, "< 3 mm"), (5.0, "3–5 mm"), (7.0, "5–7 mm"), (10.0, "7–10 mm"))
LARGEST = "≥ 10 mm"
SIZES = (*(name for _, name in SIZES_MM), LARGEST)
_Z = 1.959964
_MOST_WEEKS = 53


@dataclass(frozen=True)
class Proportion:
    """`accepted` of `of`, and the 95 % interval of Wilson (JASA 1927)."""

    accepted: int
    of: int

    @property
    def low_high(self) -> tuple[float, float]:
        """Between 0 and 1; all of it where nothing was counted."""
        if not self.of:
            return 0.0, 1.0
        p, n, z2 = self.accepted / self.of, self.of, _Z**2
        middle = (p + z2 / (2 * n)) / (1 + z2 / n)
        half = _Z / (1 + z2 / n) * sqrt(p * (1 - p) / n + z2 / (4 * n * n))
        return max(middle - half, 0.0), min(middle + half, 1.0)

    @property
    def text(self) -> str:
        """`80 % (49–94)`."""
        if not self.of:
            return "–"
        low, high = self.low_high
        return f"{self.accepted / self.of:.0%} ({low * 100:.0f}–{high * 100:.0f})".replace("%", " %")


def proportion(judged: Sequence[Judged]) -> Proportion:
    """How many of these were accepted."""
    return Proportion(sum(each.accepted for each in judged), len(judged))


def size_name(diameter_mm: float) -> str:
    """The column of the size."""
    return next((name for below, name in SIZES_MM if diameter_mm < below), LARGEST)


def by_place_and_size(judged: Sequence[Judged]) -> list[tuple[str, list[Proportion], Proportion]]:
    """A line for each place, the most judged first: a cell for each of `SIZES`, and all sizes."""
    lines = []
    for place, _ in Counter(each.location for each in judged).most_common():
        here = [each for each in judged if each.location == place]
        cells = [proportion([each for each in here if size_name(each.diameter_mm) == size]) for size in SIZES]
        lines.append((wording.short_place(place), cells, proportion(here)))
    return lines


def reasons(judged: Sequence[Judged]) -> list[tuple[str, int]]:
    """Why findings were rejected, the most frequent first."""
    counted = Counter(each.reason for each in judged if not each.accepted)
    return [(REJECTIONS[Rejection(reason)], number) for reason, number in counted.most_common()]


def weeks(judged: Sequence[Judged]) -> list[tuple[date, int, int]]:
    """Each week's Monday, how many were accepted and rejected; weeks without any between them too, the last year's at most."""
    if not judged:
        return []
    mondays = [_monday(each.judged_at.date()) for each in judged]
    accepted = Counter(monday for monday, each in zip(mondays, judged, strict=True) if each.accepted)
    rejected = Counter(monday for monday, each in zip(mondays, judged, strict=True) if not each.accepted)
    last = max(mondays)
    first = max(min(mondays), last - timedelta(weeks=_MOST_WEEKS - 1))
    every = [first + timedelta(weeks=n) for n in range((last - first).days // 7 + 1)]
    return [(monday, accepted[monday], rejected[monday]) for monday in every]


def _monday(day: date) -> date:
    return day - timedelta(days=day.weekday())


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that at least this share of them do not exceed.  Raises ValueError without values."""
    if not values:
        raise ValueError("no values, no percentile")
    return sorted(values)[max(ceil(share * len(values)) - 1, 0)]
