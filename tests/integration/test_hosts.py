"""Two hosts on one PostgreSQL and one object store, behind HAProxy: whole nodes, real sockets."""

import itertools
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from pydicom.uid import CTImageStorage

from node.scu import dimse, storage_scu
from node.scu.outgoing import Outgoing
from tests.conftest import PostgreSQL
from tests.faults.senders import small_series
from tests.support.builders import known_file
from tests.support.dicom_factory import ct_series, save
from tests.support.hosts import Hosts, running_hosts
from tests.support.object_store import ObjectStore, s3_server
from tests.support.raw_scu import RawScu, associate_rq
from tests.support.running import wait_until

__all__ = ["s3_server"]
pytestmark = pytest.mark.postgresql


@pytest.fixture(scope="module")
def hosts(
    tmp_path_factory: pytest.TempPathFactory,
    postgresql_server: PostgreSQL,
    s3_server: ObjectStore,
) -> Iterator[Hosts]:
    """Two for all tests: they take seconds to start."""
    s3_server.begin_anew()
    with postgresql_server.database(template="migrated") as url:
        draining = {"node__drain_seconds": "2", "node__stop_seconds": "1"}
        folder = tmp_path_factory.mktemp("hosts")
        with running_hosts(folder, url, s3_server, **draining, eligibility__minimum_slices="4") as hosts:
            yield hosts


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
    assert (a.received(), b.received()) == (6, 6)
    (row,) = a.wait_for_delivered()
    assert (row["instance_count"], row["revision"], row["outcome"]) == (12, 1, "positive")
    assert len(hosts.pacs.requests) == 1


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
    before = node.received()
    node.start()
    wait_until(lambda: hosts.balancer.is_up(name), 30, "HAProxy has it back")
    wait_until(lambda: node.received() > before, 10, "it receives again")


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
    for uid, dataset in [pair for sender in senders for pair in sender.acknowledged.items()]:
        file = known_file(hosts.store, uid)
        assert file is not None
        assert hosts.where(file.path).read_bytes().endswith(dataset)
