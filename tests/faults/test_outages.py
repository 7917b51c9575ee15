"""The PACS, the sender, the machine and the clock fail; a node in this process, real sockets, real files."""

import itertools
import resource
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import JPEGLSLossless
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError

from node.analysis import analysis
from node.simulated_pacs import Fault, SimulatedPeer
from node.workflow import delivery, recovery, settling
from storage.queries.group_commit import GroupCommit, Offer
from storage.queries.intake import Intake
from storage.records import Added, Conclusion
from storage.stages import Outcome, Stage
from storage.store import Store
from tests.faults.proof import unreported, violations
from tests.faults.senders import send, small_series
from tests.faults.small_node import ALGORITHM, Killable, SmallNode, configuration
from tests.support.absent import absent
from tests.support.builders import (
    FakeClock,
    claimed,
    encoded,
    header,
    known_file,
    next_attempt_at,
    received,
    reported,
    series_now,
)
from tests.support.compressed import by_codec
from tests.support.raw_scu import ABORT, RawScu, associate_rq
from tests.support.running import free_port, wait_until
from tests.unit.storage.queries.test_group_commit import arrived

pytestmark = pytest.mark.faults
WHAT_A_RESTART_DOES = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE pid <> pg_backend_pid() AND datname = current_database()"
)
"""To every client of PostgreSQL."""


class Site:
    """A small node and its PACS."""

    def __init__(self, folder: Path) -> None:
        self.peer = SimulatedPeer(folder / "pacs")
        self.pacs_port = self.peer.start(0)
        self.port = free_port()
        self.node = SmallNode(configuration(folder / "node", self.port, self.pacs_port))
        self.acknowledged: dict[str, bytes] = {}

    def run_until_reported(self, revision: int = 1) -> None:
        """Every series has its report in the PACS, and nothing is lost."""

        def ended() -> bool:
            self.node.step()
            return not unreported(self.node.store, self.peer.folder, ALGORITHM.version, revision)

        wait_until(ended, 20, "it is reported")
        assert violations(self.node.store, self.node.files, self.acknowledged) == []

    def rows(self) -> list[dict[str, object]]:
        return [dict(row) for row in self.node.store.worklist.rows()]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site that is gone after the test."""
    made = Site(tmp_path)
    with made.node:
        yield made
    made.peer.stop()


# --- the sender


def test_a_sender_that_aborts_half_way_and_comes_back_has_its_series_whole(site: Site) -> None:
    series = small_series(1, slices=6)
    with RawScu(site.port).associate(associate_rq()) as scu:
        for ds, dataset in series[:3]:
            assert scu.store(ds, dataset) == 0
            site.acknowledged[str(ds.SOPInstanceUID)] = dataset
        scu.send(ABORT)
    assert send(site.port, series, site.acknowledged)
    site.run_until_reported()
    assert [row["instance_count"] for row in site.rows()] == [6]


def test_two_associations_that_send_one_series_interleaved_and_twice_make_one_case(site: Site) -> None:
    series = small_series(1, slices=8)
    with RawScu(site.port).associate(associate_rq()) as one, RawScu(site.port).associate(associate_rq()) as other:
        for (ds, dataset), scu in zip(series + series[::-1], itertools.cycle((one, other))):
            assert scu.store(ds, dataset) == 0
            site.acknowledged[str(ds.SOPInstanceUID)] = dataset
        one.release()
        other.release()
    site.run_until_reported()
    assert [(row["instance_count"], row["conflicts"]) for row in site.rows()] == [(8, [])]


def test_a_late_slice_in_mid_analysis_voids_the_claim_and_the_whole_series_is_reported_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    series, late = small_series(1, slices=4), threading.Event()
    finish = analysis._drafts

    def interrupted(*arguments: object) -> object:
        if not late.is_set():
            late.set()
            assert send(site.port, series[3:], site.acknowledged)
        return finish(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(analysis, "_drafts", interrupted)
    assert send(site.port, series[:3], site.acknowledged)
    site.run_until_reported(revision=2)
    assert len(site.peer.requests) == 1
    assert site.rows()[0]["instance_count"] == 4


def test_a_late_slice_after_delivery_makes_a_second_report_that_names_the_first(site: Site) -> None:
    series = small_series(1, slices=4)
    assert send(site.port, series[:3], site.acknowledged)
    site.run_until_reported()
    assert send(site.port, series[3:], site.acknowledged)
    site.run_until_reported(revision=2)
    first, second = site.peer.requests
    report = dcmread(site.peer.folder / f"{second}.dcm")
    named = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert named.ReferencedSOPInstanceUID == first


# --- the PACS


def test_a_pacs_that_is_down_for_a_day_gets_its_report_and_the_attempts_are_few(site: Site) -> None:
    clock = FakeClock(datetime.now(UTC))
    site.node.context.config = site.node.config.model_copy(
        update={"delivery": site.node.config.delivery.model_copy(update={"maximum_retry_seconds": 7200.0})}
    )
    assert send(site.port, small_series(1), site.acknowledged)
    site.peer.stop()

    def is_reported() -> bool:
        site.node.step()
        return site.rows()[0]["stage"] == "reported"

    wait_until(is_reported, 20)
    site.node.context.clock = clock
    back_at = clock() + timedelta(hours=24)
    while clock() < back_at:
        delivery.deliver(site.node.context)
        due = next_attempt_at(site.node.store)
        assert due is not None
        clock.now = max(due, clock())
    site.peer.fault, site.peer.delay_seconds = Fault.SLOW, 0.5  # it comes back slow
    site.peer.start(site.pacs_port)
    assert delivery.deliver(site.node.context) == 1
    (sent,) = site.node.store.worklist.deliveries(1)
    assert 20 < sent.attempts < 50
    assert len(site.peer.requests) == 1


# --- the machine


def test_out_of_file_descriptors_is_out_of_resources_and_passes(tmp_path: Path) -> None:
    peer = SimulatedPeer(tmp_path / "pacs")
    acknowledged: dict[str, bytes] = {}
    series = small_series(1)
    with Killable(tmp_path / "node", port := free_port(), peer.start(0)) as node:
        with RawScu(port).associate(associate_rq()) as scu:
            assert scu.store(*series[0]) == 0
            pid = node.process.pid
            usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            used = max(int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()) + 1
            held = len(list(Path(f"/proc/{pid}/fd").iterdir()))
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(used, held), usual[1]))
            assert scu.store(*series[1]) == 0xA700
            resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)
            assert scu.store(*series[1]) == 0
        assert send(port, series, acknowledged)
    peer.stop()


def test_a_codec_that_crashes_on_compressed_slices_does_not_end_the_node(tmp_path: Path) -> None:
    peer = SimulatedPeer(tmp_path / "pacs")
    compressed = by_codec([ds for ds, _ in small_series(1)], JPEGLSLossless)
    series = [(ds, encoded(ds, JPEGLSLossless)) for ds in compressed]
    acknowledged: dict[str, bytes] = {}
    with Killable(tmp_path / "node", port := free_port(), peer.start(0), broken="decoder") as node:
        assert send(port, series, acknowledged, JPEGLSLossless)
        wait_until(lambda: peer.requests or node.process.poll() is not None, 20, "the series is reported")
        assert node.process.poll() is None
        assert send(port, small_series(2), acknowledged)
    peer.stop()


def test_a_folder_that_becomes_read_only_is_answered_and_loses_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "node"
    disk.mkdir()

    def mount(*arguments: str) -> int:
        return subprocess.run(["mount", *arguments, str(disk)], capture_output=True, check=False).returncode

    if mount("-t", "tmpfs", "-o", "size=16m", "none"):
        absent("no file system can be mounted here (not root)")
    try:
        config = configuration(disk, free_port(), free_port())
        config = config.model_copy(
            update={"storage": config.storage.model_copy(update={"database_url": f"sqlite:///{tmp_path / 'w.db'}"})}
        )
        first, second = small_series(1, slices=2)
        acknowledged = {str(ds.SOPInstanceUID): dataset for ds, dataset in (first, second)}
        with SmallNode(config) as node, RawScu(config.node.port).associate(associate_rq()) as scu:
            assert scu.store(*first) == 0
            assert mount("-o", "remount,ro") == 0
            assert scu.store(*second) == 0xA700
            assert len(node.store.settling.instances(1)) == 1
            assert mount("-o", "remount,rw") == 0
            assert scu.store(*second) == 0
            assert violations(node.store, node.files, acknowledged) == []
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def test_a_database_that_another_program_locks_too_long_is_out_of_resources_and_passes(site: Site) -> None:
    engine = site.node.store.transactions.engine
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA busy_timeout = 300"))
    engine.dispose()
    first, second = small_series(1, slices=2)
    with RawScu(site.port).associate(associate_rq()) as scu:
        assert scu.store(*first) == 0
        with Store.open(site.node.config.storage.url).transactions.writing() as session:
            session.execute(text("SELECT 1"))  # SQLite takes its lock with the first statement
            assert scu.store(*second) == 0xA700
        assert len(list(site.node.files.root.rglob("*.dcm"))) == 2, "the file stays; sent again it has the same name"
        assert scu.store(*second) == 0
    assert violations(site.node.store, site.node.files, {str(ds.SOPInstanceUID): b for ds, b in (first, second)}) == []


@pytest.mark.postgresql
def test_a_postgresql_that_is_restarted_in_mid_transaction_loses_nothing(
    postgresql_store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, died = Intake._add, threading.Event()

    def cut(self: Intake, connection: object, one: object) -> object:
        outcome = add(self, connection, one)  # type: ignore[arg-type]
        if not died.is_set():
            died.set()
            with postgresql_store.transactions.engine.connect() as other:
                other.execute(text(WHAT_A_RESTART_DOES))
        return outcome

    ones = [arrived(postgresql_store, clock, header(number)) for number in (1, 2)]
    monkeypatch.setattr(Intake, "_add", cut)
    with pytest.raises(DBAPIError):
        postgresql_store.intake.take(ones)
    assert known_file(postgresql_store, ones[0].header.sop_instance_uid) is None
    died.clear()
    commits = GroupCommit(postgresql_store.intake)
    offers = [Offer(one) for one in ones]
    commits._commit(offers)
    for offer in offers:
        with pytest.raises(DBAPIError):
            offer.outcome()
    again = [Offer(one) for one in ones]
    commits._commit(again)
    assert [offer.outcome() for offer in again] == [Added.STORED, Added.STORED], "on a new connection"


# --- the clock


def test_a_clock_that_is_set_back_holds_nothing_up(site: Site, tmp_path: Path) -> None:
    clock = FakeClock(datetime.now(UTC))
    context = site.node.context
    context.clock = clock
    receiving = received(context.store, clock, series="2.25.1")
    claimed(context.store, clock, series="2.25.2", worker="elsewhere:1")
    reported(context.store, clock, series="2.25.3")
    delivery = context.store.outbox.due.claim(clock(), timedelta(seconds=3))
    assert delivery is not None
    context.store.outbox.postponed(delivery, "status 0xA700", clock() + timedelta(seconds=2))
    clock.advance(-3600)
    recovery.rescue(context)
    assert series_now(context.store, "2.25.2").stage is Stage.READY
    assert series_now(context.store, "2.25.1").last_instance_at == clock()
    due = next_attempt_at(context.store)
    assert due is not None
    assert due <= clock()
    clock.advance(1)
    assert settling.settle(context) == 1
    assert series_now(context.store, "2.25.1").id == receiving.id


def test_a_clock_that_jumps_ahead_costs_at_most_a_second_look(site: Site) -> None:
    clock = FakeClock(datetime.now(UTC))
    context = site.node.context
    context.clock = clock
    claim = claimed(context.store, clock, series="2.25.2", worker="elsewhere:1")
    clock.advance(86_400)
    assert recovery.rescue(context) == 1
    assert not context.store.queue.finish(claim, Conclusion(Outcome.NEGATIVE), None, [], clock())
    again = context.store.queue.claim("worker", clock(), timedelta(seconds=60), 3)
    assert again is not None
    assert again.series.attempts == 2


def test_a_job_runs_without_a_wakeup_when_the_scheduler_has_stopped() -> None:
    from node.runtime.job import Job

    runs = threading.Semaphore(0)
    job = Job("test", 0.01, False, runs.release)
    thread = job.start()
    assert all(runs.acquire(timeout=5) for _ in range(3))
    job.stop()
    thread.join(5)
