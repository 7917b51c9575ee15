"""A bundle from other bundles: the mean of their weights, with calibrations and a threshold fitted anew.

`python -m training.calibrate CONFIG.toml VERSION FOLDER BUNDLE [BUNDLE ...]`: the validation scans are those of the
configuration.  Of one bundle the weights stay as they are.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ai.bundle import Bundle, load_bundle
from training.config import ConfigError, exits_2, read_config
from training.export import write_calibrated
from training.mean import mean_network
from training.provenance import calibrated_on
from training.scans import trained_on


def averaged(bundles: Sequence[Bundle]) -> Bundle:
    """The last bundle with the mean of the weights of all; one alone keeps its weights and its second stage.

    Raises ConfigError unless each of several has one network, of one shape and with one preprocessing, and no second stage,
    which was fitted to the answers of other weights.
    """
    last = bundles[-1]
    if len(bundles) > 1 and any(each.second for each in bundles):
        raise ConfigError(
            "a bundle with a second stage has no mean: average first stages, then join the second with `python -m training.combine`"
        )
    alike = {(each.manifest.network, each.manifest.preprocessing, len(each.networks)) for each in bundles}
    if len(bundles) > 1 and (len(alike) > 1 or len(last.networks) > 1):
        raise ConfigError("only bundles of one network each, with the same [network] and [preprocessing], have a mean")
    if len(bundles) > 1:
        mean_network([each.networks[0] for each in bundles])
    return last


@exits_2
def main(arguments: list[str]) -> int:
    """`CONFIG VERSION FOLDER BUNDLE...`: write the bundle and print its figures."""
    if len(arguments) < 4:
        print("usage: python -m training.calibrate CONFIG.toml VERSION FOLDER BUNDLE [BUNDLE ...]", file=sys.stderr)
        return 2
    torch.set_num_threads(2)
    config, version, folder, *sources = arguments
    bundles, settings = [load_bundle(each, any_format=True) for each in sources], read_config(config)
    bundle = averaged(bundles)
    said = calibrated_on(
        [each.manifest.trained_on for each in bundles], trained_on(replace(settings, initial_weights=""))
    )
    bundle = replace(bundle, manifest=replace(bundle.manifest, version=version, trained_on=said))
    known = {name: value for name, value in bundle.manifest.figures.items() if name == "steps"}
    for name, value in write_calibrated(settings, bundle, Path(folder), known).items():
        print(f"{name:32s} {value:.3f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
