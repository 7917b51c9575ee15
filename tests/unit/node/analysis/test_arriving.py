"""Work on series that still arrive: what it gives way to, and what a failure of it leaves."""

from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from ai.bundle import Bundle, load_bundle, save_bundle
from ai.errors import DeviceLost
from ai.unet import UNet
from node.analysis.arriving import Arriving
from node.analysis.early import MOST_PASSES, Early
from node.analysis.interruptions import GivesWay
from node.analysis.read_ahead import Ahead
from node.config.sections import Config
from storage.files.instances import Files
from storage.queries.claims import Queue
from storage.stages import Event
from storage.store import Store
from tests.support.builders import LEASE, FakeClock, Seconds, keep, series_now
from tests.support.dicom_factory import ct_series
from tests.unit.ai.test_bundle import TINY, manifest

EARLY = Config.model_validate({})


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    save_bundle(tmp_path / "bundle", manifest(), (UNet(TINY),))
    return load_bundle(tmp_path / "bundle")


@pytest.fixture
def arriving(bundle: Bundle, store: Store, files: Files, clock: FakeClock, seconds: Seconds) -> Arriving:
    """With six slices of one series, which are read."""
    found = Arriving(EARLY, bundle, store, files, lambda: False, seconds)
    found.read_some()
    keep(store, files, clock, ct_series(6, SeriesInstanceUID="2.25.900"), closed=None)
    found.read_some()
    return found


@pytest.mark.parametrize(
    ("due", "passes", "share", "end"),
    [
        ("claimed by another", 0, 0.2, "gave way"),
        ("2.25.901", 0, 0.2, "gave way"),
        ("2.25.900", 0, 0.2, "went on"),
        ("2.25.900", 0, 0.0, "gave way"),
        ("2.25.900", 1, 0.2, "gave way"),
        (None, 1, 0.2, "went on"),
        (None, 0, 0.0, "went on"),
    ],
)
def test_early_work_gives_way_to_another_series_that_is_due_or_to_its_own_before_the_network_begins_or_where_it_was_seen_before(
    due: str | None,
    passes: int,
    share: float,
    end: str,
    arriving: Arriving,
    store: Store,
    files: Files,
    clock: FakeClock,
    seconds: Seconds,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (held,) = arriving.held()
    held.passes = passes
    ended: list[str] = []

    def analysed(early: Early, ahead: Ahead) -> bool:
        assert ahead is held
        ahead.judged, ahead.next_look_mm = 6, 10.0
        early._progress(ahead, 0.1)
        if due == "2.25.901":
            datasets = ct_series(6, SeriesInstanceUID=due, StudyInstanceUID="2.25.902")
            for number, ds in enumerate(datasets):
                ds.SOPInstanceUID = f"{due}.{number}"
            keep(store, files, clock, datasets)
        if due:
            uid = "2.25.900" if due == "claimed by another" else due
            assert store.settling.leave(series_now(store, uid), Event.SETTLED, "count", clock())
        if due == "claimed by another":
            assert store.queue.claim("elsewhere:1", clock(), LEASE, 3)
        seconds.now += 1
        try:
            early._progress(ahead, share)
        except GivesWay:
            ended.append("gave way")
            raise
        ended.append("went on")
        return True

    monkeypatch.setattr(Early, "analyse", analysed)
    arriving.analyse_early()
    assert ended == [end]
    assert (held.judged, held.next_look_mm) == ((0, 0.0) if end == "gave way" else (6, 10.0))


def test_an_early_analysis_that_fails_is_left_for_after_the_claim(
    arriving: Arriving, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_early: Early, _ahead: Ahead) -> bool:
        raise ValueError("whatever it is")

    monkeypatch.setattr(Early, "analyse", fails)
    arriving.analyse_early()
    (ahead,) = arriving.held()
    assert ahead.passes == MOST_PASSES


def test_a_gpu_that_no_longer_answers_ends_more_than_early_work(
    arriving: Arriving, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_early: Early, _ahead: Ahead) -> bool:
        raise DeviceLost("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(Early, "analyse", fails)
    with pytest.raises(DeviceLost):
        arriving.analyse_early()


def test_while_the_database_is_away_early_work_gives_way_and_begins_anew(
    arriving: Arriving, monkeypatch: pytest.MonkeyPatch
) -> None:
    (held,) = arriving.held()

    def analysed(early: Early, ahead: Ahead) -> bool:
        early._progress(ahead, 0.0)
        raise AssertionError("it goes on")

    def away(*_: object) -> bool:
        raise OperationalError("SELECT 1", {}, Exception("gone"))

    monkeypatch.setattr(Early, "analyse", analysed)
    monkeypatch.setattr(Queue, "other_waits", away)
    arriving.analyse_early()
    assert (held.passes, held.is_wanted) == (0, True)


def test_what_somebody_else_analyses_is_kept_no_longer(arriving: Arriving) -> None:
    assert arriving.has_slices
    arriving.forget()
    assert (arriving.held(), arriving.has_slices) == ([], False)


def test_an_early_analysis_without_memory_lets_go_of_all_that_was_read(
    arriving: Arriving, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_early: Early, _ahead: Ahead) -> bool:
        raise MemoryError

    monkeypatch.setattr(Early, "analyse", fails)
    arriving.analyse_early()
    (ahead,) = arriving.held()
    assert (ahead.slices, ahead.headers, ahead.is_wanted) == ({}, [], False)


def test_what_was_asked_to_stop_stops_in_the_middle_and_nothing_is_counted(
    bundle: Bundle, store: Store, files: Files, arriving: Arriving, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops = Arriving(EARLY, bundle, store, files, lambda: True)
    stops.read_some()
    (held,) = stops.held()

    def analysed(early: Early, ahead: Ahead) -> bool:
        ahead.judged = 6
        early._progress(ahead, 0.5)
        raise AssertionError("it goes on")

    monkeypatch.setattr(Early, "analyse", analysed)
    stops.analyse_early()
    assert (held.judged, held.passes, len(held.slices)) == (0, 0, 6)
