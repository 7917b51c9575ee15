"""Two hosts with PostgreSQL, an object store, HAProxy and an engine of two workers: whole nodes, real sockets.

`make scale-demo` is one of the tests; `WILLIS_HOST_KILLS` says how often a part is killed under load, a few times without it.
"""

import importlib.util
import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import httpx
import pytest
from pydicom.uid import CTImageStorage

from node.analysis.worker import PERIOD_SECONDS
from node.scu import dimse, storage_scu
from node.scu.outgoing import Outgoing
from tests.conftest import running_postgresql
from tests.faults.senders import small_series
from tests.scale_demo import __main__ as command
from tests.scale_demo.__main__ import demonstrate
from tests.scale_demo.kills import DRAINED_SECONDS, evenly, killed_under_load
from tests.scale_demo.shown import Clock
from tests.scale_demo.site import SITES, Site, running_site
from tests.soak.proof import waiting
from tests.support.absent import absent
from tests.support.builders import known_file
from tests.support.dicom_factory import ct_series, save
from tests.support.hosts import Hosts
from tests.support.object_store import ObjectStore, s3_server
from tests.support.raw_scu import RawScu, associate_rq
from tests.support.running import START_SECONDS, RunningNode, wait_until

__all__ = ["s3_server"]
pytestmark = [pytest.mark.faults, pytest.mark.postgresql, pytest.mark.timeout(900)]
KILLS = int(os.environ.get("WILLIS_HOST_KILLS", "2"))
WAKEUPS = 6


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, s3_server: ObjectStore) -> Iterator[Site]:
    """One for all tests: it takes half a minute to start.  Its PostgreSQL is its own: it is killed."""
    if importlib.util.find_spec("distributed") is None:
        absent("distributed is not installed: pip install --constraint constraints.txt '.[engine]'")
    s3_server.begin_anew()
    folder = tmp_path_factory.mktemp("hosts")
    with (
        running_postgresql() as server,
        running_site(folder, server, s3_server, node__drain_seconds="6", node__stop_seconds="1") as running,
    ):
        yield running


@pytest.fixture
def hosts(site: Site) -> Hosts:
    return site.hosts


def test_one_series_over_two_receivers_is_one_case_that_is_analysed_once(hosts: Hosts, tmp_path: Path) -> None:
    a, b = hosts.nodes.values()
    entity = dimse.Entity("PACS", dimse.Timeouts(10, 30, 30))
    outgoing = [Outgoing.read(path) for path in save(ct_series(24, rows=128, columns=128), tmp_path)]
    ways = storage_scu.ways(CTImageStorage, outgoing[0].transfer_syntax)
    associations = [dimse.associate(entity, hosts.address, ways) for _ in range(2)]
    for association, each in zip(itertools.cycle(associations), outgoing):
        assert storage_scu.store(association, each) == "success"
    for association in associations:
        association.release()
    assert (a.received(), b.received()) == (12, 12)
    (row,) = a.wait_for_delivered()
    assert (row["instance_count"], row["revision"], row["outcome"]) == (24, 1, "positive")
    assert len(hosts.pacs.requests) == 1


def test_a_worker_is_woken_by_another_host(hosts: Hosts) -> None:
    """It looks at fixed moments.  We make a series due at others, evenly spread between two of them: looking alone, it would
    claim half of them only after half its period.
    """
    store, seconds = hosts.store, []
    with paused(hosts.nodes["b"].child(b"work")):  # only a's claims
        for number in range(WAKEUPS):
            wait_until(lambda: not any(waiting(store).values()), 120, "nothing is under way")
            time.sleep((number * PERIOD_SECONDS / WAKEUPS - time.monotonic()) % PERIOD_SECONDS)
            begin = time.monotonic()
            assert store.queue.retry(1)
            wait_until(lambda: not store.queue.other_waits(None), 60, "it is claimed")
            seconds.append(time.monotonic() - begin)
    wait_until(lambda: not any(waiting(store).values()), 120, "nothing is under way")
    print(f"claimed after {[round(each, 2) for each in seconds]} s")
    assert sorted(seconds)[WAKEUPS // 2] < 0.45 * PERIOD_SECONDS


@contextmanager
def paused(pid: int | None) -> Iterator[None]:
    """The process does nothing inside."""
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


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
    wait_until(lambda: readiness(node) == 503 and node._listens(), 10, "it drains, and accepts while it does")
    assert node.process.wait(60) == 0
    assert not hosts.balancer.is_up(name)
    before = node.received()
    node.start()
    wait_until(lambda: hosts.balancer.is_up(name), START_SECONDS, "HAProxy has it back")
    wait_until(lambda: node.received() > before, START_SECONDS, "it receives again")


def readiness(node: RunningNode) -> int:
    """The status of its answer to a balancer; 0 without one."""
    try:
        return httpx.get(f"{node.config.web.address}/readyz").status_code
    except httpx.HTTPError:
        return 0


def test_hosts_are_restarted_one_after_the_other_and_no_association_is_refused_or_aborted(hosts: Hosts) -> None:
    senders = [Sender(hosts.balancer.port, 100_000 * number) for number in (1, 2, 3)]
    threads = [threading.Thread(target=sender.run) for sender in senders]
    for thread in threads:
        thread.start()
    try:
        for name in hosts.nodes:
            restart(hosts, name)
    finally:
        for sender in senders:
            sender.is_over.set()
        for thread in threads:
            thread.join(60)
    assert [failed for sender in senders for failed in sender.failed] == []
    for uid, dataset in [pair for sender in senders for pair in sender.acknowledged.items()]:
        file = known_file(hosts.store, uid)
        assert file is not None
        assert hosts.where(file.path).read_bytes().endswith(dataset)


def test_with_a_worker_and_a_host_killed_every_study_has_one_report(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    under_way = "nothing of other tests is under way"
    wait_until(lambda: not any(waiting(site.hosts.store).values()), DRAINED_SECONDS, under_way)
    found = demonstrate(site, Clock())
    assert (found.lost, found.doubled) == ([], [])
    said = capsys.readouterr().out
    assert "studies: 12; lost: 0; doubled: 0" in said
    assert all(f"worker-{number} analysed case" in said for number in (1, 2))
    attempts = [row["attempts"] for row in site.hosts.store.worklist.rows() if row["calling_ae"] in SITES]
    assert max(attempts) >= 2, "the worker was killed in the middle of an analysis"
    for worker in site.workers:
        files = worker.folder / "files"
        assert not list((files / "instances").rglob("*.dcm"))
        assert list((files / "fetched").rglob("*.dcm")), "what it analysed came from the object store"


@pytest.mark.timeout(2400 + 60 * KILLS)
def test_kills_of_every_part_under_load_lose_nothing_and_make_no_second_report(site: Site) -> None:
    seed = int(os.environ.get("WILLIS_SEED", "0")) or Random().randrange(1 << 30)
    print(f"WILLIS_SEED={seed}")
    found = killed_under_load(site, evenly(KILLS, Random(seed)), seed, Clock().say)
    print(f"{found.done}, {found.verdict.counts}, the longest waits {sorted(found.waited.values())[-5:]}")
    assert (found.verdict.lost, found.verdict.doubled) == ([], [])


def test_what_the_command_lacks_it_names_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(command.PROGRAMS, "haproxy", ("haproxy", "/opt:/srv", "is the balancer"))
    assert command.main() == 2
    said = "haproxy was not found in /opt:/srv: it is the balancer; apt-get install haproxy\n"
    assert said in capsys.readouterr().err
