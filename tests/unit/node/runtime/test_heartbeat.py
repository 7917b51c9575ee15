"""What a process says of itself when it ends while the database takes nothing."""

import sqlite3
import threading
from pathlib import Path

import pytest

from node.runtime import heartbeat
from node.runtime.heartbeat import Heartbeat
from storage.queries.health import processes
from storage.store import Store
from tests.support.running import wait_until


def test_a_beat_that_is_asked_for_after_the_end_says_nothing(sqlite_store: Store, tmp_path: Path) -> None:
    ours = Heartbeat(sqlite_store.processes, "web", tmp_path)
    ours.start()
    ours.beat()
    assert len(processes(sqlite_store.transactions.reading_plainly)) == 1
    ours.stop()
    ours.beat()
    assert processes(sqlite_store.transactions.reading_plainly) == []


def test_a_beat_that_waits_for_the_database_is_not_the_last_word_of_a_process_that_ended(
    sqlite_store: Store, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "PERIOD_SECONDS", 0.05)
    monkeypatch.setattr(heartbeat, "_LAST_SECONDS", 0.2)
    beating = threading.Event()

    def details() -> dict[str, str]:
        if is_locked:
            beating.set()
        return {}

    is_locked = False
    ours = Heartbeat(sqlite_store.processes, "web", tmp_path, details)
    ours.start()
    with sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        is_locked = True
        assert beating.wait(5)
        ours.stop()
        other.execute("ROLLBACK")
    wait_until(lambda: not processes(sqlite_store.transactions.reading_plainly), 10, "nobody misses it")
    assert not ours._thread.is_alive()
