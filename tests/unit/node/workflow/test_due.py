from datetime import timedelta

import pytest
from sqlalchemy.exc import OperationalError

from node.config.sections import Config
from node.errors import Refused, Unavailable
from node.workflow.context import Context
from node.workflow.due import each_due
from storage.errors import StorageFull
from storage.files.instances import Files
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


def postpone(context: Context, delivery: Delivery, error: str) -> None:
    context.store.outbox.postponed(delivery, error, context.clock() + timedelta(hours=1))


def round_of(context: Context, error: Exception | None, tried: list[str]) -> int:
    """One round in which AWAY raises the error."""

    def attempt(context: Context, delivery: Delivery) -> bool:
        tried.append(delivery.destination)
        if delivery.destination == "AWAY" and error is not None:
            raise error
        context.store.outbox.accepted(delivery, context.clock())
        return True

    return each_due(context, context.store.outbox.due, LEASE, attempt, postpone)


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


@pytest.mark.parametrize("error", [OperationalError("UPDATE", None, Exception("locked")), StorageFull("no space")])
def test_an_outcome_that_the_database_does_not_take_is_no_failed_attempt(context: Context, error: Exception) -> None:
    tried: list[str] = []
    assert round_of(context, error, tried) == 2
    assert sorted(tried) == ["AWAY", "AWAY", "PACS", "PACS"], "once each: it is due again after the lease"
    away = [each for case in (1, 2) for each in context.store.worklist.deliveries(case) if each.destination == "AWAY"]
    due_at = context.clock() + LEASE
    assert [(each.attempts, each.last_error, each.next_attempt_at) for each in away] == [(0, "", due_at)] * 2


def test_a_node_that_stops_begins_no_attempt_and_what_it_holds_is_due_at_once(context: Context) -> None:
    def attempt(context: Context, _delivery: Delivery) -> bool:
        context.stopping.set()
        context.give_back()
        return False

    assert each_due(context, context.store.outbox.due, LEASE, attempt, postpone) == 0
    deliveries = context.store.worklist.deliveries(1)
    assert [(each.attempts, each.next_attempt_at) for each in deliveries] == [(0, context.clock())] * 2
    assert context.held == []
