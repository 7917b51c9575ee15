"""What first stages mark, beside each other: `python -m training.first_stage SCANS BUNDLE [RUN ...]`.

SCANS is a folder of prepared regions, as `willis evaluate --cache` and `training.candidates` leave them; BUNDLE has the first
stage that the others are compared with; each RUN is a configuration of `willis train`, whose averaged weights are read, or the folder
of a bundle.  Nothing after the first stage is asked: what it does not mark, nothing later finds.

Prints the share of aneurysms that are among the candidates, by size, then how well the first stage alone ranks them, and for each
RUN the difference to BUNDLE with its 95 % interval over scans.
"""

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from ai.bundle import Bundle, load_bundle
from ai.decode import NO_LESION_SCORE
from ai.unet import UNet
from training.cases import Scored, is_hit
from training.config import ConfigError, exits_2, read_config
from training.dataset import Prepared, load_prepared
from training.evaluate import score_scans
from training.figures import SIZES_MM
from training.metrics import auc, bootstrap, cpm, sensitivity_above, threshold_at
from training.train import averaged_network

DRAWS = 500
SIZES = ("all", "from_4mm", "3_to_4mm", "under_3mm")
RATES = (0.5, 4.0)
"""False positives a scan at which the sensitivity is said."""


@dataclass(frozen=True)
class Ranked:
    """One scan's candidates.  `lesions`: the diameter in mm and the best score on each aneurysm, −inf where none hits it.

    `false`: the scores of those that hit none.
    """

    lesions: tuple[tuple[float, float], ...]
    false: tuple[float, ...]

    @property
    def highest(self) -> float:
        """What the scan as a whole is ranked by."""
        return max((NO_LESION_SCORE, *self.false, *(score for _, score in self.lesions)))


def ranked(scan: Scored) -> Ranked:
    """Which of the scan's candidates hit what."""
    hits = [[is_hit(one.centre_lps_mm, lesion) for lesion in scan.lesions] for one in scan.candidates]
    scores = [one.score for one in scan.candidates]
    best = [
        max((score for score, hit in zip(scores, hits, strict=True) if hit[number]), default=-math.inf)
        for number in range(len(scan.lesions))
    ]
    return Ranked(
        tuple(zip((lesion.diameter_mm for lesion in scan.lesions), best, strict=True)),
        tuple(score for score, hit in zip(scores, hits, strict=True) if not any(hit)),
    )


def prepared_scans(folder: Path) -> Iterator[Prepared]:
    """Those of a folder, in the order of their seeds.  Raises ConfigError where there is none."""
    found = sorted((each for each in folder.glob("*") if each.name.isdigit()), key=lambda each: int(each.name))
    if not found:
        raise ConfigError(f"{folder} holds no prepared scans: name a --cache of `willis evaluate`, or its `regions`")
    return map(load_prepared, found)


def marks(bundle: Bundle, scans: Iterator[Prepared], report: Callable[[str], None]) -> list[Ranked]:
    """The candidates of the first stage alone on each scan, in bfloat16 where the CPU has instructions for it."""
    answered: list[Ranked] = []
    for scan in scans:
        answered += map(ranked, score_scans(bundle, [scan], "cpu"))
        if len(answered) % 20 == 0:
            report(f"{len(answered)} scans")
    return answered


def figures(scans: Sequence[Ranked]) -> dict[str, float]:
    """What the candidates of the scans are worth, by name; nan of what there is none of."""
    lesions, false = [each for scan in scans for each in scan.lesions], [each for scan in scans for each in scan.false]
    by_size = {
        size: [score for diameter, score in lesions if low <= diameter < high]
        for size, (low, high) in SIZES_MM.items()
        if size in SIZES
    }
    found = {f"marked, {size}": sensitivity_above(by_size[size], -math.inf) for size in SIZES}
    for rate in RATES:
        limit = threshold_at(false, len(scans), rate)
        found |= {f"at {rate:g}, {size}": sensitivity_above(by_size[size], limit) for size in SIZES}
    found["CPM"] = cpm(by_size["all"], false, len(scans))
    found["AUC"] = auc([scan.highest for scan in scans], [bool(scan.lesions) for scan in scans])
    return found


def compared(one: Sequence[Ranked], other: Sequence[Ranked]) -> dict[str, tuple[float, float]]:
    """The 95 % interval of each figure of `other` less that of `one`; both answered the same scans."""

    def gained(pairs: Sequence[tuple[Ranked, Ranked]]) -> dict[str, float]:
        before, after = (figures(each) for each in zip(*pairs, strict=True))
        return {name: after[name] - before[name] for name in before}

    return bootstrap(gained, list(zip(one, other, strict=True)), DRAWS)


def network_of(run: Path) -> tuple[UNet, int]:
    """The averaged weights of a run, by its configuration, and the step they are from.  Raises ConfigError without a fitting checkpoint."""
    try:
        return averaged_network(read_config(run))
    except FileNotFoundError as error:
        raise ConfigError(f"{run} has no checkpoint yet ({error.filename}): train it first") from error
    except RuntimeError as error:
        raise ConfigError(
            f"{run} has a checkpoint that is damaged or of another [network]: name the configuration that it was trained with"
        ) from error


@exits_2
def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures; 2 where there is nothing to compare."""
    parser = argparse.ArgumentParser(prog="python -m training.first_stage", description=__doc__)
    parser.add_argument("scans", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("runs", type=Path, nargs="*")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    bundle = load_bundle(asked.bundle, precision="auto")
    firsts = {str(asked.bundle): bundle}
    for run in asked.runs:
        networks = load_bundle(run).networks if run.is_dir() else network_of(run)[:1]
        firsts[str(run)] = replace(bundle, networks=networks)
    answers: dict[str, list[Ranked]] = {}
    for name, first in firsts.items():
        answers[name] = marks(first, prepared_scans(asked.scans), partial(print, f"{name}:", flush=True))
    baseline = answers[str(asked.bundle)]
    aneurysms = sum(len(scan.lesions) for scan in baseline)
    print(f"{len(baseline)} scans, {aneurysms} aneurysms, {bundle.manifest.candidates} candidates a scan")
    for name, scans in answers.items():
        print(name)
        intervals = {} if scans is baseline else compared(baseline, scans)
        before = figures(baseline)
        for what, value in figures(scans).items():
            low, high = intervals.get(what, (math.nan, math.nan))
            gain = f" {value - before[what]:+.3f} ({low:+.3f} to {high:+.3f})" if what in intervals else ""
            print(f"  {what:22s} {value:.3f}{gain}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
