"""The training loop: `python -m training.train training/configs/willis.toml`, or under `torchrun` on several GPUs.

Everything random at a step is drawn from (seed, step, number of the patch), so a run that was stopped and resumed sees the
same patches as one that was not, and N processes see together what one with N times the batch does.
"""

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from ai.device import chosen_device, passes_in_bfloat16
from ai.unet import Outputs, UNet
from training.config import ConfigError, TrainConfig, read_config
from training.dataset import Prepared
from training.distance import HEAD, DistanceTaught, Taught
from training.losses import total_loss
from training.patches import Patch, Source, cut_patch, source_of
from training.processes import Processes, together
from training.scans import training_scans

CHECKPOINT = "checkpoint.pt"
HARD_CELLS = "hard_cells.json"
"""In the cache folder: seed → output cells where an earlier model was wrong; written by `training.mine`."""

LOOK_EVERY = 10
"""Steps after which a GPU's losses are read and checked: one that is asked after each would wait.  A CPU's are at every step."""
FIRST_SCANS = 16
"""So many are there at the first step, however slowly the others join."""

Batch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def train(config: TrainConfig, stop_after_seconds: float = math.inf, report: Callable[[str], None] = print) -> bool:
    """Train until the configured steps are done, or until time is up; return whether it is done.

    Continues from the checkpoint in `config.folder`.  The checkpoint is replaced atomically, so that a kill costs at most
    `checkpoint_every` steps.  Raises ConfigError where `initial_weights` or the checkpoint is of another network.
    """
    device = chosen_device(config.device)
    with together(device) as processes:
        if device.type == "cuda" and device.index is None:  # also for threads, which begin with the first GPU
            device = torch.device("cuda", torch.cuda.current_device())
        return _train(config, processes, device, stop_after_seconds, report if processes.first else _silent)


def _train(
    config: TrainConfig, processes: Processes, device: torch.device, seconds: float, report: Callable[[str], None]
) -> bool:
    """`train` in one of the processes; the first alone writes."""
    began = time.monotonic()
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    folder = Path(config.folder)
    folder.mkdir(parents=True, exist_ok=True)
    torch.backends.cudnn.benchmark = True  # of a GPU: all batches have the same shape
    network = _network(config).to(device, memory_format=_layout(config))  # type: ignore[call-overload]
    if config.initial_weights:
        _begin_with(config.initial_weights, network, report)
    forward: Callable[[Tensor], Outputs | Taught] = torch.compile(network) if config.compiled else network
    average = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    optimiser = torch.optim.AdamW(
        network.parameters(),
        lr=config.optimisation.learning_rate,
        weight_decay=config.optimisation.weight_decay,
        fused=device.type == "cuda",
    )
    first_step = _resume(folder / CHECKPOINT, network, average, optimiser, device)
    if first_step:
        report(f"continuing at step {first_step}")
    total = config.optimisation.steps
    with SummaryWriter(str(folder)) if processes.first else nullcontext() as events, _bar(processes.first) as bar:
        task = bar.add_task("training", total=total, completed=first_step, note="")
        for step, batch in _batches(config, processes, device, first_step, total):
            parts = _step(forward, network, average, optimiser, batch, config, step, device, processes)
            done = step + 1
            late = processes.any(time.monotonic() - began > seconds, device)
            saving = done % config.optimisation.checkpoint_every == 0 or done == total or late
            bar.update(task, completed=done)
            if device.type == "cuda" and not saving and step % LOOK_EVERY:
                continue
            values = {name: float(value) for name, value in parts.items()}
            if processes.any(not math.isfinite(sum(values.values())), device):
                raise FloatingPointError(
                    f"the loss is not finite at step {step}: lower the learning rate; the last checkpoint is sound"
                )
            losses = " ".join(f"{name} {value:.3f}" for name, value in values.items())
            bar.update(task, note=losses)
            if events is not None and step % LOOK_EVERY == 0:
                for name, value in values.items():
                    events.add_scalar(f"loss/{name}", value, step)
            if processes.first and saving:
                _save(folder / CHECKPOINT, network, average, optimiser, done)
                report(f"step {done}/{total} {losses}")
            if late:
                return done == total
    return True


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then half a cosine down to a hundredth."""
    settings = config.optimisation
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    share = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return settings.learning_rate * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * min(share, 1.0))))


def averaged_network(config: TrainConfig) -> tuple[UNet, int]:
    """Return the averaged weights of the run's checkpoint as a network, and the step they are from.

    Raises FileNotFoundError when the run has no checkpoint yet.
    """
    state = torch.load(Path(config.folder) / CHECKPOINT, map_location="cpu", weights_only=True)
    network = UNet(config.network)
    network.load_state_dict({name: each for name, each in state["average"].items() if not name.startswith(HEAD)})
    return network.eval().to(memory_format=torch.channels_last_3d), int(state["step"])  # type: ignore[call-overload]


def _learns_in_bfloat16(config: TrainConfig, device: torch.device) -> bool:
    return passes_in_bfloat16(config.precision, device) or (config.precision == "auto" and device.type == "cuda")


def _network(config: TrainConfig) -> UNet:
    return DistanceTaught(config.network) if config.loss.distance else UNet(config.network)


def _layout(config: TrainConfig) -> torch.memory_format:
    return torch.channels_last_3d if config.channels_last else torch.contiguous_format


def _step(
    forward: Callable[[Tensor], Outputs | Taught],
    network: UNet,
    average: dict[str, Tensor],
    optimiser: torch.optim.Optimizer,
    batch: Batch,
    config: TrainConfig,
    step: int,
    device: torch.device,
    processes: Processes,
) -> dict[str, Tensor]:
    """One optimiser step; return the parts of the loss by name.  One GPU is not waited for.  `forward`: the network, perhaps compiled."""
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(config, step)
    channels, lesion, vessel, location, log_diameter = batch
    with torch.autocast(device.type, torch.bfloat16, enabled=_learns_in_bfloat16(config, device)):
        outputs = forward(channels.contiguous(memory_format=_layout(config)))
    outputs = type(outputs)(*(output.float() for output in outputs))
    loss, parts = total_loss(outputs, lesion, vessel, location, log_diameter, config.loss)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    processes.average_gradients(network)
    torch.nn.utils.clip_grad_norm_(network.parameters(), config.optimisation.clip)
    optimiser.step()
    decay = min(config.optimisation.ema, (1.0 + step) / (10.0 + step))
    weights = network.state_dict()
    torch._foreach_lerp_([average[name] for name in weights], list(weights.values()), 1.0 - decay)
    return parts


def _batches(
    config: TrainConfig, processes: Processes, device: torch.device, first_step: int, steps: int
) -> Iterator[tuple[int, Batch]]:
    """Yield (step, this process's batch), each prepared in a thread while the one before it is being learned from."""
    if first_step >= steps:
        return
    mined = hard_cells(config)
    numbers = range(processes.rank * config.sampling.batch, (processes.rank + 1) * config.sampling.batch)
    sources: list[Source] = []
    positive: list[Source] = []
    room = _room_bytes(device)

    def join(step: int) -> None:
        nonlocal room
        wanted = joined(config, step)
        while (wanted is None or len(sources) < wanted) and (scan := next(coming_scans, None)) is not None:
            room -= (size := scan.region.hu_DHW.nbytes + scan.lesion_DHW.nbytes + scan.vessel_DHW.nbytes)
            sources.append(source_of(scan, device, resident=room >= 0))
            room += size * (room < 0)
            if sources[-1].lesion_cells:
                positive.append(sources[-1])

    def patch(step: int, number: int) -> Patch:
        rng = np.random.default_rng((config.seed, step, number))
        on_lesion = bool(positive) and rng.random() < config.sampling.lesion_share
        chosen = positive if on_lesion else sources
        source = chosen[int(rng.integers(len(chosen)))]
        cells = mined.get(source.prepared.seed, ())
        return cut_patch(source, config.sampling, config.preprocessing, rng, on_lesion, cells)

    def batch(step: int) -> Batch:
        join(step)
        return _stacked([patch(step, number) for number in numbers])

    with closing(training_scans(config)) as painted, ThreadPoolExecutor(1) as ahead:
        coming_scans: Iterator[Prepared] = painted
        if processes.count > 1:  # the first paints, the others find what it painted
            with processes.first_alone():
                coming_scans = iter(list(painted))
        join(first_step)  # here, where Ctrl-C ends it
        coming = ahead.submit(batch, first_step)
        for step in range(first_step, steps):
            ready = coming.result()
            if step + 1 < steps:
                coming = ahead.submit(batch, step + 1)
            yield step, ready


def joined(config: TrainConfig, step: int) -> int | None:
    """How many scans a step's patches are drawn from; None: all."""
    if step >= config.data.joining_steps:
        return None
    return max(FIRST_SCANS, math.ceil(config.data.scans * (step + 1) / config.data.joining_steps))


def _room_bytes(device: torch.device) -> float:
    """How many bytes of scans may stay on the device: half of a GPU's memory is for learning."""
    return torch.cuda.get_device_properties(device).total_memory / 2 if device.type == "cuda" else math.inf


def hard_cells(config: TrainConfig) -> dict[int, list[tuple[int, int, int]]]:
    """What was mined on the scans of the cache, by seed; empty before the first round."""
    mined = Path(config.data.cache) / HARD_CELLS
    if not mined.exists():
        return {}
    return {int(seed): [tuple(cell) for cell in cells] for seed, cells in json.loads(mined.read_text()).items()}


def _stacked(patches: list[Patch]) -> Batch:
    """Patches as one batch: channels N×C×D×H×W (channels last in memory), the truth N×D×H×W."""
    channels, *truth = (torch.stack(arrays) for arrays in zip(*patches, strict=True))
    lesion, vessel, location, log_diameter = truth
    return channels.permute(0, 4, 1, 2, 3), lesion, vessel, location, log_diameter


def _save(path: Path, network: UNet, average: dict[str, Tensor], optimiser: torch.optim.Optimizer, step: int) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save(
        {
            "network": network.state_dict(),
            "average": average,
            "optimiser": optimiser.state_dict(),
            "step": step,
            "shape": asdict(network.settings),
        },
        temporary,
    )
    os.replace(temporary, path)


def _begin_with(weights: str, network: UNet, report: Callable[[str], None]) -> None:
    """The network has the weights of a file by name; those that either lacks are told.

    Raises ConfigError where none is its own, or one of another shape.
    """
    read, own = load_file(weights), network.state_dict()
    if other := [name for name in read if name in own and read[name].shape != own[name].shape]:
        shapes = f"{list(read[other[0]].shape)} there and {list(own[other[0]].shape)} here"
        raise ConfigError(
            f"initial_weights: {other[0]} of {weights} is {shapes}: give [network] the settings of those weights"
        )
    left = network.load_state_dict(read, strict=False)
    if len(left.missing_keys) == len(own):
        raise ConfigError(
            f"initial_weights: no weight of {weights} is one of this network: name a model-….safetensors of a bundle"
        )
    if left.missing_keys:
        report(f"initial_weights: missing, and drawn at random: {', '.join(left.missing_keys)}")
    if left.unexpected_keys:
        report(f"initial_weights: not of this network, and left out: {', '.join(left.unexpected_keys)}")


def _resume(
    path: Path, network: UNet, average: dict[str, Tensor], optimiser: torch.optim.Optimizer, device: torch.device
) -> int:
    """Load a checkpoint when there is one; return the steps already done.  Raises ConfigError for one of another network."""
    if not path.exists():
        return 0
    state = torch.load(path, map_location=device, weights_only=True)
    if state["network"].keys() != network.state_dict().keys():
        raise ConfigError(f"{path} is of another [network] or [loss] distance: write those, or name another folder")
    network.load_state_dict(state["network"])
    optimiser.load_state_dict(state["optimiser"])
    for group in optimiser.param_groups:  # the checkpoint may be another device's
        group["fused"] = device.type == "cuda"
    for name, tensor in state["average"].items():
        average[name].copy_(tensor)
    return int(state["step"])


def _silent(line: str) -> None:
    pass


def _bar(shown: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        disable=not (shown and sys.stderr.isatty()),
        transient=True,
    )


def main(arguments: list[str]) -> int:
    """`CONFIG [SECONDS]`: train, stopping after so many seconds; exit status 3 when there is more to do."""
    if not 1 <= len(arguments) <= 2:
        print("usage: python -m training.train CONFIG.toml [STOP_AFTER_SECONDS]", file=sys.stderr)
        return 2
    seconds = float(arguments[1]) if len(arguments) == 2 else math.inf
    return 0 if train(read_config(arguments[0]), seconds, lambda line: print(line, flush=True)) else 3


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
