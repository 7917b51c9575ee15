"""A cube network joins a bundle of two stages: what it weighs, the calibrations and both operating points are fitted, and what names
locations learns.

`python -m training.cube_join BUNDLE RUN CANDIDATES VERSION [FOLDER] --learnt DRAWN [DRAWN ...] [--mean RUN ...]`: RUN is a file of
`python -m training.cube_net`, `--mean` names other runs from the same start, or from one of these, so that the mean of all their
weights joins.  DRAWN are the folders that they learned from; it is fitted to the scans of these that were left out.  CANDIDATES is a
folder of `python -m training.candidates` that nothing has learned from.  Prints the figures of both bundles on CANDIDATES, with
everything fitted on the other four fifths of them; without FOLDER nothing is written.  `--most`: so many candidates of a scan are
looked at, `--around`: so many of them from four more places, both as many as in BUNDLE unless named.  `--no-naming`: locations stay as
the first stage has them.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ai.bundle import Bundle, load_bundle
from ai.cube_net import TURNINGS, CubeNet
from ai.decode import MOST_PEAKS
from training.candidates import MOST_MARKED, Marked, load_marked
from training.combine import cross_fitted, joined, joining, require_apart, tell, weighed, write
from training.config import ConfigError, exits_2
from training.cube_net import digest_of, load_network, start_of
from training.mean import mean_network
from training.naming import fitted_names, named_right, naming
from training.scoring import Seen, looked_into, renamed, seen_by

VIEWS = 4
"""From so many sides each cube is looked at."""


def looking_at(bundle: Bundle, most: int | None, around: int | None) -> Bundle:
    """The bundle as it looks at so many candidates of a scan, and from around, as many as it says where that is None.

    Raises ConfigError where it has no second stage, or one that has been joined here, and for more from around than are looked at.
    """
    stage = bundle.manifest.second_stage
    if stage is None:
        raise ConfigError(f"{bundle.manifest.version} has no second stage: join that first, with training.combine")
    if stage.cubes is not None or stage.naming is not None:
        raise ConfigError(
            f"{bundle.manifest.version} looks at cubes or names locations already: name the bundle that it was made of"
        )
    stage = replace(
        stage,
        candidates=stage.candidates if most is None else most,
        around=stage.around if around is None else around,
    )
    if around is not None and around > stage.candidates:
        raise ConfigError(
            f"{around} candidates cannot be measured from around where {stage.candidates} are looked at: name a smaller --around"
        )
    return replace(bundle, manifest=replace(bundle.manifest, second_stage=stage))


def mean_of(runs: Sequence[Path]) -> tuple[CubeNet, frozenset[int]]:
    """The network with the mean of several runs' weights, and the seeds that any of them learned from.

    Raises ConfigError unless they all began with the same weights, or with those of one of them: the mean of others knows nothing.
    """
    networks, seeds = zip(*(load_network(run) for run in runs), strict=True)
    if len({start_of(run) for run in runs} - {digest_of(run) for run in runs}) > 1:
        raise ConfigError(
            f"{', '.join(map(str, runs))} did not begin with the same weights: name runs of one --start, or that one and runs of it"
        )
    return mean_network(networks), frozenset().union(*seeds)


@exits_2
def main(arguments: Sequence[str] | None = None) -> int:
    """Fit, compare, and write the bundle where a folder is named; 2 where that cannot be done."""
    parser = joining("cube_join", __doc__)
    parser.add_argument("--learnt", type=Path, nargs="+", required=True)
    parser.add_argument("--views", type=int, choices=range(1, len(TURNINGS) + 1), default=VIEWS, metavar="1..48")
    parser.add_argument("--around", type=int, choices=range(MOST_PEAKS + 1), default=None, metavar="0..30")
    parser.add_argument(
        "--most", type=int, choices=range(1, MOST_MARKED + 1), default=None, metavar=f"1..{MOST_MARKED}"
    )
    parser.add_argument("--mean", type=Path, nargs="+", default=[], help="further RUNs")
    parser.add_argument("--naming", action=argparse.BooleanOptionalAction, default=True)
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    bundle, (network, learned_from) = load_bundle(asked.bundle), mean_of([asked.run, *asked.mean])
    before, after = looking_at(bundle, None, None), looking_at(bundle, asked.most, asked.around)
    marked = load_marked(asked.candidates, bundle, cubes=True)
    drawn = [scan for folder in asked.learnt for scan in load_marked(folder, bundle, cubes=True)]
    left_out = [scan for scan in drawn if scan.scored.seed not in learned_from]
    require_apart(left_out, marked)
    if learned := [scan.scored.seed for scan in marked if scan.scored.seed in learned_from]:
        raise ConfigError(f"scan {learned[0]} was learned from ({len(learned)} such scans): name other CANDIDATES")

    names = (fitted_names([scan for scan in drawn if scan.scored.seed in learned_from]),) if asked.naming else ()

    def looked(scans: Sequence[Marked]) -> Seen:
        measured, seconds = seen_by(after, scans)
        return [renamed(looked_into(scan, (network,), asked.views), names) for scan in measured], seconds

    (scans, seconds), learnt = looked(marked), looked(left_out)
    placed = bool(before.manifest.second_stage and before.manifest.second_stage.place_weights)
    seen = seen_by(before, marked)
    cases, *_ = cross_fitted(*seen, with_place=placed, learnt=seen_by(before, left_out))
    tell(bundle.manifest, asked.version, cases, *cross_fitted(scans, seconds, learnt=learnt))
    stages = bundle.second, asked.version, scans, seconds, learnt, bundle.fusion
    final, scored = joined(after, *stages, (network,), asked.views)
    print(weighed(final.manifest))
    by_first = named_right([scan.best(after.manifest.candidates) for scan in marked])
    print(f"candidates on aneurysms that are named right: {by_first:.3f}, now {named_right(scans):.3f}")
    if asked.folder:
        write(asked.folder, naming(final, *names) if names else final, scored)
    return 0


if __name__ == "__main__":
    sys.exit(main())
