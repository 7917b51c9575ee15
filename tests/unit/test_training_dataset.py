from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from ai.locations import LOCATIONS, Location
from ai.preprocess import Preprocessing
from tests.unit.made_up_scan import AFFINE, scan
from training import dataset
from training.config import Sampling
from training.dataset import (
    Patch,
    Prepared,
    build_cache,
    circle_centre,
    cut_patch,
    enriched_lesions,
    load_prepared,
    mirrored,
    prepare,
    save_prepared,
)

SETTINGS = Preprocessing(spacing_mm=1.0, size_DHW=(64, 64, 64))
SAMPLING = Sampling(patch=32, coordinate_jitter_mm=0.0, turned_share=0.0, emptied_share=0.0)
TURNED = replace(SAMPLING, turned_share=1.0)
LEFT, RIGHT = (
    LOCATIONS.index(location) for location in (Location.LEFT_SUPRACLINOID_ICA, Location.RIGHT_SUPRACLINOID_ICA)
)


class _Cutter:
    """Cuts a patch on a lesion, from the same random state each time."""

    def __init__(self, sampling: Sampling, seed: int = 3) -> None:
        self._sampling, self._seed = sampling, seed

    def __call__(self, prepared: Prepared) -> Patch:
        rng = np.random.default_rng(self._seed)
        return cut_patch(prepared, self._sampling, SETTINGS, rng, on_lesion=True)


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
    folders = list(build_cache(tmp_path, [1, 2, 3], SETTINGS))
    assert built == [1, 2, 3] and sorted(folder.name for folder in folders) == ["1", "2", "3"]


def test_a_patch_on_a_lesion_holds_it_and_says_what_it_is() -> None:
    prepared = prepare(scan(1))
    for number in range(10):
        patch = cut_patch(prepared, SAMPLING, SETTINGS, np.random.default_rng(number), on_lesion=True)
        assert patch.channels_DHWC.shape == (32, 32, 32, 6)
        inside = patch.lesion_DHW > 0
        assert inside.any()
        assert np.allclose(patch.log_diameter_DHW[inside], np.log(6.0))
        side = np.sign(patch.channels_DHWC[..., -1][::2, ::2, ::2][inside].mean())  # x grows to the patient's left
        assert set(patch.location_DHW[inside]) == ({LEFT} if side > 0 else {RIGHT})


def test_patches_are_drawn_alike_from_the_same_random_state() -> None:
    prepared = prepare(scan(1))
    one, other = (cut_patch(prepared, SAMPLING, SETTINGS, np.random.default_rng(5), on_lesion=False) for _ in range(2))
    assert np.array_equal(one.channels_DHWC, other.channels_DHWC)


def test_a_mined_mistake_is_looked_at_again() -> None:
    prepared = prepare(scan(0))
    always = replace(SAMPLING, hard_share=1.0)
    for number in range(5):
        patch = cut_patch(
            prepared, always, SETTINGS, np.random.default_rng(number), on_lesion=False, hard_cells=[(4, 4, 4)]
        )
        lines_mm = np.sort(patch.channels_DHWC[..., -3].reshape(32, -1)[:, 0]) * SETTINGS.coordinate_scale_mm + 129.0
        assert lines_mm[0] <= 100.0 + 2 * 4 <= lines_mm[-1] + 1.0


def test_what_is_filled_with_one_tissue_is_labelled_nothing() -> None:
    always, lost = replace(SAMPLING, emptied_share=1.0), 0
    for number in range(20):
        whole, part = (_Cutter(sampling, number)(prepare(scan(1))).vessel_DHW > 0 for sampling in (SAMPLING, always))
        assert part.sum() <= whole.sum()
        lost += int(part.sum() < whole.sum())
    assert lost > 0


def test_a_turn_that_does_not_turn_changes_nothing() -> None:
    prepared = prepare(scan(1))
    unturned = replace(TURNED, turned_degrees=0.0, scaled_share=0.0)
    straight, other = (_Cutter(sampling)(prepared) for sampling in (replace(unturned, turned_share=0.0), unturned))
    assert np.allclose(straight.channels_DHWC, other.channels_DHWC, atol=0.02)
    assert np.array_equal(straight.vessel_DHW, other.vessel_DHW)
    assert np.array_equal(straight.log_diameter_DHW, other.log_diameter_DHW)


def test_in_a_turned_head_the_lesion_lies_where_the_coordinates_say_and_is_scaled() -> None:
    prepared = prepare(scan(1))
    lesion = prepared.lesions[0]
    offset = (np.array(lesion.centre_lps_mm) - np.array(prepared.region.circle_centre_lps_mm))[::-1]
    for number in range(10):
        patch = _Cutter(TURNED, number)(prepared)
        inside = patch.lesion_DHW > 0
        assert inside.any()
        scale = 6.0 / np.exp(patch.log_diameter_DHW[inside][0])
        assert 0.88 < scale < 1.13
        cells_mm = patch.channels_DHWC[..., -3:].reshape(16, 2, 16, 2, 16, 2, 3).mean(axis=(1, 3, 5)) * 60.0
        distance_mm = np.linalg.norm(cells_mm[inside].mean(axis=0))
        assert distance_mm * scale == pytest.approx(np.linalg.norm(offset), abs=2.0)
        volume_mm3 = inside.sum() * 8.0
        assert volume_mm3 * scale**3 == pytest.approx((prepared.lesion_DHW > 0).sum() * 8.0, rel=0.35)


def test_a_head_is_bent_together_with_its_labels() -> None:
    prepared = prepare(scan(1))
    unbent = replace(TURNED, turned_degrees=0.0, scaled_share=0.0)
    shifted_mm = []
    for number in range(10):
        straight, crooked = (
            _Cutter(sampling, number)(prepared) for sampling in (unbent, replace(unbent, bent_share=0.25))
        )
        if not straight.lesion_DHW.any() or not crooked.lesion_DHW.any():
            continue
        bright = [_middle_of_the_bright(patch) for patch in (straight, crooked)]
        labelled = [np.argwhere(patch.lesion_DHW).mean(axis=0) for patch in (straight, crooked)]
        assert np.allclose(bright[1] - bright[0], labelled[1] - labelled[0], atol=0.5)
        shifted_mm.append(2.0 * np.linalg.norm(bright[1] - bright[0]))
    assert max(shifted_mm) > 1.5


def _middle_of_the_bright(patch: Patch) -> NDArray[np.float64]:
    """The middle of the contrast near the lesion, in output cells."""
    near = ndimage.binary_dilation(patch.lesion_DHW, iterations=1)
    cells = patch.channels_DHWC[..., 1].reshape(16, 2, 16, 2, 16, 2).mean(axis=(1, 3, 5))
    weights = np.clip(cells - np.median(cells), 0.0, None) * near
    return np.array([(weights * at).sum() / weights.sum() for at in np.indices(near.shape)])


def test_mirroring_swaps_sides_and_twice_changes_nothing() -> None:
    patch = cut_patch(prepare(scan(1)), SAMPLING, SETTINGS, np.random.default_rng(0), on_lesion=True)
    once, twice = mirrored(patch), mirrored(mirrored(patch))
    assert np.array_equal(twice.channels_DHWC, patch.channels_DHWC)
    assert np.array_equal(twice.vessel_DHW, patch.vessel_DHW) and np.array_equal(twice.location_DHW, patch.location_DHW)
    assert np.array_equal(once.channels_DHWC[..., -1], -patch.channels_DHWC[:, :, ::-1, -1])
    before, after = (set(each.location_DHW[each.lesion_DHW > 0]) for each in (patch, once))
    assert before != after and before | after == {LEFT, RIGHT}


def test_without_coordinates_a_mirrored_patch_shows_the_same_tissue() -> None:
    bare = replace(SETTINGS, coordinates=False)
    drawn = [cut_patch(prepare(scan(1)), SAMPLING, bare, np.random.default_rng(seed), True) for seed in range(6)]
    with_coordinates = [
        cut_patch(prepare(scan(1)), SAMPLING, SETTINGS, np.random.default_rng(seed), True) for seed in range(6)
    ]
    for one, other in zip(drawn, with_coordinates, strict=True):
        assert np.array_equal(one.channels_DHWC, other.channels_DHWC[..., :3])


def test_training_scans_may_have_more_lesions_than_patients_do() -> None:
    drawn = [enriched_lesions(seed, (0, 2, 4)) for seed in range(60)]
    assert {len(lesions) for lesions in drawn} == {0, 2, 4}
    assert drawn[0] == enriched_lesions(0, (0, 2, 4))
    assert {location for lesions in drawn for location, _ in lesions} == set(LOCATIONS)
    assert all(1.8 <= diameter_mm <= 22.0 for lesions in drawn for _, diameter_mm in lesions)
