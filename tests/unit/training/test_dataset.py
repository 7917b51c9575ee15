from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ai.locations import LOCATIONS, Location
from ai.preprocess import Preprocessing
from tests.support.made_up_scan import AFFINE, scan
from training import dataset
from training.dataset import (
    build_cache,
    circle_centre,
    enriched_lesions,
    load_prepared,
    prepare,
    save_prepared,
)

SETTINGS = Preprocessing(spacing_mm=1.0, size_DHW=(64, 64, 64))
LEFT, RIGHT = (
    LOCATIONS.index(location) for location in (Location.LEFT_SUPRACLINOID_ICA, Location.RIGHT_SUPRACLINOID_ICA)
)


def test_the_middle_of_the_circle_lies_between_the_carotids() -> None:
    made = scan(0)
    assert np.allclose(circle_centre(made.vessel_DHW, AFFINE), (0.0, -8.0, 129.0), atol=0.6)
    with pytest.raises(ValueError, match="Left Supraclinoid"):
        circle_centre(np.zeros((4, 4, 4), np.uint8), AFFINE)


def test_labels_are_halved_where_their_voxels_are() -> None:
    made = scan(1)
    prepared = prepare(made)
    assert prepared.region.hu_DHW.shape == (64, 64, 64)  # 66 slices cut to a multiple of 16
    assert prepared.lesion_DHW.shape == prepared.vessel_DHW.shape == (32, 32, 32)
    centre = np.argwhere(prepared.lesion_DHW == 1).mean(axis=0)
    assert np.allclose(centre, (np.array([30, 26, 44]) - 0.5) / 2, atol=0.3)
    assert set(np.unique(prepared.vessel_DHW)) == {0, 1 + LEFT, 1 + RIGHT}


def test_a_side_that_is_nearer_to_the_next_multiple_of_sixteen_is_filled_up_with_air() -> None:
    made = scan(1)
    short = replace(
        made,
        volume=replace(made.volume, hu_DHW=made.volume.hu_DHW[:58]),
        lesion_DHW=made.lesion_DHW[:58],
        vessel_DHW=made.vessel_DHW[:58],
    )
    whole, filled = prepare(made), prepare(short)
    assert filled.region.hu_DHW.shape == (64, 64, 64) and (filled.region.hu_DHW[58:] == -1024).all()
    assert np.array_equal(filled.region.hu_DHW[:58], whole.region.hu_DHW[:58])
    assert np.array_equal(filled.lesion_DHW, whole.lesion_DHW) and not filled.vessel_DHW[29:].any()


def test_a_lesion_smaller_than_a_cell_keeps_one() -> None:
    made = scan(1)
    made.lesion_DHW[:] = 0
    assert (prepare(made).lesion_DHW == 1).sum() == 1


def test_a_prepared_scan_comes_back_as_it_was_written(tmp_path: Path) -> None:
    prepared = prepare(scan(1))
    save_prepared(tmp_path / "1", prepared)
    loaded = load_prepared(tmp_path / "1")
    assert loaded.lesions == prepared.lesions and loaded.confounders == prepared.confounders
    assert loaded.region.circle_centre_lps_mm == prepared.region.circle_centre_lps_mm
    assert np.array_equal(loaded.region.affine_lps, prepared.region.affine_lps)
    for one, other in (
        (loaded.region.hu_DHW, prepared.region.hu_DHW),
        (loaded.lesion_DHW, prepared.lesion_DHW),
        (loaded.vessel_DHW, prepared.vessel_DHW),
    ):
        assert np.array_equal(one, other)


def test_only_missing_scans_are_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[int] = []

    def counted(seed: int, **settings: object) -> object:
        built.append(seed)
        return scan(seed)

    monkeypatch.setattr(dataset, "make_scan", counted)
    list(build_cache(tmp_path, [1, 2], SETTINGS))
    coming = build_cache(tmp_path, [3, 1, 2, 4], SETTINGS)
    assert built == [1, 2] and next(coming).name == "3" and built == [1, 2, 3]  # one at a time
    assert [folder.name for folder in coming] == ["1", "2", "4"] and built == [1, 2, 3, 4]


def test_several_processes_paint_ahead_and_what_is_not_wanted_any_more_is_not_painted(tmp_path: Path) -> None:
    coarse = Preprocessing(spacing_mm=2.0, size_DHW=(64, 64, 64))
    coming = build_cache(tmp_path, range(40), coarse, workers=2)
    assert [next(coming).name for _ in range(2)] == ["0", "1"]
    coming.close()
    painted = {path.name for path in tmp_path.iterdir() if (path / "truth.json").exists()}
    assert {"0", "1"} <= painted and len(painted) < 20


def test_training_scans_may_have_more_lesions_than_patients_do() -> None:
    drawn = [enriched_lesions(seed, (0, 2, 4)) for seed in range(60)]
    assert {len(lesions) for lesions in drawn} == {0, 2, 4}
    assert drawn[0] == enriched_lesions(0, (0, 2, 4))
    assert {location for lesions in drawn for location, _ in lesions} == set(LOCATIONS)
    assert all(1.8 <= diameter_mm <= 22.0 for lesions in drawn for _, diameter_mm in lesions)
