"""What processes say of themselves, and what is read of it, on both databases."""

from datetime import datetime, timedelta

from storage.queries import health
from storage.running import Process
from storage.store import Store
from tests.support.builders import START, FakeClock, ready, reported


def process(role: str = "serve", pid: int = 7, at: datetime = START, **details: str) -> Process:
    return Process(f"{role}:host:{pid}", role, "host", pid, "/var", START, at, dict(details))


def known(store: Store) -> list[Process]:
    return health.processes(store.transactions.reading_plainly)


def test_a_beat_is_read_as_it_was_and_the_next_takes_its_place(store: Store) -> None:
    store.processes.beat(process())
    store.processes.beat(process("work", 8, model="0.6.0"))
    assert known(store) == [process(), process("work", 8, model="0.6.0")]
    later = process(at=START + timedelta(seconds=3), note="x")
    store.processes.beat(later)
    assert known(store)[0] == later


def test_a_process_that_ended_as_it_should_is_not_missed(store: Store) -> None:
    store.processes.beat(process())
    store.processes.beat(process("work", 8))
    store.processes.end("serve:host:7")
    assert [each.role for each in known(store)] == ["work"]


def test_only_the_dead_and_the_long_silent_of_a_role_are_forgotten(store: Store) -> None:
    for each in (process(pid=1), process(pid=2), process(pid=3, at=START - timedelta(hours=2)), process("work", 1)):
        store.processes.beat(each)
    gone = store.processes.forget(
        "serve", "/var", lambda host, pid: (host, pid) == ("host", 1), START - timedelta(hours=1)
    )
    assert gone == 2
    assert [(each.role, each.pid) for each in known(store)] == [("serve", 2), ("work", 1)]


def test_when_a_peer_last_answered_is_kept_while_it_does_not(store: Store) -> None:
    later = START + timedelta(seconds=10)
    store.processes.peer_answered("PACS", "a", START)
    store.processes.peer_answered("PACS", "a", later, "connection refused")
    store.processes.peer_answered("AWAY", "a", START, "silent")
    found = {each.peer: each for each in health.peers(store.transactions.reading_plainly)}
    assert (found["PACS"].asked_at, found["PACS"].answered_at) == (later, START)
    assert found["PACS"].error == "connection refused"
    assert (found["AWAY"].answered_at, found["AWAY"].error) == (None, "silent")
    store.processes.peer_answered("PACS", "a", later)
    assert {each.error for each in health.peers(store.transactions.reading_plainly) if each.peer == "PACS"} == {""}


def test_what_a_peer_answers_one_host_says_nothing_of_what_it_answers_another(store: Store) -> None:
    store.processes.peer_answered("PACS", "a", START, "connection refused")
    store.processes.peer_answered("PACS", "b", START)
    found = health.peers(store.transactions.reading_plainly)
    assert [(each.host, each.error) for each in found] == [("a", "connection refused"), ("b", "")]


def test_what_a_host_was_answered_that_asks_no_longer_is_forgotten(store: Store) -> None:
    store.processes.peer_answered("PACS", "a", START)
    store.processes.peer_answered("PACS", "b", START)
    store.processes.peer_answered("PACS", "b", START + timedelta(minutes=61), "silent")
    [kept] = health.peers(store.transactions.reading_plainly)
    assert (kept.host, kept.answered_at) == ("b", START), "when it last answered us is known still"


def test_what_waits_is_the_oldest_and_what_is_dead_is_counted(store: Store, clock: FakeClock) -> None:
    assert health.waiting(store.transactions.reading_plainly).oldest_pending_at is None
    reported(store, clock, series="2.25.1")
    clock.advance(60)
    ready(store, clock, series="2.25.2")
    reported_delivery = store.outbox.due.claim(clock(), timedelta(seconds=60))
    waits = health.waiting(store.transactions.reading_plainly)
    assert (waits.oldest_pending_at, waits.oldest_ready_at, waits.dead) == (START, clock(), 0)
    assert reported_delivery is not None
    store.outbox.refused(reported_delivery, "status 0x0122")
    assert health.waiting(store.transactions.reading_plainly).dead == 1
