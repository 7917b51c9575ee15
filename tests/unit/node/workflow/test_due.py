from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from node.config.sections import Config
from node.errors import Refused, Unavailable
from node.runtime import log
from node.workflow import delivery as deliveries
from node.workflow.context import Context
from node.workflow.due import Attempts, each_due
from node.workflow.supervisor import _jobs_of
from storage.errors import ObjectsAway, StorageFull
from storage.files.instances import Files
from storage.files.objects import Object
from storage.records import Delivery
from storage.store import Store
from tests.support.builders import LEASE, FakeClock, claimed, finish


@pytest.fixture
def context(sqlite_store: Store, files: Files, clock: FakeClock) -> Context:
    """Two reports, each due at AWAY and at PACS."""
    for series in ("2.25.1", "2.25.2"):
        claim = claimed(sqlite_store, clock, series=series)
        assert finish(sqlite_store, clock, claim, destinations=("AWAY", "PACS"))
    return Context(Config.model_validate({}), sqlite_store, files, lambda: None, clock)


def deliver(context: Context, attempt: Callable[[Context, Delivery], bool], renewed: timedelta | None = None) -> int:
    """One round of attempts; what is too old becomes a dead letter."""

    def give_up(context: Context, delivery: Delivery, error: str) -> None:
        context.store.outbox.refused(delivery, f"too old: {error}")

    kind = Attempts("delivery", attempt, give_up, lambda _delivery: log.get(), renewed)
    return each_due(context, context.store.outbox, kind, LEASE)


def round_of(context: Context, error: Exception | None, tried: list[str]) -> int:
    """One round in which AWAY raises the error."""

    def attempt(context: Context, delivery: Delivery) -> bool:
        tried.append(delivery.destination)
        if delivery.destination == "AWAY" and error is not None:
            raise error
        context.store.outbox.accepted(delivery, context.clock())
        return True

    return deliver(context, attempt)


def errors(context: Context) -> list[str]:
    return [each.last_error for case in (1, 2) for each in context.store.worklist.deliveries(case)]


def test_a_peer_that_cannot_be_had_is_tried_once_in_a_round_and_the_others_are_served(context: Context) -> None:
    tried: list[str] = []
    assert round_of(context, Unavailable("no answer"), tried) == 2
    assert sorted(tried) == ["AWAY", "PACS", "PACS"]
    assert errors(context) == ["no answer", "", "", ""]
    assert round_of(context, None, tried) == 1, "the one that was left out is still due, the other was postponed"


@pytest.mark.parametrize(
    ("error", "shown"), [(Refused("not this one"), "not this one"), (OSError("Doe^Jane"), "OSError")]
)
def test_any_other_error_costs_its_own_attempt_only_and_is_kept_without_what_a_library_says(
    context: Context, error: Exception, shown: str
) -> None:
    tried: list[str] = []
    assert round_of(context, error, tried) == 2
    assert sorted(tried) == ["AWAY", "AWAY", "PACS", "PACS"]
    assert errors(context) == [shown, "", shown, ""]


def test_what_fails_is_due_again_after_the_backoff_until_it_is_too_old(context: Context, clock: FakeClock) -> None:
    began = clock()
    assert round_of(context, Refused("not now"), []) == 2
    [away] = [each for each in context.store.worklist.deliveries(1) if each.destination == "AWAY"]
    assert away.next_attempt_at is not None
    assert timedelta(seconds=1.5) <= away.next_attempt_at - began <= timedelta(seconds=2)
    clock.advance(72 * 3600 - 1)
    round_of(context, Refused("not now"), [])
    assert errors(context) == ["not now", "", "not now", ""]
    clock.advance(3600)
    round_of(context, Refused("not now"), [])
    assert errors(context) == ["too old: not now", "", "too old: not now", ""]


@pytest.mark.parametrize("error", [OperationalError("UPDATE", None, Exception("locked")), StorageFull("no space")])
def test_an_outcome_that_the_database_does_not_take_is_no_failed_attempt(context: Context, error: Exception) -> None:
    tried: list[str] = []
    assert round_of(context, error, tried) == 2
    assert sorted(tried) == ["AWAY", "AWAY", "PACS", "PACS"], "once each: it is due again after the lease"
    away = [each for case in (1, 2) for each in context.store.worklist.deliveries(case) if each.destination == "AWAY"]
    due_at = context.clock() + LEASE
    assert [(each.attempts, each.last_error, each.next_attempt_at) for each in away] == [(0, "", due_at)] * 2


def test_what_a_process_died_with_is_due_for_others_after_a_short_lease_which_is_renewed_while_it_lives(
    context: Context, clock: FakeClock
) -> None:
    due, others, short = context.store.outbox.due, list[bool](), timedelta(seconds=30)
    died: list[int] = []

    def dies_at_once(_context: Context, delivery: Delivery) -> bool:
        died.append(delivery.id)
        raise KeyboardInterrupt  # the process ends

    with pytest.raises(KeyboardInterrupt):
        deliver(context, dies_at_once, renewed=short)
    clock.advance(29)
    assert not [each.id for each in iter(lambda: due.claim(clock(), LEASE), None) if each.id in died]
    clock.advance(1)
    assert [each.id for each in iter(lambda: due.claim(clock(), LEASE), None)] == died
    clock.advance(LEASE.total_seconds())

    def attempt(context: Context, delivery: Delivery) -> bool:
        for _ in range(4):
            clock.advance(20)
            context.renew()
            others.append(delivery.id in [each.id for each in iter(lambda: due.claim(clock(), LEASE), None)])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deliver(context, attempt, renewed=short)
    assert others == [False, False, True, False], (
        "an attempt takes no longer than the whole lease, which is of a minute"
    )


def test_a_renewal_whose_answer_was_lost_is_renewed_and_given_back(
    context: Context, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    due, renew = context.store.outbox.due, context.store.outbox.due.renew

    def unanswered(*arguments: Any) -> None:
        renew(*arguments)
        raise OperationalError("COMMIT", None, Exception("the server is gone"))

    def attempt(context: Context, delivery: Delivery) -> bool:
        for lost in (True, True, False, True):
            clock.advance(10)
            monkeypatch.setattr(due, "renew", unanswered if lost else renew)
            with suppress(OperationalError):
                context.renew()
            [now] = [each for each in context.store.worklist.deliveries(1) if each.id == delivery.id]
            assert now.next_attempt_at == min(clock() + timedelta(seconds=30), began + LEASE)
        context.stopping.set()
        context.give_back()
        return False

    began = clock()
    deliver(context, attempt, renewed=timedelta(seconds=30))
    assert [
        (each.attempts, each.next_attempt_at, each.last_error) for each in context.store.worklist.deliveries(1)
    ] == [
        (0, clock(), ""),
        (0, began, ""),
    ]


def test_the_leases_of_deliveries_are_renewed_well_before_they_end(context: Context) -> None:
    [seconds] = [job.seconds for job in _jobs_of(context, lambda: None) if job.name == "renew"]
    renewed = deliveries._DELIVERIES.renewed
    assert renewed is not None
    assert seconds is not None
    assert 3 * seconds < renewed.total_seconds()


def test_a_short_lease_is_not_longer_than_the_whole(context: Context, clock: FakeClock) -> None:
    def attempt(_context: Context, delivery: Delivery) -> bool:
        assert delivery.next_attempt_at == clock() + LEASE
        context.store.outbox.accepted(delivery, clock())
        return True

    assert deliver(context, attempt, renewed=2 * LEASE) == 4


def test_a_node_that_stops_begins_no_attempt_and_what_it_holds_is_due_at_once(context: Context) -> None:
    def attempt(context: Context, _delivery: Delivery) -> bool:
        context.stopping.set()
        context.give_back()
        return False

    assert deliver(context, attempt) == 0
    deliveries = context.store.worklist.deliveries(1)
    assert [(each.attempts, each.next_attempt_at) for each in deliveries] == [(0, context.clock())] * 2
    assert context.held == []


def test_what_the_object_store_has_is_left_to_who_has_the_file_while_it_is_away(
    store: Store, files: Files, clock: FakeClock
) -> None:
    a, b = (Store(store.transactions, folder) for folder in ("folder-a", "folder-b"))
    for series in ("2.25.1", "2.25.2"):
        assert finish(a, clock, claimed(a, clock, series=series))
    for each in a.uploads.claim(clock(), LEASE, 99):
        a.uploads.uploaded(each, Object(each.size_bytes, "etag"), clock())
    tried: list[int] = []

    def attempt(context: Context, delivery: Delivery) -> bool:
        tried.append(delivery.id)
        raise ObjectsAway("the object store is away")

    context = Context(Config.model_validate({}), b, files, lambda: None, clock)
    for seconds in (0, 29, 1, 1_000_000):
        clock.advance(seconds)
        assert deliver(context, attempt) == 0
    assert tried == [1, 1, 2], "one each half a minute, and it is not given up"
    assert [b.worklist.deliveries(case)[0].last_error for case in (1, 2)] == ["the object store is away"] * 2
    given = [a.outbox.due.claim(clock(), LEASE) for _ in range(3)]
    assert [each and each.series_id for each in given] == [1, 2, None]
