"""Heads painted about the geometry of real people, for the network that finds the circle of Willis.

`RealBrain`: the intracranial space, arteries and veins of one person, with a drawn base of skull and face under them.
`real_skull`: the skull of another person, with soft tissue and air put where bone leaves room for them.
The folder is `anatomy` of the data for tests; nothing of it is kept in this repository.
"""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.circle_heads import HIGH_MM, LOW_MM, STEP_MM, CircleHead, hu_of, rounded, varied
from training.phantom.frame import Float32Array, FloatArray, Pose, covering
from training.phantom.head import draw_head, with_drawn_base
from training.phantom.tissues import Canvas, draw_tissues

BRAIN_CENTRE_MM = np.array([83.5, 114.4, 57.4])
"""Half way between the supraclinoid carotids of the arteries, in the RAS frame of their file; read off their projections."""
SKULL_CENTRE_LPS = np.array([229.26 + 81.0, -126.419 + 92.0 * 0.898437, 405.421 + 28.0 * 0.898437])
"""Between the anterior clinoids and a few mm above the dorsum sellae of the skull; read off its slices."""


class RealBrain:
    """The inner table as a signed distance, and the share of arteries and veins, of one person."""

    def __init__(self, folder: Path) -> None:
        labels = np.asarray(nib.load(folder / "head-labels-synthseg.nii.gz").dataobj) > 0
        solid = ndimage.binary_closing(np.pad(labels[::2, ::2, ::2], 25), iterations=3)  # at 2 mm, which is fast
        distance = 2.0 * (ndimage.distance_transform_edt(~solid) - ndimage.distance_transform_edt(solid))
        self.inner_mm = ndimage.gaussian_filter(distance.astype(np.float32), 0.6) - np.float32(1.0)
        self.offset = 0.7455 - 2.0 * 25
        self.vessels: list[tuple[Float32Array, float]] = []
        for name in ("veins", "arteries"):
            mask = np.asarray(nib.load(folder / f"{name}.nii.gz").dataobj).astype(np.float32)
            coarse = ndimage.gaussian_filter(mask, STEP_MM / 2.5 / 0.491)
            self.vessels.append((coarse, 0.49107))

    def head(self, seed: int) -> CircleHead:
        """The person with a drawn base, skull and face; the centre is where it was measured."""
        rng = np.random.default_rng([seed, 42])
        head = varied(with_drawn_base(draw_head(np.random.default_rng([seed, 43]))), rng)
        pose = Pose(rng.normal(1.0, 0.03, 3), np.eye(3), np.zeros(3), ())
        grid = covering(LOW_MM, HIGH_MM, STEP_MM)
        canvas = Canvas(grid, pose)
        ras = [
            BRAIN_CENTRE_MM[0] - canvas.x,
            canvas.y + np.float32(BRAIN_CENTRE_MM[1]),
            canvas.z + np.float32(BRAIN_CENTRE_MM[2]),
        ]
        at = [(axis - np.float32(self.offset)) / np.float32(2.0) for axis in ras]
        inner = ndimage.map_coordinates(self.inner_mm, at, order=1, mode="nearest")
        plain = hu_of(draw_tissues(head, pose, grid, inner))
        filled = plain.copy()
        arterial, venous = float(rng.uniform(120, 450)), float(rng.uniform(0.05, 0.95))
        for (mask, step), hu in zip(self.vessels, (arterial * venous, arterial), strict=True):
            share = ndimage.map_coordinates(mask, [axis / np.float32(step) - 1 for axis in ras], order=1)
            filled += np.minimum(share * 1.4, 1.0) * np.maximum(45.0 + hu - filled, 0.0)
        return CircleHead(rounded(plain), rounded(filled), grid.affine_lps(), np.zeros(3))


def skull_mask(folder: Path) -> NDArray[np.bool_]:
    """The skull of `skull.nrrd`, (z, y, x), 0.898437 × 0.898437 × 1 mm."""
    raw = (folder / "skull.nrrd").read_bytes()
    data = gzip.decompress(raw[raw.index(b"\n\n") + 2 :])
    return np.frombuffer(data, np.uint8).reshape(160, 232, 160) > 0


def real_skull(folder: Path, rng: np.random.Generator, *, aerated: bool = True) -> CircleHead:
    """The skull with brain, skin, fat in the orbits and, when `aerated`, air in the sinuses; no vessels."""
    bone = np.pad(skull_mask(folder), ((0, 24), (16, 16), (24, 24)))
    spacing = np.array([0.898437, 0.898437, 1.0])
    affine = np.zeros((4, 4))
    for column, row in enumerate((2, 1, 0)):
        affine[row, column] = spacing[column]
    affine[:3, 3] = [229.26 - 24.0, -126.419 - 16 * spacing[1], 405.421]
    affine[3, 3] = 1.0
    below = np.pad(bone[::2, ::2, ::2], ((10, 0), (0, 0), (0, 0)), mode="edge")  # every other voxel, which is fast
    half = ndimage.binary_fill_holes(_closed(below, 7))[10:]
    hull = half.repeat(2, axis=0).repeat(2, axis=1).repeat(2, axis=2) | bone
    sealed = ndimage.binary_dilation(bone, iterations=4)
    labels, _ = ndimage.label(hull & ~sealed)
    brain = ndimage.binary_dilation(labels == labels[80, 136, 104], iterations=5) & ~bone & hull
    outside_mm = ndimage.distance_transform_edt(~hull) * 0.9
    hu = np.full(bone.shape, -1000.0, np.float32)
    grain = ndimage.gaussian_filter(rng.standard_normal(bone.shape, dtype=np.float32), 3.0) * 30.0
    hu[outside_mm < rng.uniform(5, 9)] = 20.0
    hu[hull] = -20.0
    _, y, x = np.indices(bone.shape)
    middle = hull & ~brain & ~bone & (np.abs(x - 105) < 20) & (y < 16 + 104)
    hu[middle] = -950.0 if aerated else 40.0
    hu[brain] = 33.0
    hu[hu > -200] += np.clip(grain, -25, 25)[hu > -200]
    marrow = ndimage.distance_transform_edt(bone) > 2.0
    hu[bone] = rng.uniform(900, 1300)
    hu[marrow] = rng.uniform(350, 800)
    hu = ndimage.gaussian_filter(hu, 0.5)
    return CircleHead(rounded(hu), rounded(hu), affine, SKULL_CENTRE_LPS)


def _closed(mask: NDArray[np.bool_], cells: int) -> NDArray[np.bool_]:
    """Closed with a ball of so many voxels, by distances, which is faster."""
    padded = np.pad(mask, cells)
    grown = ndimage.distance_transform_edt(~padded) <= cells
    closed: NDArray[np.bool_] = ndimage.distance_transform_edt(grown) > cells
    return closed[(slice(cells, -cells),) * 3] | mask


__all__ = ["FloatArray", "RealBrain", "real_skull", "skull_mask"]
