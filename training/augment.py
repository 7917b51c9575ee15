"""Patches as another scanner might have measured them, of another head.

Phantoms vary less than patients do: what is drawn anew here is what the network must not rely on.  Everything is computed
where the patch lies, on a CPU or a GPU, and nothing waits for the GPU; numbers are drawn by numpy, noise where it is added.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

FILLINGS_HU = (-1000, 35, 900)
"""Air, brain, bone."""


def augmented(hu_DHW: Tensor, rng: np.random.Generator) -> Tensor:
    """HU as another scanner might have measured another head: sharpness, tissues, contrast filling, shading and noise drawn anew.

    `hu_DHW`: float32 on any device; left as it is.
    """
    hu = hu_DHW
    if rng.random() < 0.4:
        through, within = rng.uniform(0.0, (1.3, 1.0))  # a thick slice is blurred through the plane alone
        hu = blurred(hu, (through, within, within))
    elif rng.random() < 0.4:
        hu = hu + float(rng.uniform(0.2, 1.2)) * (hu - blurred(hu, (1.0, 1.0, 1.0)))
    hu = _retoned(hu, rng) + _shading(hu, rng)
    if rng.random() < 0.6:
        drawing = torch.Generator(hu.device).manual_seed(int(rng.integers(2**62)))
        noise = torch.randn(hu.shape, generator=drawing, device=hu.device)
        sigma = float(rng.uniform(0.0, 0.9))
        if sigma > 0.3:
            noise = blurred(noise, (sigma, sigma, sigma))
            noise = noise / noise.std()
        hu = hu + noise * float(rng.uniform(2.0, 18.0))
    return hu


def blurred(array_DHW: Tensor, sigmas: Sequence[float]) -> Tensor:
    """The array smoothed by a Gaussian of these standard deviations, in voxels along D, H and W: one matrix product for each."""
    for axis, sigma in enumerate(sigmas):
        at = np.arange(array_DHW.shape[axis])
        weights = np.exp(-0.5 * ((at[:, np.newaxis] - at) / max(float(sigma), 1e-3)) ** 2)
        weights /= weights.sum(axis=0)
        along = torch.from_numpy(weights.astype(np.float32)).to(array_DHW.device, non_blocking=True)
        array_DHW = (array_DHW.movedim(axis, -1) @ along).movedim(-1, axis)
    return array_DHW


def _retoned(hu: Tensor, rng: np.random.Generator) -> Tensor:
    """The same tissues with other HU: fat, the contrast of liquor and brain, of filled vessels and of bone change apart."""
    liquor, vessels, bone = rng.uniform((0.3, 0.6, 0.6), (1.5, 1.3, 1.4))
    filled = 60.0 + 340.0 * vessels
    known = np.array([-1024.0, -100.0, 5.0, 35.0, 60.0, 400.0, 3071.0])
    toned = np.array(
        [-1024.0, rng.normal(-100.0, 15.0), 35.0 - 30.0 * liquor, 35.0, 60.0, filled, filled + 2671.0 * bone]
    )
    slopes = np.diff(toned) / np.diff(known)
    pieces = torch.from_numpy(np.stack([known[:-1], toned[:-1], slopes]).astype(np.float32))
    low, level, slope = pieces.to(hu.device, non_blocking=True)
    piece = torch.bucketize(hu.clamp(known[0], known[-1]), low[1:])
    retoned: Tensor = level[piece] + slope[piece] * (hu.clamp(known[0], known[-1]) - low[piece])
    return retoned + float(rng.normal(0.0, 6.0))


def _shading(hu: Tensor, rng: np.random.Generator) -> Tensor:
    """A slow drift of HU across the patch, as cupping and beam hardening leave it."""
    d, h, w = (
        float(slope) * torch.linspace(-1.0, 1.0, side, device=hu.device)
        for slope, side in zip(rng.normal(0.0, 4.0, 3), hu.shape, strict=True)
    )
    shading: Tensor = d[:, None, None] + h[:, None] + w
    return shading


def emptied(hu_DHW: Tensor, labels_DHW: Sequence[Tensor], rng: np.random.Generator) -> None:
    """Fill one side of a patch, up to half of it, with air, brain or bone, in place: nobody should lean on what is around.

    `labels_DHW`: of half the patch's sides, which become 0 there.
    """
    axis, low = int(rng.integers(3)), rng.random() < 0.5
    cells = max(1, round(float(rng.uniform(0.1, 0.5)) * labels_DHW[0].shape[axis]))

    def side(array: Tensor, count: int) -> Tensor:
        return array.narrow(axis, 0 if low else array.shape[axis] - count, count)

    side(hu_DHW, 2 * cells).fill_(int(rng.choice(FILLINGS_HU)))
    for labels in labels_DHW:
        side(labels, cells).zero_()
