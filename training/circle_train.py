"""Train the network that finds the circle of Willis: `python -m training.circle_train HEADS OUT [MINUTES] [SEED]`.

HEADS is a folder of `training.circle_paint`; heads that come while it trains are used from then on.  Every step shows two
heads, each turned by up to 35° about any axis, scaled, bent, mirrored, seen through a field of view of its own, before or
after contrast; one in six is cut off so that the circle is not in it.
"""

import hashlib
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from ai.circle import CELL_MM, STRIDE, CircleNet, shares_of
from training.phantom.frame import FloatArray, rotation_matrix

SIDE = 40
"""Cells of the training grid along each axis."""
TARGET_MM = 8.0
"""Standard deviation of the probability that the network is to give to the cells about the centre."""


class Base:
    """A painted head as shares: (2, 3, d, h, w), before and after contrast; its affine and the centre of its circle."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as kept:
            pair = [np.stack(shares_of(kept[name].astype(np.float32))) for name in ("plain", "filled")]
            self.shares = torch.from_numpy(np.stack(pair)).half()
            self.affine: FloatArray = kept["affine"]
            self.centre: FloatArray = kept["centre"]


def drawn(base: Base, rng: np.random.Generator) -> tuple[Tensor, FloatArray | None]:
    """The head as cells of 6 mm, (4, 40, 40, 40), and the cell (d, h, w) of its circle, None where it is cut off."""
    turn = rotation_matrix(tuple(rng.uniform(-35, 35, 3) * rng.choice([0.3, 1.0])))
    scale = rng.uniform(0.74, 1.14) * rng.normal(1.0, 0.04, 3)
    scale[0] *= rng.choice([-1.0, 1.0])
    cut_off = rng.uniform() < 1 / 6
    below, above = rng.uniform(22, 112), rng.uniform(26, 108)
    if cut_off and rng.uniform() < 0.5:
        below = -rng.uniform(8, 40)
    elif cut_off:
        above = -rng.uniform(8, 50)
    half = rng.uniform(82, 128, 2)
    off_centre = rng.normal(0, 9, 2) + [10.0, 0.0]
    centre_cell = np.array(
        [below / CELL_MM, (half[0] + 4 - off_centre[0]) / CELL_MM, (half[1] - off_centre[1]) / CELL_MM]
    )
    size = np.array([(below + above), 2 * half[0], 2 * half[1]]) / CELL_MM
    size = np.minimum(np.maximum(size, 6), SIDE)
    d, h, w = np.meshgrid(*(np.arange(SIDE, dtype=np.float32),) * 3, indexing="ij")
    offsets = np.stack([w - centre_cell[2], h - centre_cell[1], d - centre_cell[0]], axis=-1) * np.float32(CELL_MM)
    source = (offsets @ (turn / scale).astype(np.float32)).astype(np.float32)
    source += _bend(rng) + (base.centre - base.affine[:3, 3]).astype(np.float32)
    step_mm = np.abs(base.affine[:3, 2::-1]).max(axis=0)  # x, y, z of a grid along the axes of the LPS frame
    source += (step_mm / 2.0).astype(np.float32)  # from the edge of the first voxel, as grid_sample counts
    source *= (2.0 / (np.array(base.shares.shape[:1:-1]) * step_mm)).astype(np.float32)
    source -= np.float32(1.0)
    grid = torch.from_numpy(source)[None]
    unit = np.moveaxis(source, -1, 0)[::-1]
    which = int(rng.integers(2))
    shares = F.grid_sample(base.shares[which : which + 1].float(), grid, align_corners=False)[0]
    if rng.uniform() < 0.12:  # a dry skull, or one whose brain is an even gel, as phantoms for scanners are
        bone = shares[1].clone()
        shares[0] = (1.0 - 2.0 * bone).clamp(0, 1)
        shares[2] = (2.0 * bone).clamp(0, 1)
    z = unit[0]
    sideways = (np.abs(unit[1:]).max(axis=0) > 1) | (z > 1)
    shares[0][torch.from_numpy(sideways)] = 1.0
    inside = (d < size[0]) & (h < size[1]) & (w < size[2]) & (z > -1)
    shares = torch.cat((shares, torch.ones(1, SIDE, SIDE, SIDE)))
    shares[:3] *= torch.from_numpy(rng.uniform(0.85, 1.15, (3, 1, 1, 1)).astype(np.float32))
    shares[:3] += torch.randn(3, SIDE, SIDE, SIDE) * float(rng.uniform(0, 0.03))
    shares = shares.clamp(0, 1) * torch.from_numpy(inside)
    if cut_off or not (centre_cell < size).all() or (centre_cell < 0).any():
        return shares, None
    return shares, centre_cell


def _bend(rng: np.random.Generator) -> np.ndarray:
    """A smooth displacement of up to about 6 mm that is zero on average at the centre's place."""
    coarse = torch.from_numpy(rng.normal(0, rng.uniform(0, 4), (1, 3, 5, 5, 5)).astype(np.float32))
    fine = F.interpolate(coarse, size=(SIDE,) * 3, mode="trilinear", align_corners=True)[0]
    return fine.permute(1, 2, 3, 0).numpy()


def target_of(centre: FloatArray | None) -> Tensor:
    """The probability of every output cell, and of elsewhere."""
    side = SIDE // STRIDE
    out = torch.zeros(side**3 + 1)
    if centre is None:
        out[-1] = 1.0
        return out
    line = np.arange(side)
    parts = [np.exp(-0.5 * ((STRIDE * line + 0.5 - at) * CELL_MM / TARGET_MM) ** 2).astype(np.float32) for at in centre]
    heat = torch.from_numpy(parts[0][:, None, None] * parts[1][None, :, None] * parts[2][None, None, :])
    out[:-1] = (heat / heat.sum()).flatten()
    return out


def _apart(answer: Tensor, offset: Tensor, centres: list[FloatArray | None]) -> Tensor:
    """How far the cells that are believed in put the circle from where it is, along d, h and w together; 1 is 12 mm."""
    line = torch.meshgrid(*(torch.arange(side, dtype=torch.float32) for side in offset.shape[2:]), indexing="ij")
    total = answer.new_zeros(())
    for log_share, off, centre in zip(answer, offset, centres, strict=True):
        if centre is not None:
            true = torch.from_numpy((centre - 0.5) / STRIDE).float().view(3, 1, 1, 1)
            weight = log_share[:-1].exp().view(off.shape[1:])
            total = total + (weight * (torch.stack(line) + off - true).abs().sum(dim=0)).sum()
    return total / len(centres)


def save(network: CircleNet, folder: Path) -> None:
    """Write the weights, then the manifest that names their digest."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(weights, folder / "circle.safetensors")
    digest = hashlib.sha256((folder / "circle.safetensors").read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps({"sha256": digest}, indent=2) + "\n")


def main(arguments: list[str]) -> int:
    """Train for so many minutes, writing the weights twice a minute; goes on from weights that are there."""
    heads, out = Path(arguments[0]), Path(arguments[1])
    minutes = float(arguments[2]) if len(arguments) > 2 else 20.0
    rng = np.random.default_rng(int(arguments[3]) if len(arguments) > 3 else 0)
    torch.manual_seed(0)
    torch.set_num_threads(2)
    network = CircleNet()
    if (out / "circle.safetensors").exists():
        network.load_state_dict(load_file(out / "circle.safetensors"))
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-3)
    bases: dict[str, Base] = {}
    began, written, losses = time.monotonic(), 0.0, list[float]()
    network.train()
    while (spent := (time.monotonic() - began) / 60) < minutes:
        if spent - written > 0.5 or not bases:
            for path in sorted(heads.glob("*.npz")):
                if path.stem not in bases and not path.stem.endswith(".tmp"):
                    bases[path.stem] = Base(path)
            written = spent
            save(network, out)
            print(
                f"{spent:.1f} min, {len(bases)} heads, {len(losses)} steps: {np.mean(losses[-100:] or [0]):.3f}",
                flush=True,
            )
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * min(1.0, (len(losses) + 1) / 50) * max(0.02, 1 - spent / minutes)
        names = list(bases)
        real = [name for name in names if not name.isdigit()]
        chosen = [names[int(rng.integers(len(names)))], (real or names)[int(rng.integers(len(real or names)))]]
        shown = [drawn(bases[name], rng) for name in chosen]
        answer, offset = network(torch.stack([each[0] for each in shown]))
        wanted = torch.stack([target_of(each[1]) for each in shown])
        loss = F.kl_div(answer, wanted, reduction="batchmean") + _apart(answer, offset, [each[1] for each in shown])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        losses.append(float(loss.detach()))
    _settled(network, list(bases.values()), rng)
    save(network, out)
    return 0


def _settled(network: CircleNet, bases: list[Base], rng: np.random.Generator) -> None:
    """The statistics of normalisation are those of the final weights, over 40 pairs of heads."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        for _ in range(40):
            network(torch.stack([drawn(bases[int(rng.integers(len(bases)))], rng)[0] for _ in range(2)]))
    network.eval()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
