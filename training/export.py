"""A checkpoint becomes a bundle: calibration and threshold are fitted on validation phantoms.

`python -m training.export CONFIG.toml [CONFIG.toml ...] VERSION [BUNDLE_FOLDER]`: several are an ensemble.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize

from ai.bundle import Bundle, Manifest, save_bundle
from ai.decode import Calibration, Platt, location_scores, present_score
from ai.inference import Tiling
from ai.locations import LOCATIONS
from ai.manifest import DEFAULT_BUNDLE
from ai.preprocess import Preprocessing
from training.config import ConfigError, TrainConfig, read_config
from training.evaluate import ScanSet, Scored, box_scorer, measure, score_scans
from training.scans import drawn_scans, trained_on, validation_scans
from training.train import averaged_network

SPECIFICITY = 0.95
"""What the shipped threshold aims at, on the validation scans."""
NOTIFY_SPECIFICITY = 0.97
"""What the second operating point aims at, where a bundle has one."""


def export(
    configs: Sequence[TrainConfig], folder: Path, version: str, tiling: Tiling | None = None
) -> dict[str, float]:
    """Write the bundle of one run, or the ensemble of several alike, and return its figures on the validation scans.

    Raises ConfigError when the runs do not read the same input with the same network.
    """
    config = configs[0]
    if any((each.network, each.preprocessing) != (config.network, config.preprocessing) for each in configs):
        raise ConfigError("the runs of an ensemble must have the same [network] and [preprocessing]")
    networks, steps = zip(*(averaged_network(each) for each in configs), strict=True)
    manifest = Manifest(
        name="willis",
        version=version,
        trained_on=trained_on(config),
        network=config.network,
        preprocessing=config.preprocessing,
        tiling=tiling or whole_region(config.preprocessing),
        calibration=Calibration(),
        threshold=0.5,
        weights_sha256={"unsaved.safetensors": ""},
        figures={},
    )
    return write_calibrated(config, Bundle(manifest, networks), folder, {"steps": float(sum(steps))})


def write_calibrated(config: TrainConfig, bundle: Bundle, folder: Path, known: Mapping[str, float]) -> dict[str, float]:
    """Write the bundle with both calibrations and the thresholds fitted to the validation scans; return its figures there.

    `known`: further figures for the manifest.  Raises ConfigError.
    """
    scored = _validated(config, bundle)
    calibration = calibrated(scored)
    report, notify = specific_threshold(scored, calibration), bundle.manifest.notify_threshold
    if notify is not None:
        notify = max(report, least_probability(scored, calibration, NOTIFY_SPECIFICITY))
    manifest = replace(bundle.manifest, calibration=calibration, threshold=report, notify_threshold=notify)
    figures = measure(scored, replace(bundle, manifest=manifest)) | dict(known)
    save_bundle(
        folder,
        replace(manifest, figures={name: round(value, 4) for name, value in figures.items() if np.isfinite(value)}),
        bundle.networks,
        bundle.second,
        bundle.fusion,
        bundle.cubes,
        bundle.naming,
    )
    return figures


def _validated(config: TrainConfig, bundle: Bundle) -> list[Scored]:
    """The answers on the validation scans; a second stage reads boxes of them, which are painted where they are missing.

    Raises ConfigError.
    """
    if bundle.manifest.second_stage is None:
        return score_scans(bundle, validation_scans(config), config.device)
    data = config.data
    if data.rsna:
        raise ConfigError("a second stage can be calibrated on phantoms only: name a configuration without [data] rsna")
    seeds = range(data.validation_first_seed, data.validation_first_seed + data.validation_scans)
    drawn = drawn_scans(config, seeds, validation=True)
    scans = ScanSet("validation", tuple(drawn), drawn)
    return list(box_scorer(bundle, scans, Path(data.cache) / "boxes", config.device, data.workers)(scans.seeds))


def whole_region(preprocessing: Preprocessing) -> Tiling:
    """Tiles that compute nothing twice: as large as the region, and as the prepared ones, which may be 16 voxels longer."""
    d, h, w = (-(-side // 16) * 16 + 16 for side in preprocessing.size_DHW)
    return Tiling((d, h, w))


def specific_threshold(scored: Sequence[Scored], calibration: Calibration, specificity: float = SPECIFICITY) -> float:
    """The probability above which at most 1 - `specificity` of the negative scans lie, within one half and .99.

    Where aneurysms are rare, a triage that calls every sixth healthy head is soon ignored.
    """
    return max(0.5, least_probability(scored, calibration, specificity))


def least_probability(scored: Sequence[Scored], calibration: Calibration, specificity: float) -> float:
    """The same without the lower bound, for scans of which most candidates are improbable."""
    negative = sorted(
        (calibration.present(present_score(scan.candidates)) for scan in scored if not scan.lesions), reverse=True
    )
    allowed = int((1.0 - specificity) * len(negative) + 1e-9)
    return min(max(0.01, math.floor(100.0 * negative[allowed] + 1.0) / 100.0), 0.99) if negative else 0.5


def calibrated(scored: Sequence[Scored]) -> Calibration:
    """Fit both logistic calibrations: that of the locations to what the other one makes of the candidates."""
    present = platt([present_score(scan.candidates) for scan in scored], [bool(scan.lesions) for scan in scored])
    by_present = Calibration(present)
    scores = [score for scan in scored for score in location_scores(scan.candidates, by_present)]
    truth = [any(lesion.location is location for lesion in scan.lesions) for scan in scored for location in LOCATIONS]
    return Calibration(present, platt(scores, truth))


def platt(scores: Sequence[float], positive: Sequence[bool]) -> Platt:
    """The logistic curve of largest likelihood, with Platt's smoothed targets, so that separable scores stay finite."""
    x, truth = np.asarray(scores, float), np.asarray(positive, bool)
    count = int(truth.sum())
    target = np.where(truth, (count + 1.0) / (count + 2.0), 1.0 / (len(x) - count + 2.0))

    def loss(parameters: NDArray[np.float64]) -> float:
        logit = np.exp(parameters[0]) * x + parameters[1]
        return float((np.logaddexp(0.0, logit) - target * logit).sum())

    best = minimize(
        loss, np.array([0.0, 0.0]), method="Nelder-Mead", options={"maxiter": 2000, "xatol": 1e-4, "fatol": 1e-6}
    )
    return Platt(float(np.exp(np.clip(best.x[0], -4.0, 4.0))), float(best.x[1]))


def main(arguments: list[str]) -> int:
    """`CONFIG... VERSION [BUNDLE]`: export and print the figures."""
    configs = [read_config(argument) for argument in arguments if argument.endswith(".toml")]
    version_and_folder = arguments[len(configs) :]
    if not configs or not 1 <= len(version_and_folder) <= 2:
        print("usage: python -m training.export CONFIG.toml [CONFIG.toml ...] VERSION [BUNDLE_FOLDER]", file=sys.stderr)
        return 2
    torch.set_num_threads(2)
    folder = Path(version_and_folder[1]) if len(version_and_folder) == 2 else DEFAULT_BUNDLE
    for name, value in export(configs, folder, version_and_folder[0]).items():
        print(f"{name:32s} {value:.3f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
