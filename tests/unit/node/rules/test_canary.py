"""When the answer to a canary is right."""

from datetime import UTC, datetime, timedelta

import pytest

from node.rules.canary import Painted, late_by, overdue, trouble_of

PAINTED = Painted("Left Middle Cerebral Artery", (45.0, 14.0, -31.0))
RIGHT = {"location": PAINTED.location, "centre_lps_mm": [44.0, 14.0, -30.0]}


@pytest.mark.parametrize(
    ("outcome", "reason", "lesions", "said"),
    [
        ("positive", "", [RIGHT], ""),
        ("positive", "", [RIGHT | {"location": "Other"}, RIGHT], ""),
        ("negative", "", [], "the answer is negative, and an aneurysm is painted"),
        ("not_analysed", "no_contrast", [], "the answer is not_analysed (no_contrast)"),
        ("", "", [], "the answer is none"),
        ("positive", "", [RIGHT | {"location": "Basilar Tip"}], "the findings are at Basilar Tip, and the aneurysm"),
        ("positive", "", [RIGHT | {"centre_lps_mm": [45.0, 14.0, -25.9]}], "the finding lies 5.1 mm from"),
    ],
)
def test_an_answer_is_right_where_it_names_what_is_painted(
    outcome: str, reason: str, lesions: list[dict[str, object]], said: str
) -> None:
    found = trouble_of(PAINTED, outcome, reason, lesions)
    assert found.startswith(said) if said else found == ""


def test_an_answer_may_be_right_and_late() -> None:
    assert late_by(180, 180) == ""
    assert late_by(181, 180) == "it took 181 s, longer than 180 s"


@pytest.mark.parametrize(
    ("hours", "period_hours", "unanswered", "said"),
    [
        (6, 1, 0, ""),
        (6.1, 1, 0, "none was sent"),
        (6.1, 1, 1, "1 was sent and gave way"),
        (6.1, 2, 4, "4 were sent and gave way"),
        (71, 24, 0, ""),
        (73, 24, 0, "since 2026-03-01 08:00 UTC"),
    ],
)
def test_one_may_give_way_for_six_hours_and_for_three_of_its_periods(
    hours: float, period_hours: float, unanswered: int, said: str
) -> None:
    since = datetime(2026, 3, 1, 8, tzinfo=UTC)
    found = overdue(since, unanswered, timedelta(hours=period_hours), since + timedelta(hours=hours))
    assert said in found if said else found == ""
