"""How good a bundle is on phantoms that training never saw."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ai.bundle import Bundle, load_bundle
from ai.decode import Candidate, findings, location_scores, present_score
from ai.findings import Findings
from ai.locations import LOCATIONS
from ai.predict import found_candidates
from training.dataset import Prepared, build_cache, load_prepared
from training.phantom.scan import TrueLesion


@dataclass(frozen=True)
class Scored:
    """One scan: its true lesions and what the network found, before calibration."""

    seed: int
    lesions: tuple[TrueLesion, ...]
    candidates: tuple[Candidate, ...]
    confounders: tuple[str, ...] = ()


def score_scans(bundle: Bundle, scans: Sequence[Prepared], device: str = "auto") -> list[Scored]:
    """Run the network over prepared regions.  The centre is shifted as an estimated one would be."""
    return [
        Scored(scan.seed, seen(scan), found_candidates(scan.region, bundle, device), scan.confounders) for scan in scans
    ]


def seen(scan: Prepared) -> tuple[TrueLesion, ...]:
    """The lesions of which some part lies in the region."""
    present = set(np.unique(scan.lesion_DHW).tolist())
    return tuple(lesion for number, lesion in enumerate(scan.lesions, start=1) if number in present)


def auc(scores: Sequence[float], positive: Sequence[bool]) -> float:
    """Area under the ROC curve; ties count half; nan when one class is missing."""
    values, truth = np.asarray(scores, float), np.asarray(positive, bool)
    if truth.all() or not truth.any():
        return float("nan")
    wins = values[truth][:, None] - values[~truth][None, :]
    return float((wins > 0).mean() + 0.5 * (wins == 0).mean())


def is_hit(candidate_mm: tuple[float, float, float], lesion: TrueLesion) -> bool:
    """Whether a centre lies within the lesion's radius, at least 3 mm."""
    return float(np.linalg.norm(np.subtract(candidate_mm, lesion.centre_lps_mm))) <= max(3.0, lesion.diameter_mm / 2.0)


def measure(scored: Sequence[Scored], bundle: Bundle) -> dict[str, float]:
    """Return the figures by name, at the bundle's calibration and threshold."""
    manifest = bundle.manifest
    results = [findings(scan.candidates, manifest.calibration, manifest.threshold) for scan in scored]
    truth = [bool(scan.lesions) for scan in scored]
    figures = {
        "scans": float(len(scored)),
        "auc_present": auc([present_score(scan.candidates) for scan in scored], truth),
        "auc_locations": _location_auc(scored),
        "sensitivity": _share([result.positive for result, positive in zip(results, truth, strict=True) if positive]),
        "specificity": _share(
            [not result.positive for result, positive in zip(results, truth, strict=True) if not positive]
        ),
        "false_positives_per_scan": _false_positives(scored, results),
    }
    errors, diameters, located = [], [], []
    for low, high, name in ((0.0, 3.0, "under_3mm"), (3.0, 4.0, "3_to_4mm"), (4.0, 99.0, "from_4mm")):
        hits = []
        for scan, result in zip(scored, results, strict=True):
            for lesion in scan.lesions:
                if low <= lesion.diameter_mm < high:
                    hit = next((found for found in result.lesions if is_hit(found.centre_lps_mm, lesion)), None)
                    hits.append(hit is not None)
                    if hit is not None:
                        errors.append(float(np.linalg.norm(np.subtract(hit.centre_lps_mm, lesion.centre_lps_mm))))
                        diameters.append(abs(hit.diameter_mm - lesion.diameter_mm))
                        located.append(hit.location is lesion.location)
        figures[f"lesion_sensitivity_{name}"] = _share(hits)
        figures[f"lesions_{name}"] = float(len(hits))
    figures["median_centre_error_mm"] = float(np.median(errors)) if errors else float("nan")
    figures["median_diameter_error_mm"] = float(np.median(diameters)) if diameters else float("nan")
    figures["right_location"] = _share(located)
    return figures


def evaluate(bundle: Bundle, cache: Path, seeds: Sequence[int], device: str = "auto") -> dict[str, float]:
    """Build the phantoms that are missing, run the bundle over them and return the figures."""
    folders = build_cache(cache, seeds, bundle.manifest.preprocessing)
    return measure(score_scans(bundle, [load_prepared(folder) for folder in folders], device), bundle)


def _location_auc(scored: Sequence[Scored]) -> float:
    """Mean AUC over the locations that occur and do not always occur."""
    scores: NDArray[np.float64] = np.array([location_scores(scan.candidates) for scan in scored])
    each = [
        auc(
            scores[:, column].tolist(), [any(lesion.location is location for lesion in scan.lesions) for scan in scored]
        )
        for column, location in enumerate(LOCATIONS)
    ]
    return float(np.nanmean(each)) if not np.isnan(each).all() else float("nan")


def _false_positives(scored: Sequence[Scored], results: Sequence[Findings]) -> float:
    wrong = sum(
        not any(is_hit(found.centre_lps_mm, lesion) for lesion in scan.lesions)
        for scan, result in zip(scored, results, strict=True)
        for found in result.lesions
    )
    return wrong / len(scored)


def _share(hits: Sequence[bool]) -> float:
    return sum(hits) / len(hits) if hits else float("nan")


def main(arguments: list[str]) -> int:
    """`BUNDLE CACHE FIRST_SEED COUNT`: print the figures."""
    if len(arguments) != 4:
        print("usage: python -m training.evaluate BUNDLE CACHE FIRST_SEED COUNT", file=sys.stderr)
        return 2
    began = time.monotonic()
    first = int(arguments[2])
    figures = evaluate(load_bundle(arguments[0]), Path(arguments[1]), range(first, first + int(arguments[3])))
    for name, value in figures.items():
        print(f"{name:32s} {value:.3f}")
    print(f"{'seconds':32s} {time.monotonic() - began:.0f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
