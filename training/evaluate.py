"""A bundle is run over phantoms, one at a time, so that a killed evaluation continues where it was.

`willis evaluate` is the command.  Every scan's answer is a file in the report's folder; figures are made from those.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ai.bundle import Bundle
from ai.decode import Candidate
from ai.errors import NotAnalysable
from ai.locations import Location
from ai.predict import circle_region, found_candidates, prepared_region
from ai.preprocess import Region
from ai.volume import Volume
from training.cases import Scored, case, is_hit
from training.config import ConfigError
from training.dataset import Prepared, build_cache, load_prepared
from training.figures import figures
from training.files import write_whole
from training.held_out import ScanSet, held_out_set, real_tree_set
from training.paint import NATIVE, REGIONS, paint_boxes
from training.phantom import make_scan
from training.phantom.scan import PhantomScan, TrueLesion

__all__ = ["ScanSet", "Scored", "held_out_set", "is_hit", "measure", "real_tree_set", "score_scans"]

SCORES = "scores"
IDENTITY = "identity.json"

Score = Callable[[Sequence[int]], Iterator[Scored]]
"""Yields the answer for each of the seeds, in any order."""


def score_all(
    folder: Path, identity: Mapping[str, Any], seeds: Sequence[int], score: Score, each: Callable[[Scored], None]
) -> list[Scored]:
    """Return the answers in the order of `seeds`; those that `folder` has already are not computed again.

    `identity`: what the answers depend on.  `each` is called with every answer that is computed.  Raises ConfigError
    when the folder holds the answers of something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = json.loads(json.dumps(dict(identity)))
    if (folder / IDENTITY).exists():
        if json.loads((folder / IDENTITY).read_text(encoding="utf-8")) != written:
            raise ConfigError(f"{folder} holds the answers of another model or other scans: name another --out")
    else:
        write_whole(folder / IDENTITY, json.dumps(written, indent=1))
    missing = [seed for seed in seeds if not (folder / f"{seed}.json").exists()]
    if missing:
        for scored in score(missing):
            write_whole(folder / f"{scored.seed}.json", json.dumps(document_of(scored)))
            each(scored)
    return [scored_of(json.loads((folder / f"{seed}.json").read_text(encoding="utf-8"))) for seed in seeds]


def identity_of(bundle: Bundle, scans: ScanSet, mode: str) -> dict[str, Any]:
    """What a bundle's uncalibrated answers depend on."""
    manifest = bundle.manifest
    stage = asdict(manifest.second_stage) if manifest.second_stage else {}
    second = {"second_stage": {key: value for key, value in stage.items() if value is not None}} if stage else {}
    return second | {
        "weights": manifest.weights_sha256,
        "preprocessing": asdict(manifest.preprocessing),
        "tiling": asdict(manifest.tiling),
        "mode": mode,
        "drawn_as": {str(key): value for key, value in _common(scans).items()},
    }


def region_scorer(bundle: Bundle, scans: ScanSet, cache: Path, device: str = "auto", workers: int = 1) -> Score:
    """Answers from prepared regions, which are built where the cache lacks them.

    The middle of the circle is the true one: how well it is found is for `series_scorer` to say.  A second stage reads the
    boxes that the regions are made of, whose middle is 3 mm off on each axis.
    """
    if bundle.manifest.second_stage is not None:
        return box_scorer(bundle, scans, cache, device, workers)

    def score(seeds: Sequence[int]) -> Iterator[Scored]:
        for folder in build_cache(cache, seeds, bundle.manifest.preprocessing, workers, scans.drawn):
            yield from score_scans(bundle, [fitting(load_prepared(folder), bundle, cache)], device)

    return score


def box_scorer(bundle: Bundle, scans: ScanSet, cache: Path, device: str = "auto", workers: int = 1) -> Score:
    """Answers from regions, which are painted where the cache lacks them; a second stage reads the boxes they are made of."""

    def score(seeds: Sequence[int]) -> Iterator[Scored]:
        drawn, settings = {seed: scans.drawn.get(seed, {}) for seed in seeds}, bundle.manifest.preprocessing
        for _ in paint_boxes(cache, seeds, drawn, settings, workers) if workers > 1 else ():
            pass
        for seed in seeds:
            for _ in paint_boxes(cache, [seed], drawn, settings):
                pass
            scan = fitting(load_prepared(cache / REGIONS / str(seed)), bundle, cache)
            box = load_prepared(cache / NATIVE / str(seed)).region
            volume = Volume(np.asarray(box.hu_DHW), box.affine_lps)
            found = found_candidates(scan.region, bundle, device, volume=volume)
            yield Scored(scan.seed, seen(scan), found, scan.confounders)

    return score


def series_scorer(bundle: Bundle, scans: ScanSet, device: str = "auto", matrix: int = 512) -> Score:
    """Answers from whole series, as the node gives them: the head is found, coverage and contrast are checked."""

    def score(seeds: Sequence[int]) -> Iterator[Scored]:
        for seed in seeds:
            yield score_series(bundle, make_scan(seed, matrix=matrix, **scans.drawn.get(seed, {})), device)

    return score


def score_series(bundle: Bundle, scan: PhantomScan, device: str = "auto") -> Scored:
    """Run the whole way from a volume; what cannot be analysed has a reason and no answer."""
    try:
        found = found_candidates(prepared_region(scan.volume, bundle), bundle, device, volume=scan.volume)
    except NotAnalysable as error:
        return Scored(scan.seed, scan.lesions, (), scan.confounders, reason=error.reason.value)
    return Scored(scan.seed, scan.lesions, found, scan.confounders)


def score_scans(bundle: Bundle, scans: Sequence[Prepared], device: str = "auto") -> list[Scored]:
    """Run the network over prepared regions."""
    return [
        Scored(
            scan.seed,
            seen(scan),
            found_candidates(scan.region, bundle, device),
            scan.confounders,
            sized=scan.sized,
        )
        for scan in scans
    ]


def seen(scan: Prepared) -> tuple[TrueLesion, ...]:
    """The lesions that a phantom's region shows a part of; of a series, whose localizers have no size, all that are labelled.

    What lies outside of a series' region is missed there, as it would be in an analysis, and not left out.
    """
    if not scan.sized:
        return scan.lesions
    present = set(np.unique(scan.lesion_DHW).tolist())
    return tuple(lesion for number, lesion in enumerate(scan.lesions, start=1) if number in present)


def region_view(cache: Path) -> Callable[[int], Region]:
    """Where a report's pictures come from: the prepared regions."""
    within = cache / "regions" if (cache / "regions").is_dir() else cache
    return lambda seed: load_prepared(within / str(seed)).region


def series_view(bundle: Bundle, scans: ScanSet, matrix: int = 512) -> Callable[[int], Region]:
    """Where a report's pictures come from: the series painted again."""

    def view(seed: int) -> Region:
        volume = make_scan(seed, matrix=matrix, **scans.drawn.get(seed, {})).volume
        return circle_region(volume, bundle.manifest.preprocessing)

    return view


def measure(scored: Sequence[Scored], bundle: Bundle) -> dict[str, float]:
    """Return the chief figures by name, at the bundle's calibration and threshold; they go into its manifest."""
    manifest = bundle.manifest
    cases = [case(one, manifest.calibration, manifest.threshold) for one in scored]
    found = figures(cases, manifest.threshold, draws=0)
    placed = found["localisation"]
    flat = {
        "scans": float(found["scans"]),
        "auc_present": found["auc_present"],
        "auc_locations": found["auc_locations"],
        "competition_score": found["competition_score"],
        "sensitivity": found["at_threshold"]["sensitivity"],
        "specificity": found["at_threshold"]["specificity"],
        "false_positives_per_scan": found["at_threshold"]["false_positives_per_scan"],
        "cpm": found["froc"]["cpm"],
        "median_centre_error_mm": placed["median_centre_error_mm"],
        "median_diameter_error_mm": placed["median_absolute_diameter_error_mm"],
        "right_location": placed["right_location"],
    }
    for name in ("under_3mm", "3_to_4mm", "from_4mm"):
        flat[f"lesion_sensitivity_{name}"] = found["by_size"][name]["at_threshold"]
        flat[f"lesions_{name}"] = float(found["by_size"][name]["lesions"])
    return flat


def _common(scans: ScanSet) -> dict[str, Any]:
    """The arguments of `make_scan` that all scans of a set share."""
    each = [scans.drawn.get(seed, {}) for seed in scans.seeds]
    shared = {key: value for key, value in each[0].items() if all(one.get(key) == value for one in each)}
    return {key: value for key, value in shared.items() if key != "anatomy"}  # where it lies does not change a scan


def fitting(scan: Prepared, bundle: Bundle, cache: Path) -> Prepared:
    """The scan, when its region has the spacing and the size that the bundle reads.  Raises ConfigError."""
    spacing_mm, wanted_mm = float(scan.region.affine_lps[0, 2]), bundle.manifest.preprocessing.spacing_mm
    if abs(spacing_mm - wanted_mm) > 1e-6:
        raise ConfigError(
            f"{cache} holds regions at {spacing_mm:g} mm and the bundle reads {wanted_mm:g} mm: name another --cache"
        )
    size, wanted = scan.region.hu_DHW.shape, tuple(bundle.manifest.preprocessing.size_DHW)
    if size != wanted:
        raise ConfigError(f"{cache} holds regions of {size} voxels and the bundle reads {wanted}: name another --cache")
    return scan


def document_of(scored: Scored) -> dict[str, Any]:
    """An answer for JSON."""
    return {
        "seed": scored.seed,
        "lesions": [
            {"location": one.location.value, "centre_lps_mm": one.centre_lps_mm, "diameter_mm": one.diameter_mm}
            for one in scored.lesions
        ],
        "confounders": scored.confounders,
        "candidates": [
            {
                "score": one.score,
                "centre_lps_mm": one.centre_lps_mm,
                "diameter_mm": one.diameter_mm,
                "location_shares": one.location_shares.tolist(),
            }
            for one in scored.candidates
        ],
        "probabilities": scored.probabilities,
        "reason": scored.reason,
        "sized": scored.sized,
    }


def scored_of(document: Mapping[str, Any]) -> Scored:
    """The answer that `document_of` described."""
    probabilities = document["probabilities"]
    return Scored(
        document["seed"],
        tuple(
            TrueLesion(Location(one["location"]), tuple(one["centre_lps_mm"]), one["diameter_mm"])
            for one in document["lesions"]
        ),
        tuple(
            Candidate(
                one["score"], tuple(one["centre_lps_mm"]), one["diameter_mm"], np.array(one["location_shares"], float)
            )
            for one in document["candidates"]
        ),
        tuple(document["confounders"]),
        None if probabilities is None else tuple(probabilities),
        document["reason"],
        document.get("sized", True),
    )
