"""The worker between its claims, with a real store, real files and a network of its own."""

import itertools
import math
import os
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from multiprocessing import active_children
from multiprocessing.context import SpawnProcess
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import ai
from ai import heap
from ai.bundle import save_bundle
from ai.errors import DeviceLost
from ai.findings import Findings
from ai.unet import UNet
from node.analysis import shadow
from node.analysis import worker as module
from node.analysis.bundle import algorithm_of
from node.analysis.early import Early
from node.analysis.read_ahead import Ahead
from node.analysis.shadow import claim_next
from node.analysis.worker import Worker
from node.cli import checks
from node.config.reloading import Reloading
from node.config.sections import Config
from node.runtime.clock import utc_now
from node.runtime.notify import WORKER_PROCESS, Wakeup
from node.runtime.processes import DEVICE_LOST, NO_MEMORY
from storage.errors import StorageFull
from storage.files.instances import Files
from storage.queries.claims import Queue
from storage.queries.shadow import ShadowStage
from storage.records import Claim
from storage.stages import Event
from storage.store import Store
from tests.support.builders import LEASE, FakeClock, Seconds, keep, ready, series_now
from tests.support.dicom_factory import ct_series
from tests.support.running import wait_until
from tests.unit.ai.test_bundle import TINY, manifest


@pytest.fixture
def config(tmp_path: Path, sqlite_url: str) -> Config:
    """A folder, a database, and a small bundle."""
    torch.manual_seed(0)
    save_bundle(tmp_path / "bundle", manifest(), (UNet(TINY),))
    return Config.model_validate(
        {
            "storage": {"directory": tmp_path / "files", "database_url": sqlite_url},
            "ai": {"bundle": tmp_path / "bundle", "attempts": 1},
        }
    )


@pytest.fixture
def store(config: Config) -> Iterator[Store]:
    """The worker's database."""
    opened = Store.open(config.storage.url)
    yield opened
    opened.close()


def test_a_full_disk_costs_no_attempt_is_told_and_is_tried_again_ever_later(
    config: Config, store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = keep(store, Files(config.storage.directory), clock, ct_series(6))
    assert store.settling.leave(series, Event.SETTLED, "count", clock())
    tries, seconds = [], Seconds()

    def full(*_: object) -> None:
        tries.append(seconds.now)
        raise StorageFull("no space left for a file; free some")

    worker = Worker(config, seconds)
    with monkeypatch.context() as patched:
        patched.setattr(Files, "write_report", full)
        for _ in range(2000):
            worker._work()
            seconds.now += 0.1
    pauses = [round(later - earlier) for earlier, later in itertools.pairwise(tries)]
    assert pauses == [2, 4, 8, 16, 32, 60, 60]
    (row,) = store.worklist.rows()
    assert (row["stage"], row["attempts"], row["detail"]) == ("ready", 0, "no space left for a file; free some")
    assert [said for _, said in store.worklist.status().errors] == ["case 1: no space left for a file; free some"]
    seconds.now += 60
    worker._work()
    (row,) = store.worklist.rows()
    assert (row["stage"], row["outcome"], row["attempts"]) == ("reported", "not_analysed", 1)
    assert "no space" not in row["detail"]


def test_what_a_stat_site_sent_is_analysed_first(
    config: Config, store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, site in enumerate(["ARCHIVE"] * 9 + ["ED_CT"]):
        ready(store, clock, count=1, series=f"2.25.{number}", calling_ae=site)
    ai_settings = config.ai.model_copy(update={"stat_calling_ae": ("ED_CT",)})
    worker, begun = Worker(config.model_copy(update={"ai": ai_settings})), list[str]()
    monkeypatch.setattr(worker._store.queue, "_random", Random(1))  # whose first lot is one of the three of four
    monkeypatch.setattr(worker, "_place_or_analyse", lambda claim: begun.append(claim.series.calling_ae))
    worker._work()
    assert (begun[0], len(begun)) == ("ED_CT", 10)


def test_a_claim_that_the_database_does_not_take_back_is_given_back_at_the_next_beat(
    config: Config, store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = keep(store, Files(config.storage.directory), clock, ct_series(6))
    assert store.settling.leave(series, Event.SETTLED, "count", clock())
    database = sqlite3.connect(config.storage.url.removeprefix("sqlite:///"))

    def fail_with_the_database(*_: object) -> None:
        database.execute("ALTER TABLE series RENAME TO away")
        raise OSError

    worker = Worker(config)
    with monkeypatch.context() as patched:
        patched.setattr(Files, "write_report", fail_with_the_database)
        with pytest.raises(Exception, match="no such table"):
            worker._work()
    database.execute("ALTER TABLE away RENAME TO series")
    assert store.worklist.rows()[0]["stage"] == "analysing"
    worker._work()
    (row,) = store.worklist.rows()
    assert (row["stage"], row["reason"], row["detail"]) == ("failed", "attempts_exhausted", "1 attempt")


def test_a_full_disk_that_the_database_is_on_too_costs_no_attempt(
    config: Config, store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = keep(store, Files(config.storage.directory), clock, ct_series(6))
    assert store.settling.leave(series, Event.SETTLED, "count", clock())
    seconds = Seconds()

    def full(*_: object) -> None:
        raise StorageFull("no space left for the database")

    worker = Worker(config, seconds)
    with monkeypatch.context() as patched:
        patched.setattr(Queue, "finish", full)
        patched.setattr(Queue, "give_back", full)
        with pytest.raises(StorageFull):
            worker._work()
    worker._work()
    assert store.worklist.rows()[0]["stage"] == "analysing", "it does not knock at once at a disk that is full"
    seconds.now += 2
    worker._work()
    (row,) = store.worklist.rows()
    assert (row["stage"], row["attempts"]) == ("reported", 1)


def test_slices_that_arrive_while_nothing_is_to_be_analysed_are_read_and_not_read_again(
    config: Config, store: Store, clock: FakeClock
) -> None:
    files = Files(config.storage.directory)
    series = keep(store, files, clock, ct_series(20))
    worker = Worker(config)

    def all_are_read() -> bool:
        return [len(each.slices) for each in list(worker._arriving._ahead._series.values())] == [20]

    def ring_once_all_are_read() -> None:
        wait_until(all_are_read)
        worker._job.wake()

    threading.Thread(target=ring_once_all_are_read).start()
    while not all_are_read():
        worker._work_and_read_ahead()
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    for _, file in store.settling.instances(series.id):
        files.path(file).unlink()
    assert store.settling.leave(series, Event.SETTLED, "count", clock())
    worker._work()
    (row,) = store.worklist.rows()
    assert (row["stage"], row["reason"], row["attempts"]) == ("reported", "not_a_head", 1)


def test_whoever_reads_ahead_looks_at_the_queue_again_even_if_nobody_rings(
    config: Config, store: Store, clock: FakeClock
) -> None:
    keep(store, Files(config.storage.directory), clock, ct_series(4))
    worker = Worker(config, itertools.count(1000.0, 0.5).__next__)
    worker._work_and_read_ahead()
    assert sum(len(each.slices) for each in worker._arriving._ahead._series.values()) == 4


class Ended(BaseException):
    """Instead of the end of this process."""


@pytest.fixture
def not_really_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process raises Ended with the status that it would end with."""

    def end(status: int) -> None:
        raise Ended(status)

    monkeypatch.setattr(os, "_exit", end)


@pytest.mark.usefixtures("not_really_ended")
@pytest.mark.parametrize("attempts", [0, 1])
def test_a_worker_without_memory_ends_and_gives_nothing_back_itself(
    attempts: int, config: Config, store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = keep(store, Files(config.storage.directory), clock, ct_series(6))
    assert store.settling.leave(series, Event.SETTLED, "count", clock())
    for _ in range(attempts):
        assert store.queue.claim("worker:1", clock(), LEASE, 1)
        store.queue.give_back("worker:1", refund=False)

    def out_of_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Files, "write_report", out_of_memory)
    with pytest.raises(Ended, match=str(NO_MEMORY)):
        Worker(config)._work()
    (row,) = store.worklist.rows()
    assert (row["stage"], row["attempts"]) == ("analysing", attempts + 1)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.usefixtures("not_really_ended")
def test_a_worker_whose_gpu_no_longer_answers_ends_and_the_next_process_makes_the_next_attempt(
    config: Config, store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = keep(store, Files(config.storage.directory), clock, ct_series(6))
    assert store.settling.leave(series, Event.SETTLED, "count", clock())

    def lost(*_: object) -> None:
        raise DeviceLost("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(module, "analyse", lost)
    with pytest.raises(Ended, match=str(DEVICE_LOST)):
        Worker(config)._while_the_device_answers()
    (row,) = store.worklist.rows()
    assert (row["stage"], row["attempts"]) == ("analysing", 1)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_while_the_engine_serves_nothing_is_kept_of_what_was_read_before(
    config: Config, store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(store, Files(config.storage.directory), clock, ct_series(6), closed=None)
    worker = Worker(config)
    worker._arriving.read_some()
    worker._keep_heap(True)
    assert worker._arriving.has_slices
    monkeypatch.setattr(worker, "_work", lambda: None)
    monkeypatch.setattr(worker, "_engine", SimpleNamespace(serves=True))
    worker._work_and_read_ahead()
    assert (worker._arriving.has_slices, worker._keeps_heap) == (False, False)


def test_a_signal_that_interrupts_a_look_for_wakeups_does_not_wait_for_its_lock(config: Config) -> None:
    worker = Worker(config)
    woken: Any = worker._job._woken
    news: Any = worker._news
    with woken._cond, news._cond:  # as the interrupted thread may hold them
        worker._on_term(signal.SIGTERM, None)
    with Wakeup(config.storage.directory, WORKER_PROCESS) as wakeup:
        worker._listen(wakeup)
    worker._job.run()


def test_another_model_software_or_host_is_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (algorithm_of(manifest(version=version)) for version in ("1", "2"))
    assert one == algorithm_of(manifest(version="1"))
    monkeypatch.setattr("node.analysis.bundle.version", lambda _name: "9.9")
    newer = algorithm_of(manifest(version="1"))
    monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
    elsewhere = algorithm_of(manifest(version="1"))
    assert len({each.device_uid for each in (one, other, newer, elsewhere)}) == 4


def test_a_canary_in_work_gives_way_to_a_patients_series(
    config: Config, store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.canaries.begin("2.25.900", clock())
    synthetic = keep(store, Files(config.storage.directory), clock, ct_series(6, SeriesInstanceUID="2.25.900"))
    assert store.settling.leave(synthetic, Event.SETTLED, "quiet", clock())
    seconds, order = Seconds(), list[bool]()
    worker = Worker(config, seconds)

    def analysed(_context: object, claim: Claim) -> None:
        order.append(claim.series.canary)
        if len(order) > 1:
            worker._stopping.set()
            return
        worker._progress(0.1)
        datasets = ct_series(6, SeriesInstanceUID="2.25.901", StudyInstanceUID="2.25.902")
        for number, ds in enumerate(datasets):
            ds.SOPInstanceUID = f"2.25.901.{number}"
        real = keep(store, Files(config.storage.directory), clock, datasets)
        assert store.settling.leave(real, Event.SETTLED, "count", clock())
        seconds.now += 1
        worker._progress(0.2)
        raise AssertionError("it went on")

    monkeypatch.setattr("node.analysis.worker.analyse", analysed)
    worker._work()
    assert order == [True, False]
    assert series_now(store, "2.25.900").attempts == 0


@pytest.mark.parametrize(("early", "is_full"), [(True, False), (False, False), (True, True)])
def test_what_arrives_is_analysed_early_unless_the_configuration_or_a_full_disk_says_otherwise(
    early: bool, is_full: bool, config: Config, store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert config.ai.early, "by default"
    keep(store, Files(config.storage.directory), clock, ct_series(6), closed=None)
    worker = Worker(config.model_copy(update={"ai": config.ai.model_copy(update={"early": early})}))
    worker._resume_at = math.inf if is_full else 0.0
    looked: list[int] = []

    def look(_early: Early, ahead: Ahead) -> bool:
        looked.append(ahead.case)
        return True

    monkeypatch.setattr(Early, "analyse", look)
    monkeypatch.setattr(worker._job, "woken_within", lambda _seconds: bool(looked) or worker._arriving.held())
    worker._work_and_read_ahead()
    assert looked == ([1] if early and not is_full else [])


def test_the_heap_is_kept_from_a_series_first_slices_to_its_report(
    config: Config, store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(heap, "keep", lambda: done.append("kept"))
    monkeypatch.setattr(heap, "let_go", lambda: done.append("let go"))
    worker = Worker(config)
    worker._work_and_read_ahead()
    assert done == []
    series = keep(store, Files(config.storage.directory), clock, ct_series(6), closed=None)
    monkeypatch.setattr(worker._job, "woken_within", lambda _seconds: bool(worker._arriving.held()))
    worker._work_and_read_ahead()
    assert done == ["kept"]
    assert store.settling.leave(series, Event.SETTLED, "count", clock())
    monkeypatch.setattr("node.analysis.worker.analyse", lambda *_: done.append("analysed"))
    monkeypatch.setattr(worker._job, "woken_within", lambda _seconds: False)
    worker._work_and_read_ahead()
    assert done == ["kept", "analysed", "let go"]


@pytest.mark.parametrize("where", ["_work", "_work_in_the_shadow"])
def test_the_heap_is_not_kept_while_the_database_is_away_or_the_second_bundle_answers(
    where: str, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(heap, "let_go", lambda: done.append("let go"))
    worker = Worker(config)
    worker._keeps_heap = True

    def fails() -> None:
        assert done == ([] if where == "_work" else ["let go"])
        raise OSError

    monkeypatch.setattr(worker, where, fails)
    with pytest.raises(OSError):
        worker._work_and_read_ahead()
    assert done == ["let go"]


def test_a_reload_of_the_model_throws_away_what_the_old_one_answered_early(
    with_a_second_bundle: Config, config: Config, store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = config.model_copy(update={"ai": config.ai.model_copy(update={"bundle": with_a_second_bundle.ai.shadow})})
    asked, models = threading.Event(), list[str]()

    def analysed(early: Early, ahead: Ahead) -> bool:
        models.append(early._bundle.manifest.version)
        ahead.passes, ahead.next_look_mm = 1, 10.0
        return True

    monkeypatch.setattr(Early, "analyse", analysed)
    worker = Worker(config, reloading=Reloading(asked, lambda: new))
    worker._arriving.read_some()
    keep(store, Files(config.storage.directory), clock, ct_series(6), closed=None)
    worker._arriving.read_some()
    worker._arriving.analyse_early()
    (ahead,) = worker._arriving.held()
    before = ahead.remembered
    asked.set()
    worker._reload()
    assert (ahead.passes, ahead.next_look_mm, len(ahead.slices)) == (0, 0.0, 6)
    assert ahead.remembered is not before
    worker._arriving.analyse_early()
    assert models == [manifest().version, "2.0"]


def test_a_bundle_takes_its_name_when_it_is_first_given_a_patients_series_and_not_when_it_is_loaded(
    config: Config, store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    series, version = keep(store, Files(config.storage.directory), clock, ct_series(6)), manifest().version
    assert store.settling.leave(series, Event.SETTLED, "count", clock())
    monkeypatch.setattr(ai, "analyse", lambda *_, **__: found(0.2), raising=False)
    worker = Worker(config)
    other = "f" * 64
    assert store.models.name_of(version, other) == version
    worker._next()
    assert store.models.name_of(version, other) == f"{version} (ffffffff)"
    assert [row["model"] for row in store.worklist.rows()] == [version]


@pytest.fixture
def with_a_second_bundle(config: Config, tmp_path: Path) -> Config:
    """The configuration with another bundle as shadow."""
    torch.manual_seed(1)
    save_bundle(tmp_path / "next", manifest(version="2.0"), (UNet(TINY),))
    return config.model_copy(update={"ai": config.ai.model_copy(update={"shadow": tmp_path / "next"})})


def found(probability: float) -> Findings:
    """What a network says of a scan."""
    return Findings((0.1,) * 13 + (probability,), (), 0.5)


@pytest.fixture
def reported(with_a_second_bundle: Config, store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Worker:
    """A worker whose first bundle has just reported a series; the second one is in a process of its own, as ever."""
    series = keep(store, Files(with_a_second_bundle.storage.directory), clock, ct_series(6))
    monkeypatch.setattr(ai, "analyse", lambda *_, **__: found(0.2), raising=False)
    worker = Worker(with_a_second_bundle)
    worker._work_in_the_shadow()
    assert store.settling.leave(series, Event.SETTLED, "count", clock())
    worker._work_in_the_shadow()
    assert store.shadows.answers() == [], "a series waits"
    worker._work()
    return worker


def test_the_second_bundle_answers_after_the_report_and_changes_nothing_of_it(reported: Worker, store: Store) -> None:
    before = store.worklist.rows()
    reported._work_in_the_shadow()
    reported._work_in_the_shadow()
    assert store.worklist.rows() == before
    [answer] = store.shadows.answers()
    assert (answer.stage, answer.first_p_present, answer.model) == (ShadowStage.ANSWERED, 0.2, "2.0")
    assert (answer.outcome, answer.error != "") == ("not_analysed", True), "what it makes of six slices"
    assert reported._details()["shadow"] == "2.0"


def test_a_second_bundle_that_hangs_holds_up_nobody_and_its_failure_is_its_own(
    reported: Worker, with_a_second_bundle: Config, store: Store, clock: FakeClock
) -> None:
    assert with_a_second_bundle.ai.shadow is not None
    listed = with_a_second_bundle.ai.shadow / "manifest.json"
    listed.unlink()
    os.mkfifo(listed)  # whoever reads it waits for ever
    came_at, incoming = list[float](), with_a_second_bundle.storage.directory / "incoming"

    def comes() -> None:
        datasets = ct_series(1, SeriesInstanceUID="2.25.901", StudyInstanceUID="2.25.902", SOPInstanceUID="2.25.903")
        keep(store, Files(with_a_second_bundle.storage.directory), clock, datasets)
        came_at.append(time.monotonic())

    def comes_once_it_hangs() -> None:
        wait_until(lambda: _oom_scores() == ["1000"], 20, "the kernel would end the second bundle's process first")
        [process] = active_children()
        (incoming / f"{socket.gethostname()}-{process.pid}-half").touch()
        comes()

    coming = threading.Thread(target=comes_once_it_hangs)
    coming.start()
    reported._work_in_the_shadow()
    coming.join()
    assert list(incoming.iterdir()) == [], "what that process had half written is gone with it"
    assert time.monotonic() - came_at[0] < 1.0
    assert [each.stage for each in store.shadows.answers()] == [ShadowStage.TRYING]
    assert store.settling.leave(series_now(store, "2.25.901"), Event.SET_ASIDE, "", utc_now())

    listed.unlink()
    listed.write_text("no manifest", "utf-8")
    reported._work_in_the_shadow()
    [answer] = store.shadows.answers()
    assert (answer.stage, answer.error) == (ShadowStage.TRYING, "")
    assert reported._details()["shadow_trouble"] == f"[ai] shadow: {listed} is not JSON: copy the bundle again"
    assert reported._shadow.sha256 == "", "nothing is asked of it until a reload"
    assert store.worklist.rows()[0]["outcome"] == "negative"


def test_a_second_bundle_that_fails_is_kept_with_what_its_process_says_of_it(
    reported: Worker, with_a_second_bundle: Config, store: Store
) -> None:
    for each in (with_a_second_bundle.storage.directory / "instances").rglob("*.dcm"):
        each.unlink()
    reported._work_in_the_shadow()
    [answer] = store.shadows.answers()
    assert (answer.stage, answer.error) == (ShadowStage.TRYING, "Damaged")


def test_a_second_bundle_whose_process_the_kernel_keeps_holds_up_nobody(
    reported: Worker, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow, "_GONE_WITHIN_SECONDS", 0.1)
    monkeypatch.setattr(SpawnProcess, "kill", lambda _process: None)  # as where it waits for a disk that is away
    monkeypatch.setattr(reported, "_is_wanted", lambda: True)
    reported._work_in_the_shadow()
    [kept] = active_children()
    assert claim_next(reported._context, reported._shadow, LEASE) is None
    monkeypatch.undo()
    kept.kill()
    kept.join()
    assert claim_next(reported._context, reported._shadow, LEASE) is not None


def _oom_scores() -> list[str]:
    return [Path(f"/proc/{each.pid}/oom_score_adj").read_text().strip() for each in active_children()]


@pytest.mark.parametrize("wrong", ["missing", "the same"])
def test_a_second_bundle_that_cannot_be_used_is_named_and_the_first_works(
    wrong: str, config: Config, store: Store, tmp_path: Path
) -> None:
    folder = tmp_path / ("bundle" if wrong == "the same" else "nowhere")
    config = config.model_copy(update={"ai": config.ai.model_copy(update={"shadow": folder})})
    [problem] = list(checks._model(config))
    assert (problem.is_fatal, str(folder) in problem.message) == (False, True)
    worker = Worker(config)
    said = worker._details()
    assert (said["model"], said["shadow"]) == (manifest().version, "")
    assert said["shadow_trouble"].startswith("[ai] shadow") and str(folder) in said["shadow_trouble"]
    worker._work_in_the_shadow()


def test_a_reload_waits_for_the_series_in_work_and_the_next_is_of_the_new_model_or_of_the_old_where_that_is_broken(
    with_a_second_bundle: Config, config: Config, store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert config.ai.bundle and with_a_second_bundle.ai.shadow
    wanted = [with_a_second_bundle.ai.shadow, config.ai.bundle.parent / "nowhere", config.ai.bundle]
    files, asked = Files(config.storage.directory), threading.Event()

    def read() -> Config:
        return config.model_copy(update={"ai": config.ai.model_copy(update={"bundle": wanted.pop(0)})})

    def network(*_: object, **__: object) -> Findings:
        asked.set()  # a reload is asked for while each of them is analysed
        return found(0.2)

    monkeypatch.setattr(ai, "analyse", network, raising=False)
    worker = Worker(config, reloading=Reloading(asked, read))
    for number in range(4):
        datasets = ct_series(6, SeriesInstanceUID=f"2.25.90{number}", StudyInstanceUID="2.25.902")
        for place, ds in enumerate(datasets):
            ds.SOPInstanceUID = f"2.25.91.{number}.{place}"
        clock.advance(1)
        assert store.settling.leave(keep(store, files, clock, datasets), Event.SETTLED, "count", clock())
        if not wanted:
            break
        worker._next()
        worker._reload()
        error = worker._details()["reload"]["error"]
        assert ("nowhere" in error) == (number == 1)
    worker._next()
    models = {row["series_instance_uid"][-1]: row["model"] for row in store.worklist.rows()}
    assert models == {"0": manifest().version, "1": "2.0", "2": "2.0", "3": manifest().version}
