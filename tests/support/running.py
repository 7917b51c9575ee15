"""A whole node in processes of its own, and studies to send to it."""

import fcntl
import hashlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from node.config.loading import load
from node.config.peer import Peer
from node.config.sections import Config
from node.scu.dimse import Entity, Timeouts
from node.scu.storage_scu import Sent, send_files
from node.simulated_pacs import Fault, SimulatedPeer
from storage.queries.worklist import Row
from storage.store import Store

ROOT = Path(__file__).parents[2]
START_SECONDS = 240.0
"""What is given to a process that starts, where how fast it does is not what the test is of.
To import torch takes two seconds on a free machine; forty were seen on one that was shared."""


def free_port() -> int:
    """A TCP port on loopback that nobody holds, of those that this test process alone draws from.

    Below the ports that the kernel gives to who asks for none, so that nobody takes it before it is listened on.
    """
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 2
    while True:
        port = 12_000 + 10_000 * process + secrets.randbelow(10_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def wait_until(condition: Callable[[], Any], seconds: float = 90.0, what: str = "") -> Any:
    """The condition's first true value.  Fails the test after `seconds`."""
    deadline, pause_seconds = time.monotonic() + seconds, 0.005
    while True:
        if value := condition():
            return value
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what or condition}"
        time.sleep(pause_seconds)
        pause_seconds = min(1.5 * pause_seconds, 0.1)  # most of what is waited for comes at once


class RunningNode:
    """`willis serve` with a simulated PACS beside it."""

    module = "node"
    """Which Python module is run as the command."""
    root = ROOT
    """Where that module's source lies."""
    environment: Mapping[str, str] = MappingProxyType({})
    """What it has besides ours."""

    def __init__(self, folder: Path, database_url: str = "", **settings: str) -> None:
        """`settings`: `section__key` → TOML value, for example completion__quiet_seconds="2"."""
        self.folder = folder
        self.pacs = SimulatedPeer(folder / "pacs", "PACS")
        self.pacs_port = self.pacs.start(0)
        self.log = folder / "node.log"
        self.path = folder / "config.toml"
        self._write(database_url, settings)
        self.config: Config = load(self.path, {})
        self.address = Peer(ae_title="WILLIS", host=self.config.node.host, port=self.config.node.port)
        self.process: subprocess.Popen[bytes] | None = None
        self._store: Store | None = None

    def _write(self, database_url: str, settings: dict[str, str]) -> None:
        values: dict[str, dict[str, str]] = {
            "node": {"port": str(free_port())},
            "storage": {"directory": repr(str(self.folder / "var")), "database_url": repr(database_url)},
            "log": {"format": '"json"'},
            "web": {"enabled": "false"},
            "peers.PACS": {"ae_title": '"PACS"', "host": '"127.0.0.1"', "port": str(self.pacs_port)},
        }
        for name, value in settings.items():
            section, _, key = name.rpartition("__")
            values.setdefault(section.replace("__", "."), {})[key] = value
        lines = [
            line
            for section, keys in values.items()
            for line in (f"[{section}]", *(f"{k} = {v}" for k, v in keys.items()))
        ]
        self.path.write_text("\n".join(lines) + "\n", "utf-8")

    @property
    def store(self) -> Store:
        """The node's database."""
        self._store = self._store or Store.open(self.config.storage.url)
        return self._store

    def start(self) -> "RunningNode":
        """The receiver accepts associations."""
        self.begin()
        wait_until(self._listens, START_SECONDS, "the receiver listens")
        return self

    def begin(self) -> None:
        """It was started, and will listen."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.module, "serve", "--config", str(self.path)],
                cwd=self.root,
                env={**os.environ, **self.environment},
                stderr=output,
                stdout=output,
            )

    def _listens(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-2000:]
        try:
            socket.create_connection((self.config.node.host, self.config.node.port), 0.2).close()
        except OSError:
            return False
        return True

    def stop(self) -> float:
        """The node ended after SIGTERM with status 0; returns how many seconds it took."""
        assert self.process is not None
        start = time.monotonic()
        self.process.terminate()
        assert self.process.wait(20) == 0
        return time.monotonic() - start

    def children(self) -> list[int]:
        """Process ids of receiver and worker."""
        assert self.process is not None
        found: list[int] = []
        for thread in Path(f"/proc/{self.process.pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
                found += map(int, (thread / "children").read_text().split())
        return found

    def worker(self) -> int:
        """The process id of the analysis process."""
        return next(pid for pid in self.children() if _is(pid, b"work"))

    def child(self, role: bytes) -> int | None:
        """The process id of that of this role, where it runs."""
        with suppress(FileNotFoundError, ProcessLookupError):
            return next((pid for pid in self.children() if _is(pid, role)), None)
        return None

    def kill(self) -> None:
        """SIGKILL to every process of the node at once."""
        assert self.process is not None
        pids = [*self.children(), self.process.pid]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)

    def close(self) -> None:
        """Nothing runs any longer."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()
        self.pacs.stop()
        if self._store is not None:
            self._store.close()

    def log_tail(self, lines: int = 40) -> str:
        """What it said last."""
        said = self.log.read_text("utf-8", "replace") if self.log.exists() else ""
        return "\n".join(said.splitlines()[-lines:])

    def send(self, paths: Iterable[Path], calling: str = "PACS") -> list[Sent]:
        """What became of each file, sent on one association."""
        return list(send_files(Entity(calling, Timeouts(acse=30, dimse=60)), self.address, list(paths)))

    def rows(self) -> list[Row]:
        """The worklist."""
        return self.store.worklist.rows()

    def wait_for_stage(self, *stages: str, count: int = 1, seconds: float = 120.0) -> list[Row]:
        """The worklist once `count` series are in one of these stages."""
        return list(
            wait_until(
                lambda: [r for r in self.rows() if r["stage"] in stages][count - 1 :] and self.rows(),
                seconds,
                str(stages),
            )
        )

    def wait_for_delivered(self, count: int = 1, seconds: float = 120.0) -> list[Row]:
        """The worklist once `count` reports are in the PACS."""
        return list(
            wait_until(
                lambda: sum(r["delivery"] in ("delivered", "committed") for r in self.rows()) >= count and self.rows(),
                seconds,
                f"{count} reports delivered",
            )
        )

    def pacs_returns(self, fault: Fault = Fault.NONE) -> None:
        """The PACS listens again on its port."""
        self.pacs.fault = fault
        self.pacs.start(self.pacs_port)


def _is(pid: int, role: bytes) -> bool:
    return role in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def cached_phantom(name: str, **arguments: Any) -> list[Path]:
    """The files of a full phantom series, painted once and kept beside pytest's cache."""
    from training.phantom import make_scan, write_series

    sources = b"".join(path.read_bytes() for path in sorted((ROOT / "training" / "phantom").glob("*.py")))
    key = hashlib.sha256(sources + repr(sorted(arguments.items())).encode()).hexdigest()[:16]
    folder = ROOT / ".pytest_cache" / "phantoms" / f"{name}-{key}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one test process paints it, another waits for it
        if not folder.exists():
            scan = make_scan(**arguments)
            write_series(
                scan,
                folder.with_suffix(".new"),
                patient_name="Secretive^Name",
                patient_id="SECRET-ID-7",
                accession_number="SECRETACC",
            )
            folder.with_suffix(".new").rename(folder)
    return sorted(folder.glob("*.dcm"))
