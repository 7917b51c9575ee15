"""What becomes of a review beyond the page: when it goes back to the PACS, or why it does not."""

from datetime import timedelta

from node.web import wording
from node.web.requests import Asked
from storage.queries.reviews import Review
from storage.queries.worklist import Row


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
