"""Which series the worker gives its engine and which it analyses itself; the engine is a stand-in without a network."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import ai
from ai.bundle import save_bundle
from ai.unet import UNet
from node.analysis import analysis
from node.analysis import worker as module
from node.analysis.engine import Ended, How
from node.analysis.worker import Worker
from node.config.sections import Config
from storage.errors import StorageFull
from storage.files.instances import Files
from storage.records import Claim
from storage.stages import Event
from storage.store import Store
from tests.corpus.images import FILLED_HU, cta
from tests.support.builders import FakeClock, keep
from tests.unit.ai.test_bundle import TINY, manifest
from tests.unit.node.analysis.conftest import NEGATIVE


class StandIn:
    """An engine with two free workers; a test says what comes of a task."""

    serves, is_full = True, False

    def __init__(self) -> None:
        self.placed: list[Claim] = []
        self.given: list[int] = []
        self.over: list[Ended] = []

    @property
    def has_any(self) -> bool:
        return bool(self.placed)

    def place(self, claim: Claim, *_: Any) -> bool:
        self.placed.append(claim)
        self.given.append(claim.series.id)
        return True

    def forget(self) -> None:
        self.placed.clear()

    def ended(self) -> Ended | None:
        if not self.over:
            return None
        self.placed.remove(self.over[0].claim)
        return self.over.pop(0)

    def ends(self, how: How) -> None:
        self.over.append(Ended(self.placed[0], how, why="because"))


class Placing:
    """A worker with such an engine, and what was analysed here."""

    def __init__(self, config: Config, store: Store, clock: FakeClock) -> None:
        self.store, self.clock, self.files = store, clock, Files(config.storage.directory)
        self.worker, self.engine = Worker(config), StandIn()
        self.worker._engine = self.engine  # type: ignore[assignment]
        self.here: list[tuple[int, int]] = []

    def ready(self, count: int) -> None:
        for number in range(1, count + 1):
            series = keep(self.store, self.files, self.clock, cta(FILLED_HU, count=6, series=number))
            assert self.store.settling.leave(series, Event.SETTLED, "count", self.clock())

    def rows(self) -> list[tuple[str, int]]:
        rows = sorted(self.store.worklist.rows(), key=lambda row: row["case_id"])
        return [(row["stage"], row["attempts"]) for row in rows]


@pytest.fixture
def placing(tmp_path: Path, sqlite_url: str, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Placing]:
    torch.manual_seed(0)
    save_bundle(tmp_path / "bundle", manifest(), (UNet(TINY),))
    storage = {"directory": tmp_path / "files", "database_url": sqlite_url}
    config = Config.model_validate({"storage": storage, "ai": {"bundle": tmp_path / "bundle", "attempts": 2}})
    store = Store.open(sqlite_url)
    made = Placing(config, store, clock)

    def analyse(context: Any, claim: Claim) -> bool:
        made.here.append((claim.series.id, len(made.engine.placed)))
        return analysis.analyse(context, claim)

    monkeypatch.setattr(module, "analyse", analyse)
    monkeypatch.setattr(module, "LONGEST_PAUSE_SECONDS", 0)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(ai, "analyse", lambda *_args, **_options: NEGATIVE, raising=False)
    yield made
    store.close()


def test_the_last_attempt_is_made_here_and_when_the_engine_has_nothing_that_would_age_meanwhile(
    placing: Placing,
) -> None:
    placing.ready(2)
    worker, engine = placing.worker, placing.engine
    assert worker._next() and worker._next()
    engine.ends(How.FAILED)
    for _ in range(4):
        worker._next()
    assert (engine.given, placing.here, placing.rows()) == ([1, 2], [], [("ready", 1), ("analysing", 1)])
    engine.ends(How.LOST)
    worker._next(), worker._next()
    assert placing.here == [(1, 0)]
    assert placing.rows() == [("reported", 2), ("ready", 0)]
    worker._next()
    assert engine.given == [1, 2, 2]


def test_what_a_worker_of_the_engine_refused_costs_no_attempt_and_is_analysed_here_next(placing: Placing) -> None:
    placing.ready(2)
    worker, engine = placing.worker, placing.engine
    assert worker._next() and worker._next()
    engine.ends(How.REFUSED)
    for _ in range(3):
        worker._next()
    assert (placing.here, placing.rows()) == ([], [("ready", 0), ("analysing", 1)])
    engine.ends(How.LOST)
    worker._next(), worker._next()
    assert (placing.here, engine.given) == ([(1, 0)], [1, 2])
    assert placing.rows() == [("reported", 1), ("ready", 0)]


def test_nothing_is_claimed_for_here_while_the_engine_still_has_something_and_takes_no_more(placing: Placing) -> None:
    placing.ready(2)
    assert placing.worker._next()
    placing.engine.serves = False
    placing.worker._next()
    assert (placing.here, placing.rows()) == ([], [("analysing", 1), ("ready", 0)])


def test_a_full_disk_gives_back_what_the_engine_has_too(placing: Placing) -> None:
    placing.ready(2)
    assert placing.worker._next() and placing.worker._next()
    placing.worker._wait_for_room(placing.engine.placed[0], str(StorageFull("no space left")))
    assert (placing.engine.placed, placing.rows()) == ([], [("ready", 0), ("ready", 0)])


def test_the_node_is_not_woken_while_nothing_ends(placing: Placing, monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[Any] = []
    monkeypatch.setattr(module, "wake", lambda *to: woken.append(to))
    placing.ready(1)
    assert placing.worker._next()
    before = len(woken)
    for _ in range(3):
        placing.worker._news.set()
        assert placing.worker._next()
    assert len(woken) == before
    placing.engine.ends(How.LOST)
    placing.worker._next()
    placing.worker._next()
    assert len(woken) > before
