"""Analyses are placed on a Dask cluster and come back, or are done here: a real scheduler and worker, over TLS on loopback."""

import importlib.util
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import ai
from ai.bundle import save_bundle
from ai.findings import Findings
from ai.unet import UNet
from node.analysis.engine import Engine
from node.cli import checks
from tests.corpus.images import ANEURYSM_HU, FILLED_HU
from tests.corpus.network import network
from tests.support.absent import absent
from tests.support.builders import FakeClock
from tests.support.certificates import Certificates
from tests.support.engine import Claimant, Cluster, running_cluster
from tests.support.running import wait_until
from tests.unit.ai.test_bundle import TINY, manifest


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Cluster]:
    if importlib.util.find_spec("distributed") is None:
        absent("distributed is not installed: pip install --constraint constraints.txt '.[engine]'")
    folder = tmp_path_factory.mktemp("engine")
    torch.manual_seed(0)
    save_bundle(folder / "bundle", manifest(), (UNet(TINY),))
    with running_cluster(folder, certificates) as cluster:
        yield cluster


@pytest.fixture
def claimant(running: Cluster, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes a claimant that has tried to reach the cluster."""
    made: list[Claimant] = []

    def network_here(*args: Any, **options: Any) -> Findings:
        made[-1].here += 1
        return network(*args, **options)

    def make(**changes: Any) -> Claimant:
        one = Claimant(running, sqlite_url, **changes)
        made.append(one)
        one.engine.start()
        return one

    monkeypatch.setattr(ai, "analyse", network_here, raising=False)
    running.hold.unlink(missing_ok=True)
    yield make
    running.hold.unlink(missing_ok=True)
    for each in made:
        each.close()


_FOUND = (
    "outcome",
    "p_present",
    "lesions",
    "limits",
    "notify",
    "threshold",
    "model",
    "report_uid",
    "attempts",
    "stage",
)


def _joined(node: Claimant) -> None:
    """The worker takes its ten seconds to start, again too, and more of them beside other tests."""
    wait_until(lambda: node.engine.serves, 90, "a worker has joined the engine")


def test_what_the_engine_answers_is_what_would_be_answered_here(claimant: Any, clock: FakeClock) -> None:
    node = claimant()
    _joined(node)
    node.ready(clock, FILLED_HU, ANEURYSM_HU, -1000)
    node.worker._work()
    there = node.rows(*_FOUND)
    assert [row[0] for row in there] == ["negative", "positive", "not_analysed"]
    assert node.here == 0
    node.engine.stop()
    for case in (1, 2, 3):
        assert node.store.queue.retry(case)
    node.worker._engine = None
    node.worker._work()
    assert node.here == 3
    uid = _FOUND.index("report_uid")
    assert [row[:uid] + row[uid + 1 :] for row in node.rows(*_FOUND)] == [row[:uid] + row[uid + 1 :] for row in there]


def test_a_worker_that_dies_costs_one_attempt_and_the_series_has_one_report(
    claimant: Any, running: Cluster, clock: FakeClock
) -> None:
    node = claimant()
    _joined(node)
    running.hold.touch()
    node.ready(clock, ANEURYSM_HU)
    thread = node.works()
    os.kill(running.held_by(), signal.SIGKILL)
    running.hold.unlink()
    thread.join(90)
    assert node.rows("stage", "outcome", "attempts") == [("reported", "positive", 2)]
    _joined(node)
    assert node.engine.trouble == ""


def test_a_series_that_waited_behind_the_one_that_killed_its_worker_pays_nothing(
    claimant: Any, running: Cluster, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "is_full", False)  # as where another claimant was not seen yet
    node = claimant()
    _joined(node)
    running.hold.touch()
    node.ready(clock, FILLED_HU, FILLED_HU)
    thread = node.works()
    pid = running.held_by()
    wait_until(lambda: node.rows("stage") == [("analysing",), ("analysing",)] and len(node.engine._placed) == 2, 10)
    os.kill(pid, signal.SIGKILL)
    running.hold.unlink()
    thread.join(90)
    assert node.rows("stage", "attempts") == [("reported", 2), ("reported", 1)]


def test_no_more_is_claimed_than_the_engine_has_workers(claimant: Any, running: Cluster, clock: FakeClock) -> None:
    node = claimant()
    _joined(node)
    running.hold.touch()
    node.ready(clock, FILLED_HU, FILLED_HU)
    thread = node.works()
    running.held_by()
    assert node.rows("stage") == [("analysing",), ("ready",)]
    running.hold.unlink()
    thread.join(90)
    assert node.rows("stage", "attempts") == [("reported", 1), ("reported", 1)]
    assert node.here == 0


def test_a_node_that_stops_gives_back_what_it_placed_without_counting_it(
    claimant: Any, running: Cluster, clock: FakeClock
) -> None:
    node = claimant()
    _joined(node)
    running.hold.touch()
    node.ready(clock, FILLED_HU)
    thread = node.works()
    running.held_by()
    node.worker._on_term(signal.SIGTERM, None)
    thread.join(10)
    node.worker._store.queue.give_back(node.worker._name, refund=True)
    assert node.rows("stage", "attempts") == [("ready", 0)]


def test_workers_with_another_model_are_given_nothing_and_both_are_named(
    claimant: Any, running: Cluster, clock: FakeClock, tmp_path: Path
) -> None:
    save_bundle(tmp_path / "bundle", manifest(version="7.7"), (UNet(TINY),))
    node = claimant(bundle=tmp_path / "bundle")
    node.ready(clock, FILLED_HU)
    node.worker._work()
    assert (node.here, node.rows("stage", "attempts")) == (1, [("reported", 1)])
    wait_until(lambda: "with model" in node.engine.trouble, 90)
    assert "with model 7.7" in node.engine.trouble
    assert f"with model {manifest().version}" in node.engine.trouble


def test_a_certificate_of_another_ca_lets_nobody_in_and_the_series_is_analysed_here(
    claimant: Any, clock: FakeClock
) -> None:
    node = claimant(who="stranger")
    node.ready(clock, FILLED_HU)
    node.worker._work()
    assert (node.here, node.rows("stage")) == (1, [("reported",)])
    assert "it does not know our CA" in node.engine.trouble
    said = [each.message for each in checks._engine(node.config)]
    assert len(said) == 1 and "it does not know our CA; give the CA of [ai.engine_tls]" in said[0]


def test_the_engine_listens_on_loopback_alone_and_its_worker_where_it_was_told_to(running: Cluster) -> None:
    """The scheduler and the worker, the pages that their library serves too."""
    processes = [running.scheduler.process.pid, *running.worker.children()]
    assert len(processes) == 2
    sockets = {
        str(each.readlink())[8:-1]
        for pid in processes
        for each in Path(f"/proc/{pid}/fd").iterdir()
        if str(each.readlink()).startswith("socket:")
    }
    listening = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in sockets:
                listening.append(tuple(words[1].split(":")))
    assert {host for host, _ in listening} == {"0100007F"}
    assert len(listening) >= 2
    assert ("0100007F", f"{running.worker_port:04X}") in listening


def test_a_scheduler_that_dies_loses_nothing_and_health_says_so(
    claimant: Any, running: Cluster, clock: FakeClock
) -> None:
    node = claimant()
    _joined(node)
    running.hold.touch()
    node.ready(clock, ANEURYSM_HU, FILLED_HU)
    thread = node.works()
    running.held_by()
    running.scheduler.process.kill()
    thread.join(90)
    assert node.rows("stage", "outcome", "attempts") == [("reported", "positive", 1), ("reported", "negative", 1)]
    assert node.here == 2
    assert node.engine.trouble.startswith(f"[ai] engine_address = '{running.address}': ")
