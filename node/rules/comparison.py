"""How two models compare on the same series: agreement, findings side by side, and both against what people said.

The figures are of agreement, not of truth: where people judged, they judged what the first had reported and nothing else, so
that a lesion which only the second finds is never counted for it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

WITHIN_MM = 5.0
"""Two findings whose centres are no farther apart are one."""
_Z95 = 1.959964


@dataclass(frozen=True)
class Compared:
    """One series: what both say of it.  `verdicts`: by finding of the first, from 1, whether people accepted it."""

    first_present: bool
    first_notify: bool | None
    first_p_present: float
    first_lesions: Sequence[dict[str, Any]]
    present: bool
    notify: bool | None
    p_present: float
    lesions: Sequence[dict[str, Any]]
    verdicts: dict[int, bool]


@dataclass(frozen=True)
class Share:
    """So many of so many, with the 95 % interval of Wilson (JASA 1927); all 0 to 1 where there are none."""

    count: int
    of: int
    low: float
    high: float


@dataclass(frozen=True)
class Agreement:
    """A table of two by two; Cohen's kappa with its 95 % interval, None where it is not defined (both always say the same)."""

    both: int
    only_first: int
    only_second: int
    neither: int
    kappa: float | None
    kappa_low: float | None
    kappa_high: float | None


@dataclass(frozen=True)
class Judged:
    """Both on the findings that people judged.  `first_right`, `second_right`: accepted and found, or rejected and not found.

    `p_value`: McNemar's exact test of whether they are right equally often.
    """

    accepted: int
    accepted_found: Share
    rejected: int
    rejected_found: Share
    first_right: Share
    second_right: Share
    only_first_right: int
    only_second_right: int
    p_value: float


@dataclass(frozen=True)
class Comparison:
    """All of it.  Differences of P(present) are the second's less the first's, in percent points of probability / 100."""

    series: int
    report: Agreement
    notify: Agreement
    within_mm: float
    findings_first: int
    findings_second: int
    findings_matched: int
    difference_mean: float | None
    difference_low: float | None
    difference_high: float | None
    difference_absolute_most: float | None
    judged: Judged


def compare(series: Sequence[Compared], within_mm: float = WITHIN_MM) -> Comparison:
    """How both compare.  `difference_low` and `_high`: the 2.5th and 97.5th percentile."""
    matches = [matched(each.first_lesions, each.lesions, within_mm) for each in series]
    notified = [(each.first_notify, each.notify) for each in series]
    differences = sorted(each.p_present - each.first_p_present for each in series)
    return Comparison(
        series=len(series),
        report=agreement([(each.first_present, each.present) for each in series]),
        notify=agreement([(a, b) for a, b in notified if a is not None and b is not None]),
        within_mm=within_mm,
        findings_first=sum(len(each.first_lesions) for each in series),
        findings_second=sum(len(each.lesions) for each in series),
        findings_matched=sum(len(each) for each in matches),
        difference_mean=sum(differences) / len(differences) if differences else None,
        difference_low=_quantile(differences, 0.025),
        difference_high=_quantile(differences, 0.975),
        difference_absolute_most=max((abs(each) for each in differences), default=None),
        judged=_judged(
            [
                (accepted, finding - 1 in found)
                for each, found in zip(series, matches, strict=True)
                for finding, accepted in each.verdicts.items()
                if 1 <= finding <= len(each.first_lesions)
            ]
        ),
    )


def matched(
    first: Sequence[dict[str, Any]], second: Sequence[dict[str, Any]], within_mm: float = WITHIN_MM
) -> dict[int, int]:
    """Which of `second` is which of `first`, by index: the nearest pairs first, each finding in one pair at most."""
    pairs = sorted(
        (distance, a, b)
        for a, one in enumerate(first)
        for b, other in enumerate(second)
        if (distance := math.dist(one["centre_lps_mm"], other["centre_lps_mm"])) <= within_mm
    )
    found: dict[int, int] = {}
    for _, a, b in pairs:
        if a not in found and b not in found.values():
            found[a] = b
    return found


def agreement(pairs: Sequence[tuple[bool, bool]]) -> Agreement:
    """Of what the first and the second say.

    The interval is kappa ± 1.96 √(p(1 - p) / n) / (1 - e), p the share that agrees and e what chance would give
    (Cohen, Educational and Psychological Measurement 1960); coarse where there are few.
    """
    counted = {(a, b): sum(pair == (a, b) for pair in pairs) for a in (True, False) for b in (True, False)}
    both, only_first = counted[True, True], counted[True, False]
    only_second, neither = counted[False, True], counted[False, False]
    table = (both, only_first, only_second, neither)
    if not pairs:
        return Agreement(*table, None, None, None)
    n = len(pairs)
    agreed = (both + neither) / n
    chance = ((both + only_first) * (both + only_second) + (only_second + neither) * (only_first + neither)) / n**2
    if chance >= 1.0:
        return Agreement(*table, None, None, None)
    kappa = (agreed - chance) / (1.0 - chance)
    half = _Z95 * math.sqrt(agreed * (1.0 - agreed) / n) / (1.0 - chance)
    return Agreement(*table, kappa, max(-1.0, kappa - half), min(1.0, kappa + half))


def _judged(findings: Sequence[tuple[bool, bool]]) -> Judged:
    """Of (whether people accepted the finding, whether the second has it too)."""
    accepted = [is_found for is_accepted, is_found in findings if is_accepted]
    rejected = [is_found for is_accepted, is_found in findings if not is_accepted]
    lost, spared = len(accepted) - sum(accepted), len(rejected) - sum(rejected)
    return Judged(
        len(accepted),
        share(sum(accepted), len(accepted)),
        len(rejected),
        share(sum(rejected), len(rejected)),
        share(len(accepted), len(findings)),
        share(sum(accepted) + spared, len(findings)),
        lost,
        spared,
        mcnemar(lost, spared),
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """McNemar's test, exact: the two-sided binomial test of the pairs that differ (McNemar, Psychometrika 1947)."""
    pairs, fewer = only_first + only_second, min(only_first, only_second)
    return min(1.0, float(2 * sum(math.comb(pairs, k) for k in range(fewer + 1)) / 2**pairs))


def share(count: int, of: int) -> Share:
    """With its interval."""
    if not of:
        return Share(0, 0, 0.0, 1.0)
    z2 = _Z95**2
    middle = (count + z2 / 2) / (of + z2)
    half = _Z95 * math.sqrt(count * (of - count) / of + z2 / 4) / (of + z2)
    return Share(count, of, max(0.0, middle - half), min(1.0, middle + half))


def _quantile(ordered: Sequence[float], share_below: float) -> float | None:
    if not ordered:
        return None
    at = share_below * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])
