"""Proportions, percentiles and weeks."""

from datetime import date, timedelta

import pytest
from scipy.stats import binomtest

from node.web import measures
from storage.queries.statistics import Judged
from tests.support.builders import START

MCA, ACOM = "Left Middle Cerebral Artery", "Anterior Communicating Artery"


def judged(accepted: bool, location: str = MCA, diameter_mm: float = 6.0, days: int = 0, reason: str = "") -> Judged:
    return Judged(1, START + timedelta(days=days), accepted, reason, "0.7.0", location, 0.9, diameter_mm)


@pytest.mark.parametrize(("accepted", "of"), [(0, 1), (1, 1), (8, 10), (0, 40), (40, 40), (333, 1000)])
def test_the_interval_is_wilsons(accepted: int, of: int) -> None:
    theirs = binomtest(accepted, of).proportion_ci(0.95, method="wilson")
    assert measures.Proportion(accepted, of).low_high == pytest.approx((theirs.low, theirs.high), abs=1e-6)


def test_a_proportion_of_nothing_says_nothing() -> None:
    assert (measures.Proportion(0, 0).text, measures.Proportion(0, 0).low_high) == ("–", (0.0, 1.0))
    assert measures.Proportion(8, 10).text == "80 % (49–94)"


def test_findings_are_counted_by_place_and_size() -> None:
    found = [judged(True), judged(False, diameter_mm=10.0), judged(False, ACOM, 2.9), judged(True, diameter_mm=5.0)]
    [mca, acom] = measures.by_place_and_size(found)
    assert (mca[0], [(each.accepted, each.of) for each in mca[1]]) == (
        "L MCA",
        [(0, 0), (0, 0), (2, 2), (0, 0), (0, 1)],
    )
    assert (acom[0], [each.of for each in acom[1]], acom[2].of) == ("ACom", [1, 0, 0, 0, 0], 1)


def test_weeks_begin_on_mondays_and_a_week_without_verdicts_is_there_too() -> None:
    found = [judged(True), judged(False, days=6), judged(True, days=14)]
    assert measures.weeks(found) == [(date(2026, 11, 23), 1, 1), (date(2026, 11, 30), 0, 0), (date(2026, 12, 7), 1, 0)]
    assert len(measures.weeks([judged(True), judged(True, days=3000)])) == 53
    assert measures.weeks([]) == []


@pytest.mark.parametrize(("share", "value"), [(0.5, 2.0), (0.51, 3.0), (0.95, 4.0), (1.0, 4.0)])
def test_a_percentile_is_one_of_the_values(share: float, value: float) -> None:
    assert measures.percentile([4.0, 1.0, 3.0, 2.0], share) == value


def test_reasons_are_named_the_most_frequent_first() -> None:
    found = [judged(False, reason="vein"), judged(False, reason="artefact"), judged(False, reason="vein"), judged(True)]
    assert measures.reasons(found) == [("Vein", 2), ("Artefact", 1)]
