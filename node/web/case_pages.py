"""A case: what was found, the report, the timeline, what people decided."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from starlette.responses import RedirectResponse, Response

from ai.locations import Location
from node.config.types import LINK_VALUES
from node.results.rejections import REJECTIONS
from node.web import wording
from node.web.assignees import choices, no_assignee
from node.web.earlier_studies import HOW, changes, earlier_cases
from node.web.report_text import Line, report_lines
from node.web.requests import Asked
from node.web.review_delivery import replaced, sent_back, undelivered
from node.web.sign_in import form_key
from storage.errors import StorageError
from storage.queries.accounts import Role
from storage.queries.review_documents import REVIEW
from storage.queries.reviews import Action, ChangedMeanwhile, Entry, NotChanged, Rejection, Review, Verdict, Wanted
from storage.queries.worklist import Row
from storage.records import Delivery

NO_CASE = "There is no such case here. It may have been removed to make room; its report stays in the PACS."


def case(asked: Asked) -> Response:
    """The page."""
    row = row_of(asked)
    if row is None:
        return asked.page("error.html", 404, message=NO_CASE)
    asked.context.record_access(row, asked.account, asked.host, changed=False)
    return asked.page("case.html", **_shown(asked, row), **_around(asked, row))


def review(asked: Asked) -> Response:
    """The part that changes: findings, decisions, timeline, report; nothing when the browser has seen it so."""
    row = row_of(asked)
    if row is None:
        return asked.page("gone.html", message=NO_CASE)
    shown = _shown(asked, row)
    if asked.request.query_params.get("seen") == shown["state"]:
        return Response(status_code=204)
    return asked.page("review.html", **shown, report=_report(asked, row), is_part=True)


def change(asked: Asked) -> Response:
    """The review is changed as the form asks; or the page says who was faster."""
    row = row_of(asked)
    if row is None:
        return asked.page("error.html", 404, message=NO_CASE)
    message, status = _changed(asked, row), 200
    if message:
        status = 409
    else:
        asked.context.record_access(row, asked.account, asked.host, changed=True)
    if asked.form.get("from") == "list":
        return _answer_to_list(asked, row, message, status)
    if not asked.by_script and not message:
        return RedirectResponse(f"/cases/{row['case_id']}", 303)
    shown = _shown(asked, row) | {"message": message}
    if asked.by_script:
        return asked.page("review.html", status, **shown, report=_report(asked, row), is_part=True)
    return asked.page("case.html", status, **shown, **_around(asked, row))


def _answer_to_list(asked: Asked, row: Row, message: str, status: int) -> Response:
    """What was done, and how to undo it, above the list; the list itself is drawn anew."""
    if not asked.by_script:
        return RedirectResponse("/", 303) if not message else asked.page("error.html", status, message=message)
    decided = asked.context.store.reviews.of(row["case_id"])
    done = {"acknowledged": "Acknowledged:", "undone": "Undone:"}.get(asked.form.get("action", ""), "Changed:")
    answer = asked.page(
        "notice.html",
        status,
        message=message,
        done=done,
        patient=wording.person_name(row["patient_name"]),
        case_id=row["case_id"],
        review_version=decided.version if decided else 0,
        can_undo=asked.form.get("action") != Action.UNDONE,
    )
    answer.headers["HX-Trigger"] = "reviewed"
    return answer


def _changed(asked: Asked, row: Row) -> str:
    """The change was made: ""; else why not, as a sentence."""
    form, account = asked.form, asked.account
    action, to = form.get("action", ""), form.get("assigned_to", "")
    if action not in set(Action):
        return "That cannot be done with a case."
    if action == Action.ASSIGNED and to not in ("", account.name):
        if not account.may(Role.LEAD):
            return "Only a lead may give a case to somebody else."
        if why := no_assignee(asked.context.store.accounts, to):
            return f"{why}."
    version = _whole(form.get("version", ""))
    if version is None:
        return "It is not known on which state of the case this was decided: load the page again."
    wanted = Wanted(
        case_id=row["case_id"],
        version=version,
        action=Action(action),
        account=account.name,
        finding=_whole(form.get("finding", "")),
        reason=form.get("reason", ""),
        assigned_to=to,
        of_others=account.may(Role.LEAD),
    )
    try:
        asked.context.store.reviews.change(wanted, asked.context.clock())
    except ChangedMeanwhile as error:
        return _faster(asked, error.last)
    except NotChanged as error:
        message = str(error)
        return f"{message[0].upper()}{message[1:]}."
    return ""


def _faster(asked: Asked, last: Entry | None) -> str:
    if last is None:
        return "The case has changed meanwhile; what you see now is up to date."
    at = wording.clock_time(last.at, asked.context.zone, asked.context.clock())
    if last.account == asked.account.name:
        return f"You {wording.entry_text(last)} at {at}, before this. What you see now is up to date."
    return f"{last.account} was faster: {wording.entry_text(last)} at {at}. What you see now is up to date."


def _whole(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


def row_of(asked: Asked) -> Row | None:
    """The case that the address names; None where there is none."""
    return asked.context.store.worklist.case(str(asked.request.path_params["case"]))


def _shown(asked: Asked, row: Row) -> dict[str, Any]:
    """What the part that changes shows; `state` differs when any of it does, and for another sign-in, which has other forms."""
    values = _values(asked, row)
    state = hashlib.sha256(f"{form_key(asked.token)}{values!r}".encode()).hexdigest()[:16]
    return values | {"state": state, "message": ""}


def _values(asked: Asked, row: Row) -> dict[str, Any]:
    context = asked.context
    number = row["case_id"]
    decided = context.store.reviews.of(number) or Review(number, row["revision"])
    entries = context.store.reviews.entries(number)
    deliveries = context.store.worklist.deliveries(number)
    steps = _timeline(row, deliveries)
    earlier = context.store.earlier.cases(row)
    return {
        "row": row,
        "kind": wording.KINDS[row["priority"]],
        "headline": wording.headline(row),
        "patient": wording.person_name(row["patient_name"]),
        "study_date": wording.date_text(row["study_date"]),
        "percent": wording.percent(row["p_present"]),
        "probability": wording.probability(row),
        "reason": wording.plain_reason(row),
        "limited": wording.limitation(row),
        "last_slice_at": _at(asked, row["last_instance_at"]),
        "findings": _findings(row, decided, changes(row, earlier)),
        "earlier": earlier_cases(earlier),
        "how_compared": HOW,
        "probabilities": _probabilities(row),
        "review": decided,
        "entries": [(entry, wording.entry_text(entry), _at(asked, entry.at)) for entry in reversed(entries)],
        "steps": [(each, _at(asked, each.at)) for each in steps],
        "acknowledged_at": _at(asked, decided.acknowledged_at),
        "rejections": [(code.value, text) for code, text in REJECTIONS.items()],
        "assignees": choices(context.store.accounts.all(), decided.assigned_to) if asked.account.may(Role.LEAD) else [],
        "is_lead": asked.account.may(Role.LEAD),
        "can_undo": _can_undo(asked, entries, row),
        "has_ended": row["priority"] != 3,
        "sent_back": sent_back(asked, row, decided),
        "undelivered": undelivered(row, deliveries),
        "report_state": wording.DELIVERIES.get(row["delivery"] or "", wording.NOT_SENT),
        "replaced": replaced(asked, row, deliveries),
        "image_key": f"{row['revision']}-{row['instance_count']}-{row['report_uid'] or ''}",
    }


def _at(asked: Asked, at: datetime | None) -> str:
    return wording.clock_time(at, asked.context.zone, asked.context.clock())


def _can_undo(asked: Asked, entries: Sequence[Entry], row: Row) -> bool:
    last = next((e for e in reversed(entries) if not e.undone and e.action is not Action.UNDONE), None)
    return (
        last is not None
        and last.revision == row["revision"]
        and (last.account == asked.account.name or asked.account.may(Role.LEAD))
    )


def _findings(row: Row, decided: Review, changed: Mapping[int, str]) -> list[dict[str, Any]]:
    return [
        {
            "number": number,
            "place": wording.short_place(lesion["location"]),
            "location": lesion["location"],
            "diameter_mm": lesion["diameter_mm"],
            "p": lesion["probability"],
            "percent": wording.percent(lesion["probability"]),
            "verdict": decided.of(number),
            "rejection": _rejection(decided.of(number)),
            "change": changed.get(number, ""),
        }
        for number, lesion in enumerate(row["lesions"] or [], start=1)
    ]


def _rejection(verdict: Verdict | None) -> str:
    return REJECTIONS[Rejection(verdict.reason)] if verdict and not verdict.accepted else ""


def _probabilities(row: Row) -> list[tuple[str, float, str]]:
    """The 13 places, the most probable first; none where nothing was analysed."""
    found = [(location.value, row[f"p_{location.name.lower()}"]) for location in Location]
    known = [(wording.short_place(name), p, wording.percent(p)) for name, p in found if p is not None]
    return sorted(known, key=lambda each: -each[1])


@dataclass(frozen=True)
class Step:
    """Something that happened to the case, and how long after its last slice."""

    name: str
    at: datetime
    after: str = ""


def _timeline(row: Row, deliveries: Sequence[Delivery]) -> list[Step]:
    last = row["last_instance_at"]
    steps = [("First slice", row["first_instance_at"]), ("Last slice", last)]
    steps += [("Series is whole", row["ready_at"]), ("Analysis began", row["claimed_at"])]
    steps += [("Report made" if row["report_uid"] else "Ended", row["reported_at"])]
    for each in deliveries:
        steps += [(f"{each.destination} took the {each.kind.replace('_', ' ')}", each.delivered_at)]
        steps += [(f"{each.destination} has promised to keep it", each.committed_at)]
        if each.kind.startswith(REVIEW):
            steps += [(f"Review made for {each.destination}", each.created_at)]
    known = [Step(name, at, _after(at, last)) for name, at in steps if at is not None]
    return sorted(known, key=lambda step: step.at)


def _after(at: datetime, last: datetime) -> str:
    seconds = (at - last).total_seconds()
    return f"+ {wording.seconds_text(seconds)}" if seconds > 0 else ""


def _around(asked: Asked, row: Row) -> dict[str, Any]:
    return {"links": _links(asked, row), "report": _report(asked, row)}


def _links(asked: Asked, row: Row) -> list[tuple[str, str]]:
    values = {name: quote(row[name] or "", safe="") for name in LINK_VALUES}
    return [(name, template.format(**values)) for name, template in asked.context.config.web.links.items()]


def _report(asked: Asked, row: Row) -> list[Line]:
    """Its lines; none where it cannot be had now."""
    if not row["report_path"]:
        return []
    files, queue = asked.context.files, asked.context.store.queue
    path = files.root / row["report_path"]
    if files.objects is not None and not path.exists() and (last := queue.predecessor(row["case_id"])):
        try:
            path = files.here(last[1])  # it was made on another host
        except StorageError:
            return []
    return report_lines(path)
