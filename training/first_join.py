"""A first stage that went on to learn takes its place in a bundle, for the second stage to learn anew from what it marks.

`python -m training.first_join BUNDLE VERSION FOLDER RUN.toml [RUN.toml ...]`: BUNDLE is one whose second stage learned from drawn cubes
alone.  RUN is a configuration of `willis train`; of several that began with the same weights the mean of their averaged weights is
taken.  What both stages weigh, calibrations and thresholds stay those of BUNDLE until `python -m training.combine` fits them.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ai.bundle import Bundle, load_bundle, save_bundle
from training.config import ConfigError, exits_2, read_config
from training.first_stage import network_of
from training.mean import mean_network
from training.provenance import with_second_stage
from training.scans import trained_on


def first_joined(bundle: Bundle, version: str, runs: Sequence[Path]) -> Bundle:
    """The bundle with the mean first stage of the runs, and with no figures but the steps of all of them.

    Raises ConfigError where a part of the bundle has learned from another first stage's candidates (of a second stage that was tuned
    without a fusion, as in 0.12.0, that cannot be told), where a run reads otherwise or has no checkpoint, where they learned from
    different kinds of scans, and where they did not begin with the same weights, by name: their mean would know nothing.
    """
    manifest, configs = bundle.manifest, [read_config(run) for run in runs]
    if bundle.fusion or bundle.cubes or bundle.naming:
        raise ConfigError(
            f"{manifest.version} has learned from the candidates of its first stage: name a bundle of before training.tuning"
        )
    if any((each.network, each.preprocessing) != (manifest.network, manifest.preprocessing) for each in configs):
        raise ConfigError(f"the runs must have the [network] and [preprocessing] of {manifest.version}")
    if len({each.initial_weights or each.folder for each in configs}) > 1:
        raise ConfigError("the runs did not begin with the same weights: name such as have one initial_weights")
    if len(origins := {trained_on(each) for each in configs}) > 1:
        raise ConfigError(
            f"the runs learned from different scans: name such as have one [data], not {' and '.join(sorted(origins))}"
        )
    networks, steps = zip(*map(network_of, runs), strict=True)
    said = origins.pop()
    return replace(
        bundle,
        manifest=replace(
            manifest,
            version=version,
            trained_on=with_second_stage(said) if bundle.second else said,
            figures={"steps": float(sum(steps))},
        ),
        networks=(mean_network(networks),),
    )


@exits_2
def main(arguments: Sequence[str] | None = None) -> int:
    """Write the bundle; 2 where that cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m training.first_join", description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("version")
    parser.add_argument("folder", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    asked = parser.parse_args(arguments)
    joined = first_joined(load_bundle(asked.bundle), asked.version, asked.runs)
    save_bundle(asked.folder, joined.manifest, joined.networks, joined.second)
    return 0


if __name__ == "__main__":
    sys.exit(main())
