"""What the first stage marks on scans that are drawn for the second stage to learn from; the scans themselves are not kept.

`python -m training.drawn_candidates BUNDLE ANATOMY FOLDER [--count N] [--first K] [--like-people]`: N scans on a real head's arteries as
training draws them (`--like-people`: on drawn arteries of people's calibre).  What is in FOLDER is not drawn again.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ai.bundle import Bundle, load_bundle
from ai.predict import found_candidates
from training.anatomy import read_arteries
from training.candidates import Marked, mark, save_marked
from training.cases import Scored
from training.config import ConfigError
from training.dataset import enriched_lesions
from training.evaluate import seen
from training.paint import region_from, undivided
from training.phantom import make_scan

FIRST_SEED, LIKE_PEOPLE_SEED = 8_000_000, 8_500_000
"""Neither training, validation, the held-out set nor the demo draws from here on."""
LESIONS = (2, 3, 4)


def options_of(seed: int, anatomy: str, *, like_people: bool) -> dict[str, Any]:
    """The further arguments of `make_scan`: a third without an aneurysm, a third as they come, a third with several, smaller ones."""
    arteries: dict[str, Any] = {"like_people": True} if like_people else {"anatomy": anatomy}
    if seed % 3 == 2:
        return arteries | {"lesions": enriched_lesions(seed, LESIONS)}
    return arteries | {"positive": seed % 3 == 1}


def drawn(seed: int, bundle: Bundle, anatomy: str, *, like_people: bool) -> Marked:
    """The candidates of a scan that is painted for them."""
    box = undivided(make_scan(seed, extent="native", **options_of(seed, anatomy, like_people=like_people)))
    scan = region_from(box, bundle.manifest.preprocessing)
    scored = Scored(seed, seen(scan), found_candidates(scan.region, bundle, "cpu"), scan.confounders)
    return mark(box, scan.region, scored)


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw and mark what is missing, and say how fast; 2 when the anatomical data cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m training.drawn_candidates", description=__doc__)
    for name in ("bundle", "anatomy", "folder"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="so many scans are left out before them")
    parser.add_argument("--like-people", action="store_true")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        bundle = load_bundle(asked.bundle)
        read_arteries(asked.anatomy)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    asked.folder.mkdir(parents=True, exist_ok=True)
    first = asked.first + (LIKE_PEOPLE_SEED if asked.like_people else FIRST_SEED)
    seeds = range(first, first + asked.count)
    missing = [seed for seed in seeds if not (asked.folder / f"{seed}.json").exists()]
    begun = time.monotonic()
    for number, seed in enumerate(missing, start=1):
        save_marked(asked.folder, drawn(seed, bundle, str(asked.anatomy), like_people=asked.like_people))
        minutes = (time.monotonic() - begun) / 60
        print(
            f"{len(seeds) - len(missing) + number} of {len(seeds)} scans, {number / minutes:.1f} a minute", flush=True
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
