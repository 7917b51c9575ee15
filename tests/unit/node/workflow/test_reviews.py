"""What people decided becomes a verified report in the outbox, once for each state of the review; only the clock is made up."""

import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from node.workflow.context import Context
from node.workflow.retention import retain
from node.workflow.reviews import send
from storage.files.instances import Files
from storage.queries.reviews import Action
from storage.records import Delivery
from storage.stages import DeliveryStage
from storage.store import Store
from tests.support.builders import LEASE, FakeClock
from tests.support.reviewed import (
    READER,
    REASON,
    REPORT_UID,
    accept_one_and_reject_one,
    case_with_report,
    configuration,
    decide,
)
from tests.support.running import ROOT

QUIET_SECONDS = 600.0


@pytest.fixture
def context(store: Store, files: Files, clock: FakeClock) -> Context:
    case_with_report(store, files, clock)
    return Context(configuration(), store, files, lambda: None, clock)


def sent(context: Context) -> list[Delivery]:
    """The deliveries of reviews, oldest first."""
    return [each for each in context.store.worklist.deliveries(1) if each.kind == "review"]


def document(context: Context, number: int = -1) -> Dataset:
    """The review's object."""
    return dcmread(context.files.path(sent(context)[number].file))


def predecessor(ds: Dataset) -> str:
    [study] = ds.PredecessorDocumentsSequence
    return str(study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID)


def test_a_review_is_sent_once_when_it_has_been_quiet(context: Context, clock: FakeClock) -> None:
    accept_one_and_reject_one(context.store, clock)
    clock.advance(QUIET_SECONDS - 1)
    assert send(context) == 0
    clock.advance(1)
    assert send(context) == 1
    [delivery] = sent(context)
    assert (delivery.stage, delivery.destination, delivery.next_attempt_at) == (DeliveryStage.PENDING, "PACS", clock())
    ds = document(context)
    assert (ds.VerificationFlag, predecessor(ds), ds.SOPInstanceUID) == (
        "VERIFIED",
        REPORT_UID,
        delivery.sop_instance_uid,
    )
    clock.advance(QUIET_SECONDS)
    assert send(context) == 0
    assert len(sent(context)) == 1


def test_what_is_undone_before_the_time_is_not_sent(context: Context, clock: FakeClock) -> None:
    accept_one_and_reject_one(context.store, clock)
    clock.advance(QUIET_SECONDS - 1)
    decide(context.store, clock, Action.UNDONE)
    clock.advance(10 * QUIET_SECONDS)
    assert send(context) == 0
    decide(context.store, clock, Action.ACKNOWLEDGED)
    clock.advance(QUIET_SECONDS)
    assert send(context) == 1


def test_a_review_that_does_not_say_something_of_every_finding_waits(context: Context, clock: FakeClock) -> None:
    decide(context.store, clock, Action.ACKNOWLEDGED)
    decide(context.store, clock, Action.ACCEPTED, finding=1)
    clock.advance(QUIET_SECONDS)
    assert send(context) == 0
    decide(context.store, clock, Action.REJECTED, finding=2, reason=REASON)
    clock.advance(QUIET_SECONDS)
    assert send(context) == 1


def test_a_changed_review_is_another_document_with_the_former_as_predecessor(
    context: Context, clock: FakeClock
) -> None:
    accept_one_and_reject_one(context.store, clock)
    clock.advance(QUIET_SECONDS)
    assert send(context) == 1
    decide(context.store, clock, Action.ACCEPTED, finding=2)
    clock.advance(QUIET_SECONDS)
    assert send(context) == 1
    decide(context.store, clock, Action.UNDONE)  # it says again what the first one said
    clock.advance(QUIET_SECONDS)
    assert send(context) == 1
    uids = [each.sop_instance_uid for each in sent(context)]
    assert len(set(uids)) == 3
    documents = [document(context, number) for number in range(3)]
    assert [predecessor(ds) for ds in documents] == [REPORT_UID, *uids[:2]]
    assert [ds.InstanceNumber for ds in documents] == [101, 102, 103]
    assert len({ds.SeriesInstanceUID for ds in documents}) == 1


@pytest.mark.parametrize("region", ["2d", "3d"])
def test_the_next_revision_replaces_the_report_and_its_newest_review(
    store: Store, files: Files, clock: FakeClock, region: str
) -> None:
    context = Context(configuration(region=region), store, files, lambda: None, clock)
    case_with_report(store, files, clock)
    accept_one_and_reject_one(store, clock)
    clock.advance(QUIET_SECONDS)
    assert send(context) == 1
    kind = {"2d": "report", "3d": "report 3d"}[region]
    review = context.store.worklist.deliveries(1)[-1]
    before = store.queue.before(1)
    assert before is not None and before.uids[kind][-1] == review.sop_instance_uid


def test_a_change_that_changes_nothing_in_the_end_sends_nothing_new(context: Context, clock: FakeClock) -> None:
    accept_one_and_reject_one(context.store, clock)
    clock.advance(QUIET_SECONDS)
    assert send(context) == 1
    decide(context.store, clock, Action.ACCEPTED, finding=2)
    decide(context.store, clock, Action.UNDONE)
    decide(context.store, clock, Action.ASSIGNED, assigned_to=READER)
    clock.advance(QUIET_SECONDS)
    assert send(context) == 0
    assert len(sent(context)) == 1


def test_nobody_gets_a_review_who_does_not_want_any_also_not_a_past_one_later(
    context: Context, clock: FakeClock
) -> None:
    nobody = Context(configuration(reviews=False), context.store, context.files, lambda: None, clock)
    accept_one_and_reject_one(context.store, clock)
    clock.advance(QUIET_SECONDS)
    assert send(nobody) == 0
    assert send(context) == 0


def test_without_a_person_s_name_nothing_is_verified_until_there_is_one(
    sqlite_store: Store, files: Files, clock: FakeClock
) -> None:
    case_with_report(sqlite_store, files, clock, person_name="")
    context = Context(configuration(), sqlite_store, files, lambda: None, clock)
    accept_one_and_reject_one(sqlite_store, clock)
    clock.advance(QUIET_SECONDS)
    assert send(context) == 0
    assert sqlite_store.accounts.change(READER, person_name="Doe^Jane")
    assert send(context) == 1


def test_a_review_is_no_delivery_of_the_report(context: Context, clock: FakeClock) -> None:
    store = context.store
    delivery = store.outbox.due.claim(clock(), LEASE)
    assert delivery is not None
    store.outbox.accepted(delivery, clock.advance(5))
    accept_one_and_reject_one(store, clock)
    clock.advance(QUIET_SECONDS)
    assert send(context) == 1
    [row] = store.worklist.rows()
    assert (row["delivery"], row["delivered_at"]) == ("delivered", delivery.created_at + timedelta(seconds=5))
    assert store.statistics.since(delivery.created_at).seconds == (5.0,)
    assert len(store.worklist.status().clocks) == 1


def test_a_case_stays_until_its_review_is_sent(context: Context, clock: FakeClock) -> None:
    config = configuration().model_copy(
        update={"storage": configuration().storage.model_copy(update={"retention_days": 1})}
    )
    kept = Context(config, context.store, context.files, lambda: None, clock)
    delivery = context.store.outbox.due.claim(clock(), LEASE)
    assert delivery is not None
    context.store.outbox.accepted(delivery, clock())
    clock.advance(30 * 86_400)
    accept_one_and_reject_one(context.store, clock)
    assert retain(kept) == 0
    clock.advance(QUIET_SECONDS)
    assert send(context) == 1
    assert retain(kept) == 0  # it is in the outbox
    [review] = sent(context)
    context.store.outbox.accepted(review, clock())
    assert retain(kept) == 1


def test_a_damaged_report_is_tried_again_and_holds_up_no_other(context: Context, clock: FakeClock) -> None:
    accept_one_and_reject_one(context.store, clock)
    path = context.files.path(context.store.worklist.deliveries(1)[0].file)
    content = path.read_bytes()
    path.unlink()
    clock.advance(QUIET_SECONDS)
    assert send(context) == 0
    path.write_bytes(content)
    assert send(context) == 0  # not at once
    clock.advance(QUIET_SECONDS)
    assert send(context) == 1


KILLED = """
import sys
from datetime import datetime
from pathlib import Path
from node.workflow.context import Context
from node.workflow.reviews import send
from storage.files.instances import Files
from storage.store import Store
from tests.support.reviewed import configuration
now = datetime.fromisoformat(sys.argv[3])
send(Context(configuration(), Store.open(sys.argv[1]), Files(Path(sys.argv[2])), lambda: None, lambda: now))
"""


@pytest.mark.parametrize("point", ["before_commit_of_review", "after_commit_of_review"])
def test_a_node_that_dies_while_it_makes_a_review_loses_and_doubles_nothing(
    sqlite_url: str, files: Files, clock: FakeClock, tmp_path: Path, unmeasured_children: None, point: str
) -> None:
    store = Store.open(sqlite_url)
    case_with_report(store, files, clock)
    accept_one_and_reject_one(store, clock)
    clock.advance(QUIET_SECONDS)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, sqlite_url, str(files.root), clock().isoformat()],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), "WILLIS_KILL_AT": point}, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    context = Context(configuration(), store, files, lambda: None, clock)
    assert send(context) == (1 if point.startswith("before") else 0)
    [review] = sent(context)
    files.verify(review.file)
    store.close()
