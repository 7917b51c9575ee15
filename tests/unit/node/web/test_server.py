"""`willis web` in a process of its own: it says that it runs, and when it ends nobody misses it."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

from storage.database.plain import reading_sqlite
from storage.queries.health import processes
from storage.running import Process
from tests.support.running import ROOT, free_port, wait_until


def known(folder: Path) -> list[Process]:
    """What the database knows of processes."""
    reading = reading_sqlite(f"sqlite:///{folder / 'willis.db'}")
    return processes(reading) if reading else []


def test_the_pages_say_that_they_run_until_they_are_stopped(tmp_path: Path) -> None:
    port, path = free_port(), tmp_path / "config.toml"
    path.write_text(f"[storage]\ndirectory = {str(tmp_path)!r}\n[web]\nport = {port}\n")
    command = [sys.executable, "-m", "node", "web", "--config", str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as pages:
        try:
            wait_until(lambda: (tmp_path / "willis.db").exists() and bool(known(tmp_path)), 60, "the pages run")
            [process] = known(tmp_path)
            assert (process.role, process.pid) == ("web", pages.pid)
            assert process.details == {"address": f"http://127.0.0.1:{port}"}
            pages.send_signal(signal.SIGHUP)
            wait_until(lambda: "reload" in known(tmp_path)[0].details, 10, "the pages have reloaded")
            assert known(tmp_path)[0].details["reload"]["error"] == ""
            second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            assert second.returncode == 1
            assert f"[web] port = {port} (127.0.0.1:{port}): another program holds it" in second.stderr
            pages.send_signal(signal.SIGTERM)
            assert pages.wait(30) == 0
        finally:
            pages.kill()
    assert [process.details.get("trouble", "")[:12] for process in known(tmp_path)] == ["[web] port ="]


def test_pages_that_were_started_in_a_terminal_end_with_it(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f"[storage]\ndirectory = {str(tmp_path)!r}\n[web]\nport = {free_port()}\n")
    command = [sys.executable, "-m", "node", "web", "--config", str(path)]
    terminal, its_end = os.openpty()
    heed = partial(
        signal.signal, signal.SIGHUP, signal.SIG_DFL
    )  # who runs the tests may have it ignored, as nohup does
    with subprocess.Popen(command, cwd=ROOT, stdin=its_end, stderr=subprocess.DEVNULL, preexec_fn=heed) as pages:
        try:
            wait_until(lambda: (tmp_path / "willis.db").exists() and bool(known(tmp_path)), 60, "the pages run")
            pages.send_signal(signal.SIGHUP)
            assert pages.wait(10) == -signal.SIGHUP
        finally:
            pages.kill()
            os.close(terminal)
            os.close(its_end)
