"""A cube network joins a bundle of two stages: what it weighs, the calibrations and both operating points are fitted.

`python -m training.cube_join BUNDLE RUN CANDIDATES VERSION [FOLDER] --learnt DRAWN [DRAWN ...]`: RUN is a file of
`python -m training.cube_net`, DRAWN the folders that it learned from, of which it is fitted to the scans that were left out, and
CANDIDATES a folder of `python -m training.candidates` that nothing has learned from.  Prints the figures of both bundles on
CANDIDATES, with everything fitted on the other four fifths of them; without FOLDER nothing is written.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ai.bundle import Bundle, load_bundle
from training.candidates import load_marked
from training.combine import cross_fitted, joined, looked_into, require_apart, seen_by, tell, weighed, write
from training.config import ConfigError
from training.cube_net import is_unseen, load_network

VIEWS = 4
"""From so many sides each cube is looked at."""
AROUND = 2
"""So many of a scan's candidates are measured from four more places."""


def seen_from(bundle: Bundle, around: int) -> Bundle:
    """The bundle as it measures so many candidates from around.  Raises ConfigError where it has no second stage."""
    stage = bundle.manifest.second_stage
    if stage is None:
        raise ConfigError(f"{bundle.manifest.version} has no second stage: join that first, with training.combine")
    return replace(bundle, manifest=replace(bundle.manifest, second_stage=replace(stage, around=around)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit, compare, and write the bundle where a folder is named; 2 where that cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m training.cube_join", description=__doc__)
    for name in ("bundle", "run", "candidates"):
        parser.add_argument(name, type=Path)
    parser.add_argument("version")
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--learnt", type=Path, nargs="+", required=True)
    parser.add_argument("--views", type=int, default=VIEWS)
    parser.add_argument("--around", type=int, default=AROUND)
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    bundle, cubes = load_bundle(asked.bundle), (load_network(asked.run),)
    try:
        marked = load_marked(asked.candidates, bundle)
        drawn = [scan for folder in asked.learnt for scan in load_marked(folder, bundle)]
        require_apart(drawn, marked)
        left_out = [scan for scan in drawn if is_unseen(scan)]
        before, fewer = seen_by(bundle, marked), seen_from(bundle, asked.around)
        (scans, seconds), (others, of_others) = seen_by(fewer, marked), seen_by(fewer, left_out)
        scans, others = ([looked_into(scan, cubes, asked.views) for scan in each] for each in (scans, others))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    learnt = others, of_others
    cases, *_ = cross_fitted(*before, learnt=seen_by(bundle, left_out))
    tell(bundle.manifest, asked.version, cases, *cross_fitted(scans, seconds, learnt=learnt))
    stages = bundle.second, asked.version, scans, seconds, learnt, bundle.fusion
    final, scored = joined(bundle, *stages, cubes, asked.views, asked.around)
    print(weighed(final.manifest))
    if asked.folder:
        write(asked.folder, final, scored)
    return 0


if __name__ == "__main__":
    sys.exit(main())
