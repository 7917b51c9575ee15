import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ai.decode import NO_LESION_SCORE, Calibration, Candidate, Platt
from ai.findings import Lesion
from ai.locations import COLUMNS, LOCATIONS, Location
from training.cases import Case, Scored, case, is_hit
from training.figures import figures, headline
from training.phantom.scan import TrueLesion

ACOM, LEFT_MCA = Location.ACOM, Location.LEFT_MCA


def probabilities(present: float, **located: float) -> tuple[float, ...]:
    named = {Location[name]: value for name, value in located.items()}
    return (*(named.get(location, 0.05) for location in LOCATIONS), present)


def made_up_cases() -> list[Case]:
    """Four scans: a 6 mm and a 3.5 mm sac found, a 2 mm one missed, and one negative scan called positive."""
    found = TrueLesion(ACOM, (0.0, 0.0, 0.0), 6.0)
    small = TrueLesion(LEFT_MCA, (30.0, 0.0, 0.0), 3.5)
    missed = TrueLesion(ACOM, (0.0, 50.0, 0.0), 2.0)
    return [
        Case(
            1,
            (found, small),
            ("loop",),
            probabilities(0.9, ACOM=0.8, LEFT_MCA=0.6),
            (Lesion(ACOM, 0.9, (1.0, 0.0, 0.0), 6.5), Lesion(ACOM, 0.6, (30.0, 2.0, 0.0), 3.0)),
        ),
        Case(2, (missed,), (), probabilities(0.3, ACOM=0.3), (Lesion(ACOM, 0.3, (0.0, 20.0, 0.0), 2.0),)),
        Case(3, (), ("loop", "clip"), probabilities(0.7, LEFT_MCA=0.7), (Lesion(LEFT_MCA, 0.7, (9.0, 9.0, 9.0), 4.0),)),
        Case(4, (), (), probabilities(0.1), ()),
    ]


@pytest.fixture
def found() -> dict[str, Any]:
    return figures(made_up_cases(), 0.5, draws=50)


def test_a_hit_is_within_the_radius_and_small_lesions_get_three_millimetres() -> None:
    large, small = TrueLesion(ACOM, (0.0, 0.0, 0.0), 8.0), TrueLesion(ACOM, (0.0, 0.0, 0.0), 2.0)
    assert is_hit((4.0, 0.0, 0.0), large) and not is_hit((4.01, 0.0, 0.0), large)
    assert is_hit((0.0, 3.0, 0.0), small) and not is_hit((0.0, 3.01, 0.0), small)


def test_lesions_whose_size_is_not_known_are_in_no_figure_by_size() -> None:
    cases = [replace(one, sized=False) for one in made_up_cases()]
    found, known = (figures(each, 0.5, draws=0) for each in (cases, made_up_cases()))
    assert found["by_size"]["all"] == known["by_size"]["all"]
    for name, row in found["by_size"].items():
        assert name == "all" or (row["lesions"] == 0 and math.isnan(row["at_threshold"]))
    placed = found["localisation"]
    assert placed["median_centre_error_mm"] == known["localisation"]["median_centre_error_mm"]
    assert math.isnan(placed["median_absolute_diameter_error_mm"]) and math.isnan(placed["diameter_bias_mm"])
    assert math.isnan(headline(cases, 0.5)["sensitivity_at_half_from_4mm"])
    assert found["froc"] == known["froc"] and found["competition_score"] == known["competition_score"]


def test_counts_and_aucs_by_hand(found: dict[str, Any]) -> None:
    assert (found["scans"], found["positive_scans"], found["confounded_scans"]) == (4, 2, 2)
    assert found["auc_present"] == pytest.approx(0.75)  # .9 beats both, .3 only .1
    assert found["auc"][ACOM.value] == 1.0 and found["auc"][LEFT_MCA.value] == pytest.approx(2 / 3)
    assert math.isnan(found["auc"][Location.BASILAR_TIP.value])
    assert found["auc_locations"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["competition_score"] == pytest.approx(0.5 * (0.75 + (1 + 2 / 3) / 2))


def test_the_calls_at_the_threshold_by_hand(found: dict[str, Any]) -> None:
    called = found["at_threshold"]
    assert (called["sensitivity"], called["specificity"], called["false_positives_per_scan"]) == (0.5, 0.5, 0.25)
    assert (called["ppv"], called["npv"]) == (pytest.approx(0.045), pytest.approx(0.955))
    assert found["calibration"]["brier"] == pytest.approx((0.01 + 0.49 + 0.49 + 0.01) / 4)


def test_froc_sizes_and_locations_by_hand(found: dict[str, Any]) -> None:
    # false marks .7 and .3 in four scans: .125 allows none above .7, from .25 on one, from .5 on both
    assert found["froc"]["sensitivity"] == [pytest.approx(x) for x in (1 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3)]
    assert found["froc"]["cpm"] == pytest.approx((1 / 3 + 6 * 2 / 3) / 7)
    sizes = {name: (row["lesions"], row["at_half_a_false_positive"]) for name, row in found["by_size"].items()}
    assert sizes["under_3mm"] == (1, 0.0) and sizes["3_to_7mm"] == (2, 1.0)
    assert sizes["3_to_4mm"] == (1, 1.0) and sizes["from_4mm"] == (1, 1.0)
    assert sizes["over_7mm"][0] == 0 and math.isnan(sizes["over_7mm"][1])
    assert found["by_location"][ACOM.value]["at_threshold"] == 0.5
    assert found["by_location"][LEFT_MCA.value]["lesions"] == 1


def test_centre_diameter_and_name_of_what_was_reported(found: dict[str, Any]) -> None:
    assert found["localisation"] == {
        "lesions_found": 2,
        "median_centre_error_mm": 1.5,
        "median_absolute_diameter_error_mm": 0.5,
        "diameter_bias_mm": pytest.approx(0.0),  # half a millimetre too much and too little
        "right_location": 0.5,
    }


def test_false_positives_are_counted_under_each_confounder(found: dict[str, Any]) -> None:
    rows = found["confounders"]
    assert set(rows) == {"loop", "clip", "none"}
    assert (rows["loop"]["scans"], rows["loop"]["false_positives"]) == (2, 1)
    assert rows["loop"]["negatives_called_positive"] == rows["clip"]["negatives_called_positive"] == 1.0
    assert (rows["none"]["false_positives"], rows["none"]["negatives_called_positive"]) == (0, 0.0)


def test_intervals_hold_their_figures(found: dict[str, Any]) -> None:
    for name, value in headline(made_up_cases(), 0.5).items():
        if name in found["intervals_95"] and math.isfinite(value):
            low, high = found["intervals_95"][name]
            assert low <= value <= high, name
    assert {"auc_present", "competition_score", "cpm", "sensitivity_at_half_from_4mm"} <= set(found["intervals_95"])


def test_a_method_without_marks_has_no_froc() -> None:
    bare = [Case(one.seed, one.lesions, one.confounders, one.probabilities, None) for one in made_up_cases()]
    found = figures(bare, 0.5, draws=0)
    assert found["auc_present"] == pytest.approx(0.75) and found["intervals_95"] == {}
    assert not {"froc", "by_size", "by_location", "localisation"} & set(found)
    assert "false_positives_per_scan" not in found["at_threshold"]
    assert "false_positives" not in found["confounders"]["loop"]
    with pytest.raises(ValueError, match="no analysed scans"):
        figures([], 0.5)


def test_a_second_mark_on_a_lesion_is_neither_a_hit_more_nor_a_false_positive() -> None:
    lesion = TrueLesion(ACOM, (0.0, 0.0, 0.0), 6.0)
    twice = tuple(Lesion(ACOM, p, (x, 0.0, 0.0), 6.0) for p, x in ((0.6, 1.0), (0.9, -1.0)))
    one = Case(1, (lesion,), (), probabilities(0.9), twice)
    assert one.lesion_scores == (0.9,) and one.false_marks == ()


def test_scores_are_calibrated_and_all_marks_are_kept() -> None:
    candidate = Candidate(-3.0, (1.0, 0.0, 0.0), 5.0, np.eye(13)[6])
    calibration = Calibration(Platt(2.0, 1.0), Platt(1.0, 0.0))
    made = case(Scored(7, (), (candidate,)), calibration)
    assert made.present == pytest.approx(1 / (1 + math.exp(5.0)))
    assert made.marks is not None and made.marks[0].location is ACOM and made.marks[0].probability == made.present
    empty = case(Scored(8, (), ()), calibration)
    assert empty.marks == () and empty.present == calibration.present(NO_LESION_SCORE)


def test_a_scan_that_was_not_analysed_is_no_case() -> None:
    with pytest.raises(ValueError, match="coverage"):
        case(Scored(7, (), (), reason="coverage"), Calibration())
    given = case(Scored(7, (), (), probabilities=(0.5,) * 14), Calibration())
    assert given.marks is None and given.probabilities == (0.5,) * len(COLUMNS)
