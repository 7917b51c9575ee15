"""A series is analysed while its last slices arrive; what is found after the claim is the same bit for bit as without."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

import ai
from ai import circle, inference, predict
from ai.bundle import Bundle
from ai.errors import NotShownYet
from ai.findings import Findings
from ai.inference import Tiling
from ai.preprocess import region_of_interest
from ai.unet import UNet
from ai.volume import ReadSlice, Volume, read_slice, volume_from_slices
from node.analysis import early as module
from node.analysis.early import MOST_PASSES, Early, _free_of_group
from node.analysis.read_ahead import Ahead, Ends, ReadAhead
from node.config.sections import Config
from storage.files.instances import Files
from storage.records import Header, StoredFile
from storage.store import Store
from tests.support.builders import FakeClock, encoded, keep, read_header, stored_file
from tests.support.dicom_factory import ct_series
from tests.support.made_up_head import head
from tests.unit.ai.test_bundle import TINY, manifest

STEP_MM = 3.0
HEAD = head(spacing_mm_DHW=(STEP_MM,) * 3, circle_lps_mm=(3.0, -12.0, 34.0))
COUNT = len(HEAD.hu_DHW)
LOWEST = 8
"""From here on it lacks the lowest slices that the network would read."""
SECTIONS = {"eligibility": {"minimum_slices": 30, "maximum_spacing_mm": 3.5}}
Slice = tuple[Header, StoredFile, ReadSlice]

ORDERS: dict[str, Sequence[int]] = {
    "from the feet": range(COUNT),
    "from the vertex": range(COUNT)[::-1],
    "the middle, then both ends in turn": sorted(range(COUNT), key=lambda at: abs(at - COUNT // 2 + 0.1)),
    "the upper half, then from there down": [*range(COUNT // 2, COUNT), *reversed(range(COUNT // 2))],
}


def slices_of_head(**changes: Any) -> list[Dataset]:
    affine = HEAD.affine_lps
    return ct_series(
        COUNT,
        spacing_mm=STEP_MM,
        rows=HEAD.hu_DHW.shape[1],
        columns=HEAD.hu_DHW.shape[2],
        pixel_spacing_mm=(STEP_MM, STEP_MM),
        origin_mm=tuple(affine[:3, 3]),
        hu=lambda index: HEAD.hu_DHW[index],
        **changes,
    )


def read(datasets: Sequence[Dataset]) -> list[Slice]:
    """As the worker reads them ahead."""
    syntax = ExplicitVRLittleEndian
    headers = [read_header(encoded(ds), syntax, str(ds.SOPClassUID), str(ds.SOPInstanceUID)) for ds in datasets]
    return [(header, stored_file(header), read_slice(ds)) for header, ds in zip(headers, datasets, strict=True)]


@cache
def slices() -> tuple[Slice, ...]:
    return tuple(read(slices_of_head()))


@cache
def bundle(seed: int = 0) -> Bundle:
    torch.manual_seed(seed)
    return Bundle(manifest(tiling=Tiling(size=64, overlap=8)), (UNet(TINY).eval(),))


def analysed(those: Sequence[Slice], ahead: Ahead | None = None, by: Bundle | None = None) -> dict[str, Any]:
    """What is found after the claim."""
    remembered = ahead.remembered if ahead else None
    found: Findings = ai.analyse(
        volume_from_slices([each for *_, each in those]), by or bundle(), remembered=remembered
    )
    return asdict(found)


@pytest.fixture(autouse=True)
def a_wide_same_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The head is drawn too crudely for the circle's network to put it within 6 mm of one place twice."""
    monkeypatch.setattr(circle, "SAME_PLACE_MM", 30.0)


@cache
def expected() -> dict[str, Any]:
    return analysed(slices())


same = np.testing.assert_equal


@pytest.fixture
def passes(a_wide_same_place: None, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each time that the network was run: how large the region was."""
    expected()
    runs: list[int] = []
    infer = inference.infer

    def counted(networks: Any, region: Any, *arguments: Any) -> Any:
        runs.append(region.hu_DHW.size)
        return infer(networks, region, *arguments)

    monkeypatch.setattr(predict, "infer", counted)
    return runs


def an_early(progress: Callable[[Ahead, float], None] = lambda *_: None, **sections: Any) -> Early:
    return Early(Config.model_validate({**SECTIONS, **sections}), bundle(), progress)


def arrive(early: Early, ahead: Ahead, those: Sequence[Slice], batch: int = 20) -> Ahead:
    """They come batch by batch, and are looked at early after each."""
    for first in range(0, len(those), batch):
        for header, file, each in those[first : first + batch]:
            ahead.slices[file] = each
            ahead.headers.append(header)
        early.analyse(ahead)
    return ahead


@pytest.mark.parametrize("order", ORDERS)
def test_findings_are_the_same_bit_for_bit_in_every_order_and_the_network_is_run_once(
    order: str, passes: list[int]
) -> None:
    ordered = [slices()[at] for at in ORDERS[order]]
    ahead = arrive(an_early(), Ahead(1), ordered[:-4])
    assert ahead.passes and len(passes) == 1, "before the last slice"
    arrive(an_early(), ahead, ordered[-4:])
    same(analysed(ordered, ahead), expected())
    assert len(passes) == 1


@pytest.mark.parametrize("seed", [1, 2])
def test_in_a_shuffled_order_nothing_is_made_before_the_slices_are_a_stack(
    seed: int, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    volumes: list[int] = []

    def made(some: Sequence[ReadSlice], threads: int) -> Volume:
        volumes.append(len(some))
        return volume_from_slices(some, threads)

    monkeypatch.setattr(module, "volume_from_slices", made)
    shuffled = [slices()[at] for at in np.random.default_rng(seed).permutation(COUNT)]
    ahead = arrive(an_early(), Ahead(1), shuffled, batch=4)
    assert volumes in ([], [COUNT])
    same(analysed(shuffled, ahead), expected())
    assert len(passes) == 1


def test_a_slice_that_comes_again_with_other_pixels_makes_it_run_again(passes: list[int]) -> None:
    ahead = arrive(an_early(), Ahead(1), slices())
    changed = list(slices())
    header, _, each = changed[COUNT // 2]
    assert each.hu is not None
    hu = each.hu.copy()
    hu[hu.shape[0] // 2, :] += 300
    changed[COUNT // 2] = header, stored_file(header, "second"), replace(each, hu=hu)
    found = analysed(changed, ahead)
    assert len(passes) == 2
    same(found, analysed(changed))


def test_a_slice_that_comes_twice_under_two_names_changes_nothing(passes: list[int]) -> None:
    copies = [replace(slices()[at][0], sop_instance_uid=f"2.25.77.{at}") for at in (15, 30)]
    again = [
        (header, stored_file(header), replace(each, frames=tuple(replace(frame) for frame in each.frames)))
        for header, each in zip(copies, (slices()[15][2], slices()[30][2]), strict=True)
    ]
    those = [*slices()[:40], *again, *slices()[40:]]
    found = analysed(those, arrive(an_early(), Ahead(1), those))
    same(found, expected())


def test_what_comes_after_the_claim_is_analysed_anew_where_it_changes_anything(passes: list[int]) -> None:
    most = slices()[:-6]  # the vertex comes late: in a second revision
    ahead = arrive(an_early(), Ahead(1), most)
    first = analysed(most, ahead)
    same(first, analysed(most))
    same(analysed(slices(), ahead), expected())


def test_slices_that_show_the_circle_tell_how_far_they_must_reach_and_nothing_is_resampled_before(
    passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    regions: list[int] = []

    def made(volume: Volume, *arguments: Any) -> Any:
        regions.append(len(volume.hu_DHW))
        return region_of_interest(volume, *arguments)

    monkeypatch.setattr(predict, "region_of_interest", made)
    volume = volume_from_slices([each for *_, each in slices()[:35]])
    assert not circle.located_extent(volume).covers_circle_of_willis()
    with pytest.raises(NotShownYet) as told:
        ai.analyse(volume, bundle(), open_ends=(True, True))
    assert told.value.missing_mm == pytest.approx(24, abs=1) and regions == []


def test_a_head_that_begins_below_the_circle_but_in_the_region_is_analysed_early_too(passes: list[int]) -> None:
    """From the feet the lowest slice is soon known to be the lowest of the series."""
    those = slices()[LOWEST:]
    ahead = arrive(an_early(), Ahead(1), those[:-2], batch=4)
    assert ahead.passes and len(passes) == 1, "before the last slice"
    arrive(an_early(), ahead, those[-2:])
    found = analysed(those, ahead)
    assert len(passes) == 1
    same(found, analysed(those))


def test_an_end_that_stands_still_while_the_other_moves_is_one_of_the_series() -> None:
    ends = Ends()
    for low_mm, high_mm, are_open in (
        (-80.0, -60.0, (True, True)),
        (-80.0, -55.0, (True, True)),
        (-80.003, -31.0, (True, True)),
        (-80.0, -30.0, (False, True)),
        (-95.0, -30.0, (True, True)),
        (-126.0, -30.0, (True, False)),
    ):
        ends.move(low_mm, high_mm)
        assert ends.open_by(30.0) == are_open


def test_a_series_that_was_met_is_left_for_after_the_claim(passes: list[int]) -> None:
    arrive(an_early(), Ahead(1, was_met=True), slices())
    assert passes == []


def test_a_region_that_moves_is_analysed_once_more_and_no_more_often(
    passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    steady = circle.steady_centre

    def moving(volume: Volume, centre: tuple[float, float, float]) -> tuple[float, float, float]:
        x, y, z = steady(volume, centre)
        return x, y, z - 0.7 * (COUNT - len(volume.hu_DHW))

    monkeypatch.setattr(predict, "steady_centre", moving)
    monkeypatch.setattr(module, "AGAIN_MM", 2.0)
    ahead = arrive(an_early(), Ahead(1), slices()[:-2], batch=4)
    assert (ahead.passes, len(passes)) == (MOST_PASSES, MOST_PASSES)
    found = analysed(slices(), ahead)
    assert len(passes) == MOST_PASSES + 1
    monkeypatch.setattr(predict, "steady_centre", steady)
    same(found, expected())


def test_a_process_that_begins_in_between_finds_the_same(passes: list[int]) -> None:
    arrive(an_early(), Ahead(1), slices()[:50])
    killed = len(passes)
    ahead = arrive(an_early(), Ahead(1), slices())
    same(analysed(slices(), ahead), expected())
    assert len(passes) == killed + 1


def test_no_answer_of_one_bundle_is_given_for_another(passes: list[int]) -> None:
    ahead = arrive(an_early(), Ahead(1), slices())
    same(analysed(slices(), ahead, bundle(1)), analysed(slices(), by=bundle(1)))


def test_several_series_at_once_have_answers_of_their_own(passes: list[int]) -> None:
    brighter = [
        (header, stored_file(header, "brighter"), replace(each, hu=each.hu + np.int16(7)))
        for header, _, each in slices()
        if each.hu is not None
    ]
    early, one, other = an_early(), Ahead(1), Ahead(2)
    for first in range(0, COUNT, 10):
        arrive(early, one, slices()[first : first + 10])
        arrive(early, other, brighter[first : first + 10])
    same(analysed(slices(), one), expected())
    found = analysed(brighter, other)
    assert len(passes) == 2
    same(found, analysed(brighter))


def test_a_pass_that_the_device_had_no_memory_for_is_not_kept(
    passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    maps = predict._maps

    def halved(*arguments: Any) -> Any:
        return replace(maps(*arguments), note="analysed in smaller tiles")

    with monkeypatch.context() as patched:
        patched.setattr(predict, "_maps", halved)
        ahead = arrive(an_early(), Ahead(1), slices())
    same(analysed(slices(), ahead), expected())


@pytest.mark.parametrize(
    ("changes", "sections"),
    [
        ({}, {"eligibility": {"minimum_slices": 500}}),
        ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, {}),
        ({"Modality": "MR"}, {}),
    ],
)
def test_what_is_not_of_the_kind_that_is_analysed_is_left(
    changes: dict[str, Any], sections: dict[str, Any], passes: list[int]
) -> None:
    arrive(an_early(**sections), Ahead(1), read(slices_of_head(**changes)))
    assert passes == []


def test_without_memory_to_spare_it_is_left_for_after_the_claim(
    passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_free_bytes", lambda: module.LEAST_FREE_BYTES - 1)
    ahead = arrive(an_early(), Ahead(1), slices())
    assert passes == []
    same(analysed(slices(), ahead), expected())


@pytest.mark.parametrize(("limit", "free"), [("5000", 5000 - 4000 + 1500), ("max", np.inf), (None, np.inf)])
def test_a_limit_of_the_container_counts_less_what_it_holds_but_for_files(
    limit: str | None, free: float, tmp_path: Path
) -> None:
    mine, group = tmp_path / "cgroup", tmp_path / "system.slice" / "willis.service"
    mine.write_text("4:memory:/elsewhere\n0::/system.slice/willis.service\n")
    group.mkdir(parents=True)
    if limit is not None:
        (group / "memory.max").write_text(f"{limit}\n")
    (group / "memory.current").write_text("4000\n")
    (group / "memory.stat").write_text("anon 2000\nfile 2000\ninactive_file 1500\n")
    assert _free_of_group(tmp_path, mine) == free


def test_it_gives_way_at_once_and_nothing_is_counted(passes: list[int]) -> None:
    class Waits(Exception):
        pass

    def give_way(_ahead: Ahead, _share: float) -> None:
        raise Waits

    ahead = Ahead(1)
    with pytest.raises(Waits):
        arrive(an_early(give_way), ahead, slices())
    assert (ahead.passes, passes) == (0, [])


def test_slices_from_a_store_are_read_and_analysed_as_they_come(
    passes: list[int], sqlite_store: Store, files: Files, clock: FakeClock
) -> None:
    datasets = slices_of_head()
    reader, early = ReadAhead(sqlite_store.settling, files, Config.model_validate(SECTIONS).eligibility), an_early()
    reader.read_some()
    for some in (datasets[:52], datasets[52:]):
        case = keep(sqlite_store, files, clock, some, closed=None).id
        while reader.read_some() == 0.0:
            pass
        (ahead,) = reader.held()
        early.analyse(ahead)
    taken = reader.take(case)
    assert (len(taken.slices), len(passes)) == (COUNT, 1)
    assert [file for _, file in sqlite_store.settling.instances(case)] == list(taken.slices)
    found = ai.analyse(volume_from_slices(list(taken.slices.values())), bundle(), remembered=taken.remembered)
    assert len(passes) == 1
    same(asdict(found), expected())
