"""A series is analysed while its last slices arrive; what is found after the claim is the same bit for bit as without."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from pydicom import Dataset

import ai
from ai import predict
from ai.bundle import Bundle
from ai.unet import UNet
from ai.volume import volume_from_datasets, volume_from_slices
from node.analysis import early as module
from node.analysis.early import MOST_PASSES, Early
from node.analysis.read_ahead import PAUSE_SECONDS, Ahead, ReadAhead
from node.config.sections import Config
from storage.files.instances import Files
from storage.store import Store
from tests.support.builders import FakeClock, keep
from tests.support.dicom_factory import ct_series, shuffled
from tests.support.made_up_head import head
from tests.unit.ai.test_bundle import TINY, manifest

HEAD = head()
BATCH = 12


def slices_of_head(**changes: Any) -> list[Dataset]:
    affine = HEAD.affine_lps
    return ct_series(
        len(HEAD.hu_DHW),
        spacing_mm=2.0,
        rows=HEAD.hu_DHW.shape[1],
        columns=HEAD.hu_DHW.shape[2],
        pixel_spacing_mm=(2.0, 2.0),
        origin_mm=tuple(affine[:3, 3]),
        hu=lambda index: HEAD.hu_DHW[index],
        **changes,
    )


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    torch.manual_seed(0)
    return Bundle(manifest(), (UNet(TINY).eval(),))


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each time that the network was run."""
    runs: list[int] = []
    infer = predict.infer

    def counted(*arguments: Any) -> Any:
        runs.append(1)
        return infer(*arguments)

    monkeypatch.setattr(predict, "infer", counted)
    return runs


class Arriving:
    """A series that comes batch by batch, is read ahead, and looked at early after each batch."""

    def __init__(self, early: Early, store: Store, files: Files, clock: FakeClock) -> None:
        self.early, self.store, self.files, self.clock = early, store, files, clock
        self.reader = ReadAhead(store.settling, files, early._config.eligibility)
        self.case = 0

    def come(self, datasets: Sequence[Dataset]) -> Iterator[Ahead]:
        for first in range(0, len(datasets), BATCH):
            some = datasets[first : first + BATCH]
            self.case = keep(self.store, self.files, self.clock, some, closed=None).id
            while self.reader.read_some() != PAUSE_SECONDS:
                pass
            (ahead,) = self.reader.held()
            self.early.analyse(ahead)
            yield ahead


@pytest.fixture
def arriving(bundle: Bundle, sqlite_store: Store, files: Files, clock: FakeClock) -> Callable[..., Arriving]:
    def make(progress: Callable[[float], None] = lambda _share: None, **sections: Any) -> Arriving:
        wide = {"minimum_slices": 40, "maximum_spacing_mm": 2.5}
        config = Config.model_validate({"eligibility": wide, **sections})
        return Arriving(Early(config, bundle, progress), sqlite_store, files, clock)

    return make


def same(one: Any, other: Any) -> None:
    np.testing.assert_equal(asdict(one), asdict(other))


@pytest.mark.parametrize("from_the_vertex", [False, True])
def test_the_network_is_run_before_the_last_slice_and_not_again_after_it(
    from_the_vertex: bool, arriving: Callable[..., Arriving], bundle: Bundle, passes: list[int]
) -> None:
    datasets = slices_of_head()[:: -1 if from_the_vertex else 1]
    arrival = arriving()
    early_at = [len(ahead.slices) for ahead in arrival.come(datasets) if passes]
    assert early_at[0] <= len(datasets) - BATCH
    ahead = arrival.reader.take(arrival.case)
    assert (len(ahead.slices), ahead.passes) == (len(datasets), len(passes)) == (len(datasets), 1)
    found = ai.analyse(volume_from_slices(list(ahead.slices.values())), bundle, remembered=ahead.remembered)
    assert len(passes) == 1
    same(found, ai.analyse(volume_from_datasets(datasets), bundle))
    assert len(passes) == 2


def test_a_slice_that_comes_again_with_other_pixels_makes_it_run_again(
    arriving: Callable[..., Arriving], bundle: Bundle, passes: list[int]
) -> None:
    datasets = slices_of_head()
    arrival = arriving()
    *_, ahead = arrival.come(datasets)
    changed = slices_of_head()
    pixels = np.frombuffer(changed[37].PixelData, np.uint16).copy()
    pixels[len(pixels) // 2 - 20 : len(pixels) // 2 + 20] += 300
    changed[37].PixelData = pixels.tobytes()
    found = ai.analyse(volume_from_datasets(changed), bundle, remembered=ahead.remembered)
    assert len(passes) == 2
    same(found, ai.analyse(volume_from_datasets(changed), bundle))


def test_shuffled_slices_are_left_until_they_are_a_stack(
    arriving: Callable[..., Arriving], passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    volumes: list[int] = []
    monkeypatch.setattr(module, "volume_from_slices", lambda slices, threads: volumes.append(len(slices)) or _fails())
    list(arriving().come(shuffled(slices_of_head())[:-1]))
    assert (volumes, passes) == ([], [])


def _fails() -> None:
    raise AssertionError("no volume is to be made")


@pytest.mark.parametrize(
    ("changes", "sections"),
    [
        ({}, {"eligibility": {"minimum_slices": 500}}),
        ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, {}),
    ],
)
def test_what_is_not_of_the_kind_that_is_analysed_is_left(
    changes: dict[str, Any], sections: dict[str, Any], arriving: Callable[..., Arriving], passes: list[int]
) -> None:
    list(arriving(**sections).come(slices_of_head(**changes)))
    assert passes == []


def test_without_memory_to_spare_it_is_left_for_after_the_claim(
    arriving: Callable[..., Arriving], passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_free_bytes", lambda: module.LEAST_FREE_BYTES - 1)
    list(arriving().come(slices_of_head()))
    assert passes == []


def test_what_comes_after_the_second_pass_changes_nothing(
    arriving: Callable[..., Arriving], bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AGAIN_MM", 2.0)
    passed = [ahead.passes for ahead in arriving().come(slices_of_head())]
    assert max(passed) == MOST_PASSES


def test_it_gives_way_at_once_and_nothing_is_counted(arriving: Callable[..., Arriving]) -> None:
    class Waits(Exception):
        pass

    def give_way(_share: float) -> None:
        raise Waits

    arrival = arriving(give_way)
    with pytest.raises(Waits):
        list(arrival.come(slices_of_head()))
    assert [ahead.passes for ahead in arrival.reader.held()] == [0]
