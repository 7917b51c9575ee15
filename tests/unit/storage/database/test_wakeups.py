"""Other hosts hear of what has become due, once it is committed, and of nothing that comes with every instance."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import text

from storage.database.wakeups import wake_hosts
from storage.queries.reviews import Action, Wanted
from storage.records import AssociationEnd
from storage.stages import Event
from storage.store import Store
from tests.support.builders import (
    LEASE,
    FakeClock,
    add,
    claimed,
    close_association,
    finish,
    header,
    open_association,
    ready,
    received,
    reported,
    series_now,
)

Step = Callable[[Store, FakeClock], Callable[[], object]]
"""Prepares, and returns what is to be heard, or not."""


def settled(store: Store, clock: FakeClock) -> Callable[[], object]:
    received(store, clock)
    return lambda: store.settling.leave(series_now(store), Event.SETTLED, "count", clock())


def analysed(store: Store, clock: FakeClock) -> Callable[[], object]:
    claim = claimed(store, clock)
    return lambda: finish(store, clock, claim)


def given_back(store: Store, clock: FakeClock) -> Callable[[], object]:
    claimed(store, clock)
    return lambda: store.queue.give_back("worker:1", refund=True)


def retried(store: Store, clock: FakeClock) -> Callable[[], object]:
    reported(store, clock)
    return lambda: store.queue.retry(1)


def delivered(store: Store, clock: FakeClock) -> Callable[[], object]:
    reported(store, clock)
    delivery = store.outbox.due.claim(clock(), LEASE)
    assert delivery is not None
    return lambda: store.outbox.accepted(delivery, clock(), None)


def reviewed(store: Store, clock: FakeClock) -> Callable[[], object]:
    reported(store, clock)
    return lambda: store.reviews.change(Wanted(1, 0, Action.ACKNOWLEDGED, "dr.a"), clock())


def uploaded(store: Store, _clock: FakeClock) -> Callable[[], object]:
    return store.uploads.wake_hosts


@pytest.mark.postgresql
@pytest.mark.parametrize("step", [settled, analysed, given_back, retried, delivered, reviewed, uploaded])
def test_what_becomes_due_or_changes_the_pages_is_heard(postgresql_store: Store, clock: FakeClock, step: Step) -> None:
    do = step(postgresql_store, clock)
    connected = postgresql_store.listening()
    assert connected is not None
    with connected:
        do()
        assert connected.wait(5)
        assert not connected.wait(0), "several count once"


def instance(store: Store, clock: FakeClock) -> Callable[[], object]:
    received(store, clock)
    return lambda: add(store, clock, header(9))


def association(store: Store, clock: FakeClock) -> Callable[[], object]:
    opened = open_association(store, "receiver", "PACS", clock())
    return lambda: close_association(store, opened, AssociationEnd.RELEASED, clock())


def claim(store: Store, clock: FakeClock) -> Callable[[], object]:
    ready(store, clock)
    return lambda: store.queue.claim("worker:1", clock(), LEASE, 3)


def nothing_expired(store: Store, clock: FakeClock) -> Callable[[], object]:
    claimed(store, clock)
    return lambda: store.queue.expire(clock(), timedelta(days=1))


@pytest.mark.postgresql
@pytest.mark.parametrize("step", [instance, association, claim, nothing_expired])
def test_what_makes_nothing_due_is_not_heard(postgresql_store: Store, clock: FakeClock, step: Step) -> None:
    do = step(postgresql_store, clock)
    connected = postgresql_store.listening()
    assert connected is not None
    with connected:
        do()
        assert not connected.wait(0.05)


@pytest.mark.postgresql
def test_what_is_rolled_back_is_not_heard(postgresql_store: Store) -> None:
    connected = postgresql_store.listening()
    assert connected is not None
    with connected:
        with postgresql_store.transactions.writing() as session:
            wake_hosts(session)
            session.rollback()
        assert not connected.wait(0.05)


def test_on_sqlite_there_is_no_other_host(sqlite_store: Store) -> None:
    assert sqlite_store.listening() is None
    with sqlite_store.transactions.writing() as session:
        wake_hosts(session)
        session.execute(text("SELECT 1"))
