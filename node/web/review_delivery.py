"""What becomes of a report and its review beyond the page: how they stand on their way, and why one does not go."""

from collections.abc import Sequence
from datetime import timedelta

from node.web import wording
from node.web.requests import Asked
from storage.queries.review_documents import REVIEW
from storage.queries.reviews import Review
from storage.queries.worklist import Row
from storage.records import Delivery
from storage.stages import DeliveryStage


def sent_back(asked: Asked, row: Row, decided: Review) -> str:
    """A sentence for whoever looks at the case; "" where no destination gets reviews, or there is no finding."""
    context, findings = asked.context, row["lesions"] or []
    names = [name for some in context.config.reviewing(row["calling_ae"]).values() for name in some]
    if not names or not findings or not row["report_uid"]:
        return ""
    to = " and ".join(names)
    if not decided.acknowledged_at:
        return f"Once the case is acknowledged and each finding judged, a verified report goes to {to}."
    if len(decided.verdicts) < len(findings):
        return f"Once each finding is judged, a verified report goes to {to}."
    by = context.store.accounts.named(decided.acknowledged_by)
    if by is None or not by.person_name:
        return (
            f"No report goes to {to}: the name of the person behind {decided.acknowledged_by} is not known. "
            f"`willis user set {decided.acknowledged_by} --person-name Doe^Jane` gives it."
        )
    changed_at = context.store.review_documents.changed_at(row["case_id"])
    if changed_at is None:
        return ""  # the timeline has when it was taken
    due_at = changed_at + timedelta(minutes=context.config.report.review_quiet_minutes)
    at = wording.clock_time(due_at, context.zone, context.clock())
    return f"A verified report goes to {to} after {at}, unless the review is changed or undone."


def replaced(asked: Asked, row: Row, deliveries: Sequence[Delivery]) -> str:
    """Where a verified report has taken the place of the report that is shown, and when; "" where none has."""
    taken = {
        each.destination: each.delivered_at
        for each in deliveries
        if each.revision == row["revision"] and each.kind.startswith(REVIEW) and each.delivered_at
    }
    now, zone = asked.context.clock(), asked.context.zone
    places = " and ".join(f"in {name} at {wording.clock_time(at, zone, now)}" for name, at in taken.items())
    return f"replaced by a verified report {places}" if places else ""


def undelivered(row: Row, deliveries: Sequence[Delivery]) -> list[str]:
    """A sentence for each object that a destination has not taken and is not sent by itself any longer."""
    return [_undelivered(row, each) for each in deliveries if each.stage is DeliveryStage.DEAD]


def _undelivered(row: Row, delivery: Delivery) -> str:
    of = f" of revision {delivery.revision}" if delivery.revision != row["revision"] else ""
    what = f"{delivery.destination} has not taken the {delivery.kind.replace('_', ' ')}{of}"
    why = f": {delivery.last_error.rstrip('.')}" if delivery.last_error else ""
    return f"{what}{why}. `willis retry {row['case_id']}` sends it again."
