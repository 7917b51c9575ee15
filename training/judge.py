"""What a bundle is worth as it ships, on marked scans that nothing is fitted to: `python -m training.judge BUNDLE CANDIDATES`.

CANDIDATES is a folder of `python -m training.candidates`.  Prints the chief figures with 95 % intervals over scans, and how many of
the scans without an aneurysm stay below either threshold, by what they hold that resembles one.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from ai.bundle import Bundle, Manifest, load_bundle
from training.candidates import Marked, load_marked
from training.cases import Case, case
from training.combine import DRAWS
from training.config import ConfigError, exits_2
from training.figures import at_threshold, headline, localisation
from training.metrics import bootstrap, share
from training.scoring import Weights, combined, seen_by

RANKED = (
    "auc_present",
    "auc_locations",
    "competition_score",
    "cpm",
    "sensitivity_at_half_all",
    "sensitivity_at_half_from_4mm",
    "sensitivity_at_half_3_to_4mm",
    "sensitivity_at_half_under_3mm",
)
"""Of `training.figures.headline`, those that no threshold is in."""
NONE = "nothing of these"


def shipped_cases(bundle: Bundle, marked: Sequence[Marked]) -> list[Case]:
    """The scans as the bundle answers them, by the weights, calibrations and number of candidates of its manifest."""
    manifest = bundle.manifest
    scans, seconds = seen_by(bundle, marked)
    scored, stage = [scan.scored for scan in scans], manifest.second_stage
    if stage is not None:
        place = tuple(stage.place_weights.values())
        cube = stage.cubes.weight if stage.cubes else 0.0
        weights = Weights(stage.first_weight, stage.second_weight, place, stage.place_limit, cube)
        scored = combined(scans, seconds, weights)
    return [case(one, manifest.calibration, manifest.threshold) for one in scored]


def thresholds_of(manifest: Manifest) -> Mapping[str, float]:
    """Both operating points by name, one where a bundle has no other."""
    return {"report": manifest.threshold} | ({"notify": manifest.notify_from} if manifest.notify_threshold else {})


def chief_figures(cases: Sequence[Case], thresholds: Mapping[str, float]) -> dict[str, float]:
    """The figures by name, flat."""
    ranked = headline(cases, thresholds["report"])
    found = {name: ranked[name] for name in RANKED}
    for name, threshold in thresholds.items():
        called = at_threshold(cases, threshold)
        found |= {f"{name}_{each}": called[each] for each in ("specificity", "sensitivity")}
    return found | {"right_location": localisation(cases, thresholds["report"])["right_location"]}


def specificities(cases: Sequence[Case], thresholds: Mapping[str, float]) -> dict[str, tuple[int, dict[str, float]]]:
    """Scans without an aneurysm by each of their confounders and lookalikes: how many, and the specificity at each threshold."""
    negative = [one for one in cases if not one.positive]
    kinds = sorted({name for one in negative for name in one.confounders})
    groups = {kind: [one for one in negative if kind in one.confounders] for kind in kinds}
    groups[NONE] = [one for one in negative if not one.confounders]
    return {
        kind: (
            len(group),
            {name: share([one.present < limit for one in group]) for name, limit in thresholds.items()},
        )
        for kind, group in groups.items()
    }


@exits_2
def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures; 2 where the folder holds nothing to judge by."""
    parser = argparse.ArgumentParser(prog="python -m training.judge", description=__doc__)
    for name in ("bundle", "candidates"):
        parser.add_argument(name, type=Path)
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    bundle = load_bundle(asked.bundle)
    marked = load_marked(asked.candidates, bundle)
    if not marked:
        raise ConfigError(f"{asked.candidates} holds no marked scans: name a folder of `python -m training.candidates`")
    cases, thresholds = shipped_cases(bundle, marked), thresholds_of(bundle.manifest)
    points = ", ".join(f"{name} from {limit:.2f} on" for name, limit in thresholds.items())
    print(
        f"{bundle.manifest.version} on {len(cases)} scans, {sum(one.positive for one in cases)} with an aneurysm; {points}"
    )
    intervals = bootstrap(lambda sample: chief_figures(sample, thresholds), cases, DRAWS)
    for name, value in chief_figures(cases, thresholds).items():
        print(f"  {name:34s} {_with(value, intervals.get(name))}")
    print("specificity by what a scan without an aneurysm holds")
    by_kind = specificities(cases, thresholds)
    spreads = bootstrap(lambda sample: _flat(specificities(sample, thresholds)), cases, DRAWS)
    for kind, (count, found) in by_kind.items():
        said = "; ".join(f"{name} {_with(value, spreads.get(f'{kind}, {name}'))}" for name, value in found.items())
        print(f"  {kind:34s} {count:3d} scans: {said}")
    return 0


def _flat(by_kind: Mapping[str, tuple[int, Mapping[str, float]]]) -> dict[str, float]:
    return {f"{kind}, {name}": value for kind, (_, found) in by_kind.items() for name, value in found.items()}


def _with(value: float, interval: tuple[float, float] | None) -> str:
    """A figure with its interval, where it has one."""
    return f"{value:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")


if __name__ == "__main__":
    sys.exit(main())
