"""Cases become the figures of a report."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ai.locations import COLUMNS, LOCATIONS
from training.cases import Case
from training.metrics import (
    FROC_RATES,
    PREVALENCE,
    auc,
    bootstrap,
    brier,
    competition_score,
    cpm,
    ece,
    froc,
    mean_of_known,
    median,
    predictive_values,
    sensitivity_above,
    share,
    threshold_at,
)
from training.phantom.scan import TrueLesion

Figures = dict[str, Any]

SIZES_MM: Mapping[str, tuple[float, float]] = {
    "all": (0.0, math.inf),
    "under_3mm": (0.0, 3.0),
    "3_to_7mm": (3.0, 7.0),
    "over_7mm": (7.0, math.inf),
    "3_to_4mm": (3.0, 4.0),
    "from_4mm": (4.0, math.inf),
}
"""Name → diameters from (included) and to (excluded)."""
STATED_RATE = 0.5
"""False positives a scan at which the sensitivity by size and location is stated."""


def figures(cases: Sequence[Case], threshold: float, draws: int = 1000) -> Figures:
    """Return every figure by name, nested by topic; nan where there was nothing to measure.

    `threshold`: the probability from which a mark is reported and a scan called positive.  `draws`: of the bootstrap
    over scans behind the 95 % intervals; 0 for none.  FROC, sizes, locations and localisation are left out when the
    method gives no marks.  Raises ValueError without cases.
    """
    if not cases:
        raise ValueError("there are no analysed scans to measure")
    found: Figures = {
        "scans": len(cases),
        "positive_scans": sum(case.positive for case in cases),
        "confounded_scans": sum(bool(case.confounders) for case in cases),
        "auc": aucs(cases),
        "threshold": threshold,
        "at_threshold": at_threshold(cases, threshold),
        "calibration": {
            "brier": brier([case.present for case in cases], [case.positive for case in cases]),
            "ece": ece([case.present for case in cases], [case.positive for case in cases]),
        },
        "confounders": by_confounder(cases, threshold),
    }
    found["auc_present"] = found["auc"][COLUMNS[-1]]
    found["auc_locations"] = mean_of_known([found["auc"][location.value] for location in LOCATIONS])
    found["competition_score"] = competition_of(found["auc"])
    if has_marks(cases):
        found |= {
            "froc": {
                "false_positives_per_scan": list(FROC_RATES),
                "sensitivity": froc(*_flat(cases), len(cases)),
                "cpm": cpm(*_flat(cases), len(cases)),
            },
            "by_size": by_size(cases, threshold),
            "by_location": by_location(cases, threshold),
            "localisation": localisation(cases, threshold),
        }
    found["intervals_95"] = bootstrap(lambda sample: headline(sample, threshold), cases, draws) if draws else {}
    return found


def has_marks(cases: Sequence[Case]) -> bool:
    """Whether the method says where, and not only whether."""
    return all(case.marks is not None for case in cases)


def aucs(cases: Sequence[Case]) -> dict[str, float]:
    """The AUC of each of the 14 columns; nan for a location that never or always occurs."""
    return {
        name: auc([case.probabilities[column] for case in cases], [case.truth[column] for case in cases])
        for column, name in enumerate(COLUMNS)
    }


def competition_of(by_column: Mapping[str, float]) -> float:
    """The challenge's score of 14 AUCs."""
    return competition_score(by_column[COLUMNS[-1]], [by_column[location.value] for location in LOCATIONS])


def at_threshold(cases: Sequence[Case], threshold: float) -> dict[str, float]:
    """How scans are called at the threshold, PPV and NPV at the prevalence of routine head CTA."""
    sensitivity = share([case.present >= threshold for case in cases if case.positive])
    specificity = share([case.present < threshold for case in cases if not case.positive])
    ppv, npv = predictive_values(sensitivity, specificity)
    found = {
        "sensitivity": sensitivity,
        "specificity": specificity,
        "prevalence": PREVALENCE,
        "ppv": ppv,
        "npv": npv,
    }
    if has_marks(cases):
        found["false_positives_per_scan"] = sum(case.false_positives(threshold) for case in cases) / len(cases)
    return found


def by_size(cases: Sequence[Case], threshold: float) -> dict[str, dict[str, float]]:
    """Lesions and their sensitivity, at the threshold and at half a false positive a scan, by diameter."""
    return {
        name: _sensitivities(cases, threshold, _lesions(cases, low, high)) for name, (low, high) in SIZES_MM.items()
    }


def by_location(cases: Sequence[Case], threshold: float) -> dict[str, dict[str, float]]:
    """Lesions and their sensitivity, at the threshold and at half a false positive a scan, by true location."""
    return {
        location.value: _sensitivities(
            cases, threshold, [one for one in _lesions(cases) if one[1].location is location]
        )
        for location in LOCATIONS
    }


def localisation(cases: Sequence[Case], threshold: float) -> dict[str, float]:
    """How well the lesions that were reported are placed, measured (where their diameters are known) and named.

    The bias is found minus true.
    """
    pairs = [(case.best_mark(lesion, threshold), lesion, case.sized) for case, lesion, _ in _lesions(cases)]
    found = [(mark, lesion) for mark, lesion, _ in pairs if mark is not None]
    errors = [math.dist(mark.centre_lps_mm, lesion.centre_lps_mm) for mark, lesion in found]
    excess = [mark.diameter_mm - lesion.diameter_mm for mark, lesion, sized in pairs if mark is not None and sized]
    return {
        "lesions_found": len(found),
        "median_centre_error_mm": median(errors),
        "median_absolute_diameter_error_mm": median([abs(value) for value in excess]),
        "diameter_bias_mm": sum(excess) / len(excess) if excess else float("nan"),
        "right_location": share([mark.location is lesion.location for mark, lesion in found]),
    }


def by_confounder(cases: Sequence[Case], threshold: float) -> dict[str, dict[str, float]]:
    """False positives of the scans with each confounder, and of those with none.

    A scan with several counts under each.  `negatives_called_positive` is the share of its negative scans.
    """
    names = sorted({name for case in cases for name in case.confounders})
    groups = {name: [case for case in cases if name in case.confounders] for name in names}
    groups["none"] = [case for case in cases if not case.confounders]
    found = {}
    for name, group in groups.items():
        if not group:
            continue
        found[name] = {
            "scans": len(group),
            "negatives_called_positive": share([case.present >= threshold for case in group if not case.positive]),
        }
        if has_marks(group):
            false = sum(case.false_positives(threshold) for case in group)
            found[name] |= {"false_positives": false, "false_positives_per_scan": false / len(group)}
    return found


def headline(cases: Sequence[Case], threshold: float) -> dict[str, float]:
    """The figures that get an interval, flat."""
    by_column = aucs(cases)
    called = at_threshold(cases, threshold)
    found = {
        "auc_present": by_column[COLUMNS[-1]],
        "auc_locations": mean_of_known([by_column[location.value] for location in LOCATIONS]),
        "competition_score": competition_of(by_column),
        "sensitivity": called["sensitivity"],
        "specificity": called["specificity"],
    }
    if has_marks(cases):
        scores, false = _flat(cases)
        found["cpm"] = cpm(scores, false, len(cases))
        at_rate = threshold_at(false, len(cases), STATED_RATE)
        for name, (low, high) in SIZES_MM.items():
            found[f"sensitivity_at_half_{name}"] = sensitivity_above(
                [score for _, _, score in _lesions(cases, low, high)], at_rate
            )
        for rate, value in zip(FROC_RATES, froc(scores, false, len(cases)), strict=True):
            found[f"sensitivity_at_{rate:g}"] = value
    return found


Found = tuple[Case, TrueLesion, float]
"""A lesion of a case with the score of its best mark."""


def _sensitivities(cases: Sequence[Case], threshold: float, lesions: Sequence[Found]) -> dict[str, float]:
    at_rate = threshold_at(_flat(cases)[1], len(cases), STATED_RATE)
    return {
        "lesions": len(lesions),
        "at_threshold": share([score >= threshold for _, _, score in lesions]),
        "at_half_a_false_positive": sensitivity_above([score for _, _, score in lesions], at_rate),
    }


def _lesions(cases: Sequence[Case], low_mm: float = 0.0, high_mm: float = math.inf) -> list[Found]:
    """Those of a range of diameters; one whose diameter is not known is in the range of all alone."""
    every = (low_mm, high_mm) == (0.0, math.inf)
    return [
        (case, lesion, score)
        for case in cases
        for lesion, score in zip(case.lesions, case.lesion_scores, strict=True)
        if every or (case.sized and low_mm <= lesion.diameter_mm < high_mm)
    ]


def _flat(cases: Sequence[Case]) -> tuple[list[float], list[float]]:
    """The best score of every lesion, and the score of every false mark."""
    return (
        [score for case in cases for score in case.lesion_scores],
        [mark.probability for case in cases for mark in case.false_marks],
    )
