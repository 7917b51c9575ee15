"""How many analyses an hour one worker makes, and two, with the cores of this machine: `make bench-workers`.

Whole phantom series, half of them with an aneurysm, wait in PostgreSQL and in one folder; then worker processes start, as
`willis serve` starts them, each with a host's configuration, and analyse them with the shipped model until none waits.
Nothing is received meanwhile, and nothing delivered.  Counted is what ended after each worker has ended one case, so that no
start is in it.  Two workers with a thread each stand beside one with two: what one host does beside what two half as large do.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.uid import UID

from node.runtime.processes import NO_SPINNING, Child
from storage.files.instances import Files
from storage.stages import Event, Stage
from storage.store import Store
from tests.benchmarks.bench_latency import FIRST_SEED
from tests.conftest import running_postgresql
from tests.support.builders import FakeClock, keep
from tests.support.running import RunningNode, cached_phantom, wait_until

PHANTOMS = 4
LIMIT_SECONDS = 1800.0
KINDS = ((1, 1), (1, 2), (2, 1))
"""How many workers, with how many threads each."""
STEPS = ("volume_seconds", "inference_seconds", "report_seconds")


@dataclass(frozen=True)
class Measured:
    """`seconds`: the median of a case, from reading its slices to its report."""

    an_hour: float
    seconds: float


def waiting(store: Store, files: Files, cases: int) -> None:
    """So many series are ready."""
    clock = FakeClock()
    for case in range(1, cases + 1):
        series = keep(store, files, clock, _study(case))
        assert store.settling.leave(series, Event.SETTLED, "count", clock())
        print(f"  case {case} of {cases} waits", file=sys.stderr)


def _study(case: int) -> Sequence[Dataset]:
    """One of the phantoms, as a series of its own."""
    seed = FIRST_SEED + case % PHANTOMS
    slices = [dcmread(path) for path in cached_phantom("bench", seed=seed, positive=bool(seed % 2), spacing_mm=0.5)]
    for number, ds in enumerate(slices, 1):
        ds.StudyInstanceUID, ds.SeriesInstanceUID = f"2.25.81.{case}", f"2.25.82.{case}"
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = UID(f"2.25.83.{case}.{number}")
    return slices


@contextmanager
def working(configs: list[Path], threads: int) -> Iterator[None]:
    """A worker process for each configuration."""
    environment = {**os.environ, **NO_SPINNING, "OMP_NUM_THREADS": str(threads)}
    workers = [Child("work", ["--config", str(path)], environment) for path in configs]
    try:
        for worker in workers:
            worker.start()
        yield
    finally:
        for process in filter(None, (worker.process for worker in workers)):
            process.terminate()
            process.wait(60)


def measured(folder: Path, url: str, workers: int, threads: int, each: int) -> Measured:
    """What so many workers did of `each` cases a worker."""
    cases = workers * each
    configs = []
    for number in range(workers):
        node = RunningNode(folder / f"host-{number}", url, ai__threads=str(threads), ai__early="false")
        node.close()
        text = node.path.read_text("utf-8").replace(str(node.config.storage.directory), str(folder / "shared"))
        node.path.write_text(text, "utf-8")
        configs.append(node.path)
    store = Store.open(url)
    waiting(store, Files(folder / "shared"), cases)

    with working(configs, threads):
        wait_until(
            lambda: store.worklist.status(0).stages.get(Stage.REPORTED) == cases, LIMIT_SECONDS, "all are analysed"
        )
    rows = sorted(store.worklist.rows(), key=lambda row: row["reported_at"])
    store.close()
    took = rows[-1]["reported_at"] - rows[workers - 1]["reported_at"]
    seconds = [sum(row[step] for step in STEPS) for row in rows[workers:]]
    return Measured(3600 * len(seconds) / took.total_seconds(), statistics.median(seconds))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10, help="of each worker")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    found: dict[tuple[int, int], list[Measured]] = {kind: [] for kind in KINDS}
    for number in range(options.rounds):
        for workers, threads in KINDS[:: 1 if number % 2 else -1]:
            folder = Path(tempfile.mkdtemp(prefix="willis-bench-"))
            with running_postgresql() as server:
                url = server.url("migrated")
                found[workers, threads].append(measured(folder, url, workers, threads, options.cases))
            shutil.rmtree(folder)
    print("| workers | threads of each | analyses an hour, by round | seconds of a case |\n|---|---|---|---|")
    for (workers, threads), rounds in found.items():
        hours = ", ".join(f"{each.an_hour:.0f}" for each in rounds)
        seconds = ", ".join(f"{each.seconds:.2f}" for each in rounds)
        print(f"| {workers} | {threads} | {hours} | {seconds} |")


if __name__ == "__main__":
    main()
