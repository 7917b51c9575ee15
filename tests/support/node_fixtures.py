"""Nodes that run and studies to send."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ai.manifest import DEFAULT_BUNDLE
from tests.support.running import RunningNode, cached_phantom

NodeFactory = Callable[..., RunningNode]
SHIPPED = {"ai__bundle": repr(str(DEFAULT_BUNDLE))}
"""Settings of a node whose model is the one that comes with Willis."""


@pytest.fixture
def node_in(tmp_path: Path, without_finding: dict[str, str]) -> Iterator[NodeFactory]:
    """Makes nodes, started unless `start=False`; they are gone after the test.

    Their model is that of `without_finding`, which is quick, where no other is set, such as `SHIPPED`.
    """
    made: list[RunningNode] = []

    def make(database_url: str = "", start: bool = True, **settings: str) -> RunningNode:
        folder = tmp_path / f"node{len(made)}"
        folder.mkdir()
        made.append(RunningNode(folder, database_url, **without_finding | settings))
        return made[-1].start() if start else made[-1]

    yield make
    for node in made:
        node.close()
        print(f"{node.log}, its end:", node.log_tail(), sep="\n")  # shown where the test fails


@pytest.fixture(scope="session")
def without_finding(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings of a node whose model is small and finds nothing, where it matters that a head is analysed and not how."""
    from torch import nn

    from ai.bundle import load_bundle, save_bundle
    from ai.inference import Tiling
    from ai.unet import UNet, UNetSettings

    shipped = load_bundle().manifest
    settings = UNetSettings(shipped.network.in_channels, (8, 8, 16), (1, 1, 1), 4)
    preprocessing = replace(shipped.preprocessing, size_DHW=(32, 32, 32))
    manifest = replace(
        shipped, network=settings, preprocessing=preprocessing, tiling=Tiling(32, 8), second_stage=None, figures={}
    )
    folder = tmp_path_factory.mktemp("bundle")
    network = UNet(settings)
    nn.init.zeros_(network.lesion.weight)  # the same small probability everywhere
    save_bundle(folder, manifest, (network,))
    return {"ai__bundle": repr(str(folder))}


@pytest.fixture(scope="session")
def positive_series() -> list[Path]:
    """The demonstration's phantom CTA with an 8 mm aneurysm."""
    return cached_phantom("positive", **demonstrated("positive"))


@pytest.fixture(scope="session")
def negative_series() -> list[Path]:
    """The demonstration's phantom CTA without an aneurysm."""
    return cached_phantom("negative", **demonstrated("negative"))


def demonstrated(name: str) -> dict[str, Any]:
    """What the demonstration paints under this name, as `make_scan` takes it."""
    from ai.locations import Location
    from node.cli.demo import SEEDS

    lesion = {"location": Location.LEFT_MCA, "diameter_mm": 8.0} if name == "positive" else {}
    return {"seed": SEEDS[name], "positive": name == "positive", "matrix": 384, "spacing_mm": 0.7, **lesion}
