"""Two models on the same series, with figures that are known from elsewhere."""

from typing import Any

import pytest

from node.rules.comparison import Compared, agreement, compare, matched, mcnemar, share


def at(*centre: float) -> dict[str, Any]:
    return {"centre_lps_mm": list(centre)}


def test_kappa_and_its_interval_are_those_of_a_table_worked_out_by_hand() -> None:
    pairs = [(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 10 + [(False, False)] * 15
    found = agreement(pairs)
    assert (found.both, found.only_first, found.only_second, found.neither) == (20, 5, 10, 15)
    assert found.kappa == pytest.approx(0.4)  # (.7 - .5) / (1 - .5)
    assert found.kappa_low == pytest.approx(0.14596, abs=1e-4)
    assert found.kappa_high == pytest.approx(0.65404, abs=1e-4)


def test_kappa_is_not_defined_where_both_always_say_the_same_or_nothing_was_compared() -> None:
    assert agreement([(False, False)] * 9).kappa is None
    assert agreement([]).kappa is None


def test_each_finding_is_in_one_pair_at_most_and_the_nearest_pair_comes_first() -> None:
    assert matched([at(0, 0, 0), at(4, 0, 0)], [at(3, 0, 0)], 5.0) == {1: 0}
    assert matched([at(0, 0, 0)], [at(3, 4, 0)], 5.0) == {0: 0}
    assert matched([at(0, 0, 0)], [at(3, 4, 0.1)], 5.0) == {}


def test_mcnemar_is_the_two_sided_binomial_test_of_the_pairs_that_differ() -> None:
    assert mcnemar(0, 0) == mcnemar(800, 800) == 1.0
    assert mcnemar(1, 5) == pytest.approx(0.21875)  # 2 (1 + 6) / 64
    assert mcnemar(0, 6) == pytest.approx(0.03125)


def test_the_interval_of_a_share_is_wilson_s() -> None:
    found = share(8, 10)
    assert found.low == pytest.approx(0.4902, abs=1e-4)
    assert found.high == pytest.approx(0.9433, abs=1e-4)
    assert (share(0, 0).low, share(0, 0).high) == (0.0, 1.0)


def test_both_are_held_against_what_people_said_of_the_first_s_findings() -> None:
    one = Compared(
        True, True, 0.9, [at(0, 0, 0), at(40, 0, 0), at(80, 0, 0)], True, False, 0.7, [at(1, 0, 0), at(80, 0, 1)],
        {1: True, 2: False, 3: False, 4: True},
    )  # fmt: skip
    other = Compared(True, True, 0.8, [at(0, 0, 0)], False, False, 0.1, [], {1: True})
    found = compare([one, other], 5.0)
    assert (found.findings_first, found.findings_second, found.findings_matched) == (4, 2, 2)
    judged = found.judged
    assert (judged.accepted, judged.accepted_found.count, judged.rejected, judged.rejected_found.count) == (2, 1, 2, 1)
    assert (judged.first_right.count, judged.first_right.of, judged.second_right.count) == (2, 4, 2)
    assert (judged.only_first_right, judged.only_second_right, judged.p_value) == (1, 1, 1.0)
    assert found.difference_mean == pytest.approx(-0.45)
    assert found.difference_absolute_most == pytest.approx(0.7)
    assert (found.report.both, found.report.only_first, found.notify.only_first) == (1, 1, 2)
