import numpy as np

from training.augment import FILLINGS_HU, augmented, emptied


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_one_side_up_to_half_of_a_patch_is_filled_and_its_labels_are_gone() -> None:
    for seed in range(20):
        hu = np.full((32, 32, 32), 300, np.int16)
        lesion, vessel = np.ones((16, 16, 16), np.uint8), np.ones((16, 16, 16), np.uint8)
        emptied(hu, (lesion, vessel), _rng(seed))
        filled = hu != 300
        assert set(hu[filled]) <= set(FILLINGS_HU) and 0.05 < filled.mean() <= 0.5
        assert np.array_equal(filled[::2, ::2, ::2], lesion == 0) and np.array_equal(lesion, vessel)


def test_an_augmented_vessel_stays_brighter_than_brain_and_bone_brighter_than_it() -> None:
    hu = np.full((24, 24, 24), 35, np.int16)
    hu[:, :8], hu[:, 16:] = 350, 1500
    for seed in range(20):
        vessel, brain, bone = (
            augmented(hu, _rng(seed))[:, rows].mean() for rows in (slice(2, 6), slice(10, 14), slice(18, 22))
        )
        assert brain + 100.0 < vessel < bone


def test_augmented_patches_differ_and_the_same_state_gives_the_same() -> None:
    hu = _rng(0).integers(-100, 500, (16, 16, 16)).astype(np.int16)
    assert np.array_equal(augmented(hu, _rng(1)), augmented(hu, _rng(1)))
    assert not np.allclose(augmented(hu, _rng(1)), augmented(hu, _rng(2)), atol=5.0)
