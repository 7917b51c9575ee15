"""Power is lost after every system call of a receiver; whatever was acknowledged is there after the next start."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import select

from node.config import Config
from node.receiver import Receiver
from storage.files import Files
from storage.records import StoredFile
from storage.schema import InstanceRow
from storage.store import Store
from tests.absent import absent
from tests.faults.power_loss import Choice, Disk, Step, acknowledged, steps_of, strace, without_flushes
from tests.faults.proof import violations
from tests.faults.senders import send, small_series
from tests.faults.small_node import configuration
from tests.running import ROOT, free_port, wait_until

pytestmark = pytest.mark.faults
SERIES = [small_series(1), small_series(2)]
SENT = {str(ds.SOPInstanceUID): dataset for series in SERIES for ds, dataset in series}
FULL = "WILLIS_KILLS" in os.environ


def is_database(path: str) -> bool:
    """Whether the path is one of SQLite's."""
    return "willis.db" in path.rpartition("/")[2]


def by_chance(seed: int) -> Choice:
    """Each unflushed write and name survives or not."""
    random = Random(seed)
    return lambda _path, _is_name: random.random() < 0.5


CHOICES: dict[str, Callable[[int], Choice]] = {
    "nothing unflushed": lambda _seed: lambda _path, _is_name: False,
    "everything": lambda _seed: lambda _path, _is_name: True,
    "names without contents": lambda _seed: lambda _path, is_name: is_name,
    "contents without names": lambda _seed: lambda _path, is_name: not is_name,
    "only the database": lambda _seed: lambda path, _is_name: is_database(path),
    "only the files": lambda _seed: lambda path, _is_name: not is_database(path),
    "by chance": by_chance,
    "by another chance": lambda seed: by_chance(seed + 1_000_000),
}
"""What survives of what was not flushed."""


class Recorded:
    """A receiver's system calls while two associations send to it at once."""

    def __init__(self, folder: Path) -> None:
        """Recorded, from before its start until it was killed."""
        self.before = folder / "before"
        files, config = Files(self.before), configuration(self.before, 1, 1)
        Store.open(config.storage.url).close()
        self.folder = folder / "node"
        shutil.copytree(files.root, self.folder)
        self.port = free_port()
        path = folder / "config.toml"
        path.write_text(
            f'[node]\nport = {self.port}\n[storage]\ndirectory = "{self.folder}"\n[log]\nlevel = "error"\n', "utf-8"
        )
        command = [*strace(folder / "trace"), sys.executable, "-m", "node", "receive", "--config", str(path)]
        acknowledgements: dict[str, bytes] = {}
        with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE) as process:
            try:
                wait_until(lambda: send(self.port, [], {}), 60, "the receiver listens")
                both = [threading.Thread(target=send, args=(self.port, one, acknowledgements)) for one in SERIES]
                for thread in both:
                    thread.start()
                for thread in both:
                    thread.join()
                send(self.port, SERIES[0], acknowledgements)  # duplicates
            finally:
                process.send_signal(signal.SIGTERM)
        assert acknowledgements == SENT
        self.steps = steps_of(folder / "trace")

    def crashes(
        self, steps: list[Step], choice: Callable[[int], Choice]
    ) -> Iterator[tuple[int, set[str], dict[str, bytes | None]]]:
        """After each step that changed something: its number, what was acknowledged by then, what is left of the disk."""
        disk, told, seen = Disk(self.before, self.folder), set[str](), set[bytes]()
        for number, step in enumerate(steps):
            changed = disk.apply(step)
            if uid := acknowledged(step):
                told.add(uid)
            elif not changed:
                continue
            left = disk.after_power_loss(choice(number))
            digest = hashlib.sha256(repr((sorted(left.items()), sorted(told))).encode()).digest()
            if digest not in seen:
                seen.add(digest)
                yield number, set(told), left


@pytest.fixture(scope="module")
def recorded() -> Iterator[Recorded]:
    """The same recording for every test; strace is needed (in CI: or it fails)."""
    if shutil.which("strace") is None:
        absent("strace is not installed: apt-get install strace")
    with tempfile.TemporaryDirectory(prefix="willis-power-") as folder:
        yield Recorded(Path(folder))


def found_at_the_next_start(folder: Path, config: Config, told: set[str], left: dict[str, bytes | None]) -> list[str]:
    """What is wrong once a receiver has recovered on what power loss left."""
    for path, content in left.items():
        if content is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(content)
    files = Files(folder)
    store = Store.open(config.storage.url)
    try:
        receiver = Receiver(config, store, files, lambda: None)
        receiver._recover()
        files.sweep_incoming(lambda _writer: True)
        with store.transactions.reading() as session:
            rows = session.execute(select(InstanceRow.path, InstanceRow.sha256, InstanceRow.size_bytes)).all()
        nowhere = [
            f"{row.path} is in the database and not on disk" for row in rows if not files.holds(StoredFile(*row))
        ]
        return [*violations(store, files, {uid: SENT[uid] for uid in told}), *nowhere]
    finally:
        store.close()


def first_found(recorded: Recorded, steps: list[Step], choice: str, root: Path) -> tuple[int, list[str]]:
    """How many states of the disk were started from, and what was wrong with the first that was wrong."""
    count = 0
    for number, told, left in recorded.crashes(steps, CHOICES[choice]):
        count += 1
        folder = root / str(number)
        folder.mkdir()
        found = found_at_the_next_start(folder, configuration(folder, recorded.port, 1), told, left)
        shutil.rmtree(folder)
        if found:
            return count, [f"after step {number} of {len(steps)}, {choice} survived:", *found]
    return count, []


@pytest.mark.parametrize("choice", CHOICES if FULL else ["nothing unflushed", "only the database"])
def test_whatever_was_acknowledged_survives_power_loss_at_any_moment(
    recorded: Recorded, tmp_path: Path, choice: str
) -> None:
    count, found = first_found(recorded, recorded.steps, choice, tmp_path)
    assert found == []
    assert count > 20
    print(f"{choice}: {count} states of the disk")


@pytest.mark.parametrize("forgotten", ["files", "folders", "database"])
def test_a_flush_that_is_left_out_is_noticed(recorded: Recorded, tmp_path: Path, forgotten: str) -> None:
    kinds = {
        "files": lambda path: "/incoming/" in path,
        "folders": lambda path: "/instances" in path,
        "database": is_database,
    }
    steps = without_flushes(recorded.steps, kinds[forgotten])
    assert len(steps) < len(recorded.steps)
    _, found = first_found(recorded, steps, "nothing unflushed", tmp_path)
    assert any("was acknowledged and" in line for line in found), found
