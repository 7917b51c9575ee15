"""A process is woken by other hosts, also after its connection was lost; what was said meanwhile counts as heard."""

import queue
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import text

from node.runtime import listener
from node.runtime.backoff import Backoff
from node.runtime.clock import utc_now
from node.runtime.listener import Listener, wake_process
from node.runtime.notify import WORKER_PROCESS, Wakeup
from storage.database.wakeups import Heard, Whom
from storage.running import Process
from storage.store import Store
from tests.support.builders import FakeClock, claimed, finish
from tests.support.running import wait_until


def all_of(heard: "queue.Queue[Heard]") -> bool:
    """Whether what comes next is what may have been said while nobody listened: something for everybody."""
    return [heard.get(timeout=5) for _ in Whom] == [Heard(whom) for whom in Whom]


@pytest.fixture
def wakeups(postgresql_store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator["queue.Queue[Heard]"]:
    """What the wakeups of a listener go into; it has connected, which counted as one of each kind."""
    monkeypatch.setattr(listener, "RECONNECTS", Backoff(0.05, 0.05))
    heard: queue.Queue[Heard] = queue.Queue()
    listens = Listener(postgresql_store.listening, heard.put)
    listens.start()
    assert all_of(heard)
    assert listens.hears
    yield heard
    listens.stop()
    assert not listens.hears


@pytest.mark.postgresql
def test_another_host_wakes_this_one_also_after_the_connection_was_lost(
    postgresql_store: Store, wakeups: "queue.Queue[Heard]"
) -> None:
    postgresql_store.uploads.wake_hosts()
    assert [wakeups.get(timeout=5).whom for _ in range(2)] == [Whom.NODES, Whom.WORKERS]
    with postgresql_store.transactions.writing() as session:
        lost = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query = 'LISTEN willis'"
        assert session.scalar(text(lost)) == 1
    assert all_of(wakeups), "connected again"
    postgresql_store.uploads.wake_hosts()
    assert [wakeups.get(timeout=5).whom for _ in range(2)] == [Whom.NODES, Whom.WORKERS]


@pytest.mark.postgresql
def test_a_database_that_is_away_at_first_is_connected_to_when_it_is_there(
    postgresql_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "RECONNECTS", Backoff(0.05, 0.05))
    answers = iter([False, False, True])

    def connect() -> object:
        if not next(answers):
            raise ConnectionRefusedError
        return postgresql_store.listening()

    listens = Listener(connect, lambda _heard: None)  # type: ignore[arg-type]
    listens.start()
    wait_until(lambda: listens.hears, 5)
    listens.stop()


@pytest.mark.postgresql
def test_there_is_a_connection_only_while_it_is_wanted(
    postgresql_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "_LOOK_SECONDS", 0.02)
    wanted, heard = threading.Event(), queue.Queue[Heard]()
    listens = Listener(postgresql_store.listening, heard.put, wanted.is_set)

    def connections() -> int:
        with postgresql_store.transactions.reading() as session:
            query = (
                "SELECT count(*) FROM pg_stat_activity WHERE query = 'LISTEN willis' AND datname = current_database()"
            )
            return int(session.scalar(text(query)) or 0)

    listens.start()
    for _ in range(2):
        wanted.set()
        assert all_of(heard), "what was said before is heard too"
        assert (listens.hears, connections()) == (True, 1)
        wanted.clear()
        wait_until(lambda: not listens.hears and not connections(), 5)
    listens.stop()


@pytest.mark.postgresql
def test_a_series_that_is_ready_wakes_some_of_many_idle_workers_and_its_report_none(
    postgresql_store: Store, clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "_LOOK_SECONDS", 0.02)  # they stop one after the other
    hosts, heard, now = 20, list[Heard](), utc_now()

    def listener_of(directory: Path, number: int) -> Listener:
        def wake(it: Heard) -> None:
            wake_process(directory, it, Random(number))
            heard.append(it)

        return Listener(postgresql_store.listening, wake)

    with ExitStack() as stack:
        sockets, listeners = [], []
        for number in range(hosts):
            name, folder = f"work:h{number}:1", tmp_path / str(number)
            postgresql_store.processes.beat(Process(name, "work", f"h{number}", 1, str(folder), now, now))
            sockets.append(stack.enter_context(Wakeup(folder, WORKER_PROCESS)))
            listeners.append(listener_of(folder, number))
        for each in listeners:
            each.start()
            stack.callback(each.stop)
        wait_until(lambda: len(heard) == hosts * len(Whom))
        assert all(each.wait(0) for each in sockets), "connected: all look once"
        heard.clear()
        claim = claimed(postgresql_store, clock)
        wait_until(lambda: len(heard) == hosts)
        assert {it.idle for it in heard} == {hosts}
        assert 1 <= sum(each.wait(0) for each in sockets) <= hosts // 2
        finish(postgresql_store, clock, claim)
        wait_until(lambda: len(heard) == 2 * hosts)
        assert not any(each.wait(0) for each in sockets)


def test_on_sqlite_nobody_is_listened_to(sqlite_store: Store) -> None:
    listens = Listener(sqlite_store.listening, lambda _heard: None)
    listens.start()
    listens._thread.join(5)
    assert not listens._thread.is_alive() and not listens.hears
    listens.stop()
