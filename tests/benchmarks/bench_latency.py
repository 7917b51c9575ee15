"""From the last slice to the report in the PACS, split into its parts: `make bench-latency`.

Full phantom series, half of them with an aneurysm, go through a whole node (three processes, SQLite, real sockets) into a
simulated PACS, one after the other, so that no case waits for another (`--senders 2`: two at once).  The seconds are those
that the node keeps in its database, which `willis status` shows too.

`--beside-late`: each study goes to a second node as well, which begins to analyse when the series is whole.

`--orthanc 2`: the first two series go to a real Orthanc as well, and its stable-series event, at the default StableAge, is
when a script there would call the same model; its clock is that event plus the seconds of inference measured in the node.
"""

import argparse
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from node.scu.dimse import Entity, Timeouts
from node.scu.storage_scu import send_files
from tests.benchmarks.stable_series import StableOrthanc
from tests.support.running import RunningNode, cached_phantom

FIRST_SEED = 9_100_000
"""Neither training nor the demo draws from here."""
PARTS = ("settle", "wait", "volume", "inference", "report", "delivery", "total")


def main() -> None:
    """Prints a table for each node."""
    options = _options()
    stable_seconds: list[float] = []
    clocks: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="willis-bench-") as folder:
        early = {"early": "true"}, {"early": "false"}
        settings = early if options.beside_late else early[:1]
        nodes = {
            f"[ai] early = {each['early']}": RunningNode(Path(folder) / each["early"], ai__early=each["early"])
            for each in settings
        }
        try:
            slices = _send_all(list(nodes.values()), options)
            for name, node in nodes.items():
                rounds = _rounds(
                    [asdict(clock) for clock in node.store.worklist.status().clocks][::-1], options.senders
                )
                clocks[name] = [max(together, key=lambda clock: clock["total"]) for together in rounds]
            if options.orthanc:
                with StableOrthanc(Path(folder) / "orthanc") as orthanc:
                    for number in range(1, min(options.orthanc, options.studies) + 1):
                        last = orthanc.send(_study(number, options.spacing_mm, options.matrix))
                        stable_seconds.append(orthanc.wait_for_stable_series() - last)
        finally:
            for node in nodes.values():
                node.close()
    rate = f"{options.slices_per_second:g} a second" if options.slices_per_second else "as fast as they go"
    at_once = f", {options.senders} studies at once: the later one" if options.senders > 1 else ""
    print(
        f"{options.studies} studies of {min(slices)} to {max(slices)} slices, {options.matrix}², {rate}{at_once}; seconds"
    )
    for name, those in clocks.items():
        _table(name, those)
    if stable_seconds:
        first = next(iter(clocks.values()))
        _row("Orthanc: last slice to stable series", stable_seconds)
        both = list(zip(first, stable_seconds, strict=False))
        _row("the same and the model", [clock["inference"] + seconds for clock, seconds in both])
        _row("beside it, Willis: last slice to report", [clock["total"] for clock, _ in both])


def _options() -> argparse.Namespace:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--studies", type=int, default=10)
    arguments.add_argument("--spacing-mm", type=float, default=0.5, help="between slices; 0.5 gives about 350")
    arguments.add_argument("--matrix", type=int, default=512)
    arguments.add_argument("--slices-per-second", type=float, default=0.0, help="of each sender; 0: as fast as they go")
    arguments.add_argument("--senders", type=int, default=1, help="so many studies are sent at once")
    arguments.add_argument(
        "--beside-late", action="store_true", help="each study goes to a node without [ai] early too"
    )
    arguments.add_argument("--orthanc", type=int, default=0, help="so many series go to Orthanc too, a minute each")
    return arguments.parse_args()


def _send_all(nodes: list[RunningNode], options: argparse.Namespace) -> list[int]:
    """Every node has delivered every study, each while the others rest; returns how many slices the studies have."""
    studies = [_study(number, options.spacing_mm, options.matrix) for number in range(1, options.studies + 1)]
    for node in nodes:
        node.start()
    rounds = [studies[first : first + options.senders] for first in range(0, len(studies), options.senders)]
    for number, together in enumerate(rounds, start=1):
        for node in nodes[:: 1 if number % 2 else -1]:
            with ThreadPoolExecutor(len(together)) as senders:
                list(senders.map(lambda paths, to=node: _send(to, paths, options.slices_per_second), together))
            node.wait_for_delivered(min(number * options.senders, len(studies)))
        print(f"  round {number} of {len(rounds)}: delivered", file=sys.stderr)
    return [len(paths) for paths in studies]


def _send(node: RunningNode, paths: list[Path], slices_per_second: float) -> None:
    """One study was sent at the pace of a sender."""
    start = time.monotonic()
    sent = send_files(Entity("PACS", Timeouts(acse=30, dimse=60)), node.address, paths)
    for number, each in enumerate(sent, start=1):
        if each.error:
            raise SystemExit(f"the node refused a slice: {each.error}")
        if slices_per_second:
            time.sleep(max(0.0, start + number / slices_per_second - time.monotonic()))


def _rounds(clocks: list[dict[str, float]], senders: int) -> list[list[dict[str, float]]]:
    return [clocks[first : first + senders] for first in range(0, len(clocks), senders)]


def _table(name: str, clocks: list[dict[str, float]]) -> None:
    print(f"\n| {name} | median | 95th percentile | most |\n|---|---|---|---|")
    for part in PARTS:
        _row(part, [clock[part] for clock in clocks])
    _row("all but inference", [clock["total"] - clock["inference"] for clock in clocks])


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
