"""Bounded distances are those of a distance transform."""

import numpy as np
import pytest
from scipy import ndimage

from ai.distances import depths, within

RNG = np.random.default_rng(1)


@pytest.mark.parametrize("reach", [1.0, 2.0, 4.5, 6.0])
@pytest.mark.parametrize("share", [0.0, 0.002, 0.5])
def test_what_lies_within_reach_is_what_the_distances_say(reach: float, share: float) -> None:
    mask = RNG.random((12, 15, 18)) < share
    distances = ndimage.distance_transform_edt(~mask) if mask.any() else np.full(mask.shape, np.inf)
    np.testing.assert_array_equal(within(mask, reach), distances <= reach)


@pytest.mark.parametrize(
    "filled",
    [
        np.zeros((3, 4, 5), bool),
        np.ones((40, 40, 40), bool),
        RNG.random((12, 15, 18)) < 0.98,
        ndimage.gaussian_filter(RNG.random((30, 28, 33)), 3) > 0.5,
    ],
    ids=["nothing", "everything", "holes", "blobs"],
)
def test_depth_is_the_distance_to_the_nearest_voxel_that_is_not_set(filled: np.ndarray) -> None:
    exact = ndimage.distance_transform_edt(np.pad(filled, 1))[1:-1, 1:-1, 1:-1].astype(np.float32)
    np.testing.assert_array_equal(depths(filled), exact)
