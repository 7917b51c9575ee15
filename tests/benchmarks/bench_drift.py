"""How soon a simulated scanner that changes its kernel is noticed, and how many years without a change have an alarm.

`python -m tests.benchmarks.bench_drift [YEARS] [CHANGES]`: the figures of docs/operations.md, in about four minutes.
"""

import sys
from datetime import UTC, datetime, timedelta

import numpy as np

from tests.support.simulated_scanner import CASES_A_DAY, alarms, cases

START = datetime(2026, 1, 1, tzinfo=UTC)
BASELINE = 28 * CASES_A_DAY


def noticed_after(rng: np.random.Generator, named: bool) -> int:
    """Cases from the change to the alarm; 0 where there is none within 120."""
    changed = BASELINE + int(rng.integers(300, 330))
    known = cases(rng, START, changed)
    known += cases(rng, known[-1].at + timedelta(hours=2), 120, sharper=True, named=named)
    return next((after - changed + BASELINE for after in alarms(known) if after > changed - BASELINE), 0)


def main(years: int, changes: int) -> None:
    """Prints both."""
    rng = np.random.default_rng(2026)
    for named in (True, False):
        after = np.array([noticed_after(rng, named) for _ in range(changes)])
        within = int(((after > 0) & (after <= 60)).sum())
        kernel = "named in the header" if named else "not named in the header"
        how_soon = f"median {np.median(after[after > 0]):.0f}, most {after.max()}"
        print(f"kernel {kernel}: {within} of {changes} changes noticed within 60 cases, {how_soon}", flush=True)
    counted = [len(list(alarms(cases(rng, START, 365 * CASES_A_DAY)))) for _ in range(years)]
    mean, error = np.mean(counted), np.sqrt(max(sum(counted), 1)) / years
    low, high = max(0, mean - 1.96 * error), mean + 1.96 * error
    print(f"{years} years without a change: {sum(counted)} alarms, {mean:.3f} a year (95 % {low:.3f} to {high:.3f})")


if __name__ == "__main__":
    given = [int(each) for each in sys.argv[1:3]]
    main(*(given + [200, 200][len(given) :]))
