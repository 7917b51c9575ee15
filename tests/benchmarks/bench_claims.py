"""How many cases a second workers can share through one PostgreSQL: `make bench-claims`.

The server flushes every commit.  Workers (threads of four processes, each process a host with one connection that listens)
claim and finish through the real store; their analysis takes no time, so that what is measured is the coordination.

- backlog: all cases are ready before the workers begin.
- one by one: as many cases are out as there are workers; when one is finished, the next is settled.  Wakeups: of the
  idle workers that hear of it some look, by lot (decision 0020), and each at its period.  Polling: at its period alone.

Measured once each worker has had some cases, so that every connection has prepared its statements.
"""

import argparse
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Event as EventOf
from multiprocessing.synchronize import Semaphore
from pathlib import Path
from random import Random
from typing import Any

import psycopg
from sqlalchemy import create_engine, text

from node.analysis.worker import PERIOD_SECONDS
from storage.database.transactions import Transactions
from storage.database.wakeups import Whom
from storage.stages import Event
from storage.store import Store
from tests.benchmarks.filled_database import fill
from tests.support.builders import conclusion, report_object
from tests.support.postgresql import Programs

HOSTS = 4
WORKERS = (1, 8, 50, 200)
LEASE = timedelta(minutes=5)
CASES = 5_000
FED = "PACS"
"""Who sent what is settled one by one; what is ready before is of others (`fill`)."""
WARM_CASES = 7
"""So many of each worker come first: by then its connection has prepared each statement."""
_WAIT = """
SELECT EXTRACT(epoch FROM percentile_cont(.5) WITHIN GROUP (ORDER BY claimed_at - ready_at))
FROM series WHERE ended_at > :since AND ready_at > :since
"""

_RECEIVED = text("""
UPDATE series SET stage = 'receiving', report_id = NULL, outcome = NULL, ready_at = NULL WHERE stage <> 'ready'
""")
_RUN = text("""
INSERT INTO process (name, role, host, pid, folder, started_at, beat_at, details)
SELECT 'work:' || i, 'work', 'h', i, '', '2100-01-01', '2100-01-01', '{}' FROM generate_series(1, :workers) AS n(i)
""")
"""All workers say that they run."""


def opened(url: str, threads: int) -> Store:
    """A store with a connection for each thread."""
    return Store(Transactions(create_engine(url, pool_size=threads + 2, pool_pre_ping=True)))


class Host:
    """Some workers, as threads, and what listens for them."""

    def __init__(self, url: str, name: int, workers: int, wakeups: bool, shared: "Shared") -> None:
        self._store, self._name, self._shared = opened(url, workers), name, shared
        self._bells = [threading.Event() for _ in range(workers)]
        self._wakeups, self._random = wakeups, Random()

    def run(self) -> None:
        """Until it is to stop."""
        # SQLAlchemy makes its classes in one thread
        self._store.queue.claim_exhausted("", datetime.now(UTC), LEASE, 1000)
        threads = [threading.Thread(target=self._work, args=(number,)) for number in range(len(self._bells))]
        if self._wakeups:
            threads.append(threading.Thread(target=self._listen))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _listen(self) -> None:
        listening = self._store.listening()
        assert listening is not None
        with listening:
            while not self._shared.stop.is_set():
                for heard in listening.wait(0.2):
                    for bell in self._bells if heard.whom is Whom.WORKERS else ():
                        if heard.is_drawn(self._random):
                            bell.set()

    def _work(self, number: int) -> None:
        queue, bell, who = self._store.queue, self._bells[number], f"{self._name}:{number}"
        self._shared.start.wait()
        time.sleep(PERIOD_SECONDS * number / len(self._bells) if not self._wakeups else 0)  # not all at once
        while not self._shared.stop.is_set():
            bell.clear()
            now = datetime.now(UTC)
            with self._shared.looks:
                self._shared.looks.value += 1
            claim = queue.claim_next(who, now, LEASE, 3)
            if claim is None:
                bell.wait(PERIOD_SECONDS)
                continue
            report = report_object(f"2.25.77.{claim.series.id}")
            queue.finish(claim, conclusion(), report, ("PACS",), datetime.now(UTC))
            with self._shared.cases:
                self._shared.cases.value += 1
            if claim.series.calling_ae == FED:
                self._shared.room.release()


class Shared:
    """What the processes of one measurement share."""

    def __init__(self, workers: int) -> None:
        self.start: EventOf = multiprocessing.Event()
        self.stop: EventOf = multiprocessing.Event()
        self.room: Semaphore = multiprocessing.Semaphore(workers)
        self.cases: Any = multiprocessing.Value("q")
        self.looks: Any = multiprocessing.Value("q")


def feed(url: str, number: int, of: int, shared: Shared) -> None:
    """A case is settled whenever there is room for one, by one host of several."""
    store = opened(url, 1)
    waiting = store.settling.receiving()
    shared.start.wait()
    for series in waiting[number::of]:
        while not shared.room.acquire(timeout=0.2):
            if shared.stop.is_set():
                return
        store.settling.leave(series, Event.SETTLED, "count", datetime.now(UTC))


class Server:
    """A PostgreSQL server that flushes, with an empty database."""

    def __init__(self, programs: Programs) -> None:
        """It runs."""
        self._data = programs.folder / "data"
        programs.make(self._data)
        programs.start(self._data, "-c fsync=on -c synchronous_commit=on -c max_connections=300")
        with psycopg.connect(
            host=str(programs.folder), user="postgres", dbname="postgres", autocommit=True
        ) as connection:
            connection.execute("CREATE DATABASE bench")
        self.url = f"postgresql+psycopg://postgres@/bench?host={programs.folder}"
        Store.open(self.url).close()

    def processor_seconds(self) -> float:
        """What all its processes have used so far, also those that have ended."""
        postmaster = (self._data / "postmaster.pid").read_text().split()[0]
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        ticks = sum(sum(_times(pid)[:2]) for pid in children) + sum(_times(postmaster))
        return ticks / os.sysconf("SC_CLK_TCK")


def _times(pid: str) -> list[int]:
    """utime, stime, cutime, cstime of a process; zeros when it has ended."""
    with suppress(OSError):
        return [int(each) for each in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]]
    return [0, 0, 0, 0]


def _used(processes: list[multiprocessing.Process]) -> float:
    """Processor seconds of these processes so far."""
    return sum(sum(_times(str(process.pid))[:2]) for process in processes) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Measured:
    """`wait`: the median seconds that a case waited.  The last two: processor milliseconds a case."""

    cases_a_second: float
    looks_a_case: float
    wait: float
    server_ms: float
    workers_ms: float

    def __str__(self) -> str:
        return (
            f"{self.cases_a_second:.1f} ({self.wait:.2f} s; {self.looks_a_case:.1f}; "
            f"{self.server_ms:.1f} + {self.workers_ms:.1f} ms)"
        )


def measured(at: "Server", workers: int, seconds: float, wakeups: bool, backlog: bool) -> Measured:
    """What workers did in these seconds."""
    url = at.url
    store = opened(url, 1)
    with store.transactions.writing() as session:
        session.execute(
            text(
                "TRUNCATE association, series, report, delivery, report_object, review, measured, tally, at_end, process "
                "RESTART IDENTITY CASCADE"
            )
        )
    fill(store, CASES, CASES if backlog else WARM_CASES * workers)
    with store.transactions.writing() as session:
        session.execute(text("TRUNCATE report, delivery CASCADE"))
        session.execute(_RECEIVED)
        session.execute(_RUN, {"workers": workers})
    store.transactions.engine.dispose()  # nothing that the processes would inherit
    shared, hosts = Shared(workers), min(HOSTS, workers)
    shares = [workers // hosts + (number < workers % hosts) for number in range(hosts)]
    processes = [
        multiprocessing.Process(target=lambda n=n, share=share: Host(url, n, share, wakeups, shared).run())
        for n, share in enumerate(shares)
    ]
    if not backlog:
        feeders = [(url, number, hosts, shared) for number in range(hosts)]
        processes += [multiprocessing.Process(target=feed, args=each) for each in feeders]
    for process in processes:
        process.start()
    shared.start.set()
    while shared.cases.value < (WARM_CASES if backlog else WARM_CASES + 4) * workers:
        assert all(process.exitcode in (None, 0) for process in processes), "a process died"
        time.sleep(0.1)
    since = datetime.now(UTC).replace(tzinfo=None)
    numbers = [shared.cases.value, shared.looks.value, at.processor_seconds(), _used(processes), time.monotonic()]
    time.sleep(seconds)
    later = [shared.cases.value, shared.looks.value, at.processor_seconds(), _used(processes), time.monotonic()]
    shared.stop.set()
    for process in processes:
        process.join()
    cases, looks, server, clients, took = (after - before for before, after in zip(numbers, later, strict=True))
    with store.transactions.reading() as session:
        wait = session.scalar(text(_WAIT), {"since": since}) or 0.0
    store.close()
    of_case = 1 / max(1, cases)
    return Measured(
        cases / took, looks * of_case, max(0.0, float(wait)), 1000 * server * of_case, 1000 * clients * of_case
    )


@contextmanager
def server() -> Iterator[Server]:
    """One that is gone afterwards."""
    programs = Programs()
    try:
        yield Server(programs)
    finally:
        programs.stop(programs.folder / "data")
        shutil.rmtree(programs.folder, ignore_errors=True)


def main() -> None:
    """Prints the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--workers", type=int, nargs="+", default=WORKERS)
    arguments.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    options = arguments.parse_args()
    multiprocessing.set_start_method("fork")
    print("Cases a second (median wait; looks a case; processor time a case of server + workers)\n")
    print("| workers | backlog | one by one, wakeups | one by one, polling | ratio |\n|---|---|---|---|---|")
    with server() as at:
        for workers in options.workers:
            backlog = measured(at, workers, options.seconds, True, True)
            woken = measured(at, workers, options.seconds, True, False)
            polled = measured(at, workers, options.seconds, False, False)
            ratio = woken.cases_a_second / max(polled.cases_a_second, 0.01)
            print(f"| {workers} | {backlog} | {woken} | {polled} | {ratio:.1f} |", flush=True)


if __name__ == "__main__":
    main()
