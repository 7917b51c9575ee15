"""A second stage joins a bundle: what both stages' log odds and a candidate's place weigh, the calibrations and both operating
points are fitted.

`python -m training.combine BUNDLE RUN CANDIDATES VERSION [FOLDER] [--learnt DRAWN ...]`: RUN is a file of `python -m training.second_stage`
or `training.tuning`, CANDIDATES a folder of `python -m training.candidates` on scans that neither stage learned from.  `--learnt`: the
folders that RUN was tuned on; a fusion of both stages learns from them, and weights, calibration and thresholds are fitted to
them as well, each scan as networks see it that were made on the other four fifths.  Prints the figures of both bundles on
CANDIDATES, with everything fitted on the other four fifths of them, but for a bundle of one stage, which is judged as it is;
without FOLDER nothing is written.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ai.bundle import Bundle, Manifest, load_bundle, save_bundle
from ai.cube_net import CubeNet
from ai.decode import Calibration
from ai.parts import Cubes, Fusion, SecondStage
from ai.second_stage import FusionNet, ShapeNet, fused
from ai.surroundings import NAMES
from training.candidates import Marked, load_marked
from training.cases import Case, Scored, case
from training.config import ConfigError, exits_2
from training.drawn_candidates import kind_of
from training.evaluate import measure
from training.export import NOTIFY_SPECIFICITY, calibrated, least_probability
from training.figures import headline
from training.fusion import learned
from training.metrics import bootstrap
from training.provenance import with_second_stage
from training.scoring import AROUND, Seen, combined, fitted_weights, read_of, seconds_of, seen_by
from training.second_stage import trained
from training.tuning import Learnt, tuned

REPORT_SPECIFICITY = 0.95
"""What the first operating point aims at on the negative scans that it is fitted to."""
FOLDS = 5
DRAWS = 500
"""Of the bootstrap over scans."""


def require_unseen(bundle: Bundle, learnt: Sequence[Marked], *judged: Sequence[Marked]) -> None:
    """No scan is judged that is learned from, and the bundle has not learned from any yet.  Raises ConfigError."""
    require_apart(learnt, *judged)
    if learnt and (bundle.fusion or bundle.cubes or bundle.naming):
        raise ConfigError(
            f"{bundle.manifest.version} has learned from drawn scans already: begin with the bundle before its tuning"
        )


def require_apart(learnt: Sequence[Marked], *judged: Sequence[Marked]) -> None:
    """No scan is judged that is learned from.  Raises ConfigError."""
    seeds = {scan.scored.seed for scan in learnt}
    if both := sorted(seeds & {scan.scored.seed for scans in judged for scan in scans}):
        raise ConfigError(f"scan {both[0]} is learned from and judged ({len(both)} such scans): name other folders")


def tuned_without(networks: Sequence[ShapeNet], marked: Sequence[Marked]) -> Iterator[tuple[list[ShapeNet], int]]:
    """For each scan, by its number, the networks as they were tuned on four fifths of the scans without it."""
    for fold in range(FOLDS):
        others = Learnt.of([scan for number, scan in enumerate(marked) if number % FOLDS != fold])
        these = [tuned(network, others, seed) for seed, network in enumerate(networks)]
        for number in range(fold, len(marked), FOLDS):
            yield these, number


def fused_out_of_fold(networks: Sequence[ShapeNet], marked: Sequence[Marked]) -> tuple[tuple[FusionNet, ...], Seen]:
    """The fusion that learned from all scans, and the scans as others see them, each of which learned from four fifths without them.

    What a fusion learns from is read by networks that were tuned on four fifths without it; they have seen other scans of its.
    """
    read: list[NDArray[np.float32]] = [np.zeros(0, np.float32)] * len(marked)
    for these, number in tuned_without(networks, marked):
        read[number] = read_of(these, marked[number])
    hits = [scan.hits for scan in marked]
    seconds = [np.zeros(0)] * len(marked)
    for fold in range(FOLDS):
        others_of = [number for number in range(len(marked)) if number % FOLDS != fold]
        fusion = learned([read[number] for number in others_of], [hits[number] for number in others_of])
        for number in range(fold, len(marked), FOLDS):
            seconds[number] = np.array(fused(fusion, read[number]))
    return learned(read, hits), (marked, seconds)


def cross_fitted(
    marked: Sequence[Marked],
    seconds: Sequence[NDArray[np.float64]],
    *,
    with_place: bool = True,
    learnt: Seen = ((), ()),
) -> tuple[list[Case], list[float], list[float]]:
    """Each scan's case by weights and calibration fitted to the other folds, with the two thresholds it is judged by.

    `learnt`: scans that are fitted to in every fold and not judged.
    """
    cases: list[Case | None] = [None] * len(marked)
    report, notify = [0.0] * len(marked), [0.0] * len(marked)
    for fold in range(FOLDS):
        others = [i for i in range(len(marked)) if _fold(marked[i]) != fold]
        mine = [i for i in range(len(marked)) if _fold(marked[i]) == fold]
        if not mine:
            continue
        fitted = [*(marked[i] for i in others), *learnt[0]], [*(seconds[i] for i in others), *learnt[1]]
        weights = fitted_weights(*fitted, with_place=with_place)
        rest = combined(*fitted, weights)
        calibration = calibrated(rest)
        low, high = operating_points(rest, calibration)
        for i, scored in zip(
            mine, combined([marked[i] for i in mine], [seconds[i] for i in mine], weights), strict=True
        ):
            cases[i], report[i], notify[i] = case(scored, calibration, low), low, high
    return [one for one in cases if one is not None], report, notify


def operating_points(scans: Sequence[Scored], calibration: Calibration) -> tuple[float, float]:
    """The report and the notify threshold: what they aim at is kept on each kind of scans by itself, not on all together."""
    kinds: dict[str, list[Scored]] = {}
    for scan in scans:
        kinds.setdefault(kind_of(scan.seed), []).append(scan)
    healthy = [kind for kind in kinds.values() if any(not scan.lesions for scan in kind)]
    report, notify = (
        max(least_probability(kind, calibration, specificity) for kind in healthy)
        for specificity in (REPORT_SPECIFICITY, NOTIFY_SPECIFICITY)
    )
    return report, max(report, notify)


def _fold(marked: Marked) -> int:
    """Pairs of seeds, one scan with and one without an aneurysm, stay together."""
    return marked.scored.seed // 2 % FOLDS


def joined(
    bundle: Bundle,
    second: tuple[ShapeNet, ...],
    version: str,
    marked: Sequence[Marked],
    seconds: Sequence[NDArray[np.float64]],
    learnt: Seen = ((), ()),
    fusion: tuple[FusionNet, ...] = (),
    cubes: tuple[CubeNet, ...] = (),
    views: int = 1,
) -> tuple[Bundle, list[Scored]]:
    """The bundle with its second stage, fitted to all scans and those `learnt`, and the scans as it scores them.

    It looks at as many candidates as the scans have at most.  `cubes`: what was asked of their cubes, from so many `views`;
    where there are any, the bundle's own second stage has measured them.
    """
    fitted = [*marked, *learnt[0]], [*seconds, *learnt[1]]
    weights = fitted_weights(*fitted)
    scored = combined(*fitted, weights)
    calibration = calibrated(scored)
    report, notify = operating_points(scored, calibration)
    counted = cubes if weights.cube > 0.0 else ()
    manifest = replace(
        bundle.manifest,
        version=version,
        trained_on=with_second_stage(bundle.manifest.trained_on),
        calibration=calibration,
        threshold=report,
        notify_threshold=notify,
        second_stage=SecondStage(
            second[0].settings,
            weights.first,
            weights.second,
            {"unsaved.safetensors": ""},
            dict(zip(NAMES, weights.place, strict=True)),
            weights.limit,
            max(len(scan.hits) for scan in fitted[0]),
            bundle.manifest.second_stage.around if cubes and bundle.manifest.second_stage else AROUND,
            Fusion(fusion[0].settings, {"unsaved.safetensors": ""}) if fusion else None,
            Cubes(cubes[0].settings, weights.cube, views, {"unsaved.safetensors": ""}) if counted else None,
        ),
    )
    return Bundle(manifest, bundle.networks, second, fusion, counted), scored[: len(marked)]


def compared(before: Sequence[Case], after: Sequence[Case], threshold: float) -> dict[str, tuple[float, float, float]]:
    """Each headline figure's gain and its 95 % interval, over scans drawn with replacement; threshold figures left out."""
    pairs = list(zip(before, after, strict=True))

    def gain(sample: Sequence[tuple[Case, Case]]) -> dict[str, float]:
        old = headline([one for one, _ in sample], threshold)
        new = headline([one for _, one in sample], threshold)
        return {name: new[name] - old[name] for name in new if name not in ("sensitivity", "specificity")}

    intervals = bootstrap(gain, pairs, DRAWS)
    return {name: (value, *intervals[name]) for name, value in gain(pairs).items() if name in intervals}


def joining(module: str, description: str | None) -> argparse.ArgumentParser:
    """What a command that joins a part to a bundle is asked: BUNDLE, RUN, CANDIDATES, VERSION and perhaps FOLDER."""
    parser = argparse.ArgumentParser(prog=f"python -m training.{module}", description=description)
    for name in ("bundle", "run", "candidates"):
        parser.add_argument(name, type=Path)
    parser.add_argument("version")
    parser.add_argument("folder", type=Path, nargs="?")
    return parser


@exits_2
def main(arguments: Sequence[str] | None = None) -> int:
    """Fit, compare, and write the bundle where a folder is named."""
    parser = joining("combine", __doc__)
    parser.add_argument("--learnt", type=Path, nargs="+", default=[])
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    bundle, second = load_bundle(asked.bundle), trained(asked.run)
    if bundle.cubes or bundle.naming:
        raise ConfigError(
            f"{bundle.manifest.version} looks at cubes or names locations already: begin with the bundle before training.cube_join"
        )
    marked = load_marked(asked.candidates, bundle)
    drawn = [scan for folder in asked.learnt for scan in load_marked(folder, bundle)]
    require_unseen(bundle, drawn, marked)
    fusion, learnt = fused_out_of_fold(bundle.second, drawn) if drawn else ((), ((), ()))
    seconds = seconds_of(second, marked, fusion=fusion)
    old = bundle.manifest
    scans, seen = seen_by(bundle, marked)
    if old.second_stage is None:
        before = [case(scan.scored, old.calibration, old.threshold) for scan in scans]
    else:
        before, *_ = cross_fitted(scans, seen, with_place=bool(old.second_stage.place_weights))
    after, report, notify = cross_fitted(marked, seconds, learnt=learnt)
    tell(old, asked.version, before, after, report, notify)
    final, scored = joined(bundle, second, asked.version, marked, seconds, learnt, fusion)
    print(weighed(final.manifest))
    if asked.folder:
        write(asked.folder, final, scored)
    return 0


def weighed(manifest: Manifest) -> str:
    """What each part weighs in a candidate's score."""
    stage = manifest.second_stage
    assert stage is not None
    cubes = f", cubes {stage.cubes.weight:.3f}" if stage.cubes else ""
    return f"weights: first stage {stage.first_weight:.3f}, second {stage.second_weight:.3f}{cubes}"


def write(folder: Path, final: Bundle, scored: Sequence[Scored]) -> None:
    """Write a bundle that was joined, with its figures on the scans that it was fitted to and the steps of its first stage."""
    figures = measure(scored, final) | {"steps": final.manifest.figures.get("steps", float("nan"))}
    kept = {name: round(value, 4) for name, value in figures.items() if np.isfinite(value)}
    manifest = replace(final.manifest, figures=kept)
    save_bundle(folder, manifest, final.networks, final.second, final.fusion, final.cubes, final.naming)


def tell(
    old: Manifest,
    version: str,
    before: Sequence[Case],
    after: Sequence[Case],
    report: Sequence[float],
    notify: Sequence[float],
) -> None:
    """Print the figures of two bundles on the same scans, and the gains; `report` and `notify` are the new one's thresholds by scan."""
    print(f"{len(before)} scans, {sum(one.positive for one in before)} with an aneurysm")
    _print(
        f"{old.version} at {old.threshold:.2f}",
        headline(before, old.threshold),
        bootstrap(lambda s: headline(s, old.threshold), before, DRAWS),
    )
    middle = float(np.median(report))
    _print(
        f"{version} at about {middle:.2f}",
        headline(after, middle),
        bootstrap(lambda s: headline(s, middle), after, DRAWS),
    )
    for name, limits in (("report", report), ("notify", notify)):
        called = [one.present >= limit for one, limit in zip(after, limits, strict=True)]
        right = [flag for flag, one in zip(called, after, strict=True) if one.positive]
        wrong = [flag for flag, one in zip(called, after, strict=True) if not one.positive]
        print(f"{name}: sensitivity {np.mean(right):.3f} specificity {1 - np.mean(wrong):.3f}")
    for name, (value, low, high) in compared(before, after, middle).items():
        print(f"gain of {name:32s} {value:+.3f} ({low:+.3f} to {high:+.3f})")


def _print(title: str, values: dict[str, float], intervals: dict[str, tuple[float, float]]) -> None:
    print(title)
    for name, value in values.items():
        low, high = intervals.get(name, (float("nan"), float("nan")))
        print(f"  {name:36s} {value:.3f} ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    sys.exit(main())
