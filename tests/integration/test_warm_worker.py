"""The worker is warm: what an analysis needs is loaded before the first series comes."""

import shutil
from pathlib import Path

from ai.manifest import DEFAULT_BUNDLE
from tests.support.node_fixtures import NodeFactory
from tests.support.running import START_SECONDS, wait_until


def libraries_of(process: int) -> set[str]:
    """The shared libraries that a process has loaded."""
    lines = Path(f"/proc/{process}/maps").read_text().splitlines()
    return {Path(line.split(maxsplit=5)[5]).name for line in lines if ".so" in line}


def test_the_first_series_finds_the_model_and_every_library_loaded(
    node_in: NodeFactory, negative_series: list[Path], tmp_path: Path, unmeasured_children: None
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(DEFAULT_BUNDLE, bundle)
    node = node_in(ai__bundle=repr(str(bundle)))
    wait_until(lambda: b"worker_started" in node.log.read_bytes(), START_SECONDS)
    shutil.rmtree(bundle)
    worker = node.worker()
    before = libraries_of(worker)
    assert any(name.startswith("libtorch_cpu") for name in before)

    node.send(negative_series)
    (row,) = node.wait_for_delivered()
    assert (row["outcome"], row["attempts"]) == ("negative", 1)
    assert libraries_of(worker) - before == set()
