import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from storage.records import Delivery, ResultObject, StoredFile
from storage.stages import DeliveryStage
from storage.store import Store
from tests.support.builders import (
    LEASE,
    FakeClock,
    add,
    claimed,
    conclusion,
    finish,
    header,
    next_attempt_at,
    received,
    report_object,
    reported,
)


def outbox(store: Store, clock: FakeClock, *destinations: str) -> int:
    """A reported series with these deliveries; returns its case number."""
    claim = claimed(store, clock)
    assert finish(store, clock, claim, destinations=destinations or ("PACS",))
    return claim.series.id


def due(store: Store, clock: FakeClock) -> Delivery:
    delivery = store.outbox.due.claim(clock(), LEASE)
    assert delivery is not None
    return delivery


def only(store: Store, case: int) -> Delivery:
    [delivery] = store.worklist.deliveries(case)
    return delivery


def test_an_empty_outbox_has_nothing_due(store: Store, clock: FakeClock) -> None:
    assert store.outbox.due.claim(clock(), LEASE) is None
    assert next_attempt_at(store) is None


def test_what_has_been_due_longest_comes_first(store: Store, clock: FakeClock) -> None:
    for number in (1, 2, 3):
        reported(store, clock, series=f"2.25.{number}")
        clock.advance(1)
    store.outbox.postponed(due(store, clock), "x", clock())
    claims = [store.outbox.due.claim(clock(), LEASE) for _ in range(4)]
    assert [delivery and delivery.series_id for delivery in claims] == [2, 3, 1, None]


def test_what_goes_to_a_destination_that_is_left_out_stays_due(store: Store, clock: FakeClock) -> None:
    case = outbox(store, clock, "AWAY", "PACS")
    claims = [store.outbox.due.claim(clock(), LEASE, ["AWAY"]) for _ in range(2)]
    assert [delivery and delivery.destination for delivery in claims] == ["PACS", None]
    assert [delivery.attempts for delivery in store.worklist.deliveries(case)] == [0, 1]


def test_a_delivery_that_is_claimed_is_counted_and_due_again_after_the_lease(store: Store, clock: FakeClock) -> None:
    outbox(store, clock)
    delivery = due(store, clock)
    assert (delivery.attempts, delivery.next_attempt_at, delivery.stage) == (1, clock() + LEASE, DeliveryStage.PENDING)
    assert delivery.file == report_object("2.25.77.1.1").file
    assert next_attempt_at(store) == clock() + LEASE
    clock.advance(59.9)
    assert store.outbox.due.claim(clock(), LEASE) is None
    clock.advance(0.1)
    assert due(store, clock).attempts == 2


def test_a_delivery_that_is_given_back_is_due_at_once_and_its_attempt_does_not_count(
    store: Store, clock: FakeClock
) -> None:
    case = outbox(store, clock)
    delivery = due(store, clock)
    store.outbox.due.give_back(delivery, clock.advance(1))
    assert (only(store, case).attempts, only(store, case).next_attempt_at) == (0, clock())
    store.outbox.due.give_back(delivery, clock.advance(1))  # another sender may have it by now
    assert only(store, case).next_attempt_at == clock() - timedelta(seconds=1)


def test_a_delivery_that_has_ended_cannot_be_given_back(store: Store, clock: FakeClock) -> None:
    case = outbox(store, clock)
    delivery = due(store, clock)
    store.outbox.accepted(delivery, clock())
    store.outbox.due.give_back(delivery, clock())
    assert (only(store, case).stage, only(store, case).attempts) == (DeliveryStage.DELIVERED, 1)


def test_a_report_that_is_accepted_after_a_late_slice_has_come_is_delivered(store: Store, clock: FakeClock) -> None:
    case = outbox(store, clock)
    delivery = due(store, clock)
    received(store, clock, count=1, first=9)
    store.outbox.accepted(delivery, clock.advance(1))
    assert only(store, case).stage == DeliveryStage.DELIVERED
    assert not [label for _, label, _ in store.tally.all() if label in ("delivery", "total")]


def test_an_accepted_delivery_is_never_due_again(store: Store, clock: FakeClock) -> None:
    case = outbox(store, clock)
    store.outbox.postponed(due(store, clock), "status 0xA700", clock())
    delivery = due(store, clock)
    store.outbox.accepted(delivery, clock.advance(2))
    kept = only(store, case)
    assert (kept.stage, kept.delivered_at, kept.last_error) == (DeliveryStage.DELIVERED, clock(), "")
    clock.advance(1_000_000)
    assert store.outbox.due.claim(clock(), LEASE) is None
    assert next_attempt_at(store) is None


def test_what_is_accepted_while_a_late_slice_has_opened_its_case_again_is_delivered(
    store: Store, clock: FakeClock
) -> None:
    case = reported(store, clock).series.id
    delivery = store.outbox.due.claim(clock(), LEASE)
    assert delivery is not None
    add(store, clock, header(9))
    store.outbox.accepted(delivery, clock())
    assert [each.stage for each in store.worklist.deliveries(case)] == [DeliveryStage.DELIVERED]


def test_a_postponed_delivery_is_due_when_it_was_said(store: Store, clock: FakeClock) -> None:
    case = outbox(store, clock)
    later = clock.advance(5)
    store.outbox.postponed(due(store, clock), "status 0xA700", later)
    kept = only(store, case)
    assert (kept.stage, kept.last_error, kept.next_attempt_at, kept.attempts) == (
        DeliveryStage.PENDING, "status 0xA700", later, 1,
    )  # fmt: skip
    assert next_attempt_at(store) == later


def test_a_refused_delivery_is_a_dead_letter(store: Store, clock: FakeClock) -> None:
    case = outbox(store, clock)
    store.outbox.refused(due(store, clock), "status 0x0122")
    kept = only(store, case)
    assert (kept.stage, kept.last_error, kept.delivered_at) == (DeliveryStage.DEAD, "status 0x0122", None)
    clock.advance(1_000_000)
    assert store.outbox.due.claim(clock(), LEASE) is None


def test_what_has_ended_stays_as_it_ended_whoever_comes_late(store: Store, clock: FakeClock) -> None:
    case = outbox(store, clock)
    delivery = due(store, clock)
    store.outbox.accepted(delivery, clock())
    before = only(store, case)
    clock.advance(1)
    store.outbox.refused(delivery, "status 0x0122")
    store.outbox.postponed(delivery, "status 0xA700", clock())
    store.outbox.accepted(delivery, clock())
    assert only(store, case) == before


def test_who_lost_the_lease_cannot_postpone_or_refuse_for_the_next_one_but_can_accept(
    store: Store, clock: FakeClock
) -> None:
    case = outbox(store, clock)
    lost = due(store, clock)
    clock.advance(LEASE.total_seconds())
    due(store, clock)
    before = only(store, case)
    store.outbox.postponed(lost, "status 0xA700", clock())
    store.outbox.refused(lost, "status 0x0122")
    assert only(store, case) == before
    store.outbox.accepted(lost, clock())
    assert only(store, case).stage == DeliveryStage.DELIVERED


def test_requeueing_revives_the_dead_letters_of_one_report_as_if_new(store: Store, clock: FakeClock) -> None:
    case = outbox(store, clock, "PACS", "ARCHIVE", "THIRD")
    first, second = due(store, clock), due(store, clock)
    store.outbox.refused(first, "status 0x0122")
    store.outbox.accepted(second, clock())
    reported(store, clock, series="2.25.1")
    store.outbox.refused(due(store, clock), "a")
    store.outbox.refused(due(store, clock), "b")
    clock.advance(3600)
    [report] = store.worklist.reports(case)
    assert store.outbox.requeue(report["id"], clock()) == 2
    assert store.outbox.requeue(report["id"], clock()) == 0
    revived = store.worklist.deliveries(case)
    assert [delivery.stage for delivery in revived] == [
        DeliveryStage.PENDING, DeliveryStage.DELIVERED, DeliveryStage.PENDING,
    ]  # fmt: skip
    assert (revived[0].attempts, revived[0].created_at, revived[0].next_attempt_at) == (0, clock(), clock())
    assert [delivery.stage for delivery in store.worklist.deliveries(2)] == [DeliveryStage.DEAD]


def test_two_senders_never_claim_the_same_delivery(store: Store, clock: FakeClock) -> None:
    outbox(store, clock, *(f"PEER{n}" for n in range(12)))
    barrier = threading.Barrier(4)

    def send(_number: int) -> list[int]:
        barrier.wait()
        mine: list[int] = []
        for _ in range(100):
            if delivery := store.outbox.due.claim(clock(), LEASE):
                mine.append(delivery.id)
            elif next_attempt_at(store) != clock():
                break
        return mine

    with ThreadPoolExecutor(4) as pool:
        claimed_ids = [id_ for mine in pool.map(send, range(4)) for id_ in mine]
    assert len(claimed_ids) == len(set(claimed_ids)) == 12


@pytest.mark.parametrize("attempts", [1, 3])
def test_every_attempt_is_counted(store: Store, clock: FakeClock, attempts: int) -> None:
    case = outbox(store, clock)
    for _ in range(attempts):
        store.outbox.postponed(due(store, clock), "x", clock())
    assert only(store, case).attempts == attempts


def test_objects_beside_the_report_are_delivered_after_it_each_to_its_own_destinations(
    store: Store, clock: FakeClock
) -> None:
    beside = [
        ResultObject("report 3d", "2.25.88", StoredFile("reports/88.dcm", "b" * 64, 8), ("VIEWER",)),
        ResultObject("summary", "2.25.99", StoredFile("reports/99.dcm", "c" * 64, 9), ("PACS", "VIEWER")),
    ]
    claim = claimed(store, clock)
    assert store.queue.finish(claim, conclusion(), report_object(), ("PACS",), clock(), beside)
    sent = []
    while (delivery := store.outbox.due.claim(clock(), LEASE)) is not None:
        sent.append((delivery.kind, delivery.destination, delivery.sop_instance_uid, delivery.file.path))
        store.outbox.accepted(delivery, clock())
    assert sent == [
        ("report", "PACS", "2.25.77", "reports/2.25.77.dcm"),
        ("report 3d", "VIEWER", "2.25.88", "reports/88.dcm"),
        ("summary", "PACS", "2.25.99", "reports/99.dcm"),
        ("summary", "VIEWER", "2.25.99", "reports/99.dcm"),
    ]
    assert [each.kind for each in store.worklist.deliveries(claim.series.id)] == [kind for kind, *_ in sent]


def test_a_case_is_delivered_only_when_every_object_is(store: Store, clock: FakeClock) -> None:
    beside = [ResultObject("summary", "2.25.99", StoredFile("reports/99.dcm", "c" * 64, 9), ("PACS",))]
    claim = claimed(store, clock)
    assert store.queue.finish(claim, conclusion(), report_object(), ("PACS",), clock(), beside)
    store.outbox.accepted(due(store, clock), clock())
    assert store.worklist.rows()[0]["delivery"] == "pending"
    store.outbox.refused(due(store, clock), "status 0xA900")
    assert store.worklist.rows()[0]["delivery"] == "dead"
    assert store.outbox.requeue(1, clock()) == 1
    store.outbox.accepted(due(store, clock), clock())
    assert store.worklist.rows()[0]["delivery"] == "delivered"
