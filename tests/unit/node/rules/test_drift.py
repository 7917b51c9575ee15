"""When a scanner has drifted: what is compared with what, how soon a change is noticed, and how seldom nothing is."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from node.rules.drift import BLOCK, FALSE_ALARMS_A_YEAR, LEAST_BASELINE, baseline_of, shifts, span_of, threshold
from storage.stages import Outcome
from tests.support.builders import START
from tests.support.simulated_scanner import CASES_A_DAY, alarms, cases

WEEKS = 4.0
BASELINE = int(WEEKS * 7 * CASES_A_DAY)


@pytest.mark.parametrize("named", [True, False])
def test_a_scanner_that_changes_its_kernel_is_noticed_within_60_cases(named: bool) -> None:
    rng = np.random.default_rng(7)
    within = []
    for _ in range(20):
        changed = BASELINE + int(rng.integers(200, 229))  # anywhere in a block
        known = cases(rng, START, changed)
        known += cases(rng, known[-1].at + timedelta(hours=2), 60, sharper=True, named=named)
        first = [after for after in alarms(known) if after > changed - BASELINE]
        within.append(bool(first))
    assert sum(within) >= 19


def test_a_year_in_which_nothing_changes_has_at_most_one_false_alarm_on_average() -> None:
    rng = np.random.default_rng(8)
    years = [len(list(alarms(cases(rng, START, 365 * CASES_A_DAY)))) for _ in range(4)]
    assert sum(years) <= len(years)


def test_the_threshold_leaves_as_many_false_alarms_to_a_year_however_many_scanners_there_are() -> None:
    rng = np.random.default_rng(9)
    one = threshold([span_of(cases(rng, START, 2000))])
    assert threshold([span_of(cases(rng, START, 2000))] * 4) == pytest.approx(one / 4)
    assert one * CASES_A_DAY * 365.25 / BLOCK * 8 == pytest.approx(FALSE_ALARMS_A_YEAR, rel=0.01)


def test_a_baseline_is_of_some_weeks_and_of_enough_cases() -> None:
    rng = np.random.default_rng(10)
    known = cases(rng, START, 2 * BASELINE)
    assert baseline_of(known, WEEKS) == BASELINE
    assert baseline_of(known[:BASELINE], WEEKS) == 0, "there is nothing to compare with it"
    assert baseline_of(known, 0.1) == LEAST_BASELINE
    assert baseline_of([], WEEKS) == 0


def test_what_is_compared_is_the_last_whole_block_and_what_was_not_measured_is_left_out() -> None:
    rng = np.random.default_rng(11)
    known = cases(rng, START, BASELINE + BLOCK)
    louder = [replace(case, noise_hu=3 * (case.noise_hu or 0)) for case in known[BASELINE:]]
    [shift] = [
        each
        for each in shifts({("PACS", "CT"): known[:BASELINE] + louder}, WEEKS)[("PACS", "CT")]
        if "noise" in each.what
    ]
    assert shift.now > 2 * shift.before
    assert shifts({("PACS", "CT"): known[:BASELINE] + louder[:-1]}, WEEKS) == {}
    unknown = [replace(case, noise_hu=None) for case in known]
    assert shifts({("PACS", "CT"): unknown}, WEEKS) == {}


def test_a_new_model_is_no_change_of_the_scanner_but_its_noise_still_is() -> None:
    rng = np.random.default_rng(12)
    known = cases(rng, START, BASELINE + BLOCK)
    answered = [replace(case, model="0.9.0", outcome=Outcome.POSITIVE, p_present=0.9) for case in known[BASELINE:]]
    assert shifts({("PACS", "CT"): known[:BASELINE] + answered}, WEEKS) == {}
    same_model = [replace(case, model="0.8.0") for case in answered]
    [shares] = shifts({("PACS", "CT"): known[:BASELINE] + same_model}, WEEKS).values()
    assert {each.what for each in shares} == {"probability", "share of positives"}
    louder = [replace(case, noise_hu=3 * (case.noise_hu or 0)) for case in answered]
    [shares] = shifts({("PACS", "CT"): known[:BASELINE] + louder}, WEEKS).values()
    assert [each.what for each in shares] == ["noise HU"]
