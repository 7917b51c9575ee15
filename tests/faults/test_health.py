"""What health says of a node, in processes of its own, to which something happens: the cause, within 15 seconds."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from node.rules.health import Verdict
from node.runtime.clock import utc_now
from node.runtime.heartbeat import Heartbeat, note_trouble
from node.workflow.health import facts_of, health_of
from tests.faults.health_times import FAULTS
from tests.support.absent import absent
from tests.support.dicom_factory import ct_series, save
from tests.support.node_fixtures import NodeFactory, node_in, without_finding
from tests.support.running import ROOT, START_SECONDS, RunningNode, free_port, wait_until

__all__ = ["node_in", "without_finding"]
pytestmark = pytest.mark.faults
LIMIT_SECONDS = 15.0
"""From the fault to the answer."""


def status_of(node: RunningNode) -> tuple[int, dict[str, Any]]:
    """Exit status and answer of `willis status --json`."""
    command = [sys.executable, "-m", "node", "status", "--json", "--config", str(node.path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def noticed(node: RunningNode, words: str, verdict: Verdict) -> str:
    """The reason that has these words; fails unless health has it within the limit, and the verdict."""

    def found() -> str:
        health = health_of(node.config, utc_now())
        reasons = [reason.message for reason in health.reasons if words in reason.message]
        assert not reasons or health.verdict is verdict
        return reasons[0] if reasons else ""

    return str(wait_until(found, LIMIT_SECONDS, words))


def is_well(node: RunningNode) -> bool:
    """Whether nothing is wrong but, perhaps, the room on this machine's disk."""
    return all(reason.about == "disk" for reason in health_of(node.config, utc_now()).reasons)


@pytest.fixture(scope="module")
def shared_node(tmp_path_factory: pytest.TempPathFactory, without_finding: dict[str, str]) -> Iterator[RunningNode]:
    """One node for the tests that leave it as it was: to start one takes longer than they do."""
    made = RunningNode(tmp_path_factory.mktemp("health"), **without_finding)
    yield made
    made.close()


@pytest.fixture
def node(shared_node: RunningNode) -> RunningNode:
    """A node that is well."""
    if shared_node.process is None or shared_node.process.poll() is not None:
        shared_node.start()
    wait_until(lambda: is_well(shared_node), 120, "the node is well")
    return shared_node


def test_a_pacs_that_is_away_is_noticed_and_named(node: RunningNode) -> None:
    node.pacs.stop()
    said = noticed(node, "PACS does not answer", Verdict.DEGRADED)
    assert "connection refused: the host is up and nothing listens on that port" in said
    assert status_of(node)[0] == Verdict.DEGRADED.exit_status
    node.pacs_returns()
    wait_until(lambda: is_well(node), 60, "the PACS answers again")


def test_a_second_node_on_the_folder_is_noticed(node: RunningNode) -> None:
    second = Heartbeat(node.store.processes, "serve", node.config.storage.directory)  # this process takes its place
    second.start()
    try:
        assert "stop all but one" in noticed(node, "2 nodes on", Verdict.DEGRADED)
    finally:
        second.stop()


def test_a_worker_that_hangs_and_one_that_dies_are_noticed(node: RunningNode) -> None:
    worker = node.worker()
    os.kill(worker, signal.SIGSTOP)
    try:
        assert "has not been heard of" in noticed(node, "`willis work`", Verdict.DEGRADED)
    finally:
        os.kill(worker, signal.SIGCONT)
    wait_until(lambda: is_well(node), 60, "the worker is heard of again")
    os.kill(worker, signal.SIGKILL)
    noticed(node, "`willis work`", Verdict.DEGRADED)


def pids_of(node: RunningNode) -> list[int]:
    """The node's processes."""
    assert node.process is not None
    return [node.process.pid, *node.children()]


def all_beat(node: RunningNode) -> bool:
    """Whether each of the node's processes has said that it runs: the word of one that was killed holds for seconds."""
    said = {each.pid for each in facts_of(node.config, utc_now()).processes}
    return len(pids := pids_of(node)) == 3 and said.issuperset(pids)


def test_after_kill_9_of_the_whole_node_the_status_is_down_and_of_its_end_too(node: RunningNode) -> None:
    killed = pids_of(node)
    node.kill()
    assert "died without a word" in noticed(node, "`willis serve`", Verdict.DOWN)
    code, said = status_of(node)
    assert (code, said["health"]) == (2, "down")
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in killed), 60, "nothing is left of them")
    node.start()
    wait_until(lambda: all_beat(node) and is_well(node), 120, "the node is well again")
    node.stop()
    code, said = status_of(node)
    ended = f"no node runs on {node.config.storage.directory}"
    assert (code, said["reasons"][0]["message"].partition(":")[0]) == (2, ended)


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
    assert "instances are refused; free some" in noticed(node, "MiB free in", Verdict.DOWN)
    assert "no space left on the disk" in noticed(node, "2 instances were refused", Verdict.DOWN)


def test_why_a_process_cannot_run_is_in_the_status_in_the_words_of_its_log(node_in: NodeFactory) -> None:
    node = node_in(start=False)
    folder = node.config.storage.directory
    folder.mkdir()
    note_trouble(node.store.processes, "work", folder, "[ai] device = 'cuda': there is no CUDA GPU")
    assert "ended ([ai] device = 'cuda': there is no CUDA GPU)" in noticed(node, "`willis work`", Verdict.DOWN)


def test_the_guide_has_every_fault_that_is_timed_and_it_was_named_in_time() -> None:
    guide = (ROOT / "docs" / "reliability.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| ([^|]+) \| ([\d.]+) \| (?:down|degraded): ", guide, re.MULTILINE))
    assert set(rows) == {fault.name for fault in FAULTS}
    assert [name for name, seconds in rows.items() if float(seconds) > LIMIT_SECONDS] == []


@pytest.mark.postgresql
def test_a_node_waits_for_a_database_server_that_starts_after_it(node_in: NodeFactory, postgresql_url: str) -> None:
    node = node_in(f"postgresql+psycopg://postgres@127.0.0.1:{free_port()}/x", start=False)
    with node.log.open("ab") as output:
        node.process = subprocess.Popen(
            [sys.executable, "-m", "node", "serve", "--config", str(node.path)], cwd=ROOT, stderr=output, stdout=output
        )
    wait_until(lambda: node.log.read_text().count("database_away") >= 2, START_SECONDS, "it has tried twice")
    assert node.process.poll() is None
    assert "no server listens there; start the server" in node.log.read_text()
    code, said = status_of(node)
    assert (code, said["health"]) == (2, "down")
    assert "no server listens there; start the server" in said["reasons"][0]["message"]
