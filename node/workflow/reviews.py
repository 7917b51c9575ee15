"""What people decided goes back: an acknowledged case becomes, some quiet minutes later, a verified report in the outbox.

It can die anywhere: a file that no row names is not referred to, and what is made again has the same UID.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

from pydicom import dcmread

from node.config.types import Region
from node.results.document import encode
from node.results.rejections import REJECTIONS
from node.results.review import Decision, Reviewed, build_review
from node.runtime import log
from node.workflow.context import Context
from storage.errors import StorageError
from storage.queries.review_documents import REVIEW, OwedReview
from storage.queries.reviews import Rejection, Verdict
from storage.records import ResultObject, StoredFile

AT_ONCE = 50


def send(context: Context) -> int:
    """Each review that is owed is in the outbox, where a destination wants it; returns how many objects are new."""
    quiet = timedelta(minutes=context.config.report.review_quiet_minutes)
    made = 0
    for owed in context.store.review_documents.owed(context.clock() - quiet, AT_ONCE):
        logger = log.get().bind(case=owed.case_id, revision=owed.revision)
        try:
            objects = list(_objects(context, owed))
        except (StorageError, OSError, ValueError) as error:  # ValueError: the report is none that we made
            context.store.review_documents.postponed(owed, context.clock())
            logger.error("review_failed", error=type(error).__name__)
            continue
        if context.store.review_documents.made(owed, objects, context.clock()) and objects:
            made += len(objects)
            logger.info("review_made", count=len(objects))
    return made


def _objects(context: Context, owed: OwedReview) -> Iterator[ResultObject]:
    """The verified report for each way of marking a finding; none where the last one says the same already."""
    if not owed.is_whole:
        return
    for region, destinations in context.config.reviewing(owed.calling_ae).items():
        suffix = "" if region == context.config.report.region else f" {region}"
        kind = f"{REVIEW}{suffix}"
        report_uid, file = _report(owed, region)
        chain = [report_uid, *(uid for each, uid, _ in owed.objects if each == kind)]
        if len(chain) > 1 and _reviewed(context, owed, kind, chain[:-1]).uid == chain[-1]:
            continue
        context.files.verify(file)
        ds = build_review(dcmread(context.files.here(file)), _reviewed(context, owed, kind, chain), _created(context))
        uid = str(ds.SOPInstanceUID)
        yield ResultObject(kind, uid, context.files.write_report(uid, encode(ds)), destinations)


def _report(owed: OwedReview, region: Region) -> tuple[str, StoredFile]:
    """The report that marks findings so, as its destinations have it."""
    beside = {kind: (uid, file) for kind, uid, file in owed.objects}
    return beside.get(f"report {region}", (owed.report_uid, owed.report_file))


def _reviewed(context: Context, owed: OwedReview, kind: str, chain: list[str]) -> Reviewed:
    """`chain`: the report, and its reviews so far."""
    verdicts = sorted(owed.verdicts, key=lambda each: each.finding)
    return Reviewed(
        decisions=[_decision(owed, each) for each in verdicts],
        person_name=owed.names[owed.acknowledged_by],
        organization=context.config.report.organization.strip(),
        at=max(owed.acknowledged_at, *(each.at for each in verdicts)),
        predecessor_uid=chain[-1],
        number=len(chain),
        limits=owed.limits,
        kind=kind,
    )


def _decision(owed: OwedReview, verdict: Verdict) -> Decision:
    reason = REJECTIONS[Rejection(verdict.reason)] if not verdict.accepted else ""
    by = "" if verdict.by == owed.acknowledged_by else owed.names.get(verdict.by, verdict.by)
    return Decision(reason, by)


def _created(context: Context) -> datetime:
    return context.clock().astimezone(context.config.report.zone)
