"""`python -m tests.soak.inside`: what in a node's processes grows with the cases that they have seen.

What the receiver does with an association, and all jobs of `willis serve` in threads of their own, work in this process on
a store each, as in theirs, without network and analysis: the cases of days come in minutes.  Reports are delivered to a PACS
in another process.  What the operating system only calls memory then has names: bytes of SQLite (its page caches), blocks
and objects of Python by type.

`--cache-kib 64` gives each connection of SQLite so much page cache instead of 2 MiB: what then does not grow was that.
`--trace` lists the lines of code whose allocations grew in the second half; it makes all slower.  Ctrl-C ends it early.
"""

import argparse
import ctypes
import gc
import multiprocessing
import os
import sys
import tempfile
import threading
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmwrite
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from sqlalchemy import event

from node.audit.messages import Party
from node.audit.trail import open_trail
from node.config.sections import Config
from node.dicom import header
from node.runtime import log
from node.runtime.clock import utc_now
from node.runtime.heartbeat import Heartbeat
from node.runtime.job import Job
from node.scp.session import ReceivingSession, receiver_name
from node.simulated_pacs import SimulatedPeer
from node.workflow.context import Context
from node.workflow.recovery import rescue
from node.workflow.settling import MOST_RECONSTRUCTIONS
from node.workflow.supervisor import _jobs_of
from storage.files.instances import MOST_FOLDERS_KNOWN, Files
from storage.queries.group_commit import GroupCommit
from storage.records import AssociationEnd, Conclusion, ReportObject
from storage.stages import Outcome
from storage.store import Store
from tests.faults.senders import small_series
from tests.support.builders import encoded
from tests.support.running import free_port

SLICES, REPORTED = 8, 10
"""Of a series; every so manieth has as many as make it eligible, and the others end without a report."""
FIRST_UID = "2.25.55000001"
"""Of the series that `small_series` makes first: the others are it under other numbers."""


def configuration(folder: Path) -> Config:
    """Of a node all of whose jobs have something to do."""
    peer = {"ae_title": "PACS", "host": "127.0.0.1", "port": free_port(), "storage_commitment": True}
    target = {
        "name": "it",
        "kind": "apprise",
        "url": "json://127.0.0.1:9",
        "events": ["positive", "turnaround", "unhealthy"],
    }
    return Config.model_validate(
        {
            "node": {"port": free_port(), "echo_seconds": 1},
            "storage": {"directory": folder / "var"},
            "completion": {"quiet_seconds": 0.01},
            "eligibility": {"minimum_slices": SLICES, "require_contrast": False, "sibling_wait_seconds": 0},
            "delivery": {"default_destination": "PACS"},
            "web": {"enabled": False},
            "notifications": [target],
            "peers": {"PACS": peer},
        }
    )


class Node:
    """Receiver and jobs, without a network between a sender and them."""

    def __init__(self, config: Config, cache_kib: int) -> None:
        """Both wait for work."""
        self.config, self.files = config, Files(config.storage.directory)
        self.receiving, self.serving = (self._opened(cache_kib) for _ in range(2))
        self._trail, self._commits = open_trail(config), GroupCommit(self.receiving.intake)
        self._commits.start()
        self._context = context = Context(config, self.serving, self.files, lambda: None, trail=self._trail)
        self._ran = threading.Semaphore(0)
        self._jobs = [self._counted(job) for job in _jobs_of(context, self._rescue)]
        self._threads = [job.start() for job in self._jobs]
        self._beats = [
            Heartbeat(store.processes, role, config.storage.directory)
            for store, role in ((self.receiving, "receive"), (self.serving, "serve"))
        ]
        for beat in self._beats:
            beat.start()
        self._series = [(str(ds.SOPInstanceUID), encoded(ds)) for ds, _ in small_series(1, SLICES)]

    def _opened(self, cache_kib: int) -> Store:
        store = Store.open(self.config.storage.url)
        if cache_kib:
            engine = store.transactions.engine
            event.listen(engine, "connect", lambda one, _: one.execute(f"PRAGMA cache_size = -{cache_kib}"))
            engine.dispose()
        return store

    def _rescue(self) -> None:
        rescue(self._context)

    def _counted(self, job: Job) -> Job:
        def run() -> None:
            try:
                job._function()
            finally:
                self._ran.release()

        return Job(job.name, None, False, run)

    def receive(self, number: int) -> None:
        """One association brings a series."""
        source, uid_now = Party("RAW", "127.0.0.1"), f"2.25.55{number:06d}"
        session = ReceivingSession(
            receiver_name(self.config.node), source, self.files, self._commits, self._trail, utc_now
        )
        for uid, dataset in self._series[: None if number % REPORTED == 0 else -1]:
            sink = session.begin(CTImageStorage, uid.replace(FIRST_UID, uid_now), ExplicitVRLittleEndian)
            sink.write(memoryview(dataset.replace(FIRST_UID.encode(), uid_now.encode())))
            answer = sink.finish()
            if answer.status:
                raise SystemExit(f"an instance was refused: {answer.comment}")
        session.end(AssociationEnd.RELEASED)

    def serve(self) -> None:
        """Every job has run once, all at the same time."""
        for job in self._jobs:
            job.wake()
        for _ in self._jobs:
            self._ran.acquire()

    def report(self, number: int) -> None:
        """As the worker would: what is ready is concluded, with a report for the PACS."""
        store, now = self.serving, utc_now()
        while claim := store.queue.claim("elsewhere:1", now, timedelta(seconds=30), 3):
            uid = f"2.25.66{claim.series.id:06d}.{claim.series.revision}"
            dataset = small_series(number, 1)[0][0]
            dataset.SOPInstanceUID = uid
            file = self.files.write_report(uid, _as_file(dataset))
            store.queue.finish(claim, Conclusion(Outcome.NEGATIVE), ReportObject(uid, file, None), ["PACS"], now)

    def caches(self) -> str:
        """What is remembered, and how much of it at most."""
        decoded = header._decoded.cache_info()
        statements = [store.transactions.engine._compiled_cache for store in (self.receiving, self.serving)]
        return (
            f"decoded elements of headers {decoded.currsize} (at most {decoded.maxsize}), folders known as durable "
            f"{len(self.files._durable)} ({MOST_FOLDERS_KNOWN}), compiled statements of receiver and jobs "
            f"{', '.join(str(len(each or ())) for each in statements)} (500 each), series looked at "
            f"{len(self._context.slices)} (those that are being received), reconstructions "
            f"{len(self._context.reconstructions)} ({MOST_RECONSTRUCTIONS})"
        )

    def close(self) -> None:
        """Nothing of it runs any longer."""
        for job in self._jobs:
            job.stop()
        for thread in self._threads:
            thread.join(10)
        for beat in self._beats:
            beat.stop()
        self._commits.stop()
        self._trail.close()
        self.receiving.close()
        self.serving.close()


def _as_file(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True, implicit_vr=False, little_endian=True)
    return buffer.getvalue()


def pacs(folder: Path, port: int) -> None:
    """It takes and commits to what comes, until the parent ends."""
    log.configure("json", "critical")
    SimulatedPeer(folder).start(port)
    threading.Event().wait()


@dataclass(frozen=True)
class Look:
    """What this process holds once so many series have come."""

    series: int
    memory_mib: float
    sqlite_mib: float
    used_mib: float
    free_mib: float
    """Of what malloc has of the system: what is in use, and what it keeps for the next who asks."""
    blocks: int
    """Of Python's allocator."""
    objects: Counter[str]
    threads: int
    connections: int
    database_mib: float


class _Malloc(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


def _malloc() -> _Malloc:
    library = ctypes.CDLL(None)
    library.mallinfo2.restype = _Malloc
    found: _Malloc = library.mallinfo2()
    return found


def _resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def look(series: int, node: Node) -> Look:
    """Now, after a collection of cycles."""
    gc.collect()
    sqlite = ctypes.CDLL("libsqlite3.so.0")
    sqlite.sqlite3_memory_used.restype = ctypes.c_int64
    malloc = _malloc()
    pools: Any = [store.transactions.engine.pool for store in (node.receiving, node.serving)]
    return Look(
        series, _resident_mib(), sqlite.sqlite3_memory_used() / 2**20,
        (malloc.uordblks + malloc.hblkhd) / 2**20, malloc.fordblks / 2**20, sys.getallocatedblocks(),
        Counter(type(each).__qualname__ for each in gc.get_objects()), threading.active_count(),
        sum(pool.checkedin() + pool.checkedout() for pool in pools),
        (node.config.storage.directory / "willis.db").stat().st_size / 2**20,
    )  # fmt: skip


def measure(folder: Path, series: int, every: int, reports: int, cache_kib: int = 0) -> list[Look]:
    """What this process held each time that `every` further series had come, with a line of each printed."""
    log.configure("json", "critical")
    config = configuration(folder)
    child = multiprocessing.get_context("spawn").Process(
        target=pacs, args=(folder / "pacs", config.peers["PACS"].port), daemon=True
    )
    child.start()
    node, looks, snapshots = Node(config, cache_kib), list[Look](), list[tracemalloc.Snapshot]()
    middle = series // every // 2 * every
    print(
        "| series | MiB | of SQLite | of malloc | free in malloc | blocks of Python | objects | threads | connections | database, MiB |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    try:
        for number in range(1, series + 1):
            node.receive(number)
            if number % reports == 0:
                node.serve()
                node.report(number)
            if number % every:
                continue
            looks.append(one := look(number, node))
            print(_row(one), flush=True)
            if tracemalloc.is_tracing() and number in (middle, series // every * every):
                snapshots.append(tracemalloc.take_snapshot())
    except KeyboardInterrupt:
        print("\ninterrupted")
    finally:
        print(f"\n{node.caches()}")
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        print(f"of the system once what malloc has free was given back: {_resident_mib():.1f} MiB")
        node.close()
        child.kill()
        child.join()
    _print_grown(snapshots)
    return looks


def _row(one: Look) -> str:
    of_memory = (one.memory_mib, one.sqlite_mib, one.used_mib, one.free_mib)
    words = [f"{one.series}", *(f"{each:.1f}" for each in of_memory), f"{one.blocks:,}", f"{one.objects.total():,}"]
    return f"| {' | '.join(words)} | {one.threads} | {one.connections} | {one.database_mib:.1f} |"


def _print_grown(snapshots: Sequence[tracemalloc.Snapshot]) -> None:
    if len(snapshots) == 2:
        print("\nallocated in the second half and still held:")
        for statistic in snapshots[1].compare_to(snapshots[0], "traceback")[:12]:
            where = " < ".join(f"{Path(one.filename).name}:{one.lineno}" for one in list(statistic.traceback)[::-1][:5])
            print(f"  {statistic.size_diff / 1024:+.0f} KiB in {statistic.count_diff:+} blocks: {where}")


def main() -> None:
    """Prints the table, and the types whose objects became more in the second half."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=3000)
    parser.add_argument("--every", type=int, default=250)
    parser.add_argument("--jobs-every", type=int, default=5, help="series between two rounds of the jobs")
    parser.add_argument("--cache-kib", type=int, default=0, help="of each connection of SQLite; 0: its own 2 MiB")
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("--to", type=Path, default=None, help="folder on a quick disk; default: a temporary one")
    options = parser.parse_args()
    if options.trace:
        tracemalloc.start(10)
    with tempfile.TemporaryDirectory(prefix="willis-inside-", dir=options.to) as folder:
        looks = measure(Path(folder), options.series, options.every, options.jobs_every, options.cache_kib)
    if not looks:
        return
    middle, last = looks[max(0, len(looks) // 2 - 1)], looks[-1]
    grown = (last.objects - middle.objects).most_common(12)
    print(
        f"\nfrom series {middle.series} to {last.series}: " + (", ".join(f"{name} +{n}" for name, n in grown) or "none")
    )


if __name__ == "__main__":
    main()
