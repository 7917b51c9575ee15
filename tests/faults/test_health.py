"""What `willis status` says of a node, in processes of its own, to which something happens: the cause, within 15 seconds."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from node.runtime.heartbeat import note_trouble
from tests.support.absent import absent
from tests.support.dicom_factory import ct_series, save
from tests.support.node_fixtures import NodeFactory, node_in
from tests.support.running import ROOT, RunningNode, wait_until

__all__ = ["node_in"]
pytestmark = pytest.mark.faults
LIMIT_SECONDS = 15.0
"""From the fault to the answer; the time that `willis status` itself takes is not counted: the machine may be busy."""


def status_of(node: RunningNode) -> tuple[int, dict[str, Any]]:
    """Exit status and answer of `willis status --json`."""
    command = [sys.executable, "-m", "node", "status", "--json", "--config", str(node.path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def noticed(node: RunningNode, words: str, exit_status: int) -> str:
    """The reason that has these words; fails unless the first status that is asked for after the limit has it."""
    began = time.monotonic()
    while True:
        asked = time.monotonic()
        code, said = status_of(node)
        found = [reason["said"] for reason in said["reasons"] if words in reason["said"]]
        if found:
            assert code == exit_status
            return str(found[0])
        assert asked - began < LIMIT_SECONDS, said


def is_well(node: RunningNode) -> bool:
    """Whether nothing is wrong but, perhaps, the room on this machine's disk."""
    code, said = status_of(node)
    reasons = [reason for reason in said["reasons"] if reason["about"] != "disk"]
    assert (code == 0) == (said["health"] == "ok")
    return not reasons


@pytest.fixture
def node(node_in: NodeFactory) -> RunningNode:
    """A node that is well."""
    made = node_in()
    wait_until(lambda: is_well(made), 120, "the node is well")
    return made


def test_after_kill_9_of_the_whole_node_the_status_is_down_and_of_its_end_too(node: RunningNode) -> None:
    node.kill()
    assert "died without a word" in noticed(node, "`willis serve`", 2)
    assert status_of(node)[1]["health"] == "down"
    node.start()
    wait_until(lambda: is_well(node), 120, "the node is well again")
    node.stop()
    code, said = status_of(node)
    assert (code, said["reasons"][0]["said"].partition(":")[0]) == (
        2,
        f"no node runs on {node.config.storage.directory}",
    )


def test_a_worker_that_hangs_and_one_that_dies_are_noticed(node: RunningNode) -> None:
    worker = node.worker()
    os.kill(worker, signal.SIGSTOP)
    try:
        assert "has not been heard of" in noticed(node, "`willis work`", 1)
    finally:
        os.kill(worker, signal.SIGCONT)
    wait_until(lambda: is_well(node), 60, "the worker is heard of again")
    os.kill(worker, signal.SIGKILL)
    noticed(node, "`willis work`", 1)


def test_a_pacs_that_is_away_is_noticed_and_named(node: RunningNode) -> None:
    node.pacs.stop()
    said = noticed(node, "PACS does not answer", 1)
    assert "connection refused: the host is up and nothing listens on that port" in said
    node.pacs_returns()
    wait_until(lambda: is_well(node), 60, "the PACS answers again")


def test_a_second_node_on_the_folder_is_noticed(node: RunningNode) -> None:
    from tests.support.running import free_port

    second = node.path.with_name("second.toml")
    second.write_text(node.path.read_text().replace(f"port = {node.config.node.port}", f"port = {free_port()}"))
    other = subprocess.Popen(
        [sys.executable, "-m", "node", "serve", "--config", str(second)], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: "2 nodes on" in str(status_of(node)[1]["reasons"]), 60, "the second node is noticed")
        assert "stop all but one" in noticed(node, "2 nodes on", 1)
    finally:
        other.terminate()
        with suppress(subprocess.TimeoutExpired):
            other.wait(20)
        other.kill()
        other.wait()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(disk)], check=False).returncode:
        absent("no file system can be mounted here (not root)")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=False)


def test_a_full_disk_is_noticed_with_the_instances_that_it_cost(
    node_in: NodeFactory, small_disk: Path, tmp_path: Path
) -> None:
    database = f"sqlite:///{tmp_path / 'w.db'}"
    node = node_in(database, storage__directory=repr(str(small_disk)))
    (small_disk / "filler").write_bytes(b"x" * (os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize))
    sent = node.send(save(ct_series(2), tmp_path))
    assert [each.error for each in sent] == ["status 0xA700"] * 2
    assert "instances are refused; free some" in noticed(node, "MiB free in", 2)
    assert "no space left on the disk" in noticed(node, "2 instances were refused", 2)


def test_why_a_process_cannot_run_is_in_the_status_in_the_words_of_its_log(node_in: NodeFactory) -> None:
    node = node_in(start=False)
    note_trouble(
        node.store.processes, "work", node.config.storage.directory, "[ai] device = 'cuda': there is no CUDA GPU"
    )
    assert "ended ([ai] device = 'cuda': there is no CUDA GPU)" in noticed(node, "`willis work`", 2)


@pytest.mark.postgresql
def test_a_node_waits_for_a_database_server_that_starts_after_it(node_in: NodeFactory, postgresql_url: str) -> None:
    from tests.support.running import free_port

    node = node_in(f"postgresql+psycopg://postgres@127.0.0.1:{free_port()}/x", start=False)
    with node.log.open("ab") as output:
        node.process = subprocess.Popen(
            [sys.executable, "-m", "node", "serve", "--config", str(node.path)], cwd=ROOT, stderr=output, stdout=output
        )
    wait_until(lambda: node.log.read_text().count("database_away") >= 2, 60, "it has tried twice")
    assert node.process.poll() is None
    assert "no server listens there; start the server" in node.log.read_text()
    code, said = status_of(node)
    assert (code, said["health"]) == (2, "down")
    assert "no server listens there; start the server" in said["reasons"][0]["said"]
