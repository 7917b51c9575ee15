"""Figures of merit, pure: numbers in, numbers out.

Scores may have any scale.  nan means that there was nothing to measure.
"""

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
FloatArray = NDArray[np.float64]

FROC_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives a scan at which CPM averages the sensitivity."""
PREVALENCE = 0.045
"""Share of positive scans in routine head CTA at which PPV and NPV are stated."""


def auc(scores: Sequence[float], positive: Sequence[bool]) -> float:
    """Area under the ROC curve; ties count half; nan when one class is missing."""
    values, truth = np.asarray(scores, float), np.asarray(positive, bool)
    if truth.all() or not truth.any():
        return float("nan")
    ordered = np.sort(values[~truth])
    below = np.searchsorted(ordered, values[truth], "left")
    tied = np.searchsorted(ordered, values[truth], "right") - below
    return float((below + 0.5 * tied).mean() / len(ordered))


def roc_curve(scores: Sequence[float], positive: Sequence[bool]) -> tuple[FloatArray, FloatArray]:
    """False and true positive rates from (0, 0) to (1, 1), one point for each distinct score."""
    values, truth = np.asarray(scores, float), np.asarray(positive, bool)
    thresholds = np.unique(values)[::-1]
    rates = [np.array([(values[which] >= t).mean() for t in thresholds]) for which in (~truth, truth)]
    return np.append(0.0, rates[0]), np.append(0.0, rates[1])


def mean_of_known(values: Sequence[float]) -> float:
    """The mean of the values that are finite; nan when none is."""
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else float("nan")


def competition_score(present_auc: float, location_aucs: Sequence[float]) -> float:
    """½ (AUC of "Aneurysm Present" + mean AUC of the locations), over the locations that have an AUC."""
    return 0.5 * (present_auc + mean_of_known(location_aucs))


def threshold_at(false_scores: Sequence[float], scans: int, rate: float) -> float:
    """The score above which at most `rate` false positives a scan lie; −inf when all may be counted.

    Marks of exactly this score are not counted, true or false, so that ties never exceed the rate.
    """
    allowed = math.floor(rate * scans + 1e-9)
    worst_first = sorted(false_scores, reverse=True)
    return worst_first[allowed] if allowed < len(worst_first) else -math.inf


def sensitivity_above(lesion_scores: Sequence[float], threshold: float) -> float:
    """The share of lesions whose best mark has a score above the threshold; −inf stands for a lesion without a mark."""
    if not lesion_scores:
        return float("nan")
    return sum(score > threshold for score in lesion_scores) / len(lesion_scores)


def froc(
    lesion_scores: Sequence[float], false_scores: Sequence[float], scans: int, rates: Sequence[float] = FROC_RATES
) -> list[float]:
    """The lesion sensitivity at each rate of false positives a scan (a step function, not interpolated)."""
    return [sensitivity_above(lesion_scores, threshold_at(false_scores, scans, rate)) for rate in rates]


def cpm(lesion_scores: Sequence[float], false_scores: Sequence[float], scans: int) -> float:
    """The competition performance metric: the mean sensitivity at `FROC_RATES`."""
    return float(np.mean(froc(lesion_scores, false_scores, scans)))


def predictive_values(sensitivity: float, specificity: float, prevalence: float = PREVALENCE) -> tuple[float, float]:
    """PPV and NPV at a prevalence (Bayes); nan where nothing would be called positive, or negative."""
    true_positive, false_positive = sensitivity * prevalence, (1.0 - specificity) * (1.0 - prevalence)
    true_negative, false_negative = specificity * (1.0 - prevalence), (1.0 - sensitivity) * prevalence
    called_positive, called_negative = true_positive + false_positive, true_negative + false_negative
    return (
        true_positive / called_positive if called_positive else float("nan"),
        true_negative / called_negative if called_negative else float("nan"),
    )


def brier(probabilities: Sequence[float], positive: Sequence[bool]) -> float:
    """The mean squared difference between probability and truth."""
    if not probabilities:
        return float("nan")
    return float(np.mean((np.asarray(probabilities, float) - np.asarray(positive, float)) ** 2))


def calibration_bins(
    probabilities: Sequence[float], positive: Sequence[bool], bins: int = 10
) -> list[tuple[float, float, int]]:
    """(mean probability, share positive, count) of each equally wide bin that holds anything."""
    values, truth = np.asarray(probabilities, float), np.asarray(positive, float)
    which = np.minimum((values * bins).astype(int), bins - 1)
    return [
        (float(values[inside].mean()), float(truth[inside].mean()), int(inside.sum()))
        for inside in (which == number for number in range(bins))
        if inside.any()
    ]


def ece(probabilities: Sequence[float], positive: Sequence[bool], bins: int = 10) -> float:
    """The expected calibration error: the bins' distance between probability and truth, weighted by their counts."""
    if not probabilities:
        return float("nan")
    found = calibration_bins(probabilities, positive, bins)
    return sum(count * abs(mean - share) for mean, share, count in found) / len(probabilities)


def share(hits: Sequence[bool]) -> float:
    """The share that is true; nan of nothing."""
    return sum(hits) / len(hits) if hits else float("nan")


def median(values: Sequence[float]) -> float:
    """The median; nan of nothing."""
    return float(np.median(values)) if values else float("nan")


def bootstrap(
    statistics: Callable[[Sequence[T]], dict[str, float]], scans: Sequence[T], times: int = 1000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """The 95 % interval of each statistic over scans drawn with replacement; draws where it is nan are left out.

    A statistic that no draw can give is left out too.
    """
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {}
    for _ in range(times):
        sample = [scans[int(i)] for i in rng.integers(0, len(scans), len(scans))]
        for name, value in statistics(sample).items():
            if math.isfinite(value):
                drawn.setdefault(name, []).append(value)
    return {
        name: (float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975))) for name, values in drawn.items()
    }
