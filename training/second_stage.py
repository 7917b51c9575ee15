"""The second stage learns from drawn cubes, while more of them are drawn.

`python -m training.second_stage CUBES VALIDATION RUN [--steps N] [--seconds S]`: the same command goes on from the run's
checkpoint; exit status 3 means more to do.  CUBES and VALIDATION are folders of `python -m training.cubes.store`.
"""

import argparse
import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ai.second_stage import KINDS, CubeNet, CubeSettings, cube_channels, sac_logits
from training.cubes.store import Shard, read_shards
from training.metrics import auc

BATCH = 16
RATE = 2e-3
WARM_UP = 100
SMOOTHED = 0.997
"""Weights are averaged with this decay; the averages are what a bundle gets."""
CHECKPOINT = "checkpoint.pt"
_EVERY = 250
_KIND_OF = {"origin": "infundibulum", "crossing": "vessel"}


def label(kind: str) -> int:
    """The index in `KINDS` of what a cube was drawn as."""
    return KINDS.index(_KIND_OF.get(kind, kind))


def augmented(hu: Tensor, side: int, rng: np.random.Generator) -> Tensor:
    """N cubes cut at their own offset, mirrored, turned about z by quarters, with other contrast, blur and noise."""
    out = []
    spare = hu.shape[-1] - side
    for cube in hu:
        offset = np.clip(np.rint(spare / 2 + rng.normal(0, 1.5, 3)), 0, spare).astype(int)
        cube = cube[tuple(slice(at, at + side) for at in offset)]
        cube = cube.flip([axis for axis in range(3) if rng.uniform() < 0.5])
        if rng.uniform() < 0.5:
            cube = cube.transpose(1, 2)
        if rng.uniform() < 0.6:
            over = (cube - 60.0).clamp(0.0, 600.0)
            cube = cube + over * float(rng.uniform(-0.25, 0.3))
        if rng.uniform() < 0.25:
            cube = cube + float(rng.uniform(2, 12)) * torch.from_numpy(
                rng.standard_normal(cube.shape, dtype=np.float32)
            )
        if rng.uniform() < 0.15:
            cube = F.avg_pool3d(cube[None], 3, 1, 1, count_include_pad=False)[0] * 0.5 + cube * 0.5
        out.append(cube + float(rng.normal(0, 6)))
    return torch.stack(out)


def validated(network: CubeNet, shards: Sequence[Shard]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The log odds of all cubes cut in the middle, and the truth."""
    settings, logits = network.settings, []
    network.eval()
    with torch.inference_mode():
        for shard in shards:
            low = (shard.hu.shape[-1] - settings.side) // 2
            middle = slice(low, low + settings.side)
            for start in range(0, len(shard.hu), 25):
                hu = torch.from_numpy(shard.hu[start : start + 25, middle, middle, middle].astype(np.float32))
                logits.append(sac_logits(network(cube_channels(hu, settings))).numpy())
    network.train()
    return np.concatenate(logits).astype(float), np.concatenate([shard.is_sac for shard in shards])


def train(cubes: Path, validation: Path, run: Path, steps: int, seconds: float, settings: CubeSettings) -> bool:
    """Train to `steps`, or until time is up; whether it is done."""
    started = time.monotonic()
    run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    network = CubeNet(settings).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.02)
    average = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    done = 0
    if (run / CHECKPOINT).exists():
        state = torch.load(run / CHECKPOINT, weights_only=True)
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        average, done = state["average"], state["step"]
    shards, seen = read_shards(cubes), 0.0
    losses: list[float] = []
    while done < steps and time.monotonic() - started < seconds:
        rng = np.random.default_rng([done, 5])
        if done % 50 == 0:
            shards = read_shards(cubes)
        rate = RATE * min(1.0, (done + 1) / WARM_UP) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done / steps)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        hu, truth = _drawn(shards, settings, rng)
        optimiser.zero_grad(set_to_none=True)
        kinds = network(cube_channels(hu, settings))
        sac = (truth == 0).float()
        loss = F.binary_cross_entropy_with_logits(sac_logits(kinds), sac) + 0.3 * F.cross_entropy(kinds, truth)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimiser.step()
        done += 1
        decay = min(SMOOTHED, done / (done + 20.0))
        for name, tensor in network.state_dict().items():
            average[name].lerp_(tensor, 1.0 - decay)
        losses.append(float(loss.detach()))
        if done % _EVERY == 0 or done == steps:
            smooth = CubeNet(settings)
            smooth.load_state_dict(average)
            logits, is_sac = validated(smooth, read_shards(validation))
            seen = auc(logits.tolist(), is_sac.tolist())
            print(
                f"{done} loss {np.mean(losses[-_EVERY:]):.4f} validation AUC {seen:.4f} shards {len(shards)} "
                f"{time.monotonic() - started:.0f} s",
                flush=True,
            )
            _save(run, network, optimiser, average, done)
    _save(run, network, optimiser, average, done)
    (run / "figures.json").write_text(json.dumps({"steps": done, "validation_auc": seen}), encoding="utf-8")
    return done >= steps


def _drawn(shards: Sequence[Shard], settings: CubeSettings, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    hu, truth = [], []
    for _ in range(BATCH):
        shard = shards[int(rng.integers(len(shards)))]
        index = int(rng.integers(len(shard.kinds)))
        hu.append(shard.hu[index].astype(np.float32))
        truth.append(label(shard.kinds[index]))
    return augmented(torch.from_numpy(np.stack(hu)), settings.side, rng), torch.tensor(truth)


def _save(run: Path, network: CubeNet, optimiser: torch.optim.Optimizer, average: dict[str, Tensor], step: int) -> None:
    state = {"network": network.state_dict(), "optimiser": optimiser.state_dict(), "average": average, "step": step}
    torch.save(state, run / (CHECKPOINT + ".tmp"))
    os.replace(run / (CHECKPOINT + ".tmp"), run / CHECKPOINT)


def trained(run: Path, settings: CubeSettings | None = None) -> CubeNet:
    """The averaged network of a run, in evaluation mode."""
    network = CubeNet(settings or CubeSettings())
    network.load_state_dict(torch.load(run / CHECKPOINT, weights_only=True)["average"])
    return network.eval()


def main() -> int:
    """Train; 0 done, 3 more to do."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("cubes", "validation", "run"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seconds", type=float, default=math.inf)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    finished = train(asked.cubes, asked.validation, asked.run, asked.steps, asked.seconds, CubeSettings())
    return 0 if finished else 3


if __name__ == "__main__":
    raise SystemExit(main())
