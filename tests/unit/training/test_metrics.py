import math

import numpy as np
import pytest

from training.metrics import (
    FROC_RATES,
    auc,
    bootstrap,
    brier,
    calibration_bins,
    competition_score,
    cpm,
    ece,
    froc,
    mean_of_known,
    median,
    predictive_values,
    roc_curve,
    sensitivity_above,
    share,
    threshold_at,
)

INF = math.inf


def auc_of_pairs(scores: list[float], positive: list[bool]) -> float:
    """By definition: the share of (positive, negative) pairs that are ordered rightly."""
    scans = list(zip(scores, positive, strict=True))
    pairs = [(one, other) for one, has in scans if has for other, lacks in scans if not lacks]
    return sum((one > other) + 0.5 * (one == other) for one, other in pairs) / len(pairs)


@pytest.mark.parametrize(
    ("scores", "positive", "area"),
    [
        ([1, 2, 3, 4], [False, False, True, True], 1.0),
        ([4, 3, 2, 1], [False, False, True, True], 0.0),
        ([1, 1], [False, True], 0.5),
        ([0.1, 0.4, 0.35, 0.8], [False, False, True, True], 0.75),
        ([1, 2, 2, 3], [False, True, False, True], 3.5 / 4),
    ],
)
def test_auc_counts_rightly_ordered_pairs_and_ties_as_half(
    scores: list[float], positive: list[bool], area: float
) -> None:
    assert auc(scores, positive) == pytest.approx(area)


def test_auc_needs_both_classes() -> None:
    assert math.isnan(auc([1, 2], [True, True])) and math.isnan(auc([1, 2], [False, False])) and math.isnan(auc([], []))


def test_auc_is_that_of_all_pairs_and_of_the_trapezoids_under_the_curve() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores = rng.integers(0, 8, 30).astype(float).tolist()
        positive = [bool(p) for p in rng.random(30) < 0.4]
        assert auc(scores, positive) == pytest.approx(auc_of_pairs(scores, positive))
        false_rate, true_rate = roc_curve(scores, positive)
        assert (false_rate[0], true_rate[0], false_rate[-1], true_rate[-1]) == (0, 0, 1, 1)
        assert np.trapezoid(true_rate, false_rate) == pytest.approx(auc(scores, positive))


def test_the_competition_score_is_half_presence_half_the_mean_location() -> None:
    assert competition_score(0.9, [0.8] * 12 + [0.2]) == pytest.approx(0.5 * (0.9 + 9.8 / 13))
    assert competition_score(0.9, [0.8, float("nan"), 0.6]) == pytest.approx(0.5 * (0.9 + 0.7))
    assert math.isnan(competition_score(0.9, [float("nan")])) and math.isnan(mean_of_known([]))


@pytest.mark.parametrize(
    ("rate", "threshold"),
    [(0.0, 0.9), (0.24, 0.9), (0.25, 0.7), (0.5, 0.7), (0.75, 0.2), (1.0, -INF), (8.0, -INF)],
)
def test_the_threshold_lets_at_most_the_rate_of_false_positives_through(rate: float, threshold: float) -> None:
    false = [0.7, 0.2, 0.9, 0.7]
    assert threshold_at(false, 4, rate) == threshold
    assert sum(score > threshold for score in false) <= rate * 4
    assert threshold_at([], 4, rate) == -INF


def test_a_rate_that_is_a_whole_number_of_marks_is_not_lost_to_rounding() -> None:
    assert threshold_at([3.0, 2.0, 1.0, 0.0], 30, 0.1) == 0.0  # 0.1 · 30 is 3.0000000000000004 or less


def test_sensitivity_counts_lesions_above_and_never_one_without_a_mark() -> None:
    assert sensitivity_above([0.9, 0.5, -INF], 0.5) == pytest.approx(1 / 3)
    assert sensitivity_above([0.9, 0.5, -INF], -INF) == pytest.approx(2 / 3)
    assert math.isnan(sensitivity_above([], 0.5))


def test_froc_and_cpm_by_hand() -> None:
    # 8 scans, so the rates allow 1, 2, 4, 8, 16, 32, 64 false positives; there are 5
    false = [0.95, 0.85, 0.6, 0.5, 0.1]
    lesions = [0.9, 0.7, 0.3, -INF]
    by_hand = [0.25, 0.5, 0.75, 0.75, 0.75, 0.75, 0.75]
    assert froc(lesions, false, 8) == by_hand
    assert cpm(lesions, false, 8) == pytest.approx(sum(by_hand) / 7)
    assert FROC_RATES == (0.125, 0.25, 0.5, 1, 2, 4, 8)


def test_froc_never_falls_as_more_false_positives_are_allowed() -> None:
    rng = np.random.default_rng(1)
    curve = froc(rng.random(40).tolist(), rng.random(300).tolist(), 50)
    assert curve == sorted(curve)


def test_predictive_values_follow_bayes() -> None:
    ppv, npv = predictive_values(0.878, 0.978)  # 11,633 scans at 4.5 %: a PPV of 65 % was published
    assert ppv == pytest.approx(0.045 * 0.878 / (0.045 * 0.878 + 0.955 * 0.022)) and round(ppv, 2) == 0.65
    assert npv == pytest.approx(0.955 * 0.978 / (0.955 * 0.978 + 0.045 * 0.122))
    assert predictive_values(0.5, 0.5, 0.5) == (0.5, 0.5)
    nothing_positive, all_negative = predictive_values(0.0, 1.0, 0.1)
    assert math.isnan(nothing_positive) and all_negative == pytest.approx(0.9)
    assert math.isnan(predictive_values(1.0, 0.0)[1])


def test_brier_is_the_mean_squared_error() -> None:
    assert brier([0.9, 0.2], [True, False]) == pytest.approx((0.01 + 0.04) / 2)
    assert brier([1.0, 0.0], [True, False]) == 0.0 and math.isnan(brier([], []))


def test_ece_weighs_each_bin_by_its_count() -> None:
    probabilities, truth = [0.05, 0.15, 0.15, 0.95, 1.0], [False, True, False, True, True]
    means, shares, counts = zip(*calibration_bins(probabilities, truth), strict=True)
    assert means == pytest.approx((0.05, 0.15, 0.975)) and (shares, counts) == ((0.0, 0.5, 1.0), (1, 2, 2))
    assert ece(probabilities, truth) == pytest.approx((1 * 0.05 + 2 * 0.35 + 2 * 0.025) / 5)
    assert math.isnan(ece([], []))


def test_shares_and_medians_of_nothing_are_not_a_number() -> None:
    assert share([True, False, True, True]) == 0.75 and math.isnan(share([]))
    assert median([3.0, 1.0, 2.0]) == 2.0 and math.isnan(median([]))


def test_bootstrap_intervals_hold_the_statistic_and_repeat() -> None:
    scans = np.random.default_rng(2).normal(10.0, 2.0, 200).tolist()

    def statistics(sample: object) -> dict[str, float]:
        return {"mean": float(np.mean(sample)), "never": float("nan")}  # type: ignore[call-overload]

    first, again = (bootstrap(statistics, scans, times=400) for _ in range(2))
    assert first == again and set(first) == {"mean"}
    low, high = first["mean"]
    standard_error = 2.0 / math.sqrt(200)
    assert low < np.mean(scans) < high
    assert high - low == pytest.approx(2 * 1.96 * standard_error, rel=0.15)
