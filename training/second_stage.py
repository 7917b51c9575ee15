"""The second stage learns what sacs look like from drawn cubes.

`python -m training.second_stage CUBES VALIDATION RUN [--networks N]`: CUBES and VALIDATION are folders of
`python -m training.cubes.store`, RUN the file that the weights are written to.  Cubes are measured once; their numbers are kept
beside them.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from ai.second_stage import KINDS, ShapeNet, ShapeSettings, log_odds
from ai.shape import NAMES, SIDE, measured
from training.cubes.store import Shard, read_shards
from training.metrics import auc

BATCH = 256
RATE = 4e-3
DECAY = 0.1
DROPPED, HIDDEN_DROPPED = 0.15, 0.2
EPOCHS = 40
SETTINGS = ShapeSettings(hidden=192, layers=2)
_KIND_OF = {"origin": "infundibulum", "crossing": "vessel", "tissue": "vein"}


@dataclass(frozen=True, eq=False)
class Shapes:
    """N measured cubes: `measures` (N, M), `kinds` (N) as indices of `KINDS`, `diameters_mm` (N), 0 without a sac."""

    measures: NDArray[np.float32]
    kinds: NDArray[np.int64]
    diameters_mm: NDArray[np.float64]

    @property
    def is_sac(self) -> list[bool]:
        """Which are aneurysms."""
        return [bool(kind == 0) for kind in self.kinds]


def label(kind: str) -> int:
    """The index in `KINDS` of what a cube was drawn as."""
    return KINDS.index(_KIND_OF.get(kind, kind))


def shapes_in(folder: Path) -> Shapes:
    """The measured cubes of a folder; those that were not measured yet are, and their numbers are kept."""
    shards = read_shards(folder)
    measures = [_measures(folder, shard) for shard in shards]
    kinds = [label(kind) for shard in shards for kind in shard.kinds]
    return Shapes(np.concatenate(measures), np.array(kinds), np.concatenate([shard.diameters_mm for shard in shards]))


def _measures(folder: Path, shard: Shard) -> NDArray[np.float32]:
    kept = folder / f"{shard.name}.measures.npy"
    if kept.exists():
        found: NDArray[np.float32] = np.load(kept)
        if found.shape == (len(shard.kinds), len(NAMES)):
            return found
    low = (shard.hu.shape[-1] - SIDE) // 2
    middle = slice(low, low + SIDE)
    found = np.stack([measured(hu[middle, middle, middle]) for hu in shard.hu])
    np.save(kept, found)
    return found


def train(shapes: Shapes, settings: ShapeSettings, seed: int, epochs: int = EPOCHS) -> ShapeNet:
    """Return a network that learned to tell the kinds apart, aneurysms from the rest first of all."""
    torch.manual_seed(seed)
    network = ShapeNet(settings)
    network.mean.copy_(torch.from_numpy(shapes.measures.mean(axis=0)))
    network.spread.copy_(torch.from_numpy(shapes.measures.std(axis=0) + 1e-3))
    measures, kinds = torch.from_numpy(shapes.measures), torch.from_numpy(shapes.kinds)
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=DECAY)
    steps = epochs * -(-len(kinds) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    for _ in range(epochs):
        for batch in torch.split(torch.randperm(len(kinds)), BATCH):
            read = F.dropout(network.standardised(measures[batch]), DROPPED)
            answered = with_dropout(network.kinds, read)
            sac = (kinds[batch] == 0).float()
            odds = answered[:, 0] - answered[:, 1:].logsumexp(dim=1)
            loss = F.binary_cross_entropy_with_logits(odds, sac) + 0.2 * F.cross_entropy(answered, kinds[batch])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return network.eval()


def with_dropout(layers: nn.Sequential, read: Tensor) -> Tensor:
    """What the layers make of N×M numbers where some of what each hidden layer passes on is missing."""
    for layer in layers:
        read = layer(read)
        if isinstance(layer, nn.SiLU):
            read = F.dropout(read, HIDDEN_DROPPED)
    return read


def save_trained(path: Path, networks: Sequence[ShapeNet]) -> None:
    """Write the weights of all networks as one file."""
    tensors = {f"{i}.{name}": tensor for i, one in enumerate(networks) for name, tensor in one.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)


def trained(path: Path) -> tuple[ShapeNet, ...]:
    """The networks of a file of `save_trained`, in evaluation mode."""
    tensors = load_file(path)
    networks = []
    for number in range(1 + max(int(name.split(".")[0]) for name in tensors)):
        prefix = f"{number}."
        state = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        layers = sum(name.endswith("bias") for name in state) - 1
        network = ShapeNet(ShapeSettings(hidden=len(state["kinds.0.bias"]), layers=layers))
        network.load_state_dict(state)
        networks.append(network.requires_grad_(False).eval())
    return tuple(networks)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, and print how well sacs are told from the rest on the validation cubes."""
    parser = argparse.ArgumentParser(prog="python -m training.second_stage", description=__doc__)
    for name in ("cubes", "validation", "run"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--networks", type=int, default=3)
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    shapes, unseen = shapes_in(asked.cubes), shapes_in(asked.validation)
    networks = [train(shapes, SETTINGS, seed) for seed in range(asked.networks)]
    for title, these in (("learned from", shapes), ("validation", unseen)):
        odds = np.array(log_odds(networks, these.measures))
        print(f"{title}: {len(odds)} cubes, AUC {auc(odds.tolist(), these.is_sac):.3f}")
        for low, high in ((0, 3), (3, 4), (4, 7), (7, 30)):
            some = (these.kinds != 0) | ((these.diameters_mm >= low) & (these.diameters_mm < high))
            print(
                f"  sacs of {low} to {high} mm: AUC {auc(odds[some].tolist(), [k == 0 for k in these.kinds[some]]):.3f}"
            )
        for index, kind in enumerate(KINDS[1:], start=1):
            some = (these.kinds == 0) | (these.kinds == index)
            if (these.kinds == index).any():
                print(f"  against {kind}: AUC {auc(odds[some].tolist(), [k == 0 for k in these.kinds[some]]):.3f}")
    save_trained(asked.run, networks)
    return 0


if __name__ == "__main__":
    sys.exit(main())
