from datetime import datetime, timedelta

import pytest

from storage.records import Commitment, Reported
from storage.stages import DeliveryStage
from storage.store import Store
from tests.support.builders import LEASE, FakeClock, add, header, reported

HOUR = timedelta(hours=1)


def delivered(store: Store, clock: FakeClock, transaction_uid: str | None = "2.25.9001", series: str = "2.25.1") -> int:
    """A report that its destination has taken, and is to commit; returns the case number."""
    case = reported(store, clock, series=series).series.id
    delivery = store.outbox.due.claim(clock(), LEASE)
    assert delivery is not None
    store.outbox.accepted(delivery, clock(), transaction_uid)
    return case


def due(store: Store, clock: FakeClock) -> Commitment:
    commitment = store.commitments.due.claim(clock(), LEASE)
    assert commitment is not None
    return commitment


def soon(clock: FakeClock) -> "Soon":
    return Soon(clock)


class Soon:
    """Sends again after as many seconds as there were attempts."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock

    def __call__(self, attempts: int) -> datetime:
        return self._clock() + timedelta(seconds=attempts)


def stage(store: Store, case: int) -> DeliveryStage:
    return store.worklist.deliveries(case)[0].stage


def test_a_transaction_that_is_given_back_before_it_was_asked_is_due_at_once(store: Store, clock: FakeClock) -> None:
    delivered(store, clock)
    store.commitments.due.give_back(due(store, clock), clock.advance(1))
    again = due(store, clock)
    assert (again.transaction_uid, again.attempts) == ("2.25.9001", 1)
    store.commitments.asked(again, clock(), clock() + HOUR)
    store.commitments.due.give_back(again, clock())  # its answer may come yet
    assert store.commitments.due.claim(clock(), LEASE) is None


def test_a_delivery_whose_destination_does_not_commit_asks_for_nothing(store: Store, clock: FakeClock) -> None:
    case = delivered(store, clock, transaction_uid=None)
    assert store.commitments.due.claim(clock(), LEASE) is None
    assert stage(store, case) is DeliveryStage.DELIVERED


def test_a_transaction_is_due_at_once_and_again_when_whoever_asks_dies(store: Store, clock: FakeClock) -> None:
    delivered(store, clock)
    first = due(store, clock)
    assert (first.transaction_uid, first.attempts, first.asked_at) == ("2.25.9001", 1, None)
    assert first.delivery.stage is DeliveryStage.DELIVERED
    assert store.commitments.due.claim(clock(), LEASE) is None
    clock.advance(LEASE.total_seconds())
    assert (due(store, clock).transaction_uid, due_attempts(store)) == ("2.25.9001", 2)


def due_attempts(store: Store) -> int:
    from sqlalchemy import select

    from storage.database.schema import CommitmentRow

    with store.transactions.reading() as session:
        return session.scalars(select(CommitmentRow.attempts)).one()


def test_a_success_commits_the_delivery_for_ever(store: Store, clock: FakeClock) -> None:
    case = delivered(store, clock)
    store.commitments.asked(due(store, clock), clock(), clock() + HOUR)
    answered_at = clock.advance(60)
    assert store.commitments.reported("2.25.9001", "", clock(), soon(clock)) is Reported.COMMITTED
    clock.advance(100_000)
    assert store.commitments.due.claim(clock(), LEASE) is None
    assert store.commitments.reported("2.25.9001", "", clock(), soon(clock)) is Reported.NOTHING
    assert store.commitments.reported("2.25.9001", "not committed", clock(), soon(clock)) is Reported.NOTHING
    row = store.worklist.case(str(case))
    assert row is not None
    assert (row["delivery"], row["committed_at"], stage(store, case)) == (
        "committed",
        answered_at,
        DeliveryStage.COMMITTED,
    )
    assert store.worklist.status().clocks


def test_an_answer_that_is_faster_than_our_note_of_having_asked_holds(store: Store, clock: FakeClock) -> None:
    case = delivered(store, clock)
    asking = due(store, clock)
    assert store.commitments.reported("2.25.9001", "", clock(), soon(clock)) is Reported.COMMITTED
    store.commitments.asked(asking, clock(), clock() + HOUR)
    store.commitments.postponed(asking, "no answer", clock())
    store.commitments.refused(asking, "no")
    store.commitments.renewed(asking, "no answer", "2.25.9002", clock())
    assert store.commitments.due.claim(clock(), LEASE) is None
    assert (stage(store, case), store.worklist.deliveries(case)[0].last_error) == (DeliveryStage.COMMITTED, "")


def test_a_failure_makes_the_delivery_pending_again_after_a_while(store: Store, clock: FakeClock) -> None:
    case = delivered(store, clock)
    store.commitments.asked(due(store, clock), clock(), clock() + HOUR)
    assert store.commitments.reported("2.25.9001", "not kept", clock(), soon(clock)) is Reported.UNCOMMITTED
    assert store.outbox.due.claim(clock(), LEASE) is None
    [delivery] = store.worklist.deliveries(case)
    assert (delivery.stage, delivery.last_error, delivery.delivered_at) == (DeliveryStage.PENDING, "not kept", None)
    assert store.commitments.reported("2.25.9001", "", clock(), soon(clock)) is Reported.NOTHING
    clock.advance(1)
    again = store.outbox.due.claim(clock(), LEASE)
    assert again is not None
    store.outbox.accepted(again, clock(), "2.25.9002")
    assert due(store, clock).transaction_uid == "2.25.9002"


@pytest.mark.parametrize("error", ["", "not committed"])
def test_an_unknown_transaction_changes_nothing(store: Store, clock: FakeClock, error: str) -> None:
    case = delivered(store, clock)
    assert store.commitments.instance_of("2.25.404") is None
    assert store.commitments.reported("2.25.404", error, clock(), soon(clock)) is Reported.UNKNOWN
    assert stage(store, case) is DeliveryStage.DELIVERED
    assert due(store, clock).transaction_uid == "2.25.9001"


def test_without_an_answer_it_is_asked_under_a_new_uid_and_the_old_one_still_counts(
    store: Store, clock: FakeClock
) -> None:
    case = delivered(store, clock)
    store.commitments.asked(due(store, clock), clock(), clock() + HOUR)
    assert store.commitments.due.claim(clock(), LEASE) is None
    clock.advance(3600)
    overdue = due(store, clock)
    assert overdue.asked_at is not None
    store.commitments.renewed(overdue, "no answer in time", "2.25.9002", clock())
    assert store.worklist.deliveries(case)[0].last_error == "no answer in time"
    assert store.commitments.reported("2.25.9001", "lost", clock(), soon(clock)) is Reported.NOTHING
    assert store.commitments.instance_of("2.25.9002") == store.commitments.instance_of("2.25.9001")
    assert store.commitments.reported("2.25.9001", "", clock(), soon(clock)) is Reported.COMMITTED
    assert store.commitments.due.claim(clock(), LEASE) is None


def test_a_refusal_is_a_dead_letter_that_a_person_may_revive(store: Store, clock: FakeClock) -> None:
    case = delivered(store, clock)
    store.commitments.refused(due(store, clock), "no commitment here")
    assert (stage(store, case), store.worklist.deliveries(case)[0].last_error) == (
        DeliveryStage.DEAD,
        "no commitment here",
    )
    [report] = store.worklist.reports(case)
    assert store.outbox.requeue(report["id"], clock()) == 1
    assert stage(store, case) is DeliveryStage.PENDING


def test_what_is_dropped_or_postponed_stays_delivered(store: Store, clock: FakeClock) -> None:
    case = delivered(store, clock)
    store.commitments.postponed(due(store, clock), "no association", clock() + HOUR)
    assert store.commitments.due.claim(clock(), LEASE) is None
    assert store.worklist.deliveries(case)[0].last_error == "no association"
    clock.advance(3600)
    store.commitments.dropped(due(store, clock))
    clock.advance(100_000)
    assert store.commitments.due.claim(clock(), LEASE) is None
    assert stage(store, case) is DeliveryStage.DELIVERED


ASKED = (("1.2.840.10008.5.1.4.1.1.2", "2.25.1002.1"), ("1.2.840.10008.5.1.4.1.1.2", "2.25.404"))


def test_a_request_of_a_peer_is_owed_until_it_is_answered(store: Store, clock: FakeClock) -> None:
    kept = store.commitment_requests.add("2.25.5", "CT1", ASKED, clock(), clock() + timedelta(seconds=5))
    assert kept is not None
    assert (kept.instances, kept.attempts) == (ASKED, 0)
    assert store.commitment_requests.due.claim(clock(), LEASE) is None
    clock.advance(5)
    claimed = store.commitment_requests.due.claim(clock(), LEASE)
    assert claimed is not None
    assert (claimed.transaction_uid, claimed.calling_ae, claimed.attempts) == ("2.25.5", "CT1", 1)
    store.commitment_requests.postponed(claimed, "no association", clock() + HOUR)
    assert store.commitment_requests.due.claim(clock(), LEASE) is None
    clock.advance(3600)
    again = store.commitment_requests.due.claim(clock(), LEASE)
    assert again is not None
    store.commitment_requests.answered(again, clock())
    store.commitment_requests.postponed(again, "late", clock())
    clock.advance(100_000)
    assert store.commitment_requests.due.claim(clock(), LEASE) is None


def test_the_same_request_again_is_owed_again_and_another_under_its_uid_is_not(store: Store, clock: FakeClock) -> None:
    first = store.commitment_requests.add("2.25.5", "CT1", ASKED, clock(), clock())
    assert first is not None
    store.commitment_requests.answered(first, clock())
    assert store.commitment_requests.add("2.25.5", "CT1", ASKED[:1], clock(), clock()) is None
    assert store.commitment_requests.due.claim(clock(), LEASE) is None
    assert store.commitment_requests.add("2.25.5", "CT1", ASKED, clock(), clock()) is not None
    assert store.commitment_requests.add("2.25.5", "CT2", ASKED[:1], clock(), clock()) is not None
    both = [store.commitment_requests.due.claim(clock(), LEASE) for _ in range(2)]
    assert {claimed and claimed.calling_ae for claimed in both} == {"CT1", "CT2"}


def test_a_request_that_comes_again_after_days_has_all_its_time_again(store: Store, clock: FakeClock) -> None:
    for _ in range(2):
        assert store.commitment_requests.add("2.25.5", "CT1", ASKED, clock.advance(100 * 3600), clock()) is not None
        claimed = store.commitment_requests.due.claim(clock(), LEASE)
        assert claimed is not None
        assert (claimed.created_at, claimed.attempts) == (clock(), 1)


def test_what_is_held_is_told_with_its_class_and_file(store: Store, clock: FakeClock) -> None:
    add(store, clock, header(1))
    held = store.commitment_requests.held([*ASKED, *[("1.2", f"2.25.1002.{n}") for n in range(2, 1200)]])
    assert {uid: sop_class for uid, (sop_class, _) in held.items()} == {"2.25.1002.1": "1.2.840.10008.5.1.4.1.1.2"}


def test_a_promise_is_given_of_what_is_known_only(store: Store, clock: FakeClock) -> None:
    add(store, clock, header(1))
    assert store.commitment_requests.promise(["2.25.1002.1", "2.25.404"], clock()) == {"2.25.1002.1"}


def test_a_commitment_is_owed_since_the_destination_has_the_object(store: Store, clock: FakeClock) -> None:
    """However long the node was off before: else it would be given up before anybody was asked."""
    reported(store, clock)
    clock.advance(500_000)
    delivery = store.outbox.due.claim(clock(), LEASE)
    assert delivery is not None
    store.outbox.accepted(delivery, clock(), "2.25.9")
    commitment = store.commitments.due.claim(clock(), LEASE)
    assert commitment is not None
    assert (commitment.created_at, delivery.created_at) == (clock(), clock() - timedelta(seconds=500_000))
