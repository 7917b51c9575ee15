"""How the supervisor looks after its children."""

import errno
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from node.config.sections import Config
from node.runtime.clock import utc_now
from node.runtime.processes import CONFIG_ERROR, Child, worker_name
from node.workflow.health import health_of
from node.workflow.supervisor import Supervisor
from storage.stages import Stage
from tests.support.builders import FakeClock, claimed, series_now


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    made = Supervisor(Config.model_validate({"storage": {"directory": tmp_path}}), [])
    yield made
    made._store.close()


@pytest.fixture
def ended(supervisor: Supervisor) -> Callable[..., Child]:
    """Makes children that have ended after so many starts and so many seconds."""

    def make(code: int = CONFIG_ERROR, starts: int = 1, seconds: float = 1.0) -> Child:
        child = Child("receive", [], {}, starts=starts, started_at=time.monotonic() - seconds)
        child.process = subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"])
        child.process.wait()
        return child

    return make


def test_a_child_that_never_ran_for_its_configuration_ends_the_node(
    supervisor: Supervisor, ended: Callable[..., Child]
) -> None:
    assert not supervisor._look_after(ended())


@pytest.mark.parametrize("history", [{"starts": 2}, {"seconds": 60.0}, {"code": 1}, {"code": -9}])
def test_a_child_that_has_run_is_started_again_after_a_pause_whatever_ended_it(
    supervisor: Supervisor, ended: Callable[..., Child], history: dict[str, float]
) -> None:
    child = ended(**history)
    assert supervisor._look_after(child)
    assert child.process is None
    assert 0 < child.start_at - time.monotonic() <= 1


def test_a_database_that_is_away_when_a_child_ends_does_not_end_the_node(
    supervisor: Supervisor, ended: Callable[..., Child], tmp_path: Path
) -> None:
    with sqlite3.connect(tmp_path / "willis.db") as database:
        database.execute("ALTER TABLE series RENAME TO away")
    child = ended(code=-9)
    assert supervisor._look_after(child)
    assert child.process is None


def test_a_host_that_has_no_room_for_a_child_does_not_end_the_node(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    child = Child("work", [], {})
    with monkeypatch.context() as patched:
        patched.setattr(subprocess, "Popen", no_memory)
        assert supervisor._look_after(child)
    assert child.process is None
    assert 0 < child.start_at - time.monotonic() <= 1


def test_what_a_dead_process_held_is_given_back_when_a_child_gets_its_process_id(
    supervisor: Supervisor, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(self: Child) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", ""])
        claimed(supervisor._store, clock, worker_name(self.process.pid))

    monkeypatch.setattr(Child, "start", start)
    child = Child("receive", [], {})
    assert supervisor._look_after(child)
    assert child.process is not None
    child.process.wait()
    assert (series_now(supervisor._store).stage, series_now(supervisor._store).attempts) == (Stage.READY, 1)


def test_a_worker_that_no_alarm_reaches_is_killed_after_its_time_limit(
    supervisor: Supervisor, clock: FakeClock
) -> None:
    child = Child("work", [], {})
    child.process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    supervisor._children = [child]
    try:
        limit_seconds = supervisor._config.ai.time_limit_seconds
        for age_seconds, ended in ((limit_seconds, None), (limit_seconds + 60, -signal.SIGKILL)):
            clock.now = utc_now() - timedelta(seconds=age_seconds)
            claimed(supervisor._store, clock, worker_name(child.process.pid), series=f"2.25.{age_seconds:.0f}")
            supervisor._end_stuck()
            with suppress(subprocess.TimeoutExpired):
                child.process.wait(10 if ended else 0.2)
            assert child.process.returncode == ended
    finally:
        child.process.kill()
        child.process.communicate()


def test_a_job_that_blocks_is_a_reason_of_health_while_the_heart_beats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    go_on = threading.Event()
    monkeypatch.setattr("node.workflow.delivery.deliver", lambda _context: go_on.wait(20))
    config = Config.model_validate({"storage": {"directory": tmp_path}})
    node = Supervisor(config, [])
    [job] = [each for each in node._jobs if each.name == "deliver"]
    job.progress.late_after_seconds = 0.2
    thread = job.start()
    job.wake()
    time.sleep(0.3)
    node._heartbeat._beat()
    reasons = [each for each in health_of(config, utc_now()).reasons if each.about == "jobs"]
    go_on.set()
    job.stop()
    thread.join(5)
    node._store.close()
    assert len(reasons) == 1
    assert "the job deliver of `willis serve`" in reasons[0].message
    assert "no report is delivered" in reasons[0].message


def test_with_echo_seconds_of_zero_no_peer_is_asked_not_even_once_and_no_old_answer_counts(tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "storage": {"directory": tmp_path},
        "node": {"echo_seconds": 0},
        "peers": {"PACS": {"ae_title": "PACS", "host": "127.0.0.1", "port": 11113}},
    }
    node = Supervisor(config := Config.model_validate(values), [])
    assert "peers" not in [job.name for job in node._jobs]
    node._store.processes.peer_answered("PACS", socket.gethostname()[:64], utc_now(), "it did not answer")
    assert [each.about for each in health_of(config, utc_now()).reasons if each.about == "peers"] == []
    node._store.close()


def test_before_it_stops_it_drains_and_a_second_signal_ends_that(tmp_path: Path) -> None:
    settings = {"storage": {"directory": tmp_path}, "node": {"drain_seconds": 60}}
    supervisor = Supervisor(Config.model_validate(settings), [])
    processes, where = supervisor._store.processes, (socket.gethostname()[:64], str(tmp_path))
    supervisor._heartbeat.beat()
    assert not supervisor._has_drained()
    assert not processes.drains(*where)
    supervisor._on_stop(signal.SIGTERM, None)
    assert not supervisor._has_drained()
    assert processes.drains(*where)
    assert not processes.drains("another-host", where[1])
    supervisor._on_stop(signal.SIGTERM, None)
    assert supervisor._has_drained()
    supervisor._store.close()
