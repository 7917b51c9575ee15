"""The real-tree validation set is painted into a folder: boxes as the scanner sees them, and the regions made of them.

`python -m training.paint ANATOMY CACHE [--lookalikes | --skull SERIES] [--bundle BUNDLE] [--count N] [--workers N]`.  What is there is not
painted again.  `--bundle`: the regions are those that it reads; without it, those of the shipped one.
`--lookalikes`: the second set, of other seeds, whose scans also have harmless shapes like sacs; each names its own among its
confounders.  `--skull`: the third, painted into a dry skull as a real scanner saw it; SERIES is a folder with one series of it.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ai.bundle import read_manifest
from ai.errors import BundleError
from ai.inference import output_affine
from ai.manifest import DEFAULT_BUNDLE
from ai.preprocess import Preprocessing, Region, region_of_interest
from ai.volume import Volume
from training.config import ConfigError
from training.dataset import Prepared, circle_centre, halved, load_prepared, save_prepared
from training.held_out import real_tree_set
from training.phantom import make_scan
from training.phantom.scan import PhantomScan

REGIONS, NATIVE = "regions", "native"


def paint_boxes(
    cache: Path,
    seeds: Sequence[int],
    drawn: Mapping[int, Mapping[str, Any]],
    settings: Preprocessing,
    workers: int = 1,
) -> Iterator[int]:
    """Yield the seed of each scan that was missing once `cache` holds its box (`native`) and its region (`regions`).

    `settings`: of the bundle that reads the regions; a box fits any.
    """
    for folder in (REGIONS, NATIVE):
        (cache / folder).mkdir(parents=True, exist_ok=True)
    missing = [seed for seed in seeds if not (cache / REGIONS / str(seed)).exists()]
    if workers <= 1:
        for seed in missing:
            yield _paint(cache, seed, drawn[seed], settings)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("forkserver")) as pool:
        for job in [pool.submit(_paint, cache, seed, drawn[seed], settings) for seed in missing]:
            yield job.result()


def _paint(cache: Path, seed: int, options: Mapping[str, Any], settings: Preprocessing) -> int:
    folder = cache / NATIVE / str(seed)
    if not folder.exists():
        save_prepared(folder, undivided(make_scan(seed, extent="native", **options)))
    save_prepared(cache / REGIONS / str(seed), region_from(load_prepared(folder), settings))
    return seed


def undivided(scan: PhantomScan) -> Prepared:
    """The scan as it is, with labels for every voxel of it."""
    centre = circle_centre(scan.vessel_DHW, scan.volume.affine_lps)
    volume = scan.volume
    whole = Region(volume.hu_DHW, volume.affine_lps, centre)
    return Prepared(scan.seed, whole, scan.lesions, scan.lesion_DHW, scan.vessel_DHW, scan.confounders)


def region_from(scan: Prepared, settings: Preprocessing) -> Prepared:
    """What the network reads of an undivided scan, made as at inference about the middle of the box.

    The box lies as far off as a finder errs: 3 mm an axis, one standard deviation.
    """
    middle = (scan.region.affine_lps @ [*((np.array(scan.region.hu_DHW.shape) - 1) / 2), 1.0])[:3]
    centre = middle - np.array(settings.offset_lps_mm)
    volume = Volume(np.asarray(scan.region.hu_DHW), scan.region.affine_lps)
    region = region_of_interest(volume, (float(centre[0]), float(centre[1]), float(centre[2])), settings)
    lesion, vessel = (
        halved(_nearest(np.asarray(labels), scan.region.affine_lps, region.affine_lps, settings.size_DHW), 3)
        for labels in (scan.lesion_DHW, scan.vessel_DHW)
    )
    cells = output_affine(region.affine_lps)
    for number, true in enumerate(scan.lesions, start=1):  # a lesion smaller than a cell still has one
        cell = np.rint(np.linalg.solve(cells, np.append(true.centre_lps_mm, 1.0))[:3]).astype(int)
        if (cell >= 0).all() and (cell < lesion.shape).all() and not (lesion == number).any():
            lesion[tuple(cell)] = number
    return Prepared(scan.seed, region, scan.lesions, lesion, vessel, scan.confounders)


def _nearest(
    labels_DHW: NDArray[np.uint8],
    source_lps: NDArray[np.float64],
    target_lps: NDArray[np.float64],
    size_DHW: tuple[int, int, int],
) -> NDArray[np.uint8]:
    """Labels at the nearest voxels of another grid with the same axes."""
    mapping = np.linalg.solve(source_lps, target_lps)
    at = []
    for axis in range(3):
        where = np.rint(mapping[axis, 3] + mapping[axis, axis] * np.arange(size_DHW[axis])).astype(int)
        at.append(np.clip(where, 0, labels_DHW.shape[axis] - 1))
    taken: NDArray[np.uint8] = labels_DHW[np.ix_(*at)]
    return taken


def main(arguments: Sequence[str] | None = None) -> int:
    """Paint what is missing and say how fast; 0 when all is there, 2 when the anatomical data or the bundle cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m training.paint", description=__doc__)
    parser.add_argument("anatomy", help="folder with the arteries of a real head")
    parser.add_argument("cache", type=Path)
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--lookalikes", action="store_true", help="the second set, with harmless shapes like sacs")
    other.add_argument("--skull", default="", help="the third set, in the dry skull of this folder")
    parser.add_argument("--bundle", type=Path, default=DEFAULT_BUNDLE, help="which is to read the regions")
    parser.add_argument("--count", type=int, default=None)
    parser.add_argument("--workers", type=int, default=1)
    asked = parser.parse_args(arguments)
    try:
        settings = read_manifest(asked.bundle).preprocessing
        scans = real_tree_set(asked.anatomy, asked.count, lookalikes=asked.lookalikes, skull=asked.skull)
        there = sum((asked.cache / REGIONS / str(seed)).exists() for seed in scans.seeds)
        started = time.monotonic()
        painted = paint_boxes(asked.cache, scans.seeds, scans.drawn, settings, asked.workers)
        for number, _ in enumerate(painted, start=1):
            minutes = (time.monotonic() - started) / 60
            print(f"{there + number} of {len(scans.seeds)} scans, {number / minutes:.1f} a minute", flush=True)
    except (ConfigError, BundleError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
