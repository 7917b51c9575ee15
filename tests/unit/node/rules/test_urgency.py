"""What a radiologist should open next."""

import re
from datetime import timedelta
from pathlib import Path

import pytest

from ai.locations import LOCATIONS, Location
from node.rules.urgency import (
    LARGEST,
    LONGEST_WAIT,
    SITES,
    SIZES_MM,
    Group,
    rank,
    site_weight,
    size_weight,
    urgency,
    waiting_weight,
)
from tests.support.builders import START

NOW = timedelta()
GUIDE = Path(__file__).parents[4] / "docs" / "triage-page.md"


def test_more_probable_larger_worse_placed_and_longer_waiting_each_come_first() -> None:
    plain = urgency(0.8, 6.0, Location.LEFT_MCA, NOW)
    assert urgency(0.9, 6.0, Location.LEFT_MCA, NOW) > plain
    assert urgency(0.8, 7.0, Location.LEFT_MCA, NOW) > plain
    assert urgency(0.8, 6.0, Location.ACOM, NOW) > plain
    assert urgency(0.8, 6.0, Location.LEFT_MCA, timedelta(minutes=1)) > plain


def test_every_location_has_a_weight_and_an_unknown_one_neither_gains_nor_loses() -> None:
    assert set(SITES) == set(LOCATIONS)
    assert site_weight("Elsewhere") == site_weight(None) == 1.0


@pytest.mark.parametrize(
    ("mm", "weight"),
    [(0.0, 0.6), (2.9, 0.6), (3.0, 0.8), (6.9, 1.0), (7.0, 1.4), (19.9, 1.8), (20.0, 2.2), (None, 1.0)],
)
def test_the_weight_of_a_size_is_that_of_its_class(mm: float | None, weight: float) -> None:
    assert size_weight(mm) == weight


@pytest.mark.parametrize(
    ("minutes", "weight"), [(0, 1.0), (-5, 1.0), (30, 1.5), (60, 2.0), (720, 13.0), (100_000, 13.0)]
)
def test_waiting_weighs_more_by_the_minute_up_to_an_end(minutes: int, weight: float) -> None:
    assert waiting_weight(timedelta(minutes=minutes)) == weight


def test_no_wait_lifts_a_case_out_of_its_group() -> None:
    fresh = rank(Group.POSITIVE, 0.5, 2.0, None, START, START)
    old = rank(Group.NOT_ANALYSED, None, None, None, START - LONGEST_WAIT, START)
    assert sorted([old, fresh]) == [fresh, old]


def test_what_was_not_analysed_is_ranked_as_if_it_might_be_either() -> None:
    assert rank(Group.NOT_ANALYSED, None, None, None, START, START) == (Group.NOT_ANALYSED, -0.5)


def test_the_guide_shows_the_table() -> None:
    text = GUIDE.read_text("utf-8")
    for below, weight in SIZES_MM:
        assert re.search(rf"\| below {below:g} mm\s+\| {weight}\s+\|", text), below
    assert re.search(rf"\| larger\s+\| {LARGEST}\s+\|", text)
    for weight in set(SITES.values()):
        assert re.search(rf"\| {weight}\s+\|", text), weight
