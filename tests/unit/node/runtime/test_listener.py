"""A process is woken by other hosts, also after its connection was lost; what was said meanwhile counts as heard."""

import queue
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from node.runtime import listener
from node.runtime.backoff import Backoff
from node.runtime.listener import Listener
from storage.store import Store
from tests.support.running import wait_until


@pytest.fixture
def wakeups(postgresql_store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator["queue.Queue[None]"]:
    """What the wakeups of a listener go into; it has connected, which counted as one."""
    monkeypatch.setattr(listener, "RECONNECTS", Backoff(0.05, 0.05))
    heard: queue.Queue[None] = queue.Queue()
    listens = Listener(postgresql_store.listening, lambda: heard.put(None))
    listens.start()
    heard.get(timeout=5)
    assert listens.hears
    yield heard
    listens.stop()
    assert not listens.hears


@pytest.mark.postgresql
def test_another_host_wakes_this_one_also_after_the_connection_was_lost(
    postgresql_store: Store, wakeups: "queue.Queue[None]"
) -> None:
    postgresql_store.uploads.wake_hosts()
    wakeups.get(timeout=5)
    with postgresql_store.transactions.writing() as session:
        lost = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query = 'LISTEN willis'"
        assert session.scalar(text(lost)) == 1
    wakeups.get(timeout=5)  # connected again: something may have been said meanwhile
    postgresql_store.uploads.wake_hosts()
    wakeups.get(timeout=5)


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

    listens = Listener(connect, lambda: None)  # type: ignore[arg-type]
    listens.start()
    wait_until(lambda: listens.hears, 5)
    listens.stop()


def test_on_sqlite_nobody_is_listened_to(sqlite_store: Store) -> None:
    listens = Listener(sqlite_store.listening, lambda: None)
    listens.start()
    listens._thread.join(5)
    assert not listens._thread.is_alive() and not listens.hears
    listens.stop()
