"""Other hosts hear whom it concerns that something was committed, and nothing of what comes with every instance."""

from collections.abc import Callable
from datetime import timedelta
from random import Random

import pytest
from sqlalchemy import text

from node.runtime.clock import utc_now
from storage.database.wakeups import LOOKERS, Heard, Whom, wake_hosts
from storage.queries.reviews import Action, Wanted
from storage.records import AssociationEnd
from storage.running import Process
from storage.stages import Event, Outcome
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


def set_aside(store: Store, clock: FakeClock) -> Callable[[], object]:
    received(store, clock)
    return lambda: store.settling.leave(series_now(store), Event.SET_ASIDE, "", clock(), Outcome.NOT_ELIGIBLE)


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


def delivered_to_be_committed(store: Store, clock: FakeClock) -> Callable[[], object]:
    reported(store, clock)
    delivery = store.outbox.due.claim(clock(), LEASE)
    assert delivery is not None
    return lambda: store.outbox.accepted(delivery, clock(), "2.25.1")


def left_to_others(store: Store, _clock: FakeClock) -> Callable[[], object]:
    return store.outbox.due.wake_hosts


def requeued(store: Store, clock: FakeClock) -> Callable[[], object]:
    reported(store, clock)
    delivery = store.outbox.due.claim(clock(), LEASE)
    assert delivery is not None
    store.outbox.refused(delivery, "0xA900")
    return lambda: store.outbox.requeue(1, clock())


def reviewed(store: Store, clock: FakeClock) -> Callable[[], object]:
    reported(store, clock)
    return lambda: store.reviews.change(Wanted(1, 0, Action.ACKNOWLEDGED, "dr.a"), clock())


@pytest.mark.postgresql
@pytest.mark.parametrize(
    ("step", "whom"),
    [
        (settled, Whom.WORKERS),
        (given_back, Whom.WORKERS),
        (retried, Whom.WORKERS),
        (requeued, Whom.NODES),
        (delivered_to_be_committed, Whom.NODES),
        (left_to_others, Whom.NODES),
        (set_aside, Whom.PAGES),
        (analysed, Whom.PAGES),
        (delivered, Whom.PAGES),
        (reviewed, Whom.PAGES),
    ],
)
def test_what_becomes_due_or_changes_the_pages_is_heard_by_whom_it_concerns(
    postgresql_store: Store, clock: FakeClock, step: Step, whom: Whom
) -> None:
    do = step(postgresql_store, clock)
    connected = postgresql_store.listening()
    assert connected is not None
    with connected:
        do()
        assert [heard.whom for heard in connected.wait(5)] == [whom]
        assert not connected.wait(0), "of one transaction once"


@pytest.mark.postgresql
def test_images_in_the_object_store_are_heard_by_nodes_and_by_all_idle_workers(postgresql_store: Store) -> None:
    for number in range(3):
        run(postgresql_store, number)
    connected = postgresql_store.listening()
    assert connected is not None
    with connected:
        postgresql_store.uploads.wake_hosts()
        heard = [each for _ in range(2) for each in connected.wait(5)]
        assert heard == [Heard(Whom.NODES), Heard(Whom.WORKERS)]


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


def run(store: Store, number: int, role: str = "work", silent_seconds: float = 0, trouble: str = "") -> None:
    """A process of this role runs, or has said nothing for so long, or at last what ended it."""
    now = utc_now()
    beat_at, details = now - timedelta(seconds=silent_seconds), {"trouble": trouble} if trouble else {}
    store.processes.beat(Process(f"{role}:h:{number}", role, "h", number, "/f", now, beat_at, details))


@pytest.mark.postgresql
def test_a_series_that_is_ready_says_how_many_workers_are_idle(postgresql_store: Store, clock: FakeClock) -> None:
    claimed(postgresql_store, clock, series="2.25.2")
    for number in range(3):
        run(postgresql_store, number)
    run(postgresql_store, 4, silent_seconds=15)
    run(postgresql_store, 6, trouble="no room")
    run(postgresql_store, 5, role="serve")
    do = settled(postgresql_store, clock)
    connected = postgresql_store.listening()
    assert connected is not None
    with connected:
        do()
        assert connected.wait(5) == [Heard(Whom.WORKERS, 2)]


@pytest.mark.postgresql
def test_several_series_that_are_given_back_are_looked_for_by_all_idle_workers(
    postgresql_store: Store, clock: FakeClock
) -> None:
    for number in range(2):
        claimed(postgresql_store, clock, series=f"2.25.{number}")
    for number in range(9):
        run(postgresql_store, number)
    connected = postgresql_store.listening()
    assert connected is not None
    with connected:
        assert postgresql_store.queue.give_back("worker:1", refund=True) == 2
        assert connected.wait(5) == [Heard(Whom.WORKERS, 0)]


@pytest.mark.postgresql
def test_what_another_version_says_is_for_everybody_or_found_at_the_next_look(postgresql_store: Store) -> None:
    connected = postgresql_store.listening()
    assert connected is not None
    with connected, postgresql_store.transactions.engine.connect() as connection:
        for payload in ("", "somebody 7", "workers abc", "workers 7 x", "workers 7", "nodes"):
            connection.execute(text("SELECT pg_notify('willis', :payload)"), {"payload": payload})
        connection.commit()
        heard = list[Heard]()
        while Heard(Whom.NODES) not in heard[len(Whom) :]:
            heard += connected.wait(5)
        workers = [Heard(Whom.WORKERS, idle) for idle in (0, 0, 7)]
        assert heard == [*map(Heard, Whom), *workers, Heard(Whom.NODES)]


@pytest.mark.parametrize(("idle", "looking"), [(0, 1), (1, 1), (4, 1), (8, 0.5), (200, LOOKERS / 200)])
def test_of_few_idle_workers_all_look_and_of_many_some(idle: int, looking: float) -> None:
    random, times = Random(1), 20_000
    drawn = sum(Heard(Whom.WORKERS, idle).is_drawn(random) for _ in range(times))
    assert drawn / times == pytest.approx(looking, rel=0.1)


@pytest.mark.postgresql
def test_what_is_rolled_back_is_not_heard(postgresql_store: Store) -> None:
    connected = postgresql_store.listening()
    assert connected is not None
    with connected:
        with postgresql_store.transactions.writing() as session:
            wake_hosts(session, Whom.WORKERS)
            session.rollback()
        assert not connected.wait(0.05)


def test_on_sqlite_there_is_no_other_host(sqlite_store: Store) -> None:
    assert sqlite_store.listening() is None
    with sqlite_store.transactions.writing() as session:
        wake_hosts(session, Whom.WORKERS)
        session.execute(text("SELECT 1"))
