from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from ai.locations import LOCATIONS, Location
from ai.preprocess import Preprocessing
from tests.support.made_up_scan import scan
from training.config import Sampling
from training.dataset import Prepared, prepare
from training.patches import Patch, bent, cut_patch, mirrored, source_of

SETTINGS = Preprocessing(spacing_mm=1.0, size_DHW=(64, 64, 64))
SAMPLING = Sampling(patch=32, coordinate_jitter_mm=0.0, turned_share=0.0, emptied_share=0.0)
TURNED = replace(SAMPLING, turned_share=1.0)
LEFT, RIGHT = (
    LOCATIONS.index(location) for location in (Location.LEFT_SUPRACLINOID_ICA, Location.RIGHT_SUPRACLINOID_ICA)
)
CPU = torch.device("cpu")


class _Arrays(NamedTuple):
    """A patch as numpy arrays."""

    channels_DHWC: NDArray[Any]
    lesion_DHW: NDArray[Any]
    vessel_DHW: NDArray[Any]
    location_DHW: NDArray[Any]
    log_diameter_DHW: NDArray[Any]


def _arrays(patch: Patch) -> _Arrays:
    return _Arrays(*(tensor.numpy() for tensor in patch))


def _tensors(arrays: _Arrays) -> Patch:
    return Patch(*(torch.from_numpy(array) for array in arrays))


def _cut(
    prepared: Prepared,
    sampling: Sampling,
    seed: int = 3,
    on_lesion: bool = True,
    settings: Preprocessing = SETTINGS,
    hard_cells: Any = (),
) -> _Arrays:
    """A patch from the same random state each time."""
    rng = np.random.default_rng(seed)
    return _arrays(cut_patch(source_of(prepared, CPU), sampling, settings, rng, on_lesion, hard_cells))


def test_a_patch_on_a_lesion_holds_it_and_says_what_it_is() -> None:
    prepared = prepare(scan(1))
    for number in range(10):
        patch = _cut(prepared, SAMPLING, number)
        assert patch.channels_DHWC.shape == (32, 32, 32, 6)
        inside = patch.lesion_DHW > 0
        assert inside.any()
        assert np.allclose(patch.log_diameter_DHW[inside], np.log(6.0))
        side = np.sign(patch.channels_DHWC[..., -1][::2, ::2, ::2][inside].mean())  # x grows to the patient's left
        assert set(patch.location_DHW[inside]) == ({LEFT} if side > 0 else {RIGHT})


def test_patches_are_drawn_alike_from_the_same_random_state() -> None:
    prepared = prepare(scan(1))
    one, other = (_cut(prepared, SAMPLING, 5, on_lesion=False) for _ in range(2))
    assert np.array_equal(one.channels_DHWC, other.channels_DHWC)


def test_a_mined_mistake_is_looked_at_again() -> None:
    prepared = prepare(scan(0))
    always = replace(SAMPLING, hard_share=1.0)
    for number in range(5):
        patch = _cut(prepared, always, number, on_lesion=False, hard_cells=[(4, 4, 4)])
        lines_mm = np.sort(patch.channels_DHWC[..., -3].reshape(32, -1)[:, 0]) * SETTINGS.coordinate_scale_mm + 129.0
        assert lines_mm[0] <= 100.0 + 2 * 4 <= lines_mm[-1] + 1.0


def test_what_is_filled_with_one_tissue_is_labelled_nothing() -> None:
    always, lost = replace(SAMPLING, emptied_share=1.0), 0
    for number in range(20):
        whole, part = (_cut(prepare(scan(1)), sampling, number).vessel_DHW > 0 for sampling in (SAMPLING, always))
        assert part.sum() <= whole.sum()
        lost += int(part.sum() < whole.sum())
    assert lost > 0


def test_a_turn_that_does_not_turn_changes_nothing() -> None:
    prepared = prepare(scan(1))
    unturned = replace(TURNED, turned_degrees=0.0, scaled_share=0.0)
    straight, other = (_cut(prepared, sampling) for sampling in (replace(unturned, turned_share=0.0), unturned))
    assert np.allclose(straight.channels_DHWC, other.channels_DHWC, atol=0.02)
    assert np.array_equal(straight.vessel_DHW, other.vessel_DHW)
    assert np.array_equal(straight.log_diameter_DHW, other.log_diameter_DHW)


def test_in_a_turned_head_the_lesion_lies_where_the_coordinates_say_and_is_scaled() -> None:
    prepared = prepare(scan(1))
    lesion = prepared.lesions[0]
    offset = (np.array(lesion.centre_lps_mm) - np.array(prepared.region.circle_centre_lps_mm))[::-1]
    for number in range(10):
        patch = _cut(prepared, TURNED, number)
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
            _cut(prepared, sampling, number) for sampling in (unbent, replace(unbent, bent_share=0.25))
        )
        if not straight.lesion_DHW.any() or not crooked.lesion_DHW.any():
            continue
        bright = [_middle_of_the_bright(patch) for patch in (straight, crooked)]
        labelled = [np.argwhere(patch.lesion_DHW).mean(axis=0) for patch in (straight, crooked)]
        assert np.allclose(bright[1] - bright[0], labelled[1] - labelled[0], atol=0.5)
        shifted_mm.append(2.0 * np.linalg.norm(bright[1] - bright[0]))
    assert max(shifted_mm) > 1.5


def _middle_of_the_bright(patch: _Arrays) -> NDArray[np.float64]:
    """The middle of the contrast near the lesion, in output cells."""
    near = ndimage.binary_dilation(patch.lesion_DHW, iterations=1)
    cells = patch.channels_DHWC[..., 1].reshape(16, 2, 16, 2, 16, 2).mean(axis=(1, 3, 5))
    weights = np.clip(cells - np.median(cells), 0.0, None) * near
    return np.array([(weights * at).sum() / weights.sum() for at in np.indices(near.shape)])


def test_mirroring_swaps_sides_and_twice_changes_nothing() -> None:
    patch = _cut(prepare(scan(1)), SAMPLING, 0)
    once, twice = (_arrays(each) for each in (mirrored(_tensors(patch)), mirrored(mirrored(_tensors(patch)))))
    assert np.array_equal(twice.channels_DHWC, patch.channels_DHWC)
    assert np.array_equal(twice.vessel_DHW, patch.vessel_DHW) and np.array_equal(twice.location_DHW, patch.location_DHW)
    assert np.array_equal(once.channels_DHWC[..., -1], -patch.channels_DHWC[:, :, ::-1, -1])
    before, after = (set(each.location_DHW[each.lesion_DHW > 0]) for each in (patch, once))
    assert before != after and before | after == {LEFT, RIGHT}


def test_without_coordinates_a_mirrored_patch_shows_the_same_tissue() -> None:
    bare = replace(SETTINGS, coordinates=False)
    drawn = [_cut(prepare(scan(1)), SAMPLING, seed, settings=bare) for seed in range(6)]
    with_coordinates = [_cut(prepare(scan(1)), SAMPLING, seed) for seed in range(6)]
    for one, other in zip(drawn, with_coordinates, strict=True):
        assert np.array_equal(one.channels_DHWC, other.channels_DHWC[..., :3])


def test_a_straight_grid_stays_straight_and_a_bent_one_is_smooth() -> None:
    at = np.arange(32, dtype=np.float64)
    unbent = bent(np.zeros((3, 5, 5, 5)), at, 32, CPU).numpy()
    assert np.allclose(unbent, np.indices((32, 32, 32)))
    shifted = bent(np.full((3, 5, 5, 5), 2.5), at, 32, CPU).numpy()  # the weights of a B-spline add up to one
    assert np.allclose(shifted - unbent, 2.5, atol=1e-4)


def test_a_patch_may_be_as_large_as_the_region_and_no_larger() -> None:
    whole = _cut(prepare(scan(1)), replace(SAMPLING, patch=64))
    assert whole.lesion_DHW.sum() == (prepare(scan(1)).lesion_DHW > 0).sum()
    with pytest.raises(ValueError, match=r"sampling.patch = 80 is larger than the region, \[64, 64, 64\]"):
        _cut(prepare(scan(1)), replace(SAMPLING, patch=80))
