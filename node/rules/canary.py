"""What is wrong with the answer to a canary: a synthetic series whose one aneurysm is known."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ai.wording import counted

FARTHEST_MM = 5.0
"""From the painted centre to that of the finding."""
OVERDUE, OVERDUE_PERIODS = timedelta(hours=6), 3
"""So long, and so many of its periods, a canary may give way to patients' series before that is a reason of health."""


@dataclass(frozen=True)
class Painted:
    """The aneurysm that was painted: where, in the field's words and in mm (LPS)."""

    location: str
    centre_lps_mm: tuple[float, float, float]


def trouble_of(painted: Painted, outcome: str, reason: str, lesions: Sequence[Mapping[str, Any]]) -> str:
    """In one line, "" where the answer is right: positive, and a finding at the location within `FARTHEST_MM`."""
    if outcome != "positive":
        return f"the answer is {outcome or 'none'}{f' ({reason})' if reason else ''}, and an aneurysm is painted"
    there = [each for each in lesions if each["location"] == painted.location]
    if not there:
        named = ", ".join(str(each["location"]) for each in lesions)
        return f"the findings are at {named}, and the aneurysm is painted at {painted.location}"
    nearest_mm = min(math.dist(each["centre_lps_mm"], painted.centre_lps_mm) for each in there)
    if nearest_mm > FARTHEST_MM:
        return f"the finding lies {nearest_mm:.1f} mm from the painted centre; at most {FARTHEST_MM:g} mm are right"
    return ""


def late_by(seconds: float, late_seconds: float) -> str:
    """That it took too long; "" where it did not."""
    return f"it took {seconds:.0f} s, longer than {late_seconds:g} s" if seconds > late_seconds else ""


def overdue(since: datetime, unanswered: int, period: timedelta, now: datetime) -> str:
    """That no canary had its turn for too long, in one line; "" where that is not so.

    `since`: when the last one was answered, or the node started.  `unanswered`: how many were sent since and gave way.
    """
    if now - since <= max(OVERDUE, OVERDUE_PERIODS * period):
        return ""
    why = "none was sent: a patient's series was in work each time, or the last canary cannot be removed"
    if unanswered:
        gave_way = counted(unanswered, "was sent and gave", "were sent and gave")
        why = f"{gave_way} way to patients' series, or to a restart"
    return (
        f"no canary was answered since {since:%Y-%m-%d %H:%M} UTC ({why}): whether the node answers rightly is not known; "
        "look at what waits in `willis status`, and at Canary in docs/operations.md"
    )
