"""What the first stage marks on scans that are drawn for the second stage to learn from; the scans themselves are not kept.

`python -m training.drawn_candidates BUNDLE ANATOMY FOLDER [--kind KIND] [--count N] [--first K] [--every E]`: N scans as training
draws them, on arteries that follow a real head's (tree), that are drawn like people's (people), or as they were first drawn (plain);
or N of the held-out scans (held-out), to judge by.  What is in FOLDER is not drawn again.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ai.bundle import Bundle, load_bundle
from ai.predict import found_candidates
from ai.second_stage import cube_around
from ai.shape import SIDE
from ai.volume import Volume
from training.anatomy import read_arteries
from training.candidates import MOST_MARKED, Marked, claim, mark, save_marked
from training.cases import Scored
from training.config import ConfigError, exits_2
from training.dataset import enriched_lesions
from training.evaluate import seen
from training.held_out import held_out_set
from training.paint import region_from, undivided
from training.phantom import make_scan

FIRST_SEEDS = {"tree": 8_000_000, "people": 8_500_000, "plain": 8_600_000}
"""Of each kind; neither training, validation, the held-out set nor the demo draws from here on."""
LAST_SEED = 9_000_000
"""None of them is as high."""
LESIONS = (2, 3, 4)
HELD_OUT = "held-out"


def seeds_of(kind: str, first: int, count: int, every: int = 1) -> Sequence[int]:
    """Those of so many scans, after so many others of their kind; of every so many the first."""
    if kind == HELD_OUT:
        return held_out_set().seeds[first : first + count * every : every]
    start = FIRST_SEEDS[kind] + first
    return range(start, start + count * every, every)


def kind_of(seed: int) -> str:
    """Of which kind a scan was drawn to be learned from; empty for those of other sets."""
    if seed >= LAST_SEED:
        return ""
    return max(((first, kind) for kind, first in FIRST_SEEDS.items() if first <= seed), default=(0, ""))[1]


def options_of(kind: str, seed: int, anatomy: str) -> dict[str, Any]:
    """The further arguments of `make_scan`: a third without an aneurysm, a third as they come, a third with several, smaller ones.

    Of held-out scans those that they are known by.
    """
    if kind == HELD_OUT:
        return dict(held_out_set().drawn[seed])
    kinds: dict[str, dict[str, Any]] = {"tree": {"anatomy": anatomy}, "people": {"like_people": True}, "plain": {}}
    arteries = kinds[kind]
    if seed % 3 == 2:
        return arteries | {"lesions": enriched_lesions(seed, LESIONS)}
    return arteries | {"positive": seed % 3 == 1}


def drawn(kind: str, seed: int, bundle: Bundle, anatomy: str) -> tuple[Marked, NDArray[np.int16]]:
    """The candidates of a scan that is painted for them, and the cubes about the middles of its aneurysms, (L, D, H, W) HU."""
    box = undivided(make_scan(seed, extent="native", **options_of(kind, seed, anatomy)))
    scan = region_from(box, bundle.manifest.preprocessing)
    found = found_candidates(scan.region, bundle, "cpu", most=MOST_MARKED)
    scored = Scored(seed, seen(scan), found, scan.confounders)
    volume = Volume(box.region.hu_DHW, box.region.affine_lps)
    middles = [cube_around(volume, lesion.centre_lps_mm) for lesion in scored.lesions]
    return mark(box, scan.region, scored), np.array(middles, np.int16).reshape(-1, SIDE, SIDE, SIDE)


def sacs_of(folder: Path, marked: Marked) -> NDArray[np.int16]:
    """The cubes about the middles of a drawn scan's aneurysms.  Raises ConfigError where these, or its candidates', were not kept."""
    path = folder / f"{marked.scored.seed}.sacs.npy"
    if marked.cubes is None or not path.exists():
        raise ConfigError(f"{folder} is of a version that kept no cubes: draw the scans anew, into another folder")
    found: NDArray[np.int16] = np.load(path)
    return found


@exits_2
def main(arguments: Sequence[str] | None = None) -> int:
    """Draw and mark what is missing, and say how fast; 2 when the anatomical data cannot be read or the folder is another bundle's."""
    parser = argparse.ArgumentParser(prog="python -m training.drawn_candidates", description=__doc__)
    for name in ("bundle", "anatomy", "folder"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--kind", choices=(*FIRST_SEEDS, HELD_OUT), default="tree")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="so many scans are left out before them")
    parser.add_argument(
        "--every", type=int, default=1, help="one of so many; 15 may be all without an aneurysm and not learned from"
    )
    asked = parser.parse_args(arguments)
    if asked.every < 1:
        parser.error(f"--every must be a whole number from 1 on, got {asked.every}")
    torch.set_num_threads(1)
    bundle = load_bundle(asked.bundle, precision="auto")
    read_arteries(asked.anatomy)
    claim(asked.folder, bundle)
    seeds = seeds_of(asked.kind, asked.first, asked.count, asked.every)
    missing = [seed for seed in seeds if not (asked.folder / f"{seed}.json").exists()]
    begun = time.monotonic()
    for number, seed in enumerate(missing, start=1):
        marked, middles = drawn(asked.kind, seed, bundle, str(asked.anatomy))
        np.save(asked.folder / f"{seed}.sacs.npy", middles)
        save_marked(asked.folder, marked)
        minutes = (time.monotonic() - begun) / 60
        print(
            f"{len(seeds) - len(missing) + number} of {len(seeds)} scans, {number / minutes:.1f} a minute", flush=True
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
