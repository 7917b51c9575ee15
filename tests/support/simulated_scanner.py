"""A scanner's cases as a node measures them, drawn; for what is said of drift.  Pure numbers, no image."""

from collections.abc import Iterator
from datetime import datetime, timedelta

import numpy as np

from node.rules.drift import BLOCK, baseline_of, compare, span_of, threshold
from storage.records import Measured
from storage.stages import Outcome

SITE, SCANNER = "PACS", "Acme / CT 9000 / ROOM2"
CASES_A_DAY = 12
"""Of head CT angiography, as a large hospital has them."""


def cases(
    rng: np.random.Generator, start: datetime, count: int, sharper: bool = False, named: bool = True
) -> list[Measured]:
    """`sharper`: with a harder kernel: noise 1.4 times, arteries 3 % brighter, and, `named`, its name in the header."""
    noise = rng.lognormal(np.log(12.0), 0.25, count) * (1.4 if sharper else 1.0)
    arterial = rng.normal(380, 70, count) * (1.03 if sharper else 1.0)
    p_present, spread, dose = rng.beta(0.4, 2.0, count), rng.gamma(4.0, 1.1, count), rng.normal(45, 6, count)
    is_other = rng.random(count) < 0.05
    return [
        Measured(
            SCANNER,
            "H30s" if is_other[number] else ("H50s" if sharper and named else "H40s"),
            float(arterial[number]),
            float(noise[number]),
            float(spread[number]),
            float(dose[number]),
            at=start + timedelta(days=number / CASES_A_DAY),
            site=SITE,
            model="0.8.0",
            outcome=Outcome.POSITIVE if p_present[number] > 0.65 else Outcome.NEGATIVE,
            limited=bool(noise[number] > 25),
            p_present=float(p_present[number]),
        )
        for number in range(count)
    ]


def alarms(known: list[Measured], weeks: float = 4.0) -> Iterator[int]:
    """After how many cases since the baseline each block alarmed, as an hourly look at it would have."""
    begun = baseline_of(known, weeks)
    for end in range(begun + BLOCK, len(known) + 1, BLOCK):
        if compare(known[:begun], known[end - BLOCK : end], threshold([span_of(known[:end])])):
            yield end - begun
