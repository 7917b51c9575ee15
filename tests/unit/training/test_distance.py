"""The distance to an artery, as a further target, and the precision that a run learns in."""

from dataclasses import replace

import pytest
import torch

from ai.unet import UNet, UNetSettings
from training.config import ConfigError, Loss, TrainConfig
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


def test_cells_count_whose_distance_the_labels_of_the_patch_tell() -> None:
    labels = (torch.rand(1, 48, 48, 48, generator=torch.Generator().manual_seed(1)) < 0.002).long()
    whole, patch = distance_to_arteries(labels)[:, 8:40, 8:40, 8:40], labels[:, 8:40, 8:40, 8:40].clone()
    counted = counts(patch)
    assert int(counted.sum()) == 22**3
    assert torch.equal(distance_to_arteries(patch)[counted], whole[counted])
    patch[0, :16] = UNKNOWN_VESSEL
    assert int(counts(patch).sum()) == (16 - 10) * 22**2
    assert float(distance_loss(torch.zeros(1, 1, 32, 32, 32), torch.full_like(patch, UNKNOWN_VESSEL))) == 0.0


def counts(labels: torch.Tensor) -> torch.Tensor:
    """The cells on which the loss depends."""
    said = torch.full((1, 1, *labels.shape[1:]), 2.0, requires_grad=True)
    distance_loss(said, labels).backward()  # type: ignore[no-untyped-call]
    assert said.grad is not None
    return said.grad[:, 0] != 0


def test_a_network_that_is_taught_the_distance_learns_it_and_is_exported_without_it(config: TrainConfig) -> None:
    taught = replace(config, loss=Loss(distance=0.5))
    said: list[str] = []
    assert train(taught, report=said.append)
    assert " distance " in said[-1]
    network, step = averaged_network(taught)
    assert (type(network), step) == (UNet, 6)
    assert set(network.state_dict()) == set(UNet(config.network).state_dict())


def test_the_head_learns_where_the_arteries_are() -> None:
    torch.manual_seed(1)
    learner = DistanceTaught(UNetSettings(widths=(8, 16, 16), convolutions=(1, 1, 1), groups=4))
    labels, channels = vessels(3), torch.zeros(1, 6, 32, 32, 32)
    channels[0, :, 16:18, 14:16, 12:14] = 1.0
    truth = distance_to_arteries(labels)[counts(labels)] / FARTHEST_CELLS
    best_constant = float((truth - truth.median()).abs().mean())
    optimiser = torch.optim.Adam(learner.parameters(), 1e-2)
    for _ in range(60):
        answered = learner(channels)
        assert isinstance(answered, Taught)
        loss = distance_loss(answered.distance, labels)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert float(loss.detach()) < 0.7 * best_constant


def test_a_run_does_not_go_on_as_one_that_is_taught_something_else(config: TrainConfig) -> None:
    half = replace(config, optimisation=replace(config.optimisation, steps=2))
    train(half, report=lambda _: None)
    with pytest.raises(ConfigError, match=r"checkpoint\.pt is of another \[network\] or \[loss\] distance: "):
        train(replace(half, loss=Loss(distance=0.5)), report=lambda _: None)
    deeper = replace(half, network=replace(half.network, convolutions=(1, 2, 1)))
    with pytest.raises(RuntimeError, match=r"levels\.1\.1"):
        averaged_network(deeper)


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
    assert train(run, report=lambda _: None)
    assert seen == {expected}
