"""How values read on a page: short places, minutes, names, outcomes.  Pure."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from ai.wording import counted
from node.results.rejections import REJECTIONS
from node.rules.reasons import explained
from storage.queries.reviews import Action, Entry, Rejection
from storage.queries.worklist import is_empty

SHORT_PLACES = {
    "Infraclinoid Internal Carotid Artery": "ICA infraclin.",
    "Supraclinoid Internal Carotid Artery": "ICA supraclin.",
    "Middle Cerebral Artery": "MCA",
    "Anterior Communicating Artery": "ACom",
    "Anterior Cerebral Artery": "ACA",
    "Posterior Communicating Artery": "PCom",
    "Other Posterior Circulation": "Post. circulation",
}
_STAGES = {
    "receiving": "Being received",
    "ready": "Waits for analysis",
    "analysing": "Being analysed",
    "failed": "Analysis failed",
}
_OUTCOMES = {
    "positive": "Suspected aneurysm",
    "negative": "No aneurysm detected",
    "not_analysed": "Not analysed",
    "not_eligible": "Not a head CTA",
    "covered": "Another reconstruction was analysed",
}
KINDS = {1: "positive", 2: "not-analysed", 3: "in-work", 4: "negative", 5: "other"}
"""By the priority of the view: what a row is drawn as."""
DELIVERIES = {
    "pending": "Report on its way",
    "delivered": "Report in the PACS",
    "committed": "Report kept by the PACS",
    "dead": "Report not delivered",
}
NOT_SENT = "Report not sent anywhere"
"""Where it has no destination."""


def short_place(location: str | None) -> str:
    """A vessel as neuroradiologists abbreviate it, `L MCA`."""
    place = location or ""
    for long, brief in SHORT_PLACES.items():
        place = place.replace(long, brief)
    return place.replace("Left ", "L ").replace("Right ", "R ")


def headline(row: Mapping[str, Any]) -> str:
    """What is known of the case in two or three words."""
    if is_empty(row):
        return "Empty: to be sent again"
    if row["priority"] == 3:
        return _STAGES.get(str(row["stage"]), "In work")
    return _OUTCOMES.get(row["outcome"] or "", _STAGES.get(str(row["stage"]), "In work"))


def plain_reason(row: Mapping[str, Any]) -> str:
    """Why there is no answer, as a sentence; "" where there is one."""
    return explained(row["reason"]) if row["reason"] else ""


def limitation(row: Mapping[str, Any]) -> str:
    """What limits an answer that was given nevertheless; "" where nothing does."""
    if row["outcome"] not in ("positive", "negative"):
        return ""
    limits = (row["limits"], row["detail"], *(each.replace("_", " ") for each in row["conflicts"] or ()))
    return "; ".join(each for each in limits if each)


def person_name(name: str) -> str:
    """A Person Name (PS3.5 6.2.1) for people: `Doe, Jane`, and what stands beside it in another script."""
    groups = [_name_group(group) for group in name.split("=")[:2]]
    shown = [group for group in groups if group]
    return f"{shown[0]} ({shown[1]})" if len(shown) > 1 else shown[0] if shown else "No name"


def _name_group(group: str) -> str:
    family, *given = [part.strip() for part in group.split("^")[:3]]
    rest = " ".join(part for part in given if part)
    return ", ".join(part for part in (family, rest) if part)


def waiting(since: datetime, now: datetime) -> str:
    """The time since then, in the unit that people would use."""
    minutes = max(int((now - since) / timedelta(minutes=1)), 0)
    if minutes < 1:
        return "now"
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // 1440} days"


def clock_time(at: datetime | None, zone: tzinfo | None, now: datetime | None = None) -> str:
    """When, on the wall; the day only where it is not today."""
    if at is None:
        return ""
    local = at.astimezone(zone)
    today = now is not None and local.date() == now.astimezone(zone).date()
    return f"{local:%H:%M:%S}" if today else f"{local:%d %b %Y, %H:%M}"


def date_text(dicom_date: str) -> str:
    """A DICOM date for people; as it is where it is none."""
    try:
        return f"{datetime.strptime(dicom_date, '%Y%m%d').replace(tzinfo=UTC):%d %b %Y}"
    except ValueError:
        return dicom_date


def percent(p: float | None) -> str:
    """A probability; never 100 % or 0 %, which nobody knows."""
    if p is None:
        return ""
    return "> 99 %" if p > 0.99 else "< 1 %" if p < 0.01 else f"{p * 100:.0f} %"


def probability(row: Mapping[str, Any]) -> str:
    """`P 50 %, reported from 65 %`: a probability means nothing without the threshold that it was held against."""
    threshold = row["threshold"]
    return f"P {percent(row['p_present'])}" + (f", reported from {percent(threshold)}" if threshold else "")


def entry_text(entry: Entry) -> str:
    """What somebody did, as the end of a sentence that begins with who."""
    of = f"finding {entry.finding}"
    match entry.action:
        case Action.ACKNOWLEDGED:
            return "acknowledged the case"
        case Action.REOPENED:
            return "opened the case again"
        case Action.ASSIGNED:
            return f"assigned the case to {entry.assigned_to}" if entry.assigned_to else "assigned the case to nobody"
        case Action.ACCEPTED:
            return f"accepted {of}"
        case Action.REJECTED:
            return f"rejected {of}: {REJECTIONS[Rejection(entry.reason)].lower()}"
        case Action.UNDONE:
            return "undid the last change"


def seconds_text(seconds: float) -> str:
    """A duration beside the timeline."""
    if abs(seconds) < 120:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return counted(round(seconds / 60), "min", "min") if seconds < 7200 else f"{seconds / 3600:.1f} h"
