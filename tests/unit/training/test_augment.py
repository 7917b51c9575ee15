import numpy as np
import torch
from scipy import ndimage

from training.augment import FILLINGS_HU, augmented, blurred, emptied


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_one_side_up_to_half_of_a_patch_is_filled_and_its_labels_are_gone() -> None:
    for seed in range(20):
        hu = torch.full((32, 32, 32), 300.0)
        lesion, vessel = torch.ones((16, 16, 16)), torch.ones((16, 16, 16))
        emptied(hu, (lesion, vessel), _rng(seed))
        filled = hu != 300
        assert set(hu[filled].tolist()) <= set(FILLINGS_HU) and 0.05 < filled.float().mean() <= 0.5
        assert torch.equal(filled[::2, ::2, ::2], lesion == 0) and torch.equal(lesion, vessel)


def test_an_augmented_vessel_stays_brighter_than_brain_and_bone_brighter_than_it() -> None:
    hu = torch.full((24, 24, 24), 35.0)
    hu[:, :8], hu[:, 16:] = 350, 1500
    for seed in range(20):
        vessel, brain, bone = (
            augmented(hu, _rng(seed))[:, rows].mean() for rows in (slice(2, 6), slice(10, 14), slice(18, 22))
        )
        assert brain + 100.0 < vessel < bone


def test_augmented_patches_differ_and_the_same_state_gives_the_same() -> None:
    hu = torch.from_numpy(_rng(0).integers(-100, 500, (16, 16, 16)).astype(np.float32))
    kept = hu.clone()
    assert torch.equal(augmented(hu, _rng(1)), augmented(hu, _rng(1)))
    assert not torch.allclose(augmented(hu, _rng(1)), augmented(hu, _rng(2)), atol=5.0)
    assert torch.equal(hu, kept)


def test_blurring_is_a_gaussian_along_each_axis_for_itself() -> None:
    image = np.zeros((21, 21, 21), np.float32)
    image[10, 10, 10] = 1.0
    for sigmas in ((1.0, 0.6, 0.0), (0.5, 1.3, 0.9)):
        there = ndimage.gaussian_filter(image, sigmas, truncate=8.0)
        assert np.allclose(blurred(torch.from_numpy(image), sigmas).numpy(), there, atol=1e-4)
    flat = torch.full((8, 9, 10), 7.0)
    assert torch.allclose(blurred(flat, (1.0, 1.0, 1.0)), flat, atol=1e-4)  # no darker at the sides
