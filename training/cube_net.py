"""The cube network learns from drawn cubes and from what the first stage marks on drawn scans.

`python -m training.cube_net BUNDLE CUBES RUN FOLDER [FOLDER ...] [--steps N] [--seed K] [--rate R] [--start RUN]`: CUBES is a folder
of `python -m training.cubes.store`, the others are of `python -m training.drawn_candidates`, RUN the file that the weights are written
to.  It begins with the convolutions of the bundle's first stage, or with what another RUN learned.  The same command goes on after a
kill.  A fifth of the scans is left out, for `python -m training.cube_join` to fit to, and how well aneurysms are told from the rest
there is printed now and then: by the network, by the bundle's second stage, and by the sum of both.
"""

import argparse
import copy
import hashlib
import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from ai.bundle import Bundle, load_bundle
from ai.cube_net import SIDE, TURNINGS, WINDOWS_HU, CubeNet, CubeSettings, turned
from ai.device import passes_in_bfloat16
from ai.second_stage import sac_logits
from training.candidates import Marked, load_marked
from training.config import ConfigError, exits_2
from training.cubes.store import read_shards
from training.drawn_candidates import sacs_of
from training.held_out import held_out_set
from training.metrics import auc
from training.phantom.frame import rotation_matrix
from training.scoring import circle_of, cube_odds_of, looked_into, seen_by
from training.second_stage import label

OF_CUBES, OF_SACS, OF_OTHERS = 6, 5, 9
"""In a batch: drawn cubes, candidates on an aneurysm or middles of one, and other candidates."""
STEPS, RATE, WARMING, DECAY, DROPPED = 10_000, 1.5e-3, 300, 0.05, 0.1
KINDS_WEIGHT = 0.15
"""Of telling all kinds of drawn cubes apart, beside telling sacs from the rest."""
AVERAGED = 0.998
EVERY = 500
FARTHEST_VOXELS = 2
"""A cube is cut so far off its place at most, along each axis."""
BENT, MOST_TURNED, STRETCHED = 0.5, 25.0, (0.85, 1.18)
"""So many cubes are turned further, by up to so many degrees about each axis, and stretched along any three axes."""
LEFT_OUT_OF = 5
Cut = tuple[NDArray[np.int16], int]
"""A file of cubes, and which of them."""


def is_left_out(marked: Marked) -> bool:
    """Whether a scan is not learned from, whatever kind of scan its seed makes it."""
    return marked.scored.seed // 3 % LEFT_OUT_OF == 0


@dataclass(frozen=True, eq=False)
class Lessons:
    """What there is to learn from: drawn cubes with the index of their kind, places on aneurysms, and other candidates.

    `odds`: how often each of the others is drawn, relative to one another: as often as the first stage takes it for an aneurysm,
    and all now and then.
    """

    cubes: list[Cut]
    kinds: NDArray[np.int64]
    sacs: list[Cut]
    others: list[Cut]
    odds: NDArray[np.float64]

    @classmethod
    def of(cls, cubes: Path, scans: Sequence[tuple[Marked, NDArray[np.int16]]]) -> "Lessons":
        """Those of a folder of drawn cubes and of scans, each with the cubes at the middles of its aneurysms.  Raises ConfigError."""
        shards = read_shards(cubes)
        sacs: list[Cut] = []
        others: list[Cut] = []
        scores: list[float] = []
        for scan, middles in scans:
            assert scan.cubes is not None
            sacs += [(middles, number) for number in range(len(middles))]
            for number, (hit, one) in enumerate(zip(scan.hits, scan.scored.candidates, strict=True)):
                (sacs if hit else others).append((scan.cubes, number))
                scores += [] if hit else [one.score]
        if not (shards and sacs and others):
            raise ConfigError(
                f"{cubes} and the folders of scans must hold cubes, aneurysms and other candidates: draw more"
            )
        odds = 1.0 / (1.0 + np.exp(-(np.array(scores) + 2.0))) + 0.1
        return cls(
            [(shard.hu, number) for shard in shards for number in range(len(shard.kinds))],
            np.array([label(kind) for shard in shards for kind in shard.kinds]),
            sacs,
            others,
            odds / odds.sum(),
        )

    def batch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """HU of N cubes of `SIDE`, laid and shifted at random, which are sacs (N), and the kinds of the first `OF_CUBES`."""
        drawn = rng.integers(len(self.cubes), size=OF_CUBES)
        sacs = rng.integers(len(self.sacs), size=OF_SACS)
        others = rng.choice(len(self.others), size=OF_OTHERS, p=self.odds)
        cuts = [self.cubes[i] for i in drawn] + [self.sacs[i] for i in sacs] + [self.others[i] for i in others]
        kinds = torch.from_numpy(self.kinds[drawn])
        is_sac = torch.cat([(kinds == 0).float(), torch.ones(OF_SACS), torch.zeros(OF_OTHERS)])
        return torch.stack([_cut(each, rng) for each in cuts]), is_sac, kinds


def _cut(cut: Cut, rng: np.random.Generator) -> Tensor:
    cubes, number = cut
    side = cubes.shape[-1]
    off = rng.integers(-FARTHEST_VOXELS, FARTHEST_VOXELS + 1, size=3)
    turning = int(rng.integers(len(TURNINGS)))
    if rng.random() < BENT:
        hu = bent(torch.from_numpy(cubes[number].astype(np.float32)), off, rng)
    else:
        box = tuple(slice(start, start + SIDE) for start in (side - SIDE) // 2 + off)
        hu = torch.from_numpy(cubes[number][box].astype(np.float32))
    return turned(hu[None], turning)[0]


def bent(hu: Tensor, off: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
    """A cube of `SIDE` out of a larger one, `off` voxels from its middle, turned, stretched and sheared.

    Where that asks for more than the larger one holds, its edge goes on.
    """
    # in the order x, y, z of `affine_grid`
    turn, along = (rotation_matrix(tuple(rng.uniform(-most, most, 3))) for most in (MOST_TURNED, 180.0))
    stretch = along * rng.uniform(*STRETCHED, 3) @ along.T
    larger = np.concatenate([turn @ stretch * SIDE, 2.0 * off[::-1, None]], axis=1) / hu.shape[-1]
    grid = F.affine_grid(
        torch.from_numpy(larger.astype(np.float32))[None], [1, 1, SIDE, SIDE, SIDE], align_corners=False
    )
    return F.grid_sample(hu[None, None], grid, padding_mode="border", align_corners=False)[0, 0]


def otherwise(hu: Tensor, rng: np.random.Generator) -> Tensor:
    """The cubes with other contrast; half of them as other kernels and slices show them, some with more noise, as coarse as a scanner's."""
    count = len(hu)
    scale, shift, noise = (
        torch.from_numpy(rng.uniform(low, high, (count, 1, 1, 1)).astype(np.float32))
        for low, high in ((0.75, 1.3), (-20.0, 20.0), (0.0, 20.0))
    )
    hu = hu * scale + shift
    filtered, noisy = ((rng.random(count) < part).astype(np.float32)[:, None, None, None] for part in (0.5, 0.4))
    for axis in (1, 2, 3):  # three taps each: below 1 in the middle it blurs, above it sharpens
        middle = torch.from_numpy(1.0 + filtered * rng.uniform(-0.5, 0.25, filtered.shape).astype(np.float32))
        first, last = hu.narrow(axis, 0, 1), hu.narrow(axis, SIDE - 1, 1)
        beside = torch.cat([first, hu.narrow(axis, 0, SIDE - 1)], axis) + torch.cat(
            [hu.narrow(axis, 1, SIDE - 1), last], axis
        )
        hu = middle * hu + (1.0 - middle) / 2.0 * beside
    grains = torch.from_numpy(rng.standard_normal(hu.shape, dtype=np.float32))
    coarse = F.avg_pool3d(grains[:, None], 3, 1, 1)[:, 0] * 4.5
    return hu + torch.from_numpy(noisy) * noise * coarse


def begun(network: CubeNet, bundle: Bundle) -> CubeNet:
    """The network with the convolutions of the bundle's first stage where they have the same shape, but for its coordinates."""
    levels = bundle.networks[0].levels
    theirs = [part for part in levels.modules() if isinstance(part, (nn.Conv3d, nn.GroupNorm))]
    own = [part for part in network.blocks.modules() if isinstance(part, (nn.Conv3d, nn.BatchNorm3d))]
    with torch.no_grad():
        own[0].weight[:, len(WINDOWS_HU) :] *= 0.3  # the density, which the first stage does not read
        for part, known in zip(own, theirs, strict=False):
            into = part.weight[:, : len(WINDOWS_HU)] if part is own[0] else part.weight
            taken = known.weight[:, : into.shape[1]] if part is own[0] else known.weight
            if into.shape != taken.shape:
                break
            into.copy_(taken)
            if part.bias is not None and known.bias is not None:
                part.bias.copy_(known.bias)
    return network


def learn(
    lessons: Lessons,
    network: CubeNet,
    checkpoint: Path,
    identity: str,
    steps: int,
    seed: int,
    highest_rate: float,
    tell: Callable[[CubeNet], str],
) -> CubeNet:
    """Return the average of the weights on the way; what was learned before a kill is gone on with.

    What is random at a step is drawn from the seed and its number.  `identity`: of the run, which a checkpoint must have.
    `tell`: what is said of the network now and then.  Raises ConfigError.
    """
    network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    averaged = copy.deepcopy(network).requires_grad_(False)
    optimiser = torch.optim.AdamW(network.parameters(), highest_rate, weight_decay=DECAY)
    done, begun_at = 0, time.monotonic()
    if checkpoint.exists():
        kept = torch.load(checkpoint, weights_only=True)
        if kept["identity"] != identity:
            raise ConfigError(
                f"{checkpoint} is of a run with other scans, cubes, steps, seed, rate, start or first stage: name another RUN"
            )
        parts: tuple[Any, ...] = (network, averaged, optimiser)
        for part, state in zip(parts, kept["parts"], strict=True):
            part.load_state_dict(state)
        done = kept["step"]
    bfloat16, lost = passes_in_bfloat16("auto", torch.device("cpu")), 0.0
    for step in range(done, steps):
        rate = highest_rate * min(1.0, (step + 1) / WARMING) * max(0.01, 0.5 * (1.0 + math.cos(math.pi * step / steps)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        rng = np.random.default_rng([seed, step])
        torch.manual_seed(seed * 1_000_003 + step)
        hu, is_sac, kinds = lessons.batch(rng)
        network.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            read = network.read(otherwise(hu, rng))
        answered = network.kinds(F.dropout(read, DROPPED))
        loss = F.binary_cross_entropy_with_logits(sac_logits(answered), is_sac)
        loss = loss + KINDS_WEIGHT * F.cross_entropy(answered[:OF_CUBES], kinds)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        _average(averaged, network, min(AVERAGED, (step + 1) / (step + 11)))
        lost += float(loss.detach())
        if (step + 1) % EVERY == 0 or step + 1 == steps:
            each = len(is_sac) * (step + 1 - done) / (time.monotonic() - begun_at)
            print(
                f"step {step + 1} of {steps}, loss {lost / ((step % EVERY) + 1):.3f}, {each:.0f} cubes a second",
                flush=True,
            )
            lost = 0.0
            states = [network.state_dict(), averaged.state_dict(), optimiser.state_dict()]
            torch.save({"identity": identity, "step": step + 1, "parts": states}, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
            if (step + 1) % (4 * EVERY) == 0 or step + 1 == steps:
                print(tell(averaged.eval()), flush=True)
    return averaged.eval()


@torch.no_grad()
def _average(averaged: nn.Module, network: nn.Module, kept: float) -> None:
    for mean, newest in zip(averaged.state_dict().values(), network.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(newest, 1.0 - kept)
        else:
            mean.copy_(newest)


def _told_apart(network: CubeNet, told: Sequence[Marked], bundle: Bundle) -> str:
    """How well candidates on an aneurysm are told from the rest of scans that are left out."""
    scans, seconds = seen_by(bundle, told)
    hits = [bool(hit) for scan in scans for hit in scan.hits]
    if not any(hits):
        return "  no aneurysm on the scans that are left out"
    cubes = np.concatenate([cube_odds_of(looked_into(scan, (network,), 1, "auto")) for scan in scans])
    second = np.concatenate(seconds)
    found = {"cubes": cubes, "second stage": second, "both": cubes + second}
    return f"  on {len(scans)} scans left out, AUC: " + ", ".join(
        f"{name} {auc(odds.tolist(), hits):.3f}" for name, odds in found.items()
    )


def save_network(path: Path, network: CubeNet, seeds: Iterable[int], start: str = "") -> None:
    """Write the weights, the seeds of the scans that they learned from, and what they began with."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(tensors, path, {"learned_from": " ".join(map(str, seeds)), "start": start})


def load_network(path: Path) -> tuple[CubeNet, frozenset[int]]:
    """The network of a file of `save_network`, in evaluation mode, and the seeds of the scans that it learned from.

    Raises ConfigError.
    """
    network = CubeNet(CubeSettings())
    try:
        network.load_state_dict(load_file(path))
        with safe_open(path, "pt") as file:
            seeds = file.metadata()["learned_from"].split()
    except (OSError, SafetensorError, RuntimeError, TypeError, KeyError) as error:
        raise ConfigError(f"{path} is missing or no file of python -m training.cube_net: name another RUN") from error
    return network.requires_grad_(False).eval(), frozenset(map(int, seeds))


def digest_of(path: Path) -> str:
    """How runs that begin with the weights of a file of `save_network` name them."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def start_of(path: Path) -> str:
    """What the weights of a file of `save_network` began with; the same for two that did so alike."""
    with safe_open(path, "pt") as file:
        return str(file.metadata().get("start", ""))


@exits_2
def main(arguments: Sequence[str] | None = None) -> int:
    """Learn; 2 where there is nothing to learn from."""
    parser = argparse.ArgumentParser(prog="python -m training.cube_net", description=__doc__)
    for name in ("bundle", "cubes", "run"):
        parser.add_argument(name, type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, default=None, help="a RUN whose weights are gone on with")
    parser.add_argument("--rate", type=float, default=RATE)
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    bundle = load_bundle(asked.bundle)
    scans = [
        (scan, sacs_of(folder, scan)) for folder in asked.folders for scan in load_marked(folder, bundle, cubes=True)
    ]
    for scan, _ in scans:
        circle_of(scan)  # which training.cube_join will ask for
    learned = [(scan, middles) for scan, middles in scans if not is_left_out(scan)]
    left_out = [scan for scan, _ in scans if is_left_out(scan)]
    seeds = sorted(scan.scored.seed for scan, _ in learned)
    if held_out := {scan.scored.seed for scan, _ in scans} & set(held_out_set().seeds):
        raise ConfigError(
            f"scan {min(held_out)} is one of the held-out ones, which nothing learns from: name other folders"
        )
    lessons = Lessons.of(asked.cubes, learned)
    torch.manual_seed(asked.seed)
    own = sorted(bundle.manifest.weights_sha256.values())
    network, known, start = begun(CubeNet(CubeSettings()), bundle), frozenset[int](), f"{own} {asked.seed}"
    if asked.start:
        network, known = load_network(asked.start)
        start = digest_of(asked.start)
    about = (seeds, len(lessons.cubes), asked.steps, asked.seed, asked.rate, start, own)
    checkpoint = asked.run.with_name(f"{asked.run.name}.checkpoint")
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    network = learn(
        lessons,
        network.requires_grad_(True),
        checkpoint,
        hashlib.sha256(repr(about).encode()).hexdigest(),
        asked.steps,
        asked.seed,
        asked.rate,
        lambda averaged: _told_apart(averaged, left_out, bundle),
    )
    save_network(asked.run, network, sorted({*seeds, *known}), start)
    return 0


if __name__ == "__main__":
    sys.exit(main())
