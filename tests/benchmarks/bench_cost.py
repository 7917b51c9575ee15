"""What metrics, health and canary cost: `make bench-cost`.

Two nodes of the same code, one with all of it (peers asked every 10 s, /metrics and /healthz asked for every 5 s, which is
oftener than Prometheus does), one with none (no pages, no questions to peers).  They take turns: while one is measured
every process of the other is stopped by a signal, so that it costs nothing.  Ratios are of neighbouring rounds, with a
bootstrap interval of their median: only they mean anything on a shared machine.  Processor time is told beside the
time on the clock, because it tells 2 % from nothing where the clock of a shared machine does not.

The network is a stand-in (`tests.corpus.network`) and the series for the time to the report are small, so that a fixed cost
shows as more than with a real analysis.  A canary is a whole analysis every `[canary] minutes` that gives way to patients'
series: what it costs is its processor time, measured apart with the shipped model, over its period.
"""

import argparse
import os
import signal
import statistics
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.uid import UID, CTImageStorage

from tests.corpus.images import FILLED_HU, cta
from tests.soak.site import ROLES, StubNode
from tests.support.builders import encoded
from tests.support.dicom_factory import change, ct_series
from tests.support.raw_scu import RELEASE_RQ, RawScu, all_of, associate_rq, store_pdus
from tests.support.running import RunningNode, free_port, wait_until

ASKED_SECONDS = 5.0
CANARY_MINUTES = 60.0
REST_SECONDS = 20.0
ALWAYS = {
    "node__allowed_calling_ae": '["RAW"]', "delivery__default_destination": '"PACS"', "eligibility__minimum_slices": "20",
    "completion__quiet_seconds": "1", "eligibility__sibling_wait_seconds": "0", "log__level": '"error"',
    "report__not_analysed": '"never"',
}  # fmt: skip
WITHOUT = {"node__echo_seconds": "0", "web__enabled": "false", "drift__baseline_weeks": "0"}


class Measured:
    """A node that is stopped by a signal unless it is measured."""

    def __init__(self, folder: Path, **settings: str) -> None:
        folder.mkdir()
        self.node = StubNode(folder, **ALWAYS, **settings).start()
        self.asked = [f"{self.node.config.web.address}/{page}" for page in ("metrics", "healthz")]
        self._running, self._ended = threading.Event(), threading.Event()
        self._running.set()
        if self.node.config.web.enabled:
            threading.Thread(target=self._ask, daemon=True).start()

    def processes(self) -> list[int]:
        """Of the node."""
        assert self.node.process is not None
        return [self.node.process.pid, *self.node.children()]

    def processor_seconds(self) -> float:
        """What all of them have used up to now."""
        return sum(used(pid) for pid in self.processes())

    def signal(self, number: int) -> None:
        """Every process gets it."""
        for pid in self.processes():
            os.kill(pid, number)

    def go_on(self, seconds: float = 1.0) -> None:
        """It works again, and what was due meanwhile is done."""
        self.signal(signal.SIGCONT)
        self._running.set()
        time.sleep(seconds)

    def stand_still(self) -> None:
        """It costs nothing."""
        self._running.clear()
        self.signal(signal.SIGSTOP)

    def close(self) -> None:
        """It is gone."""
        self._ended.set()
        self.signal(signal.SIGCONT)
        self.node.close()

    def _ask(self) -> None:
        while not self._ended.wait(ASKED_SECONDS):
            self._running.wait()
            for url in self.asked:
                try:
                    urllib.request.urlopen(url, timeout=10).read()
                except OSError:
                    continue  # 503 of /healthz, or it was just stopped


class Series:
    """A series to be sent under other UIDs each time."""

    def __init__(self, slices: Sequence[Dataset], first: int) -> None:
        self._plain = [(str(ds.SOPInstanceUID), encoded(ds)) for ds in slices]
        self._number = first

    def send(self, port: int) -> float:
        """The seconds from the first byte to the last acknowledgement, on one association."""
        self._number += 1
        number = f"{self._number:06d}".encode()
        made = [
            (uid.replace("000000", number.decode()), plain.replace(b"2.25.8000000", b"2.25.8" + number))
            for uid, plain in self._plain
        ]
        with RawScu(port, 60).associate(associate_rq()) as scu:
            begun = time.monotonic()
            for uid, dataset in made:
                scu.send(all_of(store_pdus(str(CTImageStorage), uid, dataset)))
                if status := scu.status():
                    raise SystemExit(f"an instance was answered 0x{status:04X}; see the node's log")
            seconds = time.monotonic() - begun
            scu.send(RELEASE_RQ)
            scu.pdu()
        return seconds


def numbered(slices: Sequence[Dataset], first: int) -> Series:
    """The slices under UIDs that `Series` numbers, from `first` on."""
    root = "2.25.8000000"
    for index, ds in enumerate(slices, 1):
        change(ds, StudyInstanceUID=f"{root}.1", SeriesInstanceUID=f"{root}.2", FrameOfReferenceUID=f"{root}.4",
               SOPInstanceUID=UID(f"{root}.3.{index}"))  # fmt: skip
    return Series(slices, first)


def to_report(measured: Measured, series: Series) -> float:
    """The seconds from the last slice to the report in the PACS, as the node keeps them."""
    before = len(measured.node.pacs.requests)
    series.send(measured.node.config.node.port)
    wait_until(lambda: len(measured.node.pacs.requests) > before, 60, "the report is in the PACS")
    wait_until(lambda: len(measured.node.store.worklist.status(1).clocks) == 1, 10)
    time.sleep(0.3)
    return float(measured.node.store.worklist.status(1).clocks[0].total)


@dataclass(frozen=True)
class Rounds:
    """Of the node with all of it and the one without: `clock`, what a round took, and `processor`, what the node used in it."""

    clock: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))
    processor: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))


def rounds(what: Callable[[Measured], float], both: Sequence[Measured], count: int) -> Rounds:
    """So many of each, in turn, each second pair the other way round, and one before them that is not counted."""
    found = Rounds()
    for number in range(-1, count):
        for which in (0, 1) if number % 2 else (1, 0):
            both[which].go_on()
            before = both[which].processor_seconds()
            seconds = what(both[which])
            if number >= 0:
                found.clock[which].append(seconds)
                found.processor[which].append(both[which].processor_seconds() - before)
            both[which].stand_still()
    return found


def at_rest(_measured: Measured) -> float:
    """Nobody sends anything for a while."""
    time.sleep(REST_SECONDS)
    return REST_SECONDS


def ratio(on: Sequence[float], off: Sequence[float]) -> tuple[float, float, float]:
    """The median of the ratios of neighbours, and its 95 % interval."""
    ratios = np.asarray(on) / np.asarray(off)
    drawn = np.random.default_rng(1).choice(ratios, (10_000, len(ratios)))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return float(np.median(ratios)), float(low), float(high)


def row(name: str, on: Sequence[float], off: Sequence[float]) -> str:
    """A line of the table."""
    middle, low, high = ratio(on, off)
    return f"| {name} | {statistics.median(off):.3f} | {statistics.median(on):.3f} | {middle:.3f} ({low:.3f} to {high:.3f}) |"


def canary_seconds(folder: Path) -> float:
    """Processor seconds of one canary in a node with the shipped model, less those of a node that waits for as long."""
    folder.mkdir()
    node = RunningNode(folder, canary__minutes="0.75", canary__late_seconds="600").start()

    def used_by_all() -> float:
        assert node.process is not None
        return sum(used(pid) for pid in (node.process.pid, *node.children()))

    def ended(number: int) -> bool:
        run = node.store.canaries.last()
        return run is not None and run.id >= number and run.ended_at is not None

    try:
        wait_until(lambda: ended(1), 400, "the first is painted, sent and answered")
        time.sleep(5)
        before, idle_from = used_by_all(), time.monotonic()
        time.sleep(15)
        idle = (used_by_all() - before) / (time.monotonic() - idle_from)
        before, begun = used_by_all(), time.monotonic()
        wait_until(lambda: ended(2), 200, "the second is answered")
        time.sleep(5)
        return used_by_all() - before - idle * (time.monotonic() - begun)
    finally:
        node.close()


def used(pid: int) -> float:
    """Processor seconds of a process and the threads that it has ended: Linux's clock of another process."""
    return time.clock_gettime(~pid << 3 | 2)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30, help="of each kind and node")
    parser.add_argument("--slices", type=int, default=150, help="512 by 512, for the throughput")
    parser.add_argument("--canary", action="store_true", help="its processor time too, which takes minutes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="willis-cost-") as named:
        folder = Path(named)
        on = Measured(
            folder / "on",
            web__enabled="true",
            web__port=str(free_port()),
            web__open_metrics="true",
            node__echo_seconds="10",
        )
        off = Measured(folder / "off", **WITHOUT)
        both = (on, off)
        try:
            for each in both:
                wait_until(lambda each=each: set(ROLES[:3]) <= roles(each), 60, "it runs")  # type: ignore[misc]
            time.sleep(15)  # the bundles are loaded
            small = [numbered(cta(FILLED_HU), 0) for _ in both]
            big = [numbered(ct_series(options.slices, rows=512, columns=512), 500_000) for _ in both]
            for each in both:
                each.stand_still()
            times = rounds(lambda each: to_report(each, small[both.index(each)]), both, options.rounds)
            sends = rounds(lambda each: big[both.index(each)].send(each.node.config.node.port), both, options.rounds)
            rests = rounds(at_rest, both, max(2, options.rounds // 10))
        finally:
            for each in both:
                each.close()
    print(f"{options.rounds} rounds each; seconds, median; the ratio's 95 % interval\n")
    print("| what | without | with | ratio |\n|---|---|---|---|")
    received = f"receive {options.slices} slices on one association"
    print(row(received, *sends.clock))
    print(row(f"{received}, processor time", *sends.processor))
    print(row("last slice to report in the PACS, small series", *times.clock))
    print(row("a small series from its first slice to the report, processor time", *times.processor))
    with_all, without = (statistics.fmean(each) / REST_SECONDS / (os.cpu_count() or 1) for each in rests.processor)
    print(f"\nAt rest the node uses {with_all:.2%} of this machine, {without:.2%} without all of it.")
    if options.canary:
        with tempfile.TemporaryDirectory(prefix="willis-cost-") as named:
            seconds = canary_seconds(Path(named) / "canary")
        share = seconds / (CANARY_MINUTES * 60 * (os.cpu_count() or 1))
        print(
            f"\nA canary takes {seconds:.1f} s of a core: {share:.2%} of this machine, one every {CANARY_MINUTES:g} minutes."
        )


def roles(measured: Measured) -> set[str]:
    """Of the processes that run."""
    words = [Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in measured.processes()]
    return {role for role in ROLES for each in words if role.encode() in each}


if __name__ == "__main__":
    main()
