"""Phantoms become prepared regions on disk, and regions become augmented patches.

A region is kept as plain `.npy` arrays that are memory-mapped: a patch then costs one small read instead of the
decompression of a whole scan, which on two cores is worth the disk (about 10 MB a scan).
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from ai.inference import output_affine
from ai.locations import LOCATIONS, Location
from ai.preprocess import HU_RANGE, Preprocessing, Region, channels
from training.augment import augmented, emptied
from training.config import Sampling
from training.phantom import make_scan
from training.phantom.lesions import draw_diameter_mm, draw_location
from training.phantom.scan import OTHER_ARTERY, VEIN, PhantomScan, TrueLesion

Float32Array = NDArray[np.float32]

UNKNOWN_VESSEL = 255
"""The vessel label where nobody has labelled vessels: it teaches nothing."""
MIRRORED_VESSEL = np.arange(256, dtype=np.uint8)
"""What each vessel label becomes when left and right are exchanged."""
MIRRORED_VESSEL[: VEIN + 1] = [0, *(1 + LOCATIONS.index(each.mirrored) for each in LOCATIONS), OTHER_ARTERY, VEIN]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A region with its truth at the network's output resolution (half).

    `seed`: of the phantom, or the number of a series.  `lesion_DHW`: uint8, 0 or the index in `lesions` plus one.
    `vessel_DHW`: uint8, 0..15 or `UNKNOWN_VESSEL`.  `sized`: whether the diameters are known; points only have a stated
    one.
    """

    seed: int
    region: Region
    lesions: tuple[TrueLesion, ...]
    lesion_DHW: NDArray[np.uint8]
    vessel_DHW: NDArray[np.uint8]
    confounders: tuple[str, ...]
    sized: bool = True


def prepare(scan: PhantomScan) -> Prepared:
    """Return a region-of-interest scan with labels at half resolution.

    Its sides are the nearest multiples of 16 voxels: cut, or filled up with air.
    """
    volume = scan.volume
    region = Region(
        _to_sixteens(volume.hu_DHW, HU_RANGE[0]), volume.affine_lps, circle_centre(scan.vessel_DHW, volume.affine_lps)
    )
    lesion, vessel = (halved(_to_sixteens(labels, 0), 3) for labels in (scan.lesion_DHW, scan.vessel_DHW))
    cells = output_affine(region.affine_lps)
    for number, true in enumerate(scan.lesions, start=1):  # a lesion smaller than a cell still has one
        cell = np.rint(np.linalg.solve(cells, np.append(true.centre_lps_mm, 1.0))[:3]).astype(int)
        if (cell >= 0).all() and (cell < lesion.shape).all() and not (lesion == number).any():
            lesion[tuple(cell)] = number
    return Prepared(scan.seed, region, scan.lesions, lesion, vessel, scan.confounders)


def _to_sixteens(array_DHW: NDArray[Any], outside: int) -> NDArray[Any]:
    sides = [max(1, round(side / 16)) * 16 for side in array_DHW.shape]
    d, h, w = sides
    missing = [(0, max(0, wanted - side)) for wanted, side in zip(sides, array_DHW.shape, strict=True)]
    return np.pad(array_DHW[:d, :h, :w], missing, constant_values=outside)


def circle_centre(vessel_DHW: NDArray[np.uint8], affine_lps: NDArray[np.float64]) -> tuple[float, float, float]:
    """The middle of the circle of Willis in LPS mm: half way between the two supraclinoid carotids.

    This is the point that `ai.coverage` estimates.  Raises ValueError when a side is not labelled.
    """
    sides = []
    for location in (Location.LEFT_SUPRACLINOID_ICA, Location.RIGHT_SUPRACLINOID_ICA):
        cells = np.argwhere(vessel_DHW == 1 + LOCATIONS.index(location))
        if len(cells) == 0:
            raise ValueError(f"no voxel is labelled {location.value}")
        sides.append((affine_lps @ np.append(cells.mean(axis=0), 1.0))[:3])
    x, y, z = (sides[0] + sides[1]) / 2.0
    return float(x), float(y), float(z)


def halved(labels_DHW: NDArray[np.uint8], needed: int) -> NDArray[np.uint8]:
    """Labels of 2×2×2 blocks: the largest label where at least `needed` of the eight voxels are labelled."""
    d, h, w = (side // 2 for side in labels_DHW.shape)
    blocks = labels_DHW[: 2 * d, : 2 * h, : 2 * w].reshape(d, 2, h, 2, w, 2)
    filled = (blocks > 0).sum(axis=(1, 3, 5)) >= needed
    largest: NDArray[np.uint8] = blocks.max(axis=(1, 3, 5)) * filled.astype(np.uint8)
    return largest


def save_prepared(folder: Path, prepared: Prepared) -> None:
    """Write a prepared scan as one folder that appears whole or not at all."""
    temporary = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True, exist_ok=True)
    np.save(temporary / "hu.npy", prepared.region.hu_DHW)
    np.save(temporary / "lesion.npy", prepared.lesion_DHW)
    np.save(temporary / "vessel.npy", prepared.vessel_DHW)
    truth = {
        "seed": prepared.seed,
        "affine_lps": prepared.region.affine_lps.tolist(),
        "circle_centre_lps_mm": list(prepared.region.circle_centre_lps_mm),
        "confounders": list(prepared.confounders),
        "sized": prepared.sized,
        "lesions": [
            {
                "location": lesion.location.value,
                "centre_lps_mm": list(lesion.centre_lps_mm),
                "diameter_mm": lesion.diameter_mm,
            }
            for lesion in prepared.lesions
        ],
    }
    (temporary / "truth.json").write_text(json.dumps(truth))
    os.replace(temporary, folder)


def load_prepared(folder: Path) -> Prepared:
    """Return a prepared scan whose arrays stay on disk until they are read."""
    truth = json.loads((folder / "truth.json").read_text())
    lesions = tuple(
        TrueLesion(Location(lesion["location"]), tuple(lesion["centre_lps_mm"]), lesion["diameter_mm"])
        for lesion in truth["lesions"]
    )
    region = Region(
        np.load(folder / "hu.npy", mmap_mode="r"), np.array(truth["affine_lps"]), tuple(truth["circle_centre_lps_mm"])
    )
    lesion_DHW, vessel_DHW = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("lesion", "vessel"))
    confounders = tuple(truth["confounders"])
    return Prepared(truth["seed"], region, lesions, lesion_DHW, vessel_DHW, confounders, truth.get("sized", True))


def build_cache(
    cache: Path,
    seeds: Sequence[int],
    preprocessing: Preprocessing,
    workers: int = 1,
    drawn: Mapping[int, Mapping[str, Any]] | None = None,
) -> Iterator[Path]:
    """Yield the folder of each seed's prepared phantom, making those that are missing.

    `drawn`: further arguments of `make_scan` by seed.
    """
    options = drawn or {}
    cache.mkdir(parents=True, exist_ok=True)
    missing = [seed for seed in seeds if not (cache / str(seed)).exists()]
    for seed in seeds:
        if seed not in set(missing):
            yield cache / str(seed)
    if workers <= 1:
        for seed in missing:
            yield _build(cache, seed, preprocessing, options.get(seed, {}))
        return
    with ProcessPoolExecutor(workers) as pool:
        jobs = [pool.submit(_build, cache, seed, preprocessing, options.get(seed, {})) for seed in missing]
        for job in jobs:
            yield job.result()


def _build(cache: Path, seed: int, preprocessing: Preprocessing, options: Mapping[str, Any]) -> Path:
    scan = make_scan(seed, extent="roi", spacing_mm=preprocessing.spacing_mm, **options)
    save_prepared(cache / str(seed), prepare(scan))
    return cache / str(seed)


def enriched_lesions(seed: int, lesions_per_scan: Sequence[int]) -> list[tuple[Location, float]]:
    """Location and diameter in mm of a training scan's lesions: half of them from the rarer locations and smaller sizes."""
    rng = np.random.default_rng([seed, 12])
    found: dict[Location, float] = {}
    count = int(rng.choice(lesions_per_scan))
    while len(found) < count:
        location = LOCATIONS[int(rng.integers(len(LOCATIONS)))] if rng.random() < 0.5 else draw_location(rng)
        small = float(np.exp(rng.uniform(np.log(2.0), np.log(6.0))))
        found[location] = small if rng.random() < 0.5 else draw_diameter_mm(rng)
    return list(found.items())


@dataclass(frozen=True, eq=False)
class Patch:
    """What one training example consists of; D H W of the truth are half of the channels'.

    `channels_DHWC`: float32.  `lesion_DHW`: uint8 0 or 1.  `vessel_DHW`: uint8 0..15 or
    `UNKNOWN_VESSEL`.  `location_DHW`: uint8, the index in `LOCATIONS` inside lesions.  `log_diameter_DHW`: float32, ln mm
    inside lesions, nan where it is not known.
    """

    channels_DHWC: Float32Array
    lesion_DHW: NDArray[np.uint8]
    vessel_DHW: NDArray[np.uint8]
    location_DHW: NDArray[np.uint8]
    log_diameter_DHW: Float32Array


def cut_patch(
    prepared: Prepared,
    sampling: Sampling,
    preprocessing: Preprocessing,
    rng: np.random.Generator,
    on_lesion: bool,
    hard_cells: Sequence[tuple[int, int, int]] = (),
) -> Patch:
    """Return one augmented patch.

    `on_lesion`: one of the scan's lesions, of which there must be one, lies in it.  Otherwise `hard_cells` (where the
    model was wrong on this scan before, in output cells), vessels and anywhere are drawn by their shares.
    """
    half = sampling.patch // 2
    centre = _chosen_cell(prepared, sampling, rng, on_lesion, hard_cells)
    start = np.array(
        [np.clip(c - half // 2, 0, side - half) for c, side in zip(centre, prepared.lesion_DHW.shape, strict=True)]
    )
    turn, bend = drawn_turn(sampling, rng), drawn_bend(sampling, rng)
    moved = rng.random() < sampling.turned_share
    cut = _moved(prepared, start, half, turn, bend) if moved else _straight(prepared, start, half)
    if rng.random() < sampling.emptied_share:
        emptied(cut.hu_DHW, (cut.lesion_DHW, cut.vessel_DHW), rng)
    location = np.zeros(cut.lesion_DHW.shape, np.uint8)
    log_diameter = np.zeros(cut.lesion_DHW.shape, np.float32)
    for number, true in enumerate(prepared.lesions, start=1):
        location[cut.lesion_DHW == number] = LOCATIONS.index(true.location)
        log_diameter[cut.lesion_DHW == number] = np.log(true.diameter_mm / cut.shrunk) if prepared.sized else np.nan
    hu = augmented(cut.hu_DHW, rng)
    middle_mm = cut.middle_mm + rng.uniform(-1.0, 1.0, 3) * sampling.coordinate_jitter_mm
    along_mm = preprocessing.spacing_mm * (np.arange(sampling.patch) - (sampling.patch - 1) / 2.0)
    z, y, x = ((at + along_mm).astype(np.float32) / preprocessing.coordinate_scale_mm for at in middle_mm)
    patch = Patch(
        channels(hu, (z, y, x), preprocessing),
        (cut.lesion_DHW > 0).astype(np.uint8),
        cut.vessel_DHW,
        location,
        log_diameter,
    )
    return mirrored(patch, preprocessing.coordinates) if rng.random() < 0.5 else patch


class _Cut(NamedTuple):
    """A piece of a prepared scan.  `middle_mm`: its middle, z y x from the middle of the circle.  `shrunk`: sizes were divided by it."""

    hu_DHW: NDArray[np.int16]
    lesion_DHW: NDArray[np.uint8]
    vessel_DHW: NDArray[np.uint8]
    middle_mm: NDArray[np.float64]
    shrunk: float = 1.0


def _straight(prepared: Prepared, start: NDArray[np.intp], half: int) -> _Cut:
    """The piece of `half`³ output cells from cell `start`, as it is."""
    fine = tuple(slice(2 * s, 2 * (s + half)) for s in start)
    cells = tuple(slice(s, s + half) for s in start)
    return _Cut(
        np.array(prepared.region.hu_DHW[fine]),
        np.array(prepared.lesion_DHW[cells]),
        np.array(prepared.vessel_DHW[cells]),
        _from_circle_mm(prepared, (start + (half - 1) / 2.0).astype(np.float64)),
    )


def _moved(
    prepared: Prepared,
    start: NDArray[np.intp],
    half: int,
    turn: NDArray[np.float64],
    bend: NDArray[np.float64],
) -> _Cut:
    """The same about the same middle, of a head that was turned and scaled about the middle of its circle of Willis, then bent.

    `turn`: 3×3, from an offset in the new head to the offset in the old one.  `bend`: of the patch, see `drawn_bend`.
    """
    cell = (start + (half - 1) / 2.0).astype(np.float64)
    fine = bent(bend, np.arange(2 * half, dtype=np.float64), 2 * half)
    coarse = (bent(bend, 2.0 * np.arange(half, dtype=np.float64) + 0.5, 2 * half) - 0.5) / 2.0
    return _Cut(
        _resampled(prepared.region.hu_DHW, 2.0 * cell + 0.5, turn, fine, order=1, outside=HU_RANGE[0]),
        _resampled(prepared.lesion_DHW, cell, turn, coarse, order=0, outside=0),
        _resampled(prepared.vessel_DHW, cell, turn, coarse, order=0, outside=0),
        np.linalg.solve(turn, _from_circle_mm(prepared, cell)).astype(np.float64),
        float(np.cbrt(np.linalg.det(turn))),
    )


def drawn_turn(sampling: Sampling, rng: np.random.Generator) -> NDArray[np.float64]:
    """A rotation by up to `turned_degrees` about each axis, and a scale."""
    angles = rng.uniform(-1.0, 1.0, 3) * np.deg2rad(sampling.turned_degrees)
    scale = float(np.exp(rng.uniform(-1.0, 1.0) * sampling.scaled_share))
    turn: NDArray[np.float64] = scale * Rotation.from_rotvec(angles).as_matrix()
    return turn


def drawn_bend(sampling: Sampling, rng: np.random.Generator) -> NDArray[np.float64]:
    """Displacements, in voxels, of the control points of a cubic B-spline over a patch: shape 3×N×N×N, N of 5 to 8."""
    pieces = int(rng.integers(2, 6))
    sigma = rng.uniform(0.0, sampling.bent_share) * sampling.patch / pieces
    bend: NDArray[np.float64] = rng.normal(0.0, sigma, (3, *(pieces + 3,) * 3))
    return bend


def bent(bend: NDArray[np.float64], at: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Where the points of the grid `at` × `at` × `at` of a patch of `side` voxels come from, in its voxels: 3×L×L×L."""
    pieces = bend.shape[1] - 3
    along = np.clip((at + 0.5) / side, 0.0, 1.0) * pieces
    distance = np.abs(along[:, np.newaxis] - (np.arange(pieces + 3) - 1.0))  # from each control point
    near, far = 2.0 / 3.0 - distance**2 + distance**3 / 2.0, np.maximum(2.0 - distance, 0.0) ** 3 / 6.0
    weights = np.where(distance < 1.0, near, far)
    moved: NDArray[np.float64] = np.einsum("di,hj,wk,xijk->xdhw", *(weights,) * 3, bend, optimize=True)
    return moved + np.stack(np.meshgrid(at, at, at, indexing="ij"))


def _resampled(
    source_DHW: NDArray[Any],
    middle: NDArray[np.float64],
    turn: NDArray[np.float64],
    at_3DHW: NDArray[np.float64],
    order: int,
    outside: int,
) -> NDArray[Any]:
    """A cube whose middle is the index `middle` of the source, read at `at_3DHW` of its voxels; only the part that is needed is read."""
    cube = at_3DHW.shape[1:]
    first = middle - turn @ np.full(3, (cube[0] - 1) / 2.0)
    points = first[:, np.newaxis] + turn @ at_3DHW.reshape(3, -1)
    low = np.clip(np.floor(points.min(axis=1)).astype(int) - 1, 0, np.array(source_DHW.shape) - 1)
    high = np.clip(np.ceil(points.max(axis=1)).astype(int) + 2, low + 1, source_DHW.shape)
    needed = np.array(source_DHW[tuple(slice(a, b) for a, b in zip(low, high, strict=True))])
    read: NDArray[Any] = ndimage.map_coordinates(needed, points - low[:, np.newaxis], order=order, cval=outside)
    return read.reshape(cube)


def _from_circle_mm(prepared: Prepared, cell: NDArray[np.float64]) -> NDArray[np.float64]:
    """z, y, x in mm of an output cell, counted from the middle of the circle of Willis."""
    lps = (output_affine(prepared.region.affine_lps) @ np.append(cell, 1.0))[:3]
    offset: NDArray[np.float64] = (lps - np.array(prepared.region.circle_centre_lps_mm))[::-1]
    return offset


def mirrored(patch: Patch, with_x: bool = True) -> Patch:
    """The patch with left and right exchanged: the arrays, any x coordinate and every label that names a side."""
    swapped = np.ascontiguousarray(patch.channels_DHWC[:, :, ::-1])
    if with_x:
        swapped[..., -1] *= -1.0
    locations = np.array([LOCATIONS.index(location.mirrored) for location in LOCATIONS], np.uint8)
    inside = patch.lesion_DHW > 0
    return Patch(
        swapped,
        np.ascontiguousarray(patch.lesion_DHW[:, :, ::-1]),
        np.ascontiguousarray(MIRRORED_VESSEL[patch.vessel_DHW][:, :, ::-1]),
        np.ascontiguousarray((locations[patch.location_DHW] * inside)[:, :, ::-1]).astype(np.uint8),
        np.ascontiguousarray(patch.log_diameter_DHW[:, :, ::-1]),
    )


def _chosen_cell(
    prepared: Prepared,
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
        numbers = np.unique(prepared.lesion_DHW)[1:]
        cells = np.argwhere(prepared.lesion_DHW == rng.choice(numbers))
    elif hard_cells and draw < sampling.hard_share:
        cells = np.array(hard_cells)
    elif draw < sampling.hard_share + sampling.vessel_share:
        coarse = prepared.vessel_DHW[::4, ::4, ::4]
        cells = np.argwhere((coarse > 0) & (coarse != UNKNOWN_VESSEL)) * 4
    if len(cells) == 0:
        cell = rng.integers(0, prepared.lesion_DHW.shape)
    else:
        cell = cells[int(rng.integers(len(cells)))] + rng.integers(-reach, reach + 1, 3)
    return int(cell[0]), int(cell[1]), int(cell[2])
