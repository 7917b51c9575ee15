"""How much a finding has grown since an earlier study."""

import pytest

from node.rules.growth import GROWTH_ERROR_MM, Growth, growths

MCA, ACOM = "Left Middle Cerebral Artery", "Anterior Communicating Artery"


def test_a_finding_is_compared_with_the_one_at_the_same_location() -> None:
    found = growths([(MCA, 6.5), (ACOM, 3.5)], [(ACOM, 3.0)])
    assert found == [Growth(MCA, 6.5, None), Growth(ACOM, 3.5, 3.0)]
    assert [each.change_mm for each in found] == [None, 0.5]


@pytest.mark.parametrize(
    ("now", "then"), [([(MCA, 6.5), (MCA, 3.5)], [(MCA, 3.0)]), ([(MCA, 6.5)], [(MCA, 3.0), (MCA, 5.0)])]
)
def test_two_findings_at_one_location_are_not_paired_by_guessing(
    now: list[tuple[str, float]], then: list[tuple[str, float]]
) -> None:
    assert growths(now, then) == []


def test_two_measurements_of_one_aneurysm_differ_by_twice_a_millimetre_at_most() -> None:
    assert pytest.approx(2.01, abs=0.01) == GROWTH_ERROR_MM


@pytest.mark.parametrize(("change_mm", "exceeds"), [(2.0, False), (2.1, True), (-2.1, True), (0.0, False)])
def test_a_change_counts_from_where_measuring_twice_does_not_explain_it(change_mm: float, exceeds: bool) -> None:
    assert Growth(MCA, 6.0 + change_mm, 6.0).exceeds_error is exceeds
