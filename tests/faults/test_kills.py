"""Processes die at the worst moment; every acknowledged instance and exactly one report survive."""

import os
import resource
import signal
import threading
from pathlib import Path

import pytest
from pydicom import dcmread

from node.errors import Unavailable
from node.runtime.processes import NO_MEMORY
from node.scu.dimse import Entity, Timeouts
from node.scu.storage_scu import send_files
from tests.support.node_fixtures import SHIPPED, NodeFactory
from tests.support.running import START_SECONDS, RunningNode, wait_until

pytestmark = pytest.mark.faults

LATE = {**SHIPPED, "ai__early": "false", "ai__precision": '"float32"'}
"""All of the analysis is after the claim, and takes its time, so that it can be stopped."""


def from_now_on(node: RunningNode, without_finding: dict[str, str]) -> None:
    """The worker that starts next has the small model, which is quick: it is the analysis before that is to be stopped."""
    [shipped], [small] = SHIPPED.values(), without_finding.values()
    text = node.path.read_text("utf-8")
    assert shipped in text
    node.path.write_text(text.replace(shipped, small), "utf-8")


def test_a_worker_killed_in_mid_analysis_costs_one_attempt_and_nothing_else(
    node_in: NodeFactory, negative_series: list[Path], without_finding: dict[str, str]
) -> None:
    node = node_in(**LATE)
    node.send(negative_series)
    node.wait_for_stage("analysing")
    from_now_on(node, without_finding)
    os.kill(node.worker(), signal.SIGKILL)
    (row,) = node.wait_for_delivered()
    assert (row["outcome"], row["attempts"]) == ("negative", 2)
    assert node.pacs.requests == [row["report_uid"]]


def test_a_worker_killed_in_mid_early_analysis_costs_no_attempt(
    node_in: NodeFactory, negative_series: list[Path]
) -> None:
    node = node_in(start=False, node__network_timeout_seconds="300", completion__open_association_quiet_seconds="300")
    node.environment = {"WILLIS_KILL_AT": "in_early_inference"}
    node.start()
    wait_until(lambda: b"worker_started" in node.log.read_bytes(), START_SECONDS)
    entity, killed = Entity("PACS", Timeouts(acse=3, dimse=60)), b'"process": "work", "exit_code": -9'
    for number, sent in enumerate(send_files(entity, node.address, sorted(negative_series)), 1):
        assert not sent.error
        if number == len(negative_series) - 3:
            wait_until(
                lambda: killed in node.log.read_bytes(), START_SECONDS, "the worker dies while it analyses early"
            )
    (row,) = node.wait_for_delivered(seconds=START_SECONDS)  # by a worker that starts first
    assert (row["outcome"], row["attempts"], row["instance_count"]) == ("negative", 1, len(negative_series))
    assert node.pacs.requests == [row["report_uid"]]


def test_a_node_killed_in_mid_receive_keeps_what_it_acknowledged_and_ends_right(
    node_in: NodeFactory, negative_series: list[Path]
) -> None:
    node = node_in()
    acknowledged: list[Path] = []
    enough = threading.Event()

    def send() -> None:
        try:
            for sent in send_files(Entity("PACS", Timeouts(acse=3, dimse=10)), node.address, negative_series):
                if not sent.error:
                    acknowledged.append(sent.path)
                if len(acknowledged) >= 60:
                    enough.set()
        except Unavailable:
            return

    sender = threading.Thread(target=send)
    sender.start()
    assert enough.wait(60)
    node.kill()
    sender.join(60)
    assert 60 <= len(acknowledged) < len(negative_series)

    node.start()
    kept = {header.sop_instance_uid: file for header, file in node.store.settling.instances(1)}
    for path in acknowledged:
        source = dcmread(path)
        stored = dcmread(node.config.storage.directory / kept[source.SOPInstanceUID].path)
        assert stored.PixelData == source.PixelData
    node.send(negative_series)
    (row,) = node.wait_for_delivered()
    assert (row["outcome"], row["instance_count"]) == ("negative", len(negative_series))


def test_an_analysis_beyond_its_time_limit_is_killed_and_ends_as_not_analysed_in_the_pacs(
    node_in: NodeFactory, negative_series: list[Path]
) -> None:
    # mirror images on one thread take longer than the limit on any machine, the report that follows does not
    node = node_in(ai__time_limit_seconds="3", ai__attempts="1", ai__flip="true", ai__threads="1", **LATE)
    node.send(negative_series)
    (row,) = node.wait_for_delivered(seconds=START_SECONDS)
    assert (row["stage"], row["outcome"], row["reason"]) == ("failed", "not_analysed", "attempts_exhausted")


def test_a_worker_without_memory_ends_at_once_and_its_case_ends_as_not_analysed(
    node_in: NodeFactory, negative_series: list[Path]
) -> None:
    node = node_in(ai__attempts="1")
    wait_until(lambda: b"worker_started" in node.log.read_bytes(), START_SECONDS)
    worker = node.worker()
    mapped_bytes = int(Path(f"/proc/{worker}/statm").read_text().split()[0]) * resource.getpagesize()
    resource.prlimit(worker, resource.RLIMIT_AS, (mapped_bytes + (64 << 20), resource.RLIM_INFINITY))
    node.send(negative_series)
    (row,) = node.wait_for_delivered(seconds=START_SECONDS)
    assert (row["stage"], row["outcome"], row["reason"]) == ("failed", "not_analysed", "attempts_exhausted")
    assert row["detail"] == "1 attempt"
    assert b'"exit_code": %d' % NO_MEMORY in node.log.read_bytes()


def test_the_threads_that_decode_run_before_memory_can_be_short(node_in: NodeFactory) -> None:
    node = node_in(ai__threads="24")
    wait_until(lambda: b"worker_started" in node.log.read_bytes(), START_SECONDS)
    assert len(list(Path(f"/proc/{node.worker()}/task").iterdir())) > 24


def test_a_clean_stop_in_mid_analysis_gives_the_claim_back_within_ten_seconds(
    node_in: NodeFactory, negative_series: list[Path], without_finding: dict[str, str]
) -> None:
    node = node_in(**LATE)
    node.send(negative_series)
    node.wait_for_stage("analysing")
    assert node.stop() < 10
    (row,) = node.rows()
    assert row["stage"] in ("ready", "reported")
    assert row["stage"] == "reported" or row["attempts"] == 0
    from_now_on(node, without_finding)
    node.start()
    (row,) = node.wait_for_delivered()
    assert row["outcome"] == "negative"
    wait_until(lambda: node.pacs.requests == [row["report_uid"]])
