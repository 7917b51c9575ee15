"""Has a scanner changed?  Its last block of cases is compared with its baseline, measure by measure.

Two-sample Kolmogorov-Smirnov tests for what is a number, Fisher's exact test for what is a share.  A block is compared
once, when it is whole, so a year has a known number of comparisons; each may err so seldom that all of them together
raise `FALSE_ALARMS_A_YEAR` on average, however they depend on each other: expectations add up (Bonferroni, by rate).
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median

from storage.records import Measured
from storage.stages import Outcome

BLOCK, LEAST_BASELINE = 30, 60
"""Cases: of what is compared, and at least of what it is compared with."""
FALSE_ALARMS_A_YEAR = 0.5
LARGEST_P = 0.001
"""Of a test, however few there are in a year."""
YEAR = timedelta(days=365.25)


@dataclass(frozen=True)
class Shift:
    """`what` is not as it was: median, or share, `before` and `now`; `p` of its test."""

    what: str
    before: float
    now: float
    p: float


NUMBERS: Mapping[str, Callable[[Measured], float | None]] = {
    "probability": lambda case: case.p_present,
    "arterial HU": lambda case: case.arterial_hu,
    "noise HU": lambda case: case.noise_hu,
    "circle spread mm": lambda case: case.spread_mm,
    "dose mGy": lambda case: case.dose_mgy,
}
SHARES: Mapping[str, Callable[[Measured, str], bool]] = {
    "share of positives": lambda case, _usual: case.outcome is Outcome.POSITIVE,
    "share of limited images": lambda case, _usual: case.limited,
    "share of other kernels": lambda case, usual: case.kernel != usual,
}
OF_THE_MODEL = {"probability", "share of positives"}
"""Compared only among cases of one model: another one answers otherwise, whatever the scanner does."""
COMPARISONS = len(NUMBERS) + len(SHARES)


def baseline_of(cases: Sequence[Measured], weeks: float) -> int:
    """How many of a scanner's cases, in the order of time, are its baseline; 0 while it is not whole."""
    return baseline_size(len(cases), _within(cases, weeks))


def _within(cases: Sequence[Measured], weeks: float) -> int:
    """How many came in the first weeks."""
    until = cases[0].at + timedelta(weeks=weeks) if cases else None
    return 0 if until is None else sum(case.at < until for case in cases)


def baseline_size(count: int, within: int) -> int:
    """The same of `count` cases of which `within` came in the first weeks."""
    size = max(within, LEAST_BASELINE)
    return size if size < count else 0


def split(cases: Sequence[Measured], weeks: float) -> tuple[Sequence[Measured], Sequence[Measured]] | None:
    """A scanner's baseline and its last whole block; None where there is none of either yet."""
    begun, last = ends_of(len(cases), _within(cases, weeks))
    start = len(cases) - last
    return (cases[:begun], cases[start : start + BLOCK]) if begun else None


def ends_of(count: int, within: int) -> tuple[int, int]:
    """How many of a scanner's first cases are its baseline, and how many of its last begin with its last whole block.

    `count` in all, `within` of them in its first weeks.  (0, 0) where there is none of either yet.
    """
    begun = baseline_size(count, within)
    blocks = (count - begun) // BLOCK if begun else 0
    return (begun, count - begun - (blocks - 1) * BLOCK) if blocks else (0, 0)


def shifts(
    scanners: Mapping[tuple[str, str], Sequence[Measured]], weeks: float, largest_p: float | None = None
) -> dict[tuple[str, str], list[Shift]]:
    """What has shifted in the last whole block of each scanner, those without any left out.

    `largest_p`: their `threshold`, where not all cases of each are given, but its `ends_of` alone.
    """
    if largest_p is None:
        largest_p = threshold(map(span_of, scanners.values()))
    found = {}
    for scanner, cases in scanners.items():
        if parts := split(cases, weeks):
            found[scanner] = compare(*parts, largest_p)
    return {scanner: each for scanner, each in found.items() if each}


Span = tuple[int, datetime, datetime]
"""How many cases a scanner has, and when the first and the last came."""


def span_of(cases: Sequence[Measured]) -> Span:
    """Of a scanner that has cases, in the order of time."""
    return len(cases), cases[0].at, cases[-1].at


def threshold(scanners: Iterable[Span]) -> float:
    """The largest p of one test that is an alarm: so that a year's tests of all scanners raise as few as they may."""
    tests_a_year = sum(_cases_a_year(*span) / BLOCK * COMPARISONS for span in scanners)
    return min(LARGEST_P, FALSE_ALARMS_A_YEAR / tests_a_year) if tests_a_year else LARGEST_P


def _cases_a_year(count: int, first_at: datetime, last_at: datetime) -> float:
    return (count - 1) * (YEAR / max(last_at - first_at, timedelta(days=1)))


def compare(baseline: Sequence[Measured], block: Sequence[Measured], largest_p: float) -> list[Shift]:
    """What of the block differs from the baseline."""
    found = []
    for what in (*NUMBERS, *SHARES):
        before, now = _values(what, baseline, block)
        if _is_enough(before, now):
            found.append(Shift(what, _middle(what, before), _middle(what, now), _p(what, before, now)))
    return [shift for shift in found if shift.p < largest_p]


def then_and_now(what: str, cases: Sequence[Measured], weeks: float) -> tuple[float, float] | None:
    """Median, or share, of the baseline and of the last whole block; None where too little is known.  Tests nothing."""
    parts = split(cases, weeks)
    if parts is None:
        return None
    before, now = _values(what, *parts)
    return (_middle(what, before), _middle(what, now)) if _is_enough(before, now) else None


def usual_kernel(cases: Sequence[Measured]) -> str:
    """The one that most of them have; "" of none."""
    return next((kernel for kernel, _ in Counter(case.kernel for case in cases).most_common(1)), "")


def _values(
    what: str, baseline: Sequence[Measured], block: Sequence[Measured]
) -> tuple[Sequence[float], Sequence[float]]:
    """What is known of it in both; of a share 1 for each case that has it, else 0."""
    before, now = _comparable(what, baseline, block)
    if what in NUMBERS:
        return _known(before, NUMBERS[what]), _known(now, NUMBERS[what])
    usual, has = usual_kernel(baseline), SHARES[what]
    return [float(has(case, usual)) for case in before], [float(has(case, usual)) for case in now]


def _middle(what: str, values: Sequence[float]) -> float:
    return median(values) if what in NUMBERS else sum(values) / len(values)


def _p(what: str, before: Sequence[float], now: Sequence[float]) -> float:
    from scipy.stats import fisher_exact, ks_2samp  # a second of import, once an hour

    if what in NUMBERS:
        return float(ks_2samp(before, now, method="exact").pvalue)
    were, are = sum(before), sum(now)
    return float(fisher_exact([[were, len(before) - were], [are, len(now) - are]]).pvalue)


def _comparable(
    what: str, baseline: Sequence[Measured], block: Sequence[Measured]
) -> tuple[Sequence[Measured], Sequence[Measured]]:
    """The cases of both that say something of the scanner."""
    if what not in OF_THE_MODEL:
        return baseline, block
    model = block[-1].model
    return [case for case in baseline if case.model == model], [case for case in block if case.model == model]


def _is_enough(before: Sequence[float], now: Sequence[float]) -> bool:
    return len(before) >= LEAST_BASELINE // 2 and len(now) >= BLOCK // 2


def _known(cases: Sequence[Measured], value: Callable[[Measured], float | None]) -> list[float]:
    found = [value(case) for case in cases]
    return [each for each in found if each is not None and math.isfinite(each)]
