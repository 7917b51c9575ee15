"""Two hosts on one PostgreSQL and one object store, behind HAProxy: whole nodes, real sockets."""

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from pydicom.uid import CTImageStorage

from node.config.peer import Peer
from node.scu import dimse, storage_scu
from node.scu.outgoing import Outgoing
from tests.conftest import PostgreSQL
from tests.corpus import stub_node
from tests.faults.senders import small_series
from tests.support.builders import known_file
from tests.support.dicom_factory import ct_series, save
from tests.support.haproxy import Balancer, balanced
from tests.support.object_store import BUCKET, ObjectStore, s3_server
from tests.support.raw_scu import RawScu, associate_rq
from tests.support.running import RunningNode, free_port, wait_until

__all__ = ["s3_server"]
pytestmark = pytest.mark.postgresql
ADDRESSES = {"a": "127.0.0.2", "b": "127.0.0.3"}


class StubNode(RunningNode):
    """One whose network is quick and stands in for the real one; all else is as it is shipped."""

    module = stub_node.MODULE


@dataclass
class Hosts:
    """Two nodes by their names, and what is before them."""

    nodes: dict[str, RunningNode]
    balancer: Balancer

    @property
    def address(self) -> Peer:
        return Peer(ae_title="WILLIS", host="127.0.0.1", port=self.balancer.port)


@pytest.fixture(scope="module")
def hosts(
    tmp_path_factory: pytest.TempPathFactory,
    postgresql_server: PostgreSQL,
    s3_server: ObjectStore,
) -> Iterator[Hosts]:
    """Two for all tests: they take seconds to start."""
    folder = tmp_path_factory.mktemp("hosts")
    s3_server.begin_anew()
    credentials = folder / "credentials"
    credentials.write_text("[default]\naws_access_key_id = willis\naws_secret_access_key = secret\n")
    dicom_port, web_port = free_port(), free_port()
    with postgresql_server.database(template="migrated") as url:
        nodes: dict[str, RunningNode] = {}
        for name, address in ADDRESSES.items():
            (folder / name).mkdir()
            nodes[name] = StubNode(
                folder / name,
                url,
                node__host=repr(address),
                node__port=str(dicom_port),
                node__allowed_calling_ae='["RAW"]',
                node__failed_associations="0",
                node__drain_seconds="2",
                node__stop_seconds="1",
                completion__quiet_seconds="2",
                eligibility__minimum_slices="4",
                web__enabled="true",
                web__host=repr(address),
                web__port=str(web_port),
                storage__objects=repr(f"s3://{BUCKET}/site-a"),
                storage__objects_endpoint=repr(f"http://127.0.0.1:{s3_server.port}"),
                storage__objects_credentials=repr(str(credentials)),
            )
        try:
            with ThreadPoolExecutor() as threads:
                list(threads.map(RunningNode.start, nodes.values()))
            with balanced(folder, list(ADDRESSES.values()), dicom_port, web_port) as balancer:
                yield Hosts(nodes, balancer)
        finally:
            for node in nodes.values():
                if node.process is not None:
                    node.process.terminate()
            for node in nodes.values():
                node.close()  # the second signal: without draining


def received(node: RunningNode) -> int:
    """How many instances came to this host."""
    return len(list((node.config.storage.directory / "instances").rglob("*.dcm")))


def test_one_series_over_two_receivers_is_one_case_that_is_analysed_once(hosts: Hosts, tmp_path: Path) -> None:
    a, b = hosts.nodes.values()
    entity = dimse.Entity("PACS", dimse.Timeouts(10, 30, 30))
    outgoing = [Outgoing.read(path) for path in save(ct_series(12, rows=128, columns=128), tmp_path)]
    ways = storage_scu.ways(CTImageStorage, outgoing[0].transfer_syntax)
    associations = [dimse.associate(entity, hosts.address, ways) for _ in range(2)]
    for association, each in zip(itertools.cycle(associations), outgoing):
        assert storage_scu.store(association, each) == "success"
    for association in associations:
        association.release()
    assert (received(a), received(b)) == (6, 6)
    (row,) = a.wait_for_delivered()
    assert (row["instance_count"], row["revision"], row["outcome"]) == (12, 1, "positive")
    assert len(a.pacs.requests) + len(b.pacs.requests) == 1


def test_a_worker_is_woken_by_another_host(hosts: Hosts) -> None:
    a = hosts.nodes["a"]
    a.wait_for_stage("reported")
    seconds = []
    for _ in range(5):
        begin = time.monotonic()
        assert a.store.queue.retry(1)
        wait_until(lambda: not a.store.queue.other_waits(None), 20, "it is claimed")
        seconds.append(time.monotonic() - begin)
        a.wait_for_stage("reported")
        time.sleep(0.3)
    assert sorted(seconds)[2] < 0.5, "looking alone takes 1 s, as a median"


@dataclass
class Sender:
    """Sends series after series through the balancer, one association each, which lasts longer than a stop waits."""

    port: int
    first: int
    acknowledged: dict[str, bytes] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    is_over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Until it `is_over`."""
        for number in itertools.count(self.first):
            if self.is_over.is_set():
                return
            try:
                self._send(number)
            except (OSError, AssertionError) as error:
                self.failed.append(f"series {number}: {error!r}")
            time.sleep(0.05)

    def _send(self, number: int) -> None:
        with RawScu(self.port, 10).associate(associate_rq()) as scu:
            for ds, dataset in small_series(number):
                assert scu.store(ds, dataset) == 0
                self.acknowledged[str(ds.SOPInstanceUID)] = dataset
                time.sleep(0.3)
            scu.release()


def restart(hosts: Hosts, name: str) -> None:
    """The node was stopped as for an upgrade, and the balancer has it back."""
    node = hosts.nodes[name]
    assert node.process is not None
    node.process.terminate()
    wait_until(lambda: httpx.get(f"{node.config.web.address}/readyz").status_code == 503, 3, "it drains")
    assert node._listens(), "while it drains it accepts"
    assert node.process.wait(20) == 0
    assert not hosts.balancer.is_up(name)
    before = received(node)
    node.start()
    wait_until(lambda: hosts.balancer.is_up(name), 30, "HAProxy has it back")
    wait_until(lambda: received(node) > before, 10, "it receives again")


def test_hosts_are_restarted_one_after_the_other_and_no_association_is_refused_or_aborted(hosts: Hosts) -> None:
    senders = [Sender(hosts.balancer.port, 100_000 * number) for number in (1, 2, 3)]
    threads = [threading.Thread(target=sender.run) for sender in senders]
    for thread in threads:
        thread.start()
    for name in hosts.nodes:
        restart(hosts, name)
    for sender in senders:
        sender.is_over.set()
    for thread in threads:
        thread.join(20)
    assert [failed for sender in senders for failed in sender.failed] == []
    store, folders = hosts.nodes["a"].store, [node.config.storage.directory for node in hosts.nodes.values()]
    for uid, dataset in [pair for sender in senders for pair in sender.acknowledged.items()]:
        file = known_file(store, uid)
        assert file is not None
        [path] = [folder / file.path for folder in folders if (folder / file.path).exists()]
        assert path.read_bytes().endswith(dataset)
