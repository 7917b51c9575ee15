"""Processes whose system calls are recorded while they work, and the disks that power loss may leave of them."""

import hashlib
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from node.simulated_pacs import SimulatedPeer
from storage.files.instances import Files
from storage.store import Store
from tests.faults.committed import CommitsSeen, Committed
from tests.faults.power_loss import Choice, Disk, Step, acknowledged, steps_of, strace
from tests.faults.senders import send, small_series
from tests.faults.small_node import configuration
from tests.support.running import ROOT, free_port, wait_until

SERIES = [small_series(1), small_series(2)]
SENT = {str(ds.SOPInstanceUID): dataset for series in SERIES for ds, dataset in series}

Left = dict[str, bytes | None]
"""Every path that is left on a disk, with its content; None for a folder."""


@dataclass(frozen=True)
class Recorded:
    """What a process did: `before` lay under its `folder` at first.  `databases`: see `Committed`; none with SQLite."""

    before: Path
    folder: Path
    port: int
    steps: list[Step]
    databases: Sequence[bytes] = ()

    def crashes(self, steps: list[Step], choice: Callable[[int], Choice]) -> Iterator[tuple[int, set[str], Left]]:
        """After each step that changed something: its number, what was acknowledged by then, what is left of the disk.

        With PostgreSQL the disk has the rows that were committed as a SQLite database, in all ways that are possible.
        """
        disk, safe_message, seen = Disk(self.before, self.folder), set[str](), set[bytes]()
        commits = CommitsSeen()
        for number, step in enumerate(steps):
            changed = commits.see(step) | disk.apply(step)
            if uid := acknowledged(step):
                safe_message.add(uid)
            elif not changed:
                continue
            left = disk.after_power_loss(choice(number))
            for state in self._with_database(left, commits):
                digest = hashlib.sha256(repr((sorted(state.items()), sorted(safe_message))).encode()).digest()
                if digest not in seen:
                    seen.add(digest)
                    yield number, set(safe_message), state

    def _with_database(self, left: Left, commits: CommitsSeen) -> Iterator[Left]:
        if not self.databases:
            yield left
            return
        for count in range(commits.answered, commits.begun + 1):
            yield {**left, "willis.db": self.databases[count]}


def a_receiver(folder: Path) -> Recorded:
    """A receiver with SQLite while two associations send to it at once, and one of them again."""
    before = folder / "before"
    _migrated(before)
    return _receiver(folder, before, "")


def a_receiver_on_postgresql(folder: Path, url: str) -> Recorded:
    """The same with an empty, migrated PostgreSQL database at `url`."""
    before = folder / "before"
    Files(before)
    _migrated(folder / "template")
    with Committed(folder / "postgresql", url, folder / "template" / "willis.db") as committed:
        recorded = _receiver(folder, before, committed.url)
    return Recorded(before, recorded.folder, recorded.port, recorded.steps, committed.databases)


def a_node(folder: Path) -> Recorded:
    """A whole small node with SQLite: two series come, and the PACS gets a report on each."""
    before, port = folder / "before", free_port()
    _migrated(before)
    pacs = SimulatedPeer(folder / "pacs")
    arguments = [str(folder / "node"), str(port), str(pacs.start(0)), str(folder / "listens"), ""]
    try:
        with _recording(folder, before, port, "tests.faults.small_node", *arguments):
            _send_both(port)
            wait_until(lambda: len(set(pacs.requests)) == len(SERIES), 180, "the PACS gets the reports")
    finally:
        pacs.stop()
    return Recorded(before, folder / "node", port, steps_of(folder / "trace"))


def _migrated(folder: Path) -> None:
    """An empty installation lies in the folder."""
    config = configuration(folder, 1, 1)
    Files(folder)
    Store.open(config.storage.url).close()


def _receiver(folder: Path, before: Path, url: str) -> Recorded:
    port, path = free_port(), folder / "config.toml"
    path.write_text(
        f'[node]\nport = {port}\n[storage]\ndirectory = "{folder / "node"}"\ndatabase_url = "{url}"\n'
        '[log]\nlevel = "error"\n',
        "utf-8",
    )
    flushes = (
        0.05 if url else 0.0
    )  # PostgreSQL's own are not recorded, and the file's would always be over before its answer
    with _recording(
        folder, before, port, "tests.faults.still_node", "receive", "--config", str(path), flushes_take_seconds=flushes
    ):
        _send_both(port)
        send(port, SERIES[0], {})  # duplicates
    return Recorded(before, folder / "node", port, steps_of(folder / "trace"))


@contextmanager
def _recording(
    folder: Path, before: Path, port: int, module: str, *arguments: str, flushes_take_seconds: float = 0.0
) -> Iterator[None]:
    """The module runs on a copy of `before`, accepts associations, and is killed in the end."""
    shutil.copytree(before, folder / "node")
    command = [*strace(folder / "trace", flushes_take_seconds), sys.executable, "-m", module, *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE) as process:
        try:
            wait_until(lambda: send(port, [], {}), 180, "it listens")
            yield
        finally:
            process.send_signal(signal.SIGTERM)


def _send_both(port: int) -> None:
    acknowledgements: dict[str, bytes] = {}
    both = [threading.Thread(target=send, args=(port, one, acknowledgements)) for one in SERIES]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert acknowledgements == SENT
