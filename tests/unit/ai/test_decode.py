import math

import numpy as np
import pytest

from ai.decode import (
    NO_LESION_SCORE,
    Calibration,
    Candidate,
    Platt,
    candidates,
    findings,
    location_scores,
    present_score,
    rescored,
)
from ai.findings import MAX_LESIONS
from ai.inference import Maps
from ai.locations import LOCATIONS, Location
from tests.support.made_up_head import affine

AFFINE = affine((1.4, 1.4, 1.4), (-30.0, -40.0, 100.0))


def maps(blobs: list[tuple[tuple[int, int, int], float, float, Location]]) -> Maps:
    """Blobs of (cell, peak logit, diameter mm, location) on a quiet background."""
    shape = (40, 40, 44)
    lesion = np.full(shape, -9.0, np.float32)
    log_diameter = np.full(shape, np.log(5.0), np.float32)
    location = np.zeros((13, *shape), np.float16)
    grid = np.indices(shape)
    for cell, peak, diameter_mm, where in blobs:
        apart = 1.4 * np.linalg.norm(grid - np.array(cell)[:, None, None, None], axis=0)
        inside = apart <= diameter_mm / 2
        lesion = np.maximum(lesion, np.where(inside, peak, peak - 3.0 * (apart - diameter_mm / 2)).astype(np.float32))
        near = apart <= diameter_mm
        log_diameter[near] = np.log(diameter_mm)
        location[LOCATIONS.index(where), near] = 4.0
    return Maps(np.maximum(lesion, -9.0), location, log_diameter, AFFINE)


def test_a_blob_becomes_one_candidate_with_its_centre_diameter_and_location() -> None:
    found = candidates(maps([((20, 12, 30), 4.0, 6.0, Location.ACOM)]))
    assert len(found) == 1
    assert np.allclose(found[0].centre_lps_mm, (AFFINE @ [20, 12, 30, 1])[:3], atol=0.5)
    assert found[0].diameter_mm == pytest.approx(6.0, rel=0.1)
    assert LOCATIONS[int(np.argmax(found[0].location_shares))] is Location.ACOM
    assert found[0].location_shares.sum() == pytest.approx(1.0)


def test_the_mask_of_a_lesion_is_the_blob_and_nothing_of_its_neighbour() -> None:
    one, other = (20, 12, 30), (20, 18, 30)
    found = candidates(maps([(one, 4.0, 6.0, Location.ACOM), (other, 6.0, 5.0, Location.LEFT_ACA)]))
    mask = found[1].mask
    assert mask is not None and mask.cells_DHW.size <= 17**3
    near, far = ((AFFINE @ [*cell, 1])[:3] for cell in (one, other))
    assert list(mask.contains(np.array([near, near + 3.5, far]))) == [True, False, False]
    half_peak_mm = 6.0 + 2 * 4.0 / 3.0  # where the logit has fallen from 4 to 0
    assert mask.cells_DHW.sum() * 1.4**3 == pytest.approx(math.pi / 6 * half_peak_mm**3, rel=0.1)
    assert np.allclose(mask.centre_lps_mm, near, atol=0.3)
    lesion = findings(found[1:], Calibration(), 0.1).lesions[0]
    assert lesion.mask is mask


def test_a_large_lesion_is_not_reported_twice() -> None:
    assert len(candidates(maps([((20, 20, 20), 5.0, 16.0, Location.LEFT_MCA)]))) == 1


def test_two_lesions_are_told_apart_and_the_more_probable_one_comes_first() -> None:
    found = candidates(
        maps([((10, 10, 10), 1.0, 4.0, Location.RIGHT_MCA), ((28, 28, 30), 5.0, 5.0, Location.BASILAR_TIP)])
    )
    assert [LOCATIONS[int(np.argmax(each.location_shares))] for each in found] == [
        Location.BASILAR_TIP,
        Location.RIGHT_MCA,
    ]


def test_a_lesion_clearly_to_one_side_is_never_named_after_the_other() -> None:
    (found,) = candidates(maps([((10, 10, 10), 5.0, 6.0, Location.LEFT_MCA)]))
    assert found.centre_lps_mm[0] < candidates(maps([((10, 10, 30), 5.0, 6.0, Location.LEFT_MCA)]))[0].centre_lps_mm[0]
    assert LOCATIONS[int(np.argmax(found.location_shares))] is Location.RIGHT_MCA
    assert found.location_shares.sum() == pytest.approx(1.0)


def test_at_most_ten_lesions_are_reported() -> None:
    cells = [(d, h, 8 * w + 6) for d in (8, 20, 32) for h in (8, 28) for w in range(3)]
    found = candidates(maps([(cell, 3.0, 4.0, Location.LEFT_ACA) for cell in cells]))
    assert len(found) == MAX_LESIONS
    assert len(findings(found, Calibration(), 0.5).lesions) == MAX_LESIONS


def test_of_more_candidates_that_are_looked_at_again_the_best_ten_count() -> None:
    cells = [(d, h, 8 * w + 6) for d in (8, 20, 32) for h in (8, 28) for w in range(2)]
    found = candidates(maps([(cell, 3.0, 4.0, Location.LEFT_ACA) for cell in cells]), 12)
    seconds = [float(number) for number in range(12)]
    again = rescored(found, seconds, 0.0, 1.0, [0.0] * 12)
    assert len(found) == 12 and [one.score for one in again] == seconds[:1:-1]


def test_a_quiet_map_is_negative_and_says_so_with_fourteen_low_probabilities() -> None:
    result = findings(candidates(maps([])), Calibration(), 0.5)
    assert not result.positive and result.lesions == ()
    assert len(result.probabilities) == 14 and max(result.probabilities) < 0.01
    assert present_score(()) == NO_LESION_SCORE
    assert max(location_scores((), Calibration())) < NO_LESION_SCORE


def test_present_is_the_most_probable_lesion_and_below_the_threshold_nothing_is_listed() -> None:
    found = candidates(maps([((20, 20, 20), 1.0, 5.0, Location.RIGHT_PCOM)]))
    calibration = Calibration(Platt(2.0, -1.0), Platt(1.0, 0.0))
    high, low = (findings(found, calibration, threshold) for threshold in (0.99, 0.1))
    assert high.lesions == () and not high.positive
    assert low.positive and low.lesions[0].probability == low.present
    assert low.probabilities[LOCATIONS.index(Location.RIGHT_PCOM)] == max(low.probabilities[:13])


def test_a_doubtful_lesion_counts_more_at_its_place_than_what_a_certain_one_gives_other_places() -> None:
    certain, doubtful = (
        Candidate(score, (0.0, 0.0, 0.0), 5.0, np.eye(len(LOCATIONS))[LOCATIONS.index(place)] * 0.99 + 0.01 / 13)
        for score, place in ((15.0, Location.RIGHT_MCA), (-1.0, Location.BASILAR_TIP))
    )
    odds = dict(zip(LOCATIONS, location_scores((certain, doubtful), Calibration()), strict=True))
    assert odds[Location.RIGHT_MCA] > 4.0 > odds[Location.BASILAR_TIP] > -1.2
    assert max(score for place, score in odds.items() if place not in (Location.RIGHT_MCA, Location.BASILAR_TIP)) < -6.0


def test_a_calibration_is_a_logistic_curve_that_never_overflows() -> None:
    assert Platt(2.0, 1.0)(0.5) == pytest.approx(1 / (1 + math.exp(-2)))
    assert 0.0 <= Platt()(-1e6) < Platt()(1e6) <= 1.0
    with pytest.raises(ValueError, match="slope"):
        Platt(slope=-1.0)
    with pytest.raises(ValueError, match="slope"):
        Platt(slope=math.inf)
