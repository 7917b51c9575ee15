"""A scene becomes Hounsfield units on a scan's grid: tissue, bone, veins, arteries, sacs, metal, then the scanner."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ai.locations import LOCATIONS
from training.phantom.confounders import Blob
from training.phantom.frame import Float32Array, FloatArray, Grid, linear_matrix, resample
from training.phantom.lesions import Sac
from training.phantom.painting import Segments, paint, visibility, voxel_points
from training.phantom.scanner import Scanner, filtered, taps
from training.phantom.tissues import Tissues

SLAB = 12
"""Slices rendered at a time, so that a whole series needs little memory."""


@dataclass(frozen=True, eq=False)
class Posed:
    """All that is to be rendered, in LPS mm; `sac_hu` is the HU of the sacs' lumen."""

    tissues: Tissues
    shade_hu: Float32Array
    arteries: Segments
    veins: Segments
    sacs: tuple[Sac, ...]
    sac_hu: float
    blobs: tuple[Blob, ...]
    streak_seed: int


@dataclass(frozen=True, eq=False)
class Rendered:
    """HU before noise, lesion index plus one, and vessel labels, all (d, h, w)."""

    hu_DHW: NDArray[np.int16]
    lesion_DHW: NDArray[np.uint8]
    vessel_DHW: NDArray[np.uint8]


def render(
    scene: Posed,
    grid: Grid,
    scanner: Scanner,
    interpolated_mm: tuple[float, float] = (0.0, 0.0),
    head_DHW: Float32Array | None = None,
) -> Rendered:
    """The scene on `grid` with the scanner's blur.

    `interpolated_mm`: slice spacing and pixel of the native grid, when `grid` stands for a scan that was resampled.  `head_DHW`: HU of
    a head in place of the scene's tissues, which is blurred already, as it is; only what is put into it is blurred.
    """
    shape = grid.shape_DHW
    hu = np.empty(shape, np.int16)
    lesion = np.zeros(shape, np.uint8)
    vessel = np.zeros(shape, np.uint8)
    coarse = scene.tissues.grid
    matrices = [linear_matrix(coarse.axis(axis), grid.axis(axis)) for axis in range(3)]
    in_plane, through = _blur(grid, scanner, interpolated_mm)
    for first in range(0, shape[0], SLAB):
        last = min(first + SLAB, shape[0])
        rows = (matrices[0][first:last], matrices[1], matrices[2])
        used = np.flatnonzero(rows[0].any(axis=0))
        near = slice(used[0], used[-1] + 1)
        rows = (np.ascontiguousarray(rows[0][:, near]), matrices[1], matrices[2])
        slab = grid.slab(first, last)
        image = _tissue(scene, near, rows) if head_DHW is None else head_DHW[first:last].copy()
        _vessels(scene, slab, image, lesion[first:last], vessel[first:last])
        image += resample(np.ascontiguousarray(scene.shade_hu[near]), rows)
        _streaks(scene, slab, image)
        if head_DHW is not None:
            image -= head_DHW[first:last]
        image = filtered(filtered(image, in_plane, 2), in_plane, 1)
        if scanner.ghost_mm:
            shift = max(round(scanner.ghost_mm / grid.spacing_DHW[2]), 1)
            image[:, :, shift:] = 0.72 * image[:, :, shift:] + 0.28 * image[:, :, :-shift]
        hu[first:last] = np.clip(image, -1024 if head_DHW is None else -8000, 8000)
    for top in range(0, shape[1], 64):
        part = slice(top, top + 64)
        blurred = filtered(hu[:, part].astype(np.float32), through, 0)
        hu[:, part] = np.clip(blurred if head_DHW is None else blurred + head_DHW[:, part], -1024, 8000)
    return Rendered(hu, lesion, vessel)


def _blur(grid: Grid, scanner: Scanner, interpolated_mm: tuple[float, float]) -> tuple[FloatArray, FloatArray]:
    """Filters within and through the plane, less the blur that a voxel's own extent already gives."""
    spacing, pixel = interpolated_mm
    plane = (scanner.fwhm_mm / 2.355) ** 2 + pixel**2 / 6 - grid.spacing_DHW[2] ** 2 / 12
    depth = scanner.slice_thickness_mm**2 / 12 + spacing**2 / 6 - grid.spacing_DHW[0] ** 2 / 12
    edge = scanner.edge_enhancement
    return (
        taps(float(np.sqrt(max(plane, 0.02))), grid.spacing_DHW[2], edge),
        taps(float(np.sqrt(max(depth, 0.01))), grid.spacing_DHW[0]),
    )


def _tissue(scene: Posed, near: slice, rows: tuple[Float32Array, Float32Array, Float32Array]) -> Float32Array:
    fields = scene.tissues
    image = resample(np.ascontiguousarray(fields.soft_hu[near]), rows)
    share = resample(np.ascontiguousarray(fields.bone_mm[near]), rows)
    share *= np.float32(-1 / 0.6)
    share += np.float32(0.5)
    np.clip(share, 0, 1, out=share)
    bone = resample(np.ascontiguousarray(fields.bone_hu[near]), rows)
    bone -= image
    bone *= share
    image += bone
    share = resample(np.ascontiguousarray(fields.air_mm[near]), rows)
    share *= np.float32(-1 / 0.6)
    share += np.float32(0.5)
    np.clip(share, 0, 1, out=share)
    image += share * (np.float32(-1000) - image)
    return image


def _vessels(
    scene: Posed, slab: Grid, image: Float32Array, lesion: NDArray[np.uint8], vessel: NDArray[np.uint8]
) -> None:
    """Blend veins, arteries, sacs and blobs into a slab and label them."""
    voxel = float(np.mean(slab.spacing_DHW))
    for blob in scene.blobs:
        if not blob.over:
            _blend_blob(blob, slab, image, voxel)
    distance, piece = paint(slab, scene.veins)
    _blend(image, distance, piece, scene.veins.hu, visibility(scene.veins, voxel), voxel)
    inside = distance < 0.1 * voxel
    vessel[inside] = scene.veins.label[piece[inside]]
    distance, piece = paint(slab, scene.arteries)
    sac_boxes = []
    for number, sac in enumerate(scene.sacs):
        where = slab.box(sac.centre - sac.reach_mm, sac.centre + sac.reach_mm)
        if min(part.stop - part.start for part in where) <= 0:
            continue
        points = voxel_points(slab, where)
        own = sac.distance(points).astype(np.float32)
        mask = (own < 0) & (distance[where] >= 0)
        sac_boxes.append((where, own, mask, np.clip(0.5 - sac.clot(points) / voxel, 0, 1).astype(np.float32), number))
    _blend(image, distance, piece, scene.arteries.hu, visibility(scene.arteries, voxel), voxel)
    inside = distance < 0.1 * voxel
    vessel[inside] = scene.arteries.label[piece[inside]]
    for where, own, mask, clot, number in sac_boxes:
        cover = np.clip(0.5 - own / voxel, 0, 1)
        level = np.float32(scene.sac_hu) + (np.float32(55) - np.float32(scene.sac_hu)) * clot
        level = np.where(distance[where] < 0, np.maximum(level, image[where]), level)
        image[where] += cover * (level - image[where])
        lesion[where][mask] = number + 1
        vessel[where][mask] = LOCATIONS.index(scene.sacs[number].location) + 1
    for blob in scene.blobs:
        if blob.over:
            _blend_blob(blob, slab, image, voxel)


def _blend(
    image: Float32Array,
    distance: Float32Array,
    piece: NDArray[np.int32],
    hu: Float32Array,
    strength: Float32Array,
    voxel: float,
) -> None:
    """Put lumens into the image where they are, in proportion to the share of the voxel that they fill."""
    at = np.flatnonzero(distance.ravel() < voxel / 2)
    which = piece.ravel()[at]
    cover = np.clip(0.5 - distance.ravel()[at] / np.float32(voxel), 0, 1) * strength[which]
    flat = image.reshape(-1)
    flat[at] += cover * (hu[which] - flat[at])


def _blend_blob(blob: Blob, slab: Grid, image: Float32Array, voxel: float) -> None:
    reach = float(blob.radii.max()) + 1.5
    where = slab.box(blob.centre - reach, blob.centre + reach)
    if min(part.stop - part.start for part in where) <= 0:
        return
    edge = max(blob.edge_mm, voxel)
    cover = np.clip(0.5 - blob.distance(voxel_points(slab, where)) / edge, 0, 1).astype(np.float32)
    image[where] += cover * (np.float32(blob.hu) - image[where])


def _streaks(scene: Posed, slab: Grid, image: Float32Array) -> None:
    """Add the bright and dark rays that metal casts within its slices."""
    zs, ys, xs = (slab.axis(axis) for axis in range(3))
    for number, blob in enumerate(scene.blobs):
        if not blob.streaks:
            continue
        height = float(blob.radii.max()) + 1.0
        for row in np.flatnonzero(np.abs(zs - blob.centre[2]) < height):
            rng = np.random.default_rng([scene.streak_seed, number])
            rays = np.repeat(rng.standard_normal(120), 6)
            drift = int(60 * (zs[row] - blob.centre[2]) / height)
            kernel = np.hanning(11) / np.hanning(11).sum()
            rays = np.convolve(np.tile(np.roll(rays, drift), 3), kernel, "same")[720:1440]
            dy, dx = ys[:, None] - blob.centre[1], xs[None, :] - blob.centre[0]
            angle = ((np.arctan2(dy, dx) + np.pi) * (719.9 / (2 * np.pi))).astype(int)
            away = np.sqrt(dy * dy + dx * dx)
            fade = np.minimum(away / 2.0, 1) / (1 + away / 7.0) * (1 - ((zs[row] - blob.centre[2]) / height) ** 2)
            image[row] += (blob.streaks * rays[angle] * fade).astype(np.float32)


__all__ = ["Posed", "Rendered", "Sequence", "render"]
