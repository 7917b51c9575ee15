"""The distance to an artery, as a further target, and the precision that a run learns in."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ai.unet import UNet
from training.config import Loss, TrainConfig
from training.dataset import UNKNOWN_VESSEL
from training.distance import FARTHEST_CELLS, DistanceTaught, Taught, distance_loss, distance_to_arteries
from training.phantom.scan import VEIN
from training.train import averaged_network, train


def vessels(label: int) -> torch.Tensor:
    """16³ cells, one of which, at 8 7 6, has the label."""
    labels = torch.zeros(1, 16, 16, 16, dtype=torch.int64)
    labels[0, 8, 7, 6] = label
    return labels


def test_the_distance_is_the_longest_of_the_three_offsets_to_an_artery_and_ends_somewhere() -> None:
    away = distance_to_arteries(vessels(3))[0]
    assert [int(away[at]) for at in ((8, 7, 6), (8, 7, 8), (9, 4, 8), (8, 7, 13))] == [0, 2, 3, FARTHEST_CELLS]
    assert bool((distance_to_arteries(vessels(VEIN)) == FARTHEST_CELLS).all())


def test_what_lies_beyond_the_patch_and_what_nobody_labelled_teach_nothing() -> None:
    labels = vessels(3)
    truth = (distance_to_arteries(labels) / FARTHEST_CELLS)[:, None]
    assert float(distance_loss(truth, labels)) == 0.0
    wrong_at_the_corner = truth.clone()
    wrong_at_the_corner[0, 0, 0, 0, 0] = 0.0  # an artery may lie just outside
    assert float(distance_loss(wrong_at_the_corner, labels)) == 0.0
    wrong_beside = truth.clone()
    wrong_beside[0, 0, 8, 7, 8] += 0.5
    assert float(distance_loss(wrong_beside, labels)) > 0.0
    assert float(distance_loss(torch.ones_like(truth), torch.full_like(labels, UNKNOWN_VESSEL))) == 0.0


def test_a_network_that_is_taught_the_distance_learns_it_and_is_exported_without_it(config: TrainConfig) -> None:
    taught = replace(config, loss=Loss(distance=0.5))
    said: list[str] = []
    assert train(taught, report=said.append)
    assert " distance " in said[-1]
    network, step = averaged_network(taught)
    assert (type(network), step) == (UNet, 6)
    assert set(network.state_dict()) == set(UNet(config.network).state_dict())
    torch.manual_seed(1)
    learner = DistanceTaught(config.network)
    labels, channels = vessels(3), torch.randn(1, 6, 32, 32, 32)
    optimiser = torch.optim.Adam(learner.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        answered = learner(channels)
        assert isinstance(answered, Taught)
        loss = distance_loss(answered.distance, labels)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(("precision", "able", "expected"), [
    ("auto", True, torch.bfloat16),
    ("auto", False, torch.float32),
    ("float32", True, torch.float32),
])  # fmt: skip
def test_a_cpu_with_instructions_for_it_learns_in_bfloat16(
    precision: str,
    able: bool,
    expected: torch.dtype,
    config: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ai.device._multiplies_bfloat16", lambda: able)
    seen = set()
    real = UNet.heads

    def watched(network: UNet, x: torch.Tensor) -> object:
        seen.add(network.levels[0][0][0](torch.zeros(1, 6, 4, 4, 4)).dtype)  # type: ignore[index]
        return real(network, x)

    monkeypatch.setattr(UNet, "heads", watched)
    run = replace(config, precision=precision, optimisation=replace(config.optimisation, steps=2))
    assert train(replace(run, folder=str(tmp_path / "other")), report=lambda _: None)
    assert seen == {expected}
