"""Regions become augmented patches, in torch on the device that learns from them: a GPU would wait for a CPU that does it.

What is random is drawn on the CPU, and cutting from a scan that lies on a GPU does not wait for that GPU, neither for a result
nor until it has taken what it is sent, so that it never runs dry.  Bringing a scan there waits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.nn import functional as F

from ai.affine import lps_of
from ai.inference import MIRRORED_LOCATIONS, output_affine
from ai.locations import LOCATIONS
from ai.preprocess import HU_RANGE, Preprocessing, channels
from training.augment import augmented, emptied
from training.config import Sampling
from training.dataset import UNKNOWN_VESSEL, Prepared
from training.phantom.scan import OTHER_ARTERY, VEIN

FloatArray = NDArray[np.float64]

MIRRORED_VESSEL = np.arange(256)
"""What each vessel label becomes when left and right are exchanged."""
MIRRORED_LOCATION = np.array(MIRRORED_LOCATIONS)
MIRRORED_VESSEL[: VEIN + 1] = [0, *(1 + index for index in MIRRORED_LOCATIONS), OTHER_ARTERY, VEIN]


@dataclass(frozen=True, eq=False)
class Source:
    """A prepared scan as patches are cut from it: its arrays as tensors, and the output cells that patches may be centred on.

    `hu_DHW`: int16; `lesion_DHW`, `vessel_DHW`: uint8.  `lesion_cells`: N×3 for each lesion that has some; `vessel_cells`: N×3.
    `location`, `log_diameter`: by the lesion's number, 0 for none; ln mm, nan where it is not known.
    """

    prepared: Prepared
    hu_DHW: Tensor
    lesion_DHW: Tensor
    vessel_DHW: Tensor
    lesion_cells: tuple[NDArray[np.intp], ...]
    vessel_cells: NDArray[np.intp]
    location: Tensor
    log_diameter: Tensor


def source_of(prepared: Prepared, device: torch.device, resident: bool = True) -> Source:
    """The scan with its arrays on the device, or where they are when not `resident`."""
    arrays = (prepared.region.hu_DHW, prepared.lesion_DHW, prepared.vessel_DHW)
    hu, lesion, vessel = (torch.from_numpy(np.asarray(array)).to(device if resident else "cpu") for array in arrays)
    numbers = range(1, len(prepared.lesions) + 1)
    cells = (np.argwhere(prepared.lesion_DHW == number) for number in numbers)
    coarse = prepared.vessel_DHW[::4, ::4, ::4]
    sizes = [np.log(true.diameter_mm) if prepared.sized else np.nan for true in prepared.lesions]
    return Source(
        prepared,
        hu,
        lesion,
        vessel,
        tuple(each for each in cells if len(each)),
        np.argwhere((coarse > 0) & (coarse != UNKNOWN_VESSEL)) * 4,
        torch.tensor([0, *(LOCATIONS.index(true.location) for true in prepared.lesions)], device=device),
        torch.tensor([0.0, *sizes], dtype=torch.float32, device=device),
    )


class Patch(NamedTuple):
    """What one training example consists of; D H W of the truth are half of the channels'.

    `channels_DHWC`: float32.  `lesion_DHW`: float32 0 or 1.  `vessel_DHW`: int64 0..15 or `UNKNOWN_VESSEL`.
    `location_DHW`: int64, the index in `LOCATIONS` inside lesions.  `log_diameter_DHW`: float32, ln mm inside lesions, nan
    where it is not known.
    """

    channels_DHWC: Tensor
    lesion_DHW: Tensor
    vessel_DHW: Tensor
    location_DHW: Tensor
    log_diameter_DHW: Tensor


def cut_patch(
    source: Source,
    sampling: Sampling,
    preprocessing: Preprocessing,
    rng: np.random.Generator,
    on_lesion: bool,
    hard_cells: Sequence[tuple[int, int, int]] = (),
) -> Patch:
    """Return one augmented patch, on the device of `source.location`.

    `on_lesion`: one of the scan's lesions, of which there must be one, lies in it.  Otherwise `hard_cells` (where the
    model was wrong on this scan before, in output cells), vessels and anywhere are drawn by their shares.
    Raises ValueError for a patch larger than the region.
    """
    half, sides = sampling.patch // 2, source.lesion_DHW.shape
    if half > min(sides):
        raise ValueError(f"sampling.patch = {sampling.patch} is larger than the region, {[2 * side for side in sides]}")
    centre = _chosen_cell(source, sampling, rng, on_lesion, hard_cells)
    start = np.array([np.clip(c - half // 2, 0, side - half) for c, side in zip(centre, sides, strict=True)])
    turn, bend = drawn_turn(sampling, rng), drawn_bend(sampling, rng)
    moved = rng.random() < sampling.turned_share
    cut = _moved(source, start, half, turn, bend) if moved else _straight(source, start, half)
    if rng.random() < sampling.emptied_share:
        emptied(cut.hu_DHW, (cut.lesion_DHW, cut.vessel_DHW), rng)
    middle_mm = cut.middle_mm + rng.uniform(-1.0, 1.0, 3) * sampling.coordinate_jitter_mm
    along_mm = preprocessing.spacing_mm * (np.arange(sampling.patch) - (sampling.patch - 1) / 2.0)
    lines = [((at + along_mm) / preprocessing.coordinate_scale_mm).astype(np.float32) for at in middle_mm]
    patch = Patch(
        channels(augmented(cut.hu_DHW, rng), lines, preprocessing),
        (cut.lesion_DHW > 0).float(),
        cut.vessel_DHW,
        source.location[cut.lesion_DHW],
        source.log_diameter[cut.lesion_DHW] - float(np.log(cut.shrunk)) * (cut.lesion_DHW > 0),
    )
    return mirrored(patch, preprocessing.coordinates) if rng.random() < 0.5 else patch


class _Cut(NamedTuple):
    """A piece of a prepared scan.  `middle_mm`: its middle, z y x from the middle of the circle.  `shrunk`: sizes were divided by it.

    `hu_DHW`: float32; `lesion_DHW`, `vessel_DHW`: int64.
    """

    hu_DHW: Tensor
    lesion_DHW: Tensor
    vessel_DHW: Tensor
    middle_mm: FloatArray
    shrunk: float = 1.0


def _straight(source: Source, start: NDArray[np.intp], half: int) -> _Cut:
    """The piece of `half`³ output cells from cell `start`, as it is."""
    device = source.location.device
    fine = tuple(slice(2 * s, 2 * (s + half)) for s in start)
    cells = tuple(slice(s, s + half) for s in start)
    return _Cut(
        source.hu_DHW[fine].to(device).float(),
        source.lesion_DHW[cells].to(device).long(),
        source.vessel_DHW[cells].to(device).long(),
        _from_circle_mm(source.prepared, (start + (half - 1) / 2.0).astype(np.float64)),
    )


def _moved(source: Source, start: NDArray[np.intp], half: int, turn: FloatArray, bend: FloatArray) -> _Cut:
    """The same about the same middle, of a head that was turned and scaled about the middle of its circle of Willis, then bent.

    `turn`: 3×3, from an offset in the new head to the offset in the old one.  `bend`: of the patch, see `drawn_bend`.
    """
    device = source.location.device
    cell = (start + (half - 1) / 2.0).astype(np.float64)
    far = float(np.abs(bend).max())
    fine = bent(bend, np.arange(2 * half, dtype=np.float64), 2 * half, device)
    coarse = (bent(bend, 2.0 * np.arange(half, dtype=np.float64) + 0.5, 2 * half, device) - 0.5) / 2.0
    return _Cut(
        _resampled(source.hu_DHW, 2.0 * cell + 0.5, turn, fine, far, outside=HU_RANGE[0]),
        _resampled(source.lesion_DHW, cell, turn, coarse, far / 2.0).long(),
        _resampled(source.vessel_DHW, cell, turn, coarse, far / 2.0).long(),
        np.linalg.solve(turn, _from_circle_mm(source.prepared, cell)).astype(np.float64),
        float(np.cbrt(np.linalg.det(turn))),
    )


def drawn_turn(sampling: Sampling, rng: np.random.Generator) -> FloatArray:
    """A rotation by up to `turned_degrees` about each axis, and a scale."""
    angles = rng.uniform(-1.0, 1.0, 3) * np.deg2rad(sampling.turned_degrees)
    scale = float(np.exp(rng.uniform(-1.0, 1.0) * sampling.scaled_share))
    turn: FloatArray = scale * Rotation.from_rotvec(angles).as_matrix()
    return turn


def drawn_bend(sampling: Sampling, rng: np.random.Generator) -> FloatArray:
    """Displacements, in voxels, of the control points of a cubic B-spline over a patch: shape 3×N×N×N.

    The points are 13 to 32 voxels apart, and N is at least 5.
    """
    pieces = max(2, round(sampling.patch / 64.0 * int(rng.integers(2, 6))))
    sigma = rng.uniform(0.0, sampling.bent_share) * sampling.patch / pieces
    bend: FloatArray = rng.normal(0.0, sigma, (3, *(pieces + 3,) * 3))
    return bend


def bent(bend: FloatArray, at: FloatArray, side: int, device: torch.device) -> Tensor:
    """Where the points of the grid `at` × `at` × `at` of a patch of `side` voxels come from, in its voxels: 3×L×L×L."""
    pieces = bend.shape[1] - 3
    along = np.clip((at + 0.5) / side, 0.0, 1.0) * pieces
    distance = np.abs(along[:, np.newaxis] - (np.arange(pieces + 3) - 1.0))  # from each control point
    near, far = 2.0 / 3.0 - distance**2 + distance**3 / 2.0, np.maximum(2.0 - distance, 0.0) ** 3 / 6.0
    weights, line, moved = (
        torch.from_numpy(array.astype(np.float32)).to(device, non_blocking=True)
        for array in (np.where(distance < 1.0, near, far), at, bend)
    )
    for axis in (1, 2, 3):
        moved = (moved.movedim(axis, -1) @ weights.T).movedim(-1, axis)
    return moved + torch.stack(torch.meshgrid(line, line, line, indexing="ij"))


def _resampled(
    source_DHW: Tensor, middle: FloatArray, turn: FloatArray, at_3DHW: Tensor, far: float, outside: int | None = None
) -> Tensor:
    """A cube whose middle is the index `middle` of the source, read at `at_3DHW` of its voxels, none of which was moved `far`.

    Linear, with `outside` beyond the source; without it labels: the nearest, and 0 beyond.  Only what is needed is read.
    """
    cube = at_3DHW.shape[1:]
    first = middle - turn @ np.full(3, (cube[0] - 1) / 2.0)
    corners = np.array(np.meshgrid(*((-far, side - 1 + far) for side in cube), indexing="ij")).reshape(3, -1)
    reach = first[:, np.newaxis] + turn @ corners
    low = np.clip(np.floor(reach.min(axis=1)).astype(int) - 1, 0, np.array(source_DHW.shape) - 1)
    high = np.clip(np.ceil(reach.max(axis=1)).astype(int) + 2, low + 1, source_DHW.shape)
    needed = source_DHW[tuple(slice(a, b) for a, b in zip(low, high, strict=True))].to(at_3DHW.device).float()
    # to grid_sample's coordinates: x first, -1 and 1 in the middle of the first and last voxel
    scale = 2.0 / np.maximum(high - low - 1, 1)
    onto = np.column_stack([scale[:, np.newaxis] * turn, scale * (first - low) - 1.0])[::-1]
    matrix = torch.from_numpy(onto.astype(np.float32)).to(at_3DHW.device, non_blocking=True)
    grid = (matrix[:, :3] @ at_3DHW.reshape(3, -1) + matrix[:, 3:]).T.reshape(1, *cube, 3)
    beyond = float(outside or 0)
    mode = "nearest" if outside is None else "bilinear"
    return F.grid_sample((needed - beyond)[None, None], grid, mode=mode, align_corners=True)[0, 0] + beyond


def _from_circle_mm(prepared: Prepared, cell: FloatArray) -> FloatArray:
    """z, y, x in mm of an output cell, counted from the middle of the circle of Willis."""
    lps = lps_of(output_affine(prepared.region.affine_lps), cell)
    offset: FloatArray = (lps - np.array(prepared.region.circle_centre_lps_mm))[::-1]
    return offset


def mirrored(patch: Patch, with_x: bool = True) -> Patch:
    """The patch with left and right exchanged: the arrays, any x coordinate and every label that names a side."""
    channels_DHWC, lesion, vessel, location, log_diameter = (array.flip(2) for array in patch)
    if with_x:
        channels_DHWC[..., -1] *= -1.0
    vessels, locations = (
        torch.from_numpy(labels).to(vessel.device, non_blocking=True) for labels in (MIRRORED_VESSEL, MIRRORED_LOCATION)
    )
    return Patch(channels_DHWC, lesion, vessels[vessel], locations[location] * (lesion > 0), log_diameter)


def _chosen_cell(
    source: Source,
    sampling: Sampling,
    rng: np.random.Generator,
    on_lesion: bool,
    hard_cells: Sequence[tuple[int, int, int]],
) -> tuple[int, int, int]:
    """The output cell that the patch is centred on, randomly shifted by less than a quarter of its side."""
    reach = sampling.patch // 4 - 4
    draw = float(rng.random())
    cells = np.empty((0, 3), int)
    if on_lesion:
        cells = source.lesion_cells[int(rng.integers(len(source.lesion_cells)))]
    elif hard_cells and draw < sampling.hard_share:
        cells = np.array(hard_cells)
    elif draw < sampling.hard_share + sampling.vessel_share:
        cells = source.vessel_cells
    if len(cells) == 0:
        cell = rng.integers(0, source.lesion_DHW.shape)
    else:
        cell = cells[int(rng.integers(len(cells)))] + rng.integers(-reach, reach + 1, 3)
    return int(cell[0]), int(cell[1]), int(cell[2])
