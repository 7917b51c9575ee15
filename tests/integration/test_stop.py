"""A clean stop: what the node had begun is given back, and what had arrived is kept."""

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from pydicom.uid import CTImageStorage

from node.runtime.clock import utc_now
from node.scu import dimse, storage_scu
from node.scu.outgoing import Outgoing
from node.simulated_pacs import Fault
from storage.files.instances import Files
from storage.records import Delivery, ReportObject
from tests.support.builders import FakeClock, claimed, finish
from tests.support.dicom_factory import ct_series, save
from tests.support.node_fixtures import NodeFactory
from tests.support.running import RunningNode, wait_until


def report(node: RunningNode, number: int = 1, destinations: Sequence[str] = ("PACS",)) -> None:
    """A report waits in the outbox of a node that does not run."""
    files, clock = Files(node.config.storage.directory), FakeClock(utc_now())
    [ds] = ct_series(1, SOPInstanceUID=f"2.25.77{number}")
    [path] = save([ds], node.folder)
    made = ReportObject(ds.SOPInstanceUID, files.write_report(ds.SOPInstanceUID, path.read_bytes()))
    claim = claimed(node.store, clock, series=f"2.25.{number}")
    assert finish(node.store, clock, claim, report=made, destinations=destinations)


def delivery(node: RunningNode) -> Delivery:
    [found] = node.store.worklist.deliveries(1)
    return found


def test_a_delivery_that_is_being_sent_when_the_node_stops_is_due_at_once_and_its_attempt_does_not_count(
    node_in: NodeFactory,
) -> None:
    node = node_in(start=False, node__stop_seconds="3")
    report(node)
    node.pacs.fault = Fault.SILENCE
    node.start()
    wait_until(lambda: node.pacs.requests, 10)
    assert delivery(node).attempts == 1
    assert node.stop() < 6
    assert delivery(node).attempts == 0
    due = delivery(node).next_attempt_at
    assert due is not None
    assert due <= utc_now()


def test_ctrl_c_lets_an_open_association_end(node_in: NodeFactory, tmp_path: Path) -> None:
    node = node_in()
    assert node.process is not None
    first, second = save(ct_series(2), tmp_path)
    ae = dimse.Entity("PACS", dimse.Timeouts(5, 5, 5))
    assoc = dimse.associate(ae, node.address, storage_scu.ways(CTImageStorage, Outgoing.read(first).transfer_syntax))
    assert storage_scu.store(assoc, Outgoing.read(first)) == "success"
    group = os.getpgid(node.process.pid)
    for pid in [node.process.pid, *node.children()]:
        if os.getpgid(pid) == group:  # as a terminal does
            os.kill(pid, signal.SIGINT)
    time.sleep(1)
    assert storage_scu.store(assoc, Outgoing.read(second)) == "success"
    assoc.release()
    assert node.process.wait(20) == 0
    assert "Traceback" not in node.log.read_text()


def test_the_children_end_with_a_node_that_is_killed(node_in: NodeFactory, unmeasured_children: None) -> None:
    node = node_in()
    assert node.process is not None
    children = [Path(f"/proc/{pid}") for pid in node.children()]
    assert len(children) == 2
    node.process.kill()
    node.process.wait(10)
    wait_until(lambda: not any(child.exists() for child in children), 20)
