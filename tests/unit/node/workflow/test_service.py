"""When systemd hears that the node is there, and that it is not stuck: a real socket, a real database, real children."""

import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from node.config.sections import Config
from node.runtime.clock import utc_now
from node.runtime.processes import Child
from node.runtime.service_manager import ServiceManager
from node.workflow import service
from node.workflow.service import START_SECONDS, Service
from storage.running import Process
from storage.store import Store

Beat = Callable[..., None]
LOCKS = """
import sqlite3
database = sqlite3.connect(input(), isolation_level=None)
database.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
input()
"""


def locking_program() -> subprocess.Popen[bytes]:
    """Does nothing until it is told by `lock` which database to lock."""
    return subprocess.Popen([sys.executable, "-c", LOCKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def lock(program: subprocess.Popen[bytes], folder: Path) -> None:
    assert program.stdin is not None and program.stdout is not None
    program.stdin.write(f"{folder / 'willis.db'}\n".encode())
    program.stdin.flush()
    assert program.stdout.readline() == b"locked\n"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """The node's."""
    made = Store.open(f"sqlite:///{tmp_path / 'willis.db'}")
    yield made
    made.close()


@pytest.fixture
def child() -> Iterator[Child]:
    """A receiver that was started long enough ago to have been heard of."""
    made = Child("receive", [], {}, started_at=time.monotonic() - START_SECONDS - 1)
    made.process = locking_program()
    yield made
    made.process.kill()
    made.process.wait()


@pytest.fixture
def beat(store: Store, tmp_path: Path) -> Beat:
    """A process of the node says that it runs, or said so `ago` seconds ago."""

    def make(role: str, pid: int, ago: float = 0.0, **details: Any) -> None:
        now, host = utc_now() - timedelta(seconds=ago), socket.gethostname()[:64]
        store.processes.beat(Process(f"{role}:{pid}", role, host, pid, str(tmp_path), now, now, details))

    return make


@pytest.fixture
def look(
    store: Store, child: Child, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], list[str]]]:
    """One look of the node; returns what systemd heard."""
    monkeypatch.setattr(service, "UNREADY_SECONDS", 0.0)
    monkeypatch.setattr(service, "CALM_SECONDS", 0.0)
    config = Config.model_validate({"storage": {"directory": tmp_path}})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        manager = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"})
        ours = Service(config, store.transactions.reading_plainly, manager)

        def heard() -> Iterator[str]:
            while True:
                try:
                    yield systemd.recv(2000).decode()
                except BlockingIOError:
                    return

        def looked() -> list[str]:
            ours.look([child])
            return list(heard())

        yield looked


def test_the_node_is_ready_once_its_receiver_says_that_it_runs(
    look: Callable[[], list[str]], beat: Beat, child: Child
) -> None:
    assert "READY=1" not in look()
    beat("receive", child.process.pid)  # type: ignore[union-attr]
    assert "READY=1" in look()
    assert "READY=1" not in look(), "it is said once"


def test_the_watchdog_is_fed_only_while_every_child_is_heard_of(
    look: Callable[[], list[str]], beat: Beat, child: Child
) -> None:
    assert child.process is not None
    beat("serve", os.getpid())
    beat("receive", child.process.pid)
    assert "WATCHDOG=1" in look()
    beat("receive", child.process.pid, ago=13)
    heard = look()
    assert "WATCHDOG=1" not in heard
    assert heard[-1].startswith("STATUS=down: the process `willis receive` is silent")
    beat("receive", child.process.pid)
    assert "WATCHDOG=1" in look(), "it works again"


def test_a_job_that_stands_still_starves_the_watchdog(look: Callable[[], list[str]], beat: Beat, child: Child) -> None:
    beat("receive", child.process.pid)  # type: ignore[union-attr]
    since = (utc_now() - timedelta(seconds=100)).isoformat()
    beat("serve", os.getpid(), jobs={"deliver": {"at": since, "late_after_seconds": 99.0}})
    assert "WATCHDOG=1" not in look()
    beat("serve", os.getpid(), jobs={"deliver": {"at": since, "late_after_seconds": 110.0}})
    assert "WATCHDOG=1" in look()


def test_a_child_that_starts_or_waits_to_be_started_again_is_not_stuck(
    look: Callable[[], list[str]], beat: Beat, child: Child
) -> None:
    assert child.process is not None
    beat("serve", os.getpid())
    assert "WATCHDOG=1" not in look()
    child.started_at = time.monotonic()
    assert "WATCHDOG=1" in look()
    child.started_at = time.monotonic() - START_SECONDS - 1
    child.process.kill()
    child.process.wait()
    assert "WATCHDOG=1" in look()


def test_a_database_that_is_away_is_no_reason_to_start_anew(
    look: Callable[[], list[str]], store: Store, tmp_path: Path
) -> None:
    with sqlite3.connect(tmp_path / "willis.db") as database:
        database.execute("ALTER TABLE process RENAME TO away")
    assert "WATCHDOG=1" in look()


def test_a_database_that_takes_nothing_is_no_reason_to_start_anew(
    look: Callable[[], list[str]], beat: Beat, child: Child, store: Store, tmp_path: Path
) -> None:
    beat("serve", os.getpid(), ago=200)
    beat("receive", child.process.pid, ago=200)  # type: ignore[union-attr]
    assert "WATCHDOG=1" in look(), "a full disk: what we say of ourselves does not get there either"
    with locking_program() as other:
        lock(other, tmp_path)
        heard = look()
        other.communicate(b"\n")
    assert "WATCHDOG=1" in heard
    assert f"(pid {other.pid}); see what that does" in heard[-1]


def test_a_child_that_hangs_with_the_databases_lock_is_a_reason_to_start_anew(
    look: Callable[[], list[str]], beat: Beat, child: Child, tmp_path: Path
) -> None:
    assert child.process is not None
    beat("serve", os.getpid(), ago=200)
    beat("receive", child.process.pid, ago=200)
    lock(child.process, tmp_path)
    assert "WATCHDOG=1" not in look()
