from dataclasses import replace

import numpy as np
import pytest

from ai.filling import fullest
from ai.volume import Volume
from tests.support.made_up_head import head


def noisy(volume: Volume, seed: int) -> Volume:
    noise = np.random.default_rng(seed).normal(0, 12, volume.hu_DHW.shape).astype(np.int16)
    return replace(volume, hu_DHW=volume.hu_DHW + noise)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2)])
def test_the_phase_whose_arteries_are_fullest_is_found_wherever_it_stands(order: tuple[int, ...]) -> None:
    phases = [noisy(head(contrast_hu=hu), n) for n, hu in enumerate((None, 160.0, 380.0, 220.0))]
    assert order[fullest(phases[n] for n in order)] == 2


@pytest.mark.parametrize("moved_voxels", [1, 2])
def test_a_phase_in_which_the_head_has_moved_is_not_taken_for_filled(moved_voxels: int) -> None:
    phases = [noisy(head(contrast_hu=hu), n) for n, hu in enumerate((None, 60.0, 280.0, 200.0, 40.0))]
    phases[4] = replace(phases[4], hu_DHW=np.roll(phases[4].hu_DHW, moved_voxels, axis=2))
    assert fullest(phases) == 2


def test_a_phase_that_cannot_be_had_is_passed_over() -> None:
    assert fullest([None, head(contrast_hu=200.0), None, head(contrast_hu=350.0)]) == 3


def test_where_no_head_is_recognised_it_is_the_first() -> None:
    air = head()
    assert fullest([replace(air, hu_DHW=np.full_like(air.hu_DHW, -1000))] * 3) == 0
