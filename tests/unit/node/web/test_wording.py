"""How values read on a page."""

from datetime import UTC, timedelta

import pytest

from ai.locations import LOCATIONS
from node.results.rejections import REJECTIONS
from node.web import wording
from node.web.listing import Query
from storage.queries.reviews import Action, Entry, Rejection
from tests.support.builders import START


@pytest.mark.parametrize(
    ("dicom", "shown"),
    [
        ("Doe^Jane", "Doe, Jane"),
        ("Doe^Jane^Q^Dr^MD", "Doe, Jane Q"),
        ("Yamada^Tarou=\u5c71\u7530^\u592a\u90ce=x", "Yamada, Tarou (\u5c71\u7530, \u592a\u90ce)"),
        ("=\u5c71\u7530^\u592a\u90ce", "\u5c71\u7530, \u592a\u90ce"),
        ("", "No name"),
        ("^^^", "No name"),
        ("one", "one"),
    ],
)
def test_a_name_reads_as_people_write_it(dicom: str, shown: str) -> None:
    assert wording.person_name(dicom) == shown


def test_every_place_is_short() -> None:
    shown = [wording.short_place(location) for location in LOCATIONS]
    assert len(set(shown)) == len(shown)
    assert max(map(len, shown)) <= 18
    assert wording.short_place("Left Middle Cerebral Artery") == "L MCA"
    assert wording.short_place(None) == ""


@pytest.mark.parametrize(
    ("minutes", "shown"), [(-5, "now"), (0.9, "now"), (1, "1 min"), (119, "119 min"), (120, "2 h"), (4320, "3 days")]
)
def test_waiting_is_in_the_unit_that_people_use(minutes: float, shown: str) -> None:
    assert wording.waiting(START, START + timedelta(minutes=minutes)) == shown


@pytest.mark.parametrize(("p", "shown"), [(None, ""), (0.0, "< 1 %"), (0.126, "13 %"), (0.99, "99 %"), (1.0, "> 99 %")])
def test_no_probability_is_said_to_be_sure(p: float | None, shown: str) -> None:
    assert wording.percent(p) == shown


def test_the_day_is_shown_where_it_is_not_today() -> None:
    assert wording.clock_time(START, UTC, START) == "09:00:00"
    assert wording.clock_time(START, UTC, START + timedelta(days=1)) == "23 Nov 2026, 09:00"
    assert wording.clock_time(None, UTC) == ""


def test_a_date_that_is_none_is_shown_as_it_is() -> None:
    assert wording.date_text("20261123") == "23 Nov 2026"
    assert wording.date_text("<b>") == "<b>"


@pytest.mark.parametrize("action", Action)
def test_every_action_can_be_told(action: Action) -> None:
    entry = Entry(1, 1, START, "dr.a", action, False, "dr.b", 2, "vein")
    assert wording.entry_text(entry)


def test_every_reason_has_words() -> None:
    assert set(REJECTIONS) == set(Rejection)


@pytest.mark.parametrize(
    "values", [{"show": "x", "outcome": "<b>", "page": "-1"}, {"page": "1e9"}, {"page": "9" * 40}, {"page": "\u0661"}]
)
def test_filters_that_are_none_are_left_out(values: dict[str, str]) -> None:
    assert Query.of(values) == Query()
    assert Query.of(values).address() == ""


def test_filters_come_back_from_their_address() -> None:
    from urllib.parse import parse_qsl

    query = Query("mine", "positive", "a & b", 3)
    assert Query.of(dict(parse_qsl(query.address(page=3)))) == query
    assert Query.of(dict(parse_qsl(query.address()))).page == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"outcome": "negative", "limits": "noise", "detail": "", "conflicts": []}, "noise"),
        ({"outcome": "negative", "limits": None, "detail": "", "conflicts": ["instances_differ"]}, "instances differ"),
        ({"outcome": "positive", "limits": None, "detail": "", "conflicts": []}, ""),
        ({"outcome": "not_analysed", "limits": None, "detail": "3 slices", "conflicts": []}, ""),
    ],
)
def test_what_limits_an_answer_is_said_beside_it(row: dict[str, object], message: str) -> None:
    assert wording.limitation(row) == message
