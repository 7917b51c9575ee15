"""From the last slice to the report in the PACS, split into its parts: `make bench-latency`.

Full phantom series, half of them with an aneurysm, go through a whole node (three processes, SQLite, real sockets) into a
simulated PACS, one after the other, so that no case waits for another (`--senders 2`: two at once).  The seconds are those
that the node keeps in its database, which `willis status` shows too.

`--beside-late`: each study goes to a second node as well, which begins to analyse when the series is whole.  `--beside FOLDER`:
and to the node of an older Willis whose source lies there, which keeps its seconds otherwise; so the last table has of every
node how long after the answer to the last slice its PACS has the report.

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
from functools import partial
from pathlib import Path

from node.scu.dimse import Entity, Timeouts
from node.scu.storage_scu import send_files
from tests.benchmarks.stable_series import StableOrthanc
from tests.support.running import RunningNode, cached_phantom

FIRST_SEED = 9_100_000
"""Neither training nor the demo draws from here."""
LIMIT_SECONDS = 300
PARTS = ("settle", "wait", "volume", "inference", "report", "delivery", "total")


def main() -> None:
    """Prints a table for each node."""
    options = _options()
    stable_seconds: list[float] = []
    clocks: dict[str, list[dict[str, float]]] = {}
    reported: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="willis-bench-") as folder:
        early = {"early": "true"}, {"early": "false"}
        settings = early if options.beside_late else early[:1]
        ours = {
            f"[ai] early = {each['early']}": RunningNode(Path(folder) / each["early"], ai__early=each["early"])
            for each in settings
        }
        nodes = dict(ours)
        if options.beside:
            nodes["the Willis beside it"] = _OlderNode(Path(folder) / "older", options.beside)
        try:
            slices, reported = _send_all(nodes, options)
            for name, node in ours.items():
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
    print("\n| last slice answered to report in the PACS | median | 95th percentile | most |\n|---|---|---|---|")
    for name, seconds in reported.items():
        _row(name, seconds)
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
    arguments.add_argument("--beside", type=Path, help="the source of an older Willis")
    arguments.add_argument("--orthanc", type=int, default=0, help="so many series go to Orthanc too, a minute each")
    return arguments.parse_args()


class _OlderNode(RunningNode):
    """A node of another source, which may know no other keys than these and keeps its database in its own way."""

    def __init__(self, folder: Path, source: Path) -> None:
        super().__init__(folder)
        self.root = source.resolve()
        self.path.write_text(self.path.read_text("utf-8").replace("[web]\nenabled = false\n", ""), "utf-8")


def _send_all(nodes: dict[str, RunningNode], options: argparse.Namespace) -> tuple[list[int], dict[str, list[float]]]:
    """Every node has delivered every study, each while the others rest.

    Returns how many slices the studies have, and of each node the seconds until its PACS had the report of each, of those
    that are sent at once the later one's.
    """
    studies = [_study(number, options.spacing_mm, options.matrix) for number in range(1, options.studies + 1)]
    reported: dict[str, list[float]] = {name: [] for name in nodes}
    for node in nodes.values():
        node.start()
    rounds = [studies[first : first + options.senders] for first in range(0, len(studies), options.senders)]
    for number, together in enumerate(rounds, start=1):
        for name, node in list(nodes.items())[:: 1 if number % 2 else -1]:
            with ThreadPoolExecutor(len(together)) as senders:
                last = max(senders.map(partial(_send, node, options.slices_per_second), together))
            count = min(number * options.senders, len(studies))
            reported[name].append(_reported_at(node, count) - last)
            if not isinstance(node, _OlderNode):
                node.wait_for_delivered(count)
        print(f"  round {number} of {len(rounds)}: delivered", file=sys.stderr)
    return [len(paths) for paths in studies], reported


def _send(node: RunningNode, slices_per_second: float, paths: list[Path]) -> float:
    """One study was sent at the pace of a sender; returns when the last slice was answered."""
    start = time.monotonic()
    sent = send_files(Entity("PACS", Timeouts(acse=30, dimse=60)), node.address, paths)
    answered = start
    for number, each in enumerate(sent, start=1):
        answered = time.monotonic()
        if each.error:
            raise SystemExit(f"the node refused a slice: {each.error}")
        if slices_per_second:
            time.sleep(max(0.0, start + number / slices_per_second - time.monotonic()))
    return answered


def _reported_at(node: RunningNode, count: int) -> float:
    """When its PACS had so many reports."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while len(node.pacs.requests) < count:
        if time.monotonic() > deadline:
            raise SystemExit(f"no report within {LIMIT_SECONDS} s: {node.log.read_text()[-2000:]}")
        time.sleep(0.005)
    return time.monotonic()


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
