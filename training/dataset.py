"""Phantoms become prepared regions on disk.

A region is kept as plain `.npy` arrays that are memory-mapped: a patch then costs one small read instead of the
decompression of a whole scan, which on two cores is worth the disk (about 10 MB a scan).
"""

import json
import os
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ai.affine import lps_of, voxel_of
from ai.inference import output_affine
from ai.locations import LOCATIONS, Location
from ai.preprocess import HU_RANGE, Preprocessing, Region
from training.phantom import make_scan
from training.phantom.lesions import draw_diameter_mm, draw_location
from training.phantom.scan import PhantomScan, TrueLesion

UNKNOWN_VESSEL = 255
"""The vessel label where nobody has labelled vessels: it teaches nothing."""


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
        cell = np.rint(voxel_of(cells, true.centre_lps_mm)).astype(int)
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
        sides.append(lps_of(affine_lps, cells.mean(axis=0)))
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
        np.load(folder / "hu.npy", mmap_mode="c"), np.array(truth["affine_lps"]), tuple(truth["circle_centre_lps_mm"])
    )
    lesion_DHW, vessel_DHW = (np.load(folder / f"{name}.npy", mmap_mode="c") for name in ("lesion", "vessel"))
    confounders = tuple(truth["confounders"])
    return Prepared(truth["seed"], region, lesions, lesion_DHW, vessel_DHW, confounders, truth.get("sized", True))


def build_cache(
    cache: Path,
    seeds: Sequence[int],
    preprocessing: Preprocessing,
    workers: int = 1,
    drawn: Mapping[int, Mapping[str, Any]] | None = None,
) -> Generator[Path, None, None]:
    """Yield the folder of each seed's prepared phantom, in the order of the seeds, making those that are missing.

    With several `workers` those are painted ahead, while what came before is used.  `drawn`: further arguments of
    `make_scan` by seed.
    """
    options = drawn or {}
    cache.mkdir(parents=True, exist_ok=True)

    def build(seed: int) -> tuple[Path, int, Preprocessing, Mapping[str, Any]]:
        return cache, seed, preprocessing, options.get(seed, {})

    missing = [seed for seed in seeds if not (cache / str(seed)).exists()]
    if not missing or workers <= 1:
        lacking = set(missing)
        for seed in seeds:
            yield _build(*build(seed)) if seed in lacking else cache / str(seed)
        return
    # forked from a process of its own: this one may hold threads and a GPU
    pool = ProcessPoolExecutor(workers, mp_context=get_context("forkserver"))
    try:
        jobs = {seed: pool.submit(_build, *build(seed)) for seed in missing}
        for seed in seeds:
            yield jobs[seed].result() if seed in jobs else cache / str(seed)
    finally:
        pool.shutdown(cancel_futures=True)


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
