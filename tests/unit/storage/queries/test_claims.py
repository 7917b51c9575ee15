import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy.exc import IntegrityError

from storage.before import Before
from storage.records import Claim, ResultObject
from storage.stages import DeliveryStage, Event, Outcome, Stage
from storage.store import Store
from tests.support.builders import (
    LEASE,
    PROBABILITIES,
    SERIES_UID,
    FakeClock,
    claimed,
    conclusion,
    finish,
    ready,
    received,
    report_object,
    reported,
    series_now,
)


def exhausted(store: Store, clock: FakeClock) -> Claim:
    """A claim on a series whose only attempt failed."""
    claimed(store, clock)
    store.queue.give_back("worker:1", refund=False)
    claim = store.queue.claim_exhausted("worker:1", clock(), LEASE, 1)
    assert claim is not None
    return claim


def test_nothing_ready_is_nothing_to_claim(store: Store, clock: FakeClock) -> None:
    received(store, clock)
    assert store.queue.claim("worker:1", clock(), LEASE, 3) is None


def test_the_series_that_has_waited_longest_is_claimed_first(store: Store, clock: FakeClock) -> None:
    for number in (2, 1, 3):
        ready(store, clock, series=f"2.25.{number}")
        clock.advance(1)
    claims = [store.queue.claim("worker:1", clock(), LEASE, 3) for _ in range(4)]
    assert [claim and claim.series.series_instance_uid for claim in claims] == ["2.25.2", "2.25.1", "2.25.3", None]


def test_another_series_waits_only_while_one_of_a_patient_is_ready(store: Store, clock: FakeClock) -> None:
    mine = ready(store, clock, series="2.25.1").id
    assert not store.queue.other_waits(mine) and store.queue.other_waits(None)
    other = ready(store, clock, series="2.25.2").id
    assert store.queue.other_waits(mine) and store.queue.other_waits(other)
    assert store.queue.claim("worker:1", clock(), LEASE, 3)
    assert [store.queue.other_waits(case) for case in (mine, other)] == [True, False]


def test_a_claim_counts_its_attempt_at_once_and_carries_lease_and_token(store: Store, clock: FakeClock) -> None:
    claim = claimed(store, clock)
    assert (claim.series.stage, claim.series.attempts, claim.exhausted) == (Stage.ANALYSING, 1, False)
    assert claim.lease_until == clock() + LEASE
    assert len(claim.token) == 32
    assert claim.series == series_now(store)


def test_giving_back_counts_the_attempt_unless_refunded(store: Store, clock: FakeClock) -> None:
    claimed(store, clock)
    assert store.queue.give_back("worker:1", refund=True) == 1
    assert (series_now(store).stage, series_now(store).attempts) == (Stage.READY, 0)
    assert store.queue.claim("worker:1", clock(), LEASE, 3) is not None
    assert store.queue.give_back("worker:1", refund=False) == 1
    assert (series_now(store).stage, series_now(store).attempts) == (Stage.READY, 1)


def test_a_worker_gives_back_only_what_it_holds(store: Store, clock: FakeClock) -> None:
    claimed(store, clock)
    assert store.queue.give_back("worker:2", refund=True) == 0
    assert series_now(store).stage is Stage.ANALYSING
    reported(store, clock, series="2.25.1")
    assert store.queue.give_back("worker:1", refund=True) == 1
    assert series_now(store, "2.25.1").stage is Stage.REPORTED


def test_a_lease_expires_only_after_its_end(store: Store, clock: FakeClock) -> None:
    claimed(store, clock)
    clock.advance(60)
    assert store.queue.expire(clock()) == 0
    clock.advance(0.001)
    assert store.queue.expire(clock()) == 1
    assert (series_now(store).stage, series_now(store).attempts) == (Stage.READY, 1)
    assert store.queue.expire(clock()) == 0


def test_a_claim_by_a_clock_that_is_a_moment_ahead_is_kept_and_one_from_before_the_clock_was_set_back_is_not(
    store: Store, clock: FakeClock
) -> None:
    claimed(store, clock)
    assert store.queue.expire(clock() - timedelta(seconds=2), LEASE) == 0
    assert store.queue.expire(clock() - timedelta(hours=1), LEASE) == 1


def test_a_claim_that_expired_and_was_claimed_again_cannot_finish(store: Store, clock: FakeClock) -> None:
    first = claimed(store, clock)
    clock.advance(61)
    store.queue.expire(clock())
    second = store.queue.claim("worker:2", clock(), LEASE, 3)
    assert second is not None
    before = series_now(store)
    assert not finish(store, clock, first)
    assert series_now(store) == before
    assert not store.worklist.reports(first.series.id)
    assert not store.worklist.deliveries(first.series.id)
    assert finish(store, clock, second)


def test_a_claim_can_finish_once(store: Store, clock: FakeClock) -> None:
    claim = reported(store, clock)
    before = series_now(store)
    clock.advance(1)
    assert not finish(store, clock, claim, Outcome.NEGATIVE, report_object("2.25.99"))
    assert series_now(store) == before
    assert len(store.worklist.reports(claim.series.id)) == 1


def test_a_series_is_not_claimed_beyond_its_attempts_but_as_exhausted(store: Store, clock: FakeClock) -> None:
    claimed(store, clock, attempts=2)
    store.queue.give_back("worker:1", refund=False)
    assert store.queue.claim_exhausted("worker:1", clock(), LEASE, 2) is None
    assert store.queue.claim("worker:1", clock(), LEASE, 2) is not None
    store.queue.give_back("worker:1", refund=False)
    assert store.queue.claim("worker:1", clock(), LEASE, 2) is None
    claim = store.queue.claim_exhausted("worker:1", clock(), LEASE, 2)
    assert claim is not None
    assert (claim.exhausted, claim.series.attempts) == (True, 3), "this attempt counts too"
    store.queue.give_back("worker:1", refund=True)
    assert store.queue.claim("worker:1", clock(), LEASE, 2) is None, "a stop does not give it a further attempt"


def test_an_exhausted_series_ends_as_failed_with_its_report(store: Store, clock: FakeClock) -> None:
    claim = exhausted(store, clock)
    assert finish(store, clock, claim, Outcome.NOT_ANALYSED)
    series = series_now(store)
    assert (series.stage, series.outcome, series.reason) == (Stage.FAILED, Outcome.NOT_ANALYSED, "gap")
    assert [delivery.stage for delivery in store.worklist.deliveries(series.id)] == [DeliveryStage.PENDING]


def test_finishing_puts_the_report_and_a_delivery_for_each_destination_into_the_outbox(
    store: Store, clock: FakeClock
) -> None:
    claim = claimed(store, clock)
    clock.advance(4)
    report = report_object("2.25.77", "2.25.76")
    assert finish(store, clock, claim, report=report, destinations=("PACS", "ARCHIVE"))
    deliveries = store.worklist.deliveries(claim.series.id)
    assert [delivery.destination for delivery in deliveries] == ["PACS", "ARCHIVE"]
    for delivery in deliveries:
        assert (delivery.stage, delivery.attempts, delivery.last_error) == (DeliveryStage.PENDING, 0, "")
        assert delivery.created_at == delivery.next_attempt_at == clock()
        assert (delivery.sop_instance_uid, delivery.file, delivery.series_id) == (
            "2.25.77", report.file, claim.series.id,
        )  # fmt: skip
    [kept] = store.worklist.reports(claim.series.id)
    assert (kept["sop_instance_uid"], kept["predecessor_uid"], kept["revision"], kept["outcome"], kept["path"]) == (
        "2.25.77", "2.25.76", 1, "positive", report.file.path,
    )  # fmt: skip
    assert kept["created_at"] == clock()


def test_finishing_writes_down_what_was_found(store: Store, clock: FakeClock) -> None:
    reported(store, clock)
    row = store.worklist.case(SERIES_UID)
    assert row is not None
    assert (row["outcome"], row["model"], row["report_uid"]) == ("positive", "0.1.0", "2.25.77.1.1")
    assert (row["top_location"], row["diameter_mm"]) == ("Left Middle Cerebral Artery", 6.5)
    assert row["lesions"] == [
        {"location": "Left Middle Cerebral Artery", "probability": 0.9, "centre_lps_mm": [1.0, -2.0, 3.5],
         "diameter_mm": 6.5}
    ]  # fmt: skip
    assert (row["volume_seconds"], row["inference_seconds"], row["report_seconds"]) == (1.5, 2.5, 0.25)
    assert [row[key] for key in row if key.startswith("p_")] == list(PROBABILITIES)


def test_a_conclusion_without_a_report_ends_the_series_too(store: Store, clock: FakeClock) -> None:
    claim = claimed(store, clock)
    assert store.queue.finish(claim, conclusion(Outcome.NOT_ANALYSED), None, ("PACS",), clock())
    row = store.worklist.case(SERIES_UID)
    assert row is not None
    assert (row["stage"], row["outcome"], row["reason"], row["detail"]) == (
        "reported", "not_analysed", "gap", "about 3 slices missing",
    )  # fmt: skip
    assert (row["report_uid"], row["delivery"]) == (None, None)
    assert store.outbox.due.claim(clock(), LEASE) is None


def test_series_report_and_deliveries_are_written_together_or_not_at_all(store: Store, clock: FakeClock) -> None:
    reported(store, clock)
    other = claimed(store, clock, series="2.25.1")
    before = series_now(store, "2.25.1")
    with pytest.raises(IntegrityError):
        finish(store, clock, other, report=report_object("2.25.77.1.1"))  # the report UID is taken
    assert series_now(store, "2.25.1") == before
    assert not store.worklist.reports(other.series.id)
    assert not store.worklist.deliveries(other.series.id)


def test_the_predecessor_is_the_latest_report(store: Store, clock: FakeClock) -> None:
    first = reported(store, clock)
    assert store.queue.predecessor(first.series.id) == ("2.25.77.1.1", report_object("2.25.77.1.1").file)
    assert store.queue.retry(first.series.id)
    second = store.queue.claim("worker:1", clock(), LEASE, 3)
    assert second is not None
    assert finish(store, clock, second)
    predecessor = store.queue.predecessor(first.series.id)
    assert predecessor is not None
    assert predecessor[0] == "2.25.77.1.2"


def test_a_series_without_report_has_no_predecessor(store: Store, clock: FakeClock) -> None:
    assert store.queue.predecessor(ready(store, clock).id) is None
    assert store.queue.before(1) is None


def test_of_each_kind_the_newest_object_is_the_latest(store: Store, clock: FakeClock) -> None:
    summary, masks, later = (
        ResultObject(kind, uid, report_object(uid).file, ())
        for kind, uid in (("summary", "2.25.81"), ("segmentation", "2.25.82"), ("summary", "2.25.83"))
    )
    claim = claimed(store, clock)
    for uid, beside in (("2.25.1", [summary, masks]), ("2.25.2", [later])):
        report = replace(report_object(uid), ae_title="WILLIS")
        assert store.queue.finish(claim, conclusion(), report, (), clock(), beside)
        assert store.queue.retry(claim.series.id)
        again = store.queue.claim("worker:1", clock(), LEASE, 3)
        assert again is not None
        claim = again
    uids = {"report": ("2.25.2",), "segmentation": (masks.sop_instance_uid,), "summary": (later.sop_instance_uid,)}
    assert store.queue.before(claim.series.id) == Before(uids, "WILLIS")


def test_a_retry_makes_a_new_revision_that_waits_from_when_it_was_ready(store: Store, clock: FakeClock) -> None:
    claim = reported(store, clock)
    ready_at = clock()
    clock.advance(100)
    assert store.queue.retry(claim.series.id)
    row = store.worklist.case(SERIES_UID)
    assert row is not None
    assert (row["stage"], row["revision"], row["attempts"], row["outcome"]) == ("ready", 2, 0, None)
    assert (row["ready_at"], row["evidence"], row["report_uid"]) == (ready_at, "count", None)
    assert [report["revision"] for report in store.worklist.reports(claim.series.id)] == [1]


@pytest.mark.parametrize("stage", [Stage.FAILED, Stage.SET_ASIDE])
def test_every_end_can_be_retried(store: Store, clock: FakeClock, stage: Stage) -> None:
    if stage is Stage.FAILED:
        assert finish(store, clock, exhausted(store, clock), Outcome.NOT_ANALYSED)
    else:
        series = received(store, clock)
        store.settling.leave(series, Event.SET_ASIDE, "quiet", clock(), Outcome.NOT_ELIGIBLE, "localizer")
    assert series_now(store).stage is stage
    assert store.queue.retry(series_now(store).id)
    again = store.queue.claim("worker:1", clock(), LEASE, 1)
    assert again is not None
    assert (again.series.outcome, again.series.reason, again.series.revision) == (None, "", 2)


@pytest.mark.parametrize("reach", [received, ready, claimed])
def test_what_has_not_ended_is_not_retried(store: Store, clock: FakeClock, reach: object) -> None:
    assert callable(reach)
    reach(store, clock)
    before = series_now(store)
    assert not store.queue.retry(before.id)
    assert series_now(store) == before


@pytest.mark.parametrize("stat", [None, ("PACS",)], ids=["claim", "claim_next"])
def test_two_workers_never_claim_the_same_series(store: Store, clock: FakeClock, stat: tuple[str, ...] | None) -> None:
    uids = [f"2.25.{number}" for number in range(12)]
    for uid in uids:
        ready(store, clock, series=uid, count=1)
    barrier = threading.Barrier(4)

    def work(worker: str) -> list[Claim]:
        barrier.wait()
        claims: list[Claim] = []
        for _ in range(100):  # on PostgreSQL a claim may find only rows that others are about to take
            who = (worker, clock(), LEASE, 3)
            if claim := store.queue.claim(*who) if stat is None else store.queue.claim_next(*who, stat):
                claims.append(claim)
            elif not any(series_now(store, uid).stage is Stage.READY for uid in uids):
                break
        return claims

    with ThreadPoolExecutor(4) as pool:
        claims = [claim for mine in pool.map(work, [f"worker:{n}" for n in range(4)]) for claim in mine]
    assert sorted(claim.series.series_instance_uid for claim in claims) == sorted(uids)
    assert len({claim.token for claim in claims}) == len(uids)
    assert all(series_now(store, uid).attempts == 1 for uid in uids)


def test_a_claim_and_a_late_slice_at_once_leave_one_truth(store: Store, clock: FakeClock) -> None:
    for number in range(6):
        uid = f"2.25.{number}"
        claim = claimed(store, clock, series=uid)
        barrier = threading.Barrier(2)

        def late(uid: str = uid, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            received(store, clock, series=uid, count=1, first=9)

        thread = threading.Thread(target=late)
        thread.start()
        barrier.wait()
        kept = finish(store, clock, claim)
        thread.join()
        series = series_now(store, uid)
        assert (series.stage, series.revision, series.instance_count) == (Stage.RECEIVING, 2, 4)
        assert len(store.worklist.reports(series.id)) == len(store.worklist.deliveries(series.id)) == int(kept)


def test_a_lease_is_as_long_as_it_was_asked_for(store: Store, clock: FakeClock) -> None:
    ready(store, clock)
    claim = store.queue.claim("worker:1", clock(), timedelta(hours=1), 3)
    assert claim is not None
    assert store.queue.expire(clock.advance(3600)) == 0
    assert replace(claim.series, attempts=1) == series_now(store)
