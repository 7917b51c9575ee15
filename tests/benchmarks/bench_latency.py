"""From the last slice to the report in the PACS, split into its parts: `make bench-latency`.

Full phantom series, half of them with an aneurysm, go through a whole node (three processes, SQLite, real sockets) into a
simulated PACS, one after the other, so that no case waits for another.  The seconds are those that the node keeps in its
database, which `willis status` shows too.

`--orthanc 2`: the first two series go to a real Orthanc as well, and its stable-series event, at the default StableAge, is
when a script there would call the same model; its clock is that event plus the seconds of inference measured in the node.
"""

import argparse
import statistics
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.benchmarks.stable_series import StableOrthanc
from tests.support.running import RunningNode, cached_phantom

FIRST_SEED = 9_100_000
"""Neither training nor the demo draws from here."""
PARTS = ("settle", "wait", "volume", "inference", "report", "delivery", "total")


def main() -> None:
    """Prints the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--studies", type=int, default=10)
    arguments.add_argument("--spacing-mm", type=float, default=0.5, help="between slices; 0.5 gives about 350")
    arguments.add_argument("--matrix", type=int, default=512)
    arguments.add_argument("--orthanc", type=int, default=0, help="so many series go to Orthanc too, a minute each")
    options = arguments.parse_args()
    stable_seconds: list[float] = []
    with tempfile.TemporaryDirectory(prefix="willis-bench-") as folder:
        node = RunningNode(Path(folder)).start()
        try:
            slices = [
                _send(node, number, options.spacing_mm, options.matrix) for number in range(1, options.studies + 1)
            ]
            clocks = [asdict(clock) for clock in node.store.worklist.status().clocks][::-1]
            if options.orthanc:
                with StableOrthanc(Path(folder) / "orthanc") as orthanc:
                    for number in range(1, min(options.orthanc, options.studies) + 1):
                        last = orthanc.send(_study(number, options.spacing_mm, options.matrix))
                        stable_seconds.append(orthanc.wait_for_stable_series() - last)
        finally:
            node.close()
    print(f"{options.studies} studies of {min(slices)} to {max(slices)} slices, {options.matrix}²; seconds\n")
    print("| part | median | 95th percentile | most |\n|---|---|---|---|")
    for part in PARTS:
        _row(part, [clock[part] for clock in clocks])
    _row("all but inference", [clock["total"] - clock["inference"] for clock in clocks])
    if stable_seconds:
        _row("Orthanc: last slice to stable series", stable_seconds)
        both = list(zip(clocks, stable_seconds, strict=False))
        _row("the same and the model", [clock["inference"] + seconds for clock, seconds in both])
        _row("beside it, Willis: last slice to report", [clock["total"] for clock, _ in both])


def _send(node: RunningNode, number: int, spacing_mm: float, matrix: int) -> int:
    """One study is reported and delivered; returns how many slices it has."""
    paths = _study(number, spacing_mm, matrix)
    refused = [sent.error for sent in node.send(paths) if sent.error]
    if refused:
        raise SystemExit(f"the node refused {len(refused)} slices: {refused[0]}")
    node.wait_for_delivered(number)
    print(f"  study {number}: {len(paths)} slices, delivered", file=sys.stderr)
    return len(paths)


def _study(number: int, spacing_mm: float, matrix: int) -> list[Path]:
    return cached_phantom(
        "latency", seed=FIRST_SEED + number, positive=number % 2 == 0, matrix=matrix, spacing_mm=spacing_mm
    )


def _row(name: str, seconds: list[float]) -> None:
    ordered = sorted(seconds)
    late = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    print(f"| {name} | {statistics.median(ordered):.2f} | {late:.2f} | {ordered[-1]:.2f} |")


if __name__ == "__main__":
    main()
