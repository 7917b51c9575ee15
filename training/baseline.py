"""What Willis is compared with: a whole volume squeezed to 64×128×128 voxels and classified.

    python -m training.baseline train training/configs/baseline.toml [STOP_AFTER_SECONDS]
    python -m training.baseline evaluate training/configs/baseline.toml FOLDER [COUNT]

A U-Net of 2.4 M parameters, a little larger than ours, reads one HU window and answers with the 14 columns, without
augmentation; the loss is binary cross-entropy.  It learns from the same phantoms as the first of the runs that it is compared
with, with the same lesions, and reads as many voxels as all of them do.
"""

import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F

from ai.device import chosen_device
from ai.locations import COLUMNS
from ai.preprocess import resample
from ai.unet import ConvBlock, Decoder
from ai.volume import Volume
from training.cases import Case, Scored
from training.config import ConfigError, TrainConfig, read_config, read_settings
from training.evaluate import SCORES, document_of, held_out_set, score_all, scored_of
from training.files import write_whole
from training.phantom import make_scan
from training.report import Subject, write_report
from training.scans import drawn_scans

SIZE_DHW = (64, 128, 128)
CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class BaselineConfig:
    """One run of the baseline.

    `compared_with`: the configurations of the runs whose training scans (those of the first) and budget (the voxels of
    all together) it gets.  `scans`, `steps`: 0 for those, else so many.  `matrix`: pixels a side of the series that are
    squeezed.  `window_hu` is mapped to -1..1 and clipped there.
    """

    folder: str
    compared_with: tuple[str, ...]
    cache: str = "runs/baseline-scans"
    seed: int = 1
    device: str = "auto"
    threads: int = 2
    workers: int = 1
    matrix: int = 256
    window_hu: tuple[float, float] = (-100.0, 600.0)
    widths: tuple[int, ...] = (16, 32, 64, 104, 136)
    convolutions: tuple[int, ...] = (1, 2, 2, 2, 2)
    batch: int = 2
    scans: int = 0
    steps: int = 0
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    checkpoint_every: int = 25

    def __post_init__(self) -> None:
        if not self.compared_with:
            raise ValueError("compared_with must name the configuration of at least one run")

    @cached_property
    def runs(self) -> list[TrainConfig]:
        """The runs that this one is compared with.  Raises ConfigError."""
        return [read_config(path) for path in self.compared_with]

    @property
    def training_seeds(self) -> range:
        """Of the phantoms to learn from: those of the first run, before `drawn_scans` tells kinds apart."""
        data = self.runs[0].data
        if data.rsna:
            raise ConfigError(f"{self.compared_with[0]} trains on the RSNA data: the baseline reads phantoms only")
        return range(data.first_seed, data.first_seed + (self.scans or data.scans))

    @property
    def total_steps(self) -> int:
        """The steps in which it reads as many voxels as the runs it is compared with, unless `steps` says otherwise."""
        voxels = sum(run.optimisation.steps * run.sampling.batch * run.sampling.patch**3 for run in self.runs)
        return self.steps or math.ceil(voxels / (self.batch * math.prod(SIZE_DHW)))


class WholeVolumeNet(nn.Module):
    """N×1×64×128×128 in, N×14 logits out: a U-Net down and up to half resolution, then mean and maximum over space."""

    def __init__(self, widths: Sequence[int], convolutions: Sequence[int], groups: int = 8) -> None:
        super().__init__()
        levels: list[nn.Module] = []
        fan_in = 1
        for level, (width, count) in enumerate(zip(widths, convolutions, strict=True)):
            blocks = [ConvBlock(fan_in, width, groups, stride=1 if level == 0 else 2)]
            levels.append(nn.Sequential(*blocks, *(ConvBlock(width, width, groups) for _ in range(count - 1))))
            fan_in = width
        self.levels = nn.ModuleList(levels)
        self.decoders = nn.ModuleList(
            Decoder(widths[level + 1], widths[level], groups, attention=False)
            for level in range(len(widths) - 2, 0, -1)
        )
        self.columns = nn.Linear(2 * widths[1], len(COLUMNS))

    def forward(self, volume: Tensor) -> Tensor:
        skips, x = [], volume
        for level in self.levels:
            x = level(x)
            skips.append(x)
        for decoder, skip in zip(self.decoders, skips[-2:0:-1], strict=True):
            x = decoder(x, skip)
        logits: Tensor = self.columns(torch.cat((x.mean(dim=(2, 3, 4)), x.amax(dim=(2, 3, 4))), dim=1))
        return logits


def squeezed(volume: Volume) -> NDArray[np.int16]:
    """The whole volume at 64×128×128 voxels, HU averaged over each."""
    scale = np.array(volume.hu_DHW.shape) / np.array(SIZE_DHW)
    onto = np.diag([*scale, 1.0])
    onto[:3, 3] = (scale - 1.0) / 2.0
    return resample(volume, volume.affine_lps @ onto, SIZE_DHW)


def train(config: BaselineConfig, stop_after_seconds: float = math.inf, report: Callable[[str], None] = print) -> bool:
    """Train until the steps are done, or until time is up; return whether it is done.  Continues from its checkpoint."""
    began = time.monotonic()
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    device = chosen_device(config.device)
    path = Path(config.folder) / CHECKPOINT
    path.parent.mkdir(parents=True, exist_ok=True)
    network = _network(config).to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    first_step, total = 0, config.total_steps
    if path.exists():
        state = torch.load(path, map_location=device, weights_only=True)
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        first_step = int(state["step"])
        report(f"continuing at step {first_step}")
    drawn = drawn_scans(config.runs[0], config.training_seeds, validation=False)
    scans = {scan.seed: scan for scan in truths(config, list(drawn), drawn)}
    seeds, late = list(drawn), False
    volumes: dict[int, Tensor] = {}  # 4 MB each, kept where they are learned from

    def volume(seed: int) -> Tensor:
        if seed not in volumes:
            volumes[seed] = _input(config, seed).to(device)
        return volumes[seed]

    for step in track(range(first_step, total), "baseline", transient=True, disable=not sys.stderr.isatty()):
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * step / total))
        chosen = np.random.default_rng((config.seed, step)).choice(seeds, config.batch)
        truth = torch.tensor([_labels(scans[int(seed)]) for seed in chosen], device=device)
        with torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda"):
            logits = network(torch.cat([volume(int(seed)) for seed in chosen]))
        loss = F.binary_cross_entropy_with_logits(logits.float(), truth)
        if not bool(torch.isfinite(loss)):
            raise FloatingPointError(f"the loss is not finite at step {step}: lower the learning rate")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        done = step + 1
        late = time.monotonic() - began > stop_after_seconds
        if done % config.checkpoint_every == 0 or done == total or late:
            _save(path, {"network": network.state_dict(), "optimiser": optimiser.state_dict(), "step": done})
            report(f"step {done}/{total} loss {float(loss.detach()):.3f}")
        if late:
            return done == total
    return True


def evaluate(config: BaselineConfig, folder: Path, count: int | None = None) -> dict[str, Any]:
    """Write the report on the held-out phantoms that `willis evaluate` measures on, and return its figures.

    Raises ConfigError before there is a checkpoint.
    """
    path = Path(config.folder) / CHECKPOINT
    if not path.exists():
        raise ConfigError(f"{path} is not there: train the baseline first")
    device = chosen_device(config.device)
    state = torch.load(path, map_location="cpu", weights_only=True)
    network = _network(config)
    network.load_state_dict(state["network"])
    network.eval().to(device)
    scans = held_out_set(count)

    def score(seeds: Sequence[int]) -> Iterator[Scored]:
        for scan in truths(config, seeds, scans.drawn):
            with torch.inference_mode():
                chances = torch.sigmoid(network(_input(config, scan.seed).to(device)))[0].tolist()
            yield Scored(scan.seed, scan.lesions, (), scan.confounders, tuple(chances))

    identity = {"checkpoint": hashlib.sha256(path.read_bytes()).hexdigest(), "matrix": config.matrix}
    scored = score_all(folder / SCORES, identity, scans.seeds, score, lambda one: print(f"scan {one.seed}"))
    description = (
        f"{scans.description}, whole series of {config.matrix}² pixels squeezed to {'×'.join(map(str, SIZE_DHW))}"
    )
    return write_report(folder, Subject(f"baseline after {state['step']} steps", description), scored)


def truths(
    config: BaselineConfig, seeds: Sequence[int], drawn: Mapping[int, Mapping[str, Any]] | None = None
) -> Iterator[Scored]:
    """Yield the truth of each seed's phantom once its squeezed volume is in the cache."""
    cache = Path(config.cache)
    cache.mkdir(parents=True, exist_ok=True)
    options = drawn or {}
    missing = [seed for seed in seeds if not _truth_path(config, seed).exists()]
    for seed in (one for one in seeds if one not in set(missing)):
        yield scored_of(json.loads(_truth_path(config, seed).read_text(encoding="utf-8")))
    build = partial(_build, config)
    asked = [dict(options.get(seed, {})) for seed in missing]
    if config.workers <= 1:
        yield from map(build, missing, asked)
        return
    with ProcessPoolExecutor(config.workers, mp_context=get_context("forkserver")) as pool:
        yield from pool.map(build, missing, asked)


def _build(config: BaselineConfig, seed: int, options: Mapping[str, Any]) -> Scored:
    """Write a phantom's squeezed volume, then its truth: whoever sees the truth has the volume too."""
    scan = make_scan(seed, extent="full", matrix=config.matrix, **options)
    path = _volume_path(config, seed)
    temporary = path.with_name(f"{path.stem}.{os.getpid()}.tmp.npy")
    np.save(temporary, squeezed(scan.volume))
    os.replace(temporary, path)
    truth = Scored(seed, scan.lesions, (), scan.confounders)
    write_whole(_truth_path(config, seed), json.dumps(document_of(truth)))
    return truth


def _volume_path(config: BaselineConfig, seed: int) -> Path:
    return Path(config.cache) / f"{seed}-{config.matrix}.npy"


def _truth_path(config: BaselineConfig, seed: int) -> Path:
    return Path(config.cache) / f"{seed}-{config.matrix}.json"


def _input(config: BaselineConfig, seed: int) -> Tensor:
    """1×1×64×128×128 float32, -1 to 1."""
    low, high = config.window_hu
    hu = np.load(_volume_path(config, seed)).astype(np.float32)
    return torch.from_numpy(np.clip((hu - (low + high) / 2.0) * (2.0 / (high - low)), -1.0, 1.0))[None, None]


def _labels(scan: Scored) -> list[float]:
    return [float(label) for label in Case(scan.seed, scan.lesions, (), (), None).truth]


def _network(config: BaselineConfig) -> WholeVolumeNet:
    return WholeVolumeNet(config.widths, config.convolutions)


def _save(path: Path, state: Mapping[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save(dict(state), temporary)
    os.replace(temporary, path)


def main(arguments: list[str]) -> int:
    """`train CONFIG [SECONDS]` or `evaluate CONFIG FOLDER [COUNT]`; exit status 3 when there is more to train."""
    try:
        match arguments:
            case ["train", config, *rest] if len(rest) <= 1:
                seconds = float(rest[0]) if rest else math.inf
                return 0 if train(read_settings(config, BaselineConfig), seconds) else 3
            case ["evaluate", config, folder, *rest] if len(rest) <= 1:
                count = int(rest[0]) if rest else None
                found = evaluate(read_settings(config, BaselineConfig), Path(folder), count)
                print(f"competition score {found['competition_score']:.3f} on {found['data']}; {folder}/report.html")
                return 0
    except (ConfigError, ValueError) as error:
        print(f"baseline: {error}", file=sys.stderr)
        return 2
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
