"""Patches as another scanner might have measured them, of another head.

Phantoms vary less than patients do: what is drawn anew here is what the network must not rely on.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Float32Array = NDArray[np.float32]

FILLINGS_HU = (-1000, 35, 900)
"""Air, brain, bone."""


def augmented(hu_DHW: NDArray[np.int16], rng: np.random.Generator) -> Float32Array:
    """HU as another scanner might have measured another head: sharpness, tissues, contrast filling, shading and noise drawn anew."""
    hu: Float32Array = hu_DHW.astype(np.float32)
    if rng.random() < 0.4:
        through, within = rng.uniform(0.0, 1.0, 2)  # a thick slice is blurred through the plane alone
        hu = ndimage.gaussian_filter(hu, (float(through), float(within), float(within)))
    elif rng.random() < 0.4:
        hu += float(rng.uniform(0.2, 1.2)) * (hu - ndimage.gaussian_filter(hu, 1.0))
    hu = _retoned(hu, rng) + _shading(hu.shape, rng)
    if rng.random() < 0.6:
        noise = rng.standard_normal(hu.shape, dtype=np.float32)
        sigma = float(rng.uniform(0.0, 0.9))
        if sigma > 0.3:
            noise = ndimage.gaussian_filter(noise, sigma)
            noise /= float(noise.std())
        hu += noise * np.float32(rng.uniform(2.0, 18.0))
    return hu.astype(np.float32)


def _retoned(hu: Float32Array, rng: np.random.Generator) -> Float32Array:
    """The same tissues with other HU: fat, the contrast of liquor and brain, of filled vessels and of bone change apart."""
    liquor, vessels, bone = rng.uniform((0.3, 0.6, 0.6), (1.5, 1.3, 1.4))
    filled = 60.0 + 340.0 * vessels
    known = [-1024.0, -100.0, 5.0, 35.0, 60.0, 400.0, 3071.0]
    toned = [-1024.0, rng.normal(-100.0, 15.0), 35.0 - 30.0 * liquor, 35.0, 60.0, filled, filled + 2671.0 * bone]
    retoned: Float32Array = (np.interp(hu, known, toned) + rng.normal(0.0, 6.0)).astype(np.float32)
    return retoned


def _shading(shape: tuple[int, ...], rng: np.random.Generator) -> Float32Array:
    """A slow drift of HU across the patch, as cupping and beam hardening leave it."""
    slopes = rng.normal(0.0, 4.0, len(shape))
    lines = [slope * np.linspace(-1.0, 1.0, side) for slope, side in zip(slopes, shape, strict=True)]
    d, h, w = np.ix_(*lines)
    shading: Float32Array = (d + h + w).astype(np.float32)
    return shading


def emptied(hu_DHW: NDArray[np.int16], labels_DHW: Sequence[NDArray[np.uint8]], rng: np.random.Generator) -> None:
    """Fill one side of a patch, up to half of it, with air, brain or bone, in place: nobody should lean on what is around.

    `labels_DHW`: of half the patch's sides, which become 0 there.
    """
    axis, low = int(rng.integers(3)), rng.random() < 0.5
    cells = max(1, round(float(rng.uniform(0.1, 0.5)) * labels_DHW[0].shape[axis]))

    def side(array: NDArray[Any], count: int) -> NDArray[Any]:
        along = np.moveaxis(array, axis, 0)
        return along[:count] if low else along[-count:]

    side(hu_DHW, 2 * cells)[...] = rng.choice(FILLINGS_HU)
    for labels in labels_DHW:
        side(labels, cells)[...] = 0
