"""The fusion: what both stages say of a candidate becomes one answer, learned from candidates of drawn scans.

`training.combine --learnt` uses it.  The second stage's log odds that it learns from are those of networks that were tuned without
the scan: what a network says of what it learned from is too good to be believed later.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ai.second_stage import FusionNet, FusionSettings
from training.second_stage import with_dropout

NETWORKS, EPOCHS, BATCH, RATE, DECAY, DROPPED = 4, 12, 128, 2e-3, 0.3, 0.2
AT_FIRST = ((0.9, 0.2), -1.0)
"""What the second and the first stage's log odds weigh, and what is added, before anything is learned."""


def learned(read: Sequence[NDArray[np.float32]], hits: Sequence[NDArray[np.bool_]]) -> tuple[FusionNet, ...]:
    """Networks that have learned which candidates are on an aneurysm, from those of each scan."""
    inputs, truth = torch.from_numpy(np.concatenate(read)), torch.from_numpy(np.concatenate(hits)).float()
    return tuple(_learned(inputs, truth, seed) for seed in range(NETWORKS))


def _learned(inputs: Tensor, truth: Tensor, seed: int) -> FusionNet:
    torch.manual_seed(seed)
    network = FusionNet(FusionSettings()).train()
    network.mean.copy_(inputs.mean(dim=0))
    network.spread.copy_(inputs.std(dim=0) + 1e-3)
    with torch.no_grad():
        network.stages.weight.copy_(torch.tensor([AT_FIRST[0]]))
        network.stages.bias.fill_(AT_FIRST[1])
        for parameter in network.rest[-1].parameters():
            parameter.zero_()
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=DECAY)
    steps = EPOCHS * -(-len(truth) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    for _ in range(EPOCHS):
        for batch in torch.split(torch.randperm(len(truth)), BATCH):
            read = F.dropout(network.standardised(inputs[batch]), DROPPED)
            odds = (network.stages(inputs[batch, :2]) + with_dropout(network.rest, read))[:, 0]
            loss = F.binary_cross_entropy_with_logits(odds, truth[batch])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return network.requires_grad_(False).eval()
