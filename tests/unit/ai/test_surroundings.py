"""Where a candidate lies, and in what."""

from dataclasses import replace

import numpy as np
import pytest

from ai.affine import starting_at
from ai.preprocess import Region
from ai.surroundings import NAMES, place_scores, surroundings
from ai.volume import Volume
from tests.support.made_up_head import affine

SIDE, STEP_MM = 96, 0.7
CIRCLE = (2.0, -3.0, 40.0)
ORBIT = (20.0, -3.0, 40.0)


def region() -> Region:
    """Brain of 40 HU, with a ball of fat of 10 mm about `ORBIT` and a crumb of bone in its middle; beyond x = 34 mm, bone."""
    low = np.array(CIRCLE)[::-1] - STEP_MM * (SIDE - 1) / 2
    z, y, x = np.meshgrid(*(start + STEP_MM * np.arange(SIDE) for start in low), indexing="ij")
    from_orbit = np.sqrt((x - ORBIT[0]) ** 2 + (y - ORBIT[1]) ** 2 + (z - ORBIT[2]) ** 2)
    hu = np.where(from_orbit < 10, -90, np.where(x > 34, 900, 40))
    hu[from_orbit < 2] = 400
    return Region(hu.astype(np.int16), affine((STEP_MM,) * 3, tuple(low[::-1])), CIRCLE)


def named(region: Region, place: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip(NAMES, surroundings(region, [place])[0].tolist(), strict=True))


def test_a_crumb_in_an_orbit_lies_in_fat_and_one_in_a_cistern_does_not() -> None:
    orbit, cistern = named(region(), ORBIT), named(region(), (-15.0, 0.0, 40.0))
    assert orbit["fat_near"] > 0.4 and orbit["fat_far"] < 0.05
    assert not any(cistern[name] for name in ("fat_near", "bone_near", "air_near"))
    assert orbit["bone_far"] > 0.02 and orbit["bone_near"] == 0.0  # the crumb itself does not count


def test_a_place_at_the_edge_of_the_region_or_outside_it_is_measured_too() -> None:
    found = surroundings(region(), [(CIRCLE[0] - 33.0, CIRCLE[1] - 33.0, CIRCLE[2] + 33.0), (500.0, 0.0, 0.0)])
    assert np.isfinite(found).all() and (found <= 1.0).all() and not found[1].any()


def test_what_lies_beyond_the_end_of_the_series_is_no_air() -> None:
    whole, place = region(), (CIRCLE[0], CIRCLE[1], CIRCLE[2] - 20.0)
    hu = whole.hu_DHW.copy()
    first = 13  # the series begins 5 mm below the place; the region holds air below it
    hu[:first] = -1024
    cut = replace(whole, hu_DHW=hu)
    volume = Volume(hu[first:], starting_at(whole.affine_lps, (first, 0, 0)))
    assert named(cut, place)["air_far"] > 0.3
    found = dict(zip(NAMES, surroundings(cut, [place], volume)[0].tolist(), strict=True))
    assert (found["air_near"], found["air_far"]) == (0.0, 0.0)
    np.testing.assert_array_equal(surroundings(cut, [ORBIT], volume), surroundings(whole, [ORBIT]))


def test_a_place_only_ever_counts_against_a_candidate() -> None:
    weights = [0.0] * len(NAMES)
    weights[NAMES.index("fat_near")] = -4.0
    around = surroundings(region(), [ORBIT, CIRCLE])
    fat = around[0, NAMES.index("fat_near")]
    assert place_scores(around, weights, -1.0) == pytest.approx([1.0 - 4.0 * fat, 0.0], abs=1e-5)
    assert place_scores(around, (), 5.0) == [0.0, 0.0] and place_scores(around[:0], weights, 0.0) == []


def test_a_head_turned_about_its_middle_line_has_the_same_shares() -> None:
    mirrored = replace(region(), hu_DHW=region().hu_DHW[:, :, ::-1])
    np.testing.assert_allclose(
        surroundings(region(), [ORBIT]), surroundings(mirrored, [(2 * CIRCLE[0] - ORBIT[0], *ORBIT[1:])]), atol=0.01
    )
