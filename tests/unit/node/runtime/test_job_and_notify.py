import os
import resource
import socket
import stat
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from node.runtime.job import Job, still_working
from node.runtime.notify import NODE_PROCESS, WORKER_PROCESS, Wakeup, _address, wake
from tests.support.builders import START

PATIENCE = 5.0


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


def test_a_job_runs_once_for_each_wakeup_and_not_without() -> None:
    runs: list[int] = []
    job = Job("test", None, False, lambda: runs.append(1))
    thread = job.start()
    time.sleep(0.02)
    assert runs == []
    for count in (1, 2):
        job.wake()
        wait_until(lambda count=count: len(runs) == count)  # type: ignore[misc]
    job.stop()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert len(runs) == 2


def test_a_job_that_hangs_or_fails_gets_on_no_more_and_one_that_says_so_does() -> None:
    now, steps, go_on = [START], [], threading.Event()
    actions: dict[int, Callable[[], object]] = {2: lambda: 1 / 0, 3: still_working, 4: lambda: go_on.wait(PATIENCE)}

    def function() -> None:
        steps.append(1)
        actions.get(len(steps), lambda: None)()
        if len(steps) == 3:
            1 / 0  # noqa: B018

    job = Job("test", None, False, function, 60)
    job.progress._clock = lambda: now[0]
    assert job.progress.late_after_seconds == 60
    thread = job.start()
    for step, last in enumerate((1, 1, 3, 3), 1):
        now[0] = START + timedelta(minutes=step)
        job.wake()
        wait_until(lambda step=step: len(steps) == step)  # type: ignore[misc]
        time.sleep(0.05)
        assert job.progress.as_details()["at"] == (START + timedelta(minutes=last)).isoformat(), step
    go_on.set()
    wait_until(lambda: job.progress.as_details()["at"] == now[0].isoformat())
    job.stop()
    thread.join(PATIENCE)


def test_wakeups_during_a_run_cause_exactly_one_more_and_never_two_at_once() -> None:
    inside, release, overlaps, runs = threading.Event(), threading.Event(), [], []
    running = threading.Lock()

    def function() -> None:
        if not running.acquire(blocking=False):
            overlaps.append(1)
            return
        inside.set()
        release.wait(PATIENCE)
        runs.append(1)
        running.release()

    job = Job("test", None, False, function)
    thread = job.start()
    job.wake()
    assert inside.wait(PATIENCE)
    for _ in range(5):
        job.wake()
    release.set()
    wait_until(lambda: len(runs) == 2)
    time.sleep(0.02)
    job.stop()
    thread.join(PATIENCE)
    assert (len(runs), overlaps) == (2, [])


def test_a_wakeup_before_the_start_is_not_lost() -> None:
    runs: list[int] = []
    job = Job("test", None, False, lambda: runs.append(1))
    job.wake()
    thread = job.start()
    wait_until(lambda: runs == [1])
    job.stop()
    thread.join(PATIENCE)


def test_stop_ends_after_the_present_run_whatever_woke_it() -> None:
    inside, release, runs = threading.Event(), threading.Event(), []

    def function() -> None:
        inside.set()
        release.wait(PATIENCE)
        runs.append(1)

    job = Job("test", None, False, function)
    thread = job.start()
    job.wake()
    assert inside.wait(PATIENCE)
    job.wake()
    job.stop()
    release.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert runs == [1]


def test_an_error_of_the_function_is_logged_by_type_and_the_next_wakeup_tries_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs: list[int] = []

    def function() -> None:
        runs.append(1)
        if len(runs) == 1:
            raise ValueError("Doe^Jane")

    job = Job("settle", None, False, function)
    thread = job.start()
    job.wake()
    wait_until(lambda: len(runs) == 1)
    job.wake()
    wait_until(lambda: len(runs) == 2)
    job.stop()
    thread.join(PATIENCE)
    said = "".join(capsys.readouterr())
    assert "Doe" not in said
    assert "job_failed" in said
    assert "ValueError" in said


def test_a_wakeup_wakes_who_waits(tmp_path: Path) -> None:
    with Wakeup(tmp_path, NODE_PROCESS) as wakeup:
        timer = threading.Timer(0.02, wake, (tmp_path, NODE_PROCESS))
        timer.start()
        start = time.monotonic()
        assert wakeup.wait(PATIENCE)
        assert time.monotonic() - start < PATIENCE / 2
        timer.join()


def test_a_wakeup_before_the_wait_is_kept_and_several_wake_once(tmp_path: Path) -> None:
    with Wakeup(tmp_path, NODE_PROCESS) as wakeup:
        for _ in range(3):
            wake(tmp_path, NODE_PROCESS)
        assert wakeup.wait(0)
        assert not wakeup.wait(0)


def test_without_a_wakeup_the_wait_ends_with_its_timeout(tmp_path: Path) -> None:
    with Wakeup(tmp_path, NODE_PROCESS) as wakeup:
        start = time.monotonic()
        assert not wakeup.wait(0.03)
        assert time.monotonic() - start >= 0.03


def test_wakeups_of_other_names_and_other_installations_wake_nobody(tmp_path: Path) -> None:
    with Wakeup(tmp_path, NODE_PROCESS) as wakeup:
        wake(tmp_path, WORKER_PROCESS)
        wake(tmp_path / "other", NODE_PROCESS)
        assert not wakeup.wait(0)


def test_a_wakeup_where_nobody_waits_does_nothing(tmp_path: Path) -> None:
    wake(tmp_path, NODE_PROCESS)
    assert not Path(_address(tmp_path, NODE_PROCESS)).exists()


def test_a_wakeup_without_a_descriptor_to_send_it_with_does_nothing(tmp_path: Path) -> None:
    usual = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, usual[1]))
    try:
        wake(tmp_path, "node")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, usual)


def test_a_wakeup_never_blocks_even_when_nobody_listens_any_more(tmp_path: Path) -> None:
    with Wakeup(tmp_path, NODE_PROCESS):
        start = time.monotonic()
        for _ in range(5000):
            wake(tmp_path, NODE_PROCESS)
        assert time.monotonic() - start < PATIENCE


def test_the_latest_owner_of_a_name_hears_it_also_after_the_earlier_one_is_gone(tmp_path: Path) -> None:
    with Wakeup(tmp_path, NODE_PROCESS) as earlier:
        with Wakeup(tmp_path, NODE_PROCESS) as latest:
            earlier.__exit__(None, None, None)
            wake(tmp_path, NODE_PROCESS)
            assert latest.wait(0)
        assert not Path(_address(tmp_path, NODE_PROCESS)).exists()


def test_a_wakeup_socket_that_a_dead_process_left_is_replaced(tmp_path: Path) -> None:
    left = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    left.bind(_address(tmp_path, NODE_PROCESS))
    left.close()
    wake(tmp_path, NODE_PROCESS)
    with Wakeup(tmp_path, NODE_PROCESS) as wakeup:
        wake(tmp_path, NODE_PROCESS)
        assert wakeup.wait(0)


def test_only_the_owner_may_wake_and_the_address_is_short(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 200)
    assert len(os.fsencode(_address(deep, WORKER_PROCESS))) < 104
    with Wakeup(deep, WORKER_PROCESS):
        assert stat.S_IMODE(Path(_address(deep, WORKER_PROCESS)).stat().st_mode) == 0o600


def test_the_address_is_the_same_from_wherever_it_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert _address(Path("var"), NODE_PROCESS) == _address(tmp_path / "var", NODE_PROCESS)
