"""What the engine's coordination costs a case, beside `local`: `make bench-engine`.

A scheduler and a worker on this machine, over TLS; a claimant, once with them and once without, in turn.  The network is a
stand-in that answers at once (`tests.corpus.network`), so that what is left is coordination: the claim, the task's way to the
worker, reading its files, the way back, and the record.  With `--shipped` the model that comes with Willis analyses one
phantom in both ways, and the findings are compared bit for bit.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydicom import Dataset, dcmread

import ai
from ai.bundle import save_bundle
from ai.unet import UNet
from node.runtime import log
from storage.store import Store
from tests.corpus.images import FILLED_HU, cta
from tests.corpus.network import network
from tests.support.builders import FakeClock
from tests.support.certificates import Certificates
from tests.support.engine import Claimant, running_cluster
from tests.support.node_fixtures import demonstrated
from tests.support.running import cached_phantom, wait_until
from tests.unit.ai.test_bundle import TINY, manifest

_FOUND = ("outcome", "p_present", "lesions", "limits", "notify", "threshold", "model")


class Both:
    """A claimant with the engine and one without, at databases of their own."""

    def __init__(self, folder: Path, cluster: Any) -> None:
        self.engine = self._claimant(folder / "engine.db", cluster)
        self.local = self._claimant(folder / "local.db", cluster)
        self.local.worker._engine = None
        self.engine.engine.start()
        wait_until(lambda: self.engine.engine.serves, 60, self.engine.engine.trouble)

    def _claimant(self, path: Path, cluster: Any) -> Claimant:
        Store.open(f"sqlite:///{path}").close()
        return Claimant(cluster, f"sqlite:///{path}")

    def took(self, slices: Sequence[Dataset]) -> tuple["Took", "Took"]:
        """With the engine, and without."""
        found = []
        for claimant in (self.engine, self.local):
            claimant.waits(FakeClock(), slices)
            start = time.perf_counter()
            claimant.worker._work()
            whole = time.perf_counter() - start
            row = max(claimant.store.worklist.rows(), key=lambda row: int(row["case_id"]))
            working = sum(row[f"{step}_seconds"] or 0.0 for step in ("volume", "inference", "report"))
            found.append(Took(1000 * whole, 1000 * (whole - working)))
        return found[0], found[1]


@dataclass(frozen=True)
class Took:
    """Milliseconds from the claim to the recorded report, and of these without reading, analysing and making results."""

    whole_ms: float
    coordination_ms: float


def measure(name: str, both: Both, series: Sequence[Sequence[Dataset]]) -> None:
    """Two lines of figures."""
    both.took(series[0])
    pairs = [both.took(each) for each in series[1:]]
    for what in ("whole_ms", "coordination_ms"):
        engine, local = (sorted(getattr(pair[n], what) for pair in pairs) for n in (0, 1))
        late = int(0.95 * len(pairs))
        print(
            f"{name}, {what.removesuffix('_ms')}: local {statistics.median(local):.0f} ms ({local[late]:.0f}), engine "
            f"{statistics.median(engine):.0f} ms ({engine[late]:.0f}) a case; median of {len(pairs)} (95th percentile)",
            flush=True,
        )


def _named(number: int, count: int, side: int) -> list[Dataset]:
    return cta(FILLED_HU, count=count, series=number, rows=side, columns=side)


def main() -> None:
    """The figures are printed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--shipped", action="store_true", help="compare the findings of the shipped model instead")
    arguments = parser.parse_args()
    log.configure(level="error")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["WILLIS_TEST_HOLD"] = str(folder / "never")
        (folder / "certificates").mkdir()
        certificates = Certificates(folder / "certificates")
        if arguments.shipped:
            compare(folder, certificates)
            return
        torch.manual_seed(0)
        save_bundle(folder / "bundle", manifest(), (UNet(TINY),))
        vars(ai).update(analyse=network)
        with running_cluster(folder, certificates) as cluster:
            both = Both(folder, cluster)
            measure("24 slices of 32 x 32", both, [_named(n, 24, 32) for n in range(1, arguments.cases + 1)])
            large = max(3, arguments.cases // 8)
            measure("300 slices of 512 x 512", both, [_named(500 + n, 300, 512) for n in range(large)])
            both.engine.close()


def compare(folder: Path, certificates: Certificates) -> None:
    """Whether the shipped model finds the same, bit for bit."""
    slices = [dcmread(path) for path in cached_phantom("positive", **demonstrated("positive"))]
    with running_cluster(folder, certificates, "node") as cluster:
        both = Both(folder, cluster)
        took = both.took(slices)
        rows = [claimant.rows(*_FOUND) for claimant in (both.engine, both.local)]
        both.engine.close()
    print(
        f"engine {took[0].whole_ms:.0f} ms, local {took[1].whole_ms:.0f} ms; {'the same' if rows[0] == rows[1] else 'DIFFERENT'}: {rows[0]}"
    )


if __name__ == "__main__":
    main()
