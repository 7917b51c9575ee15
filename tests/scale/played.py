"""The same arrivals in a real node: all its processes, SQLite, real sockets, a simulated PACS.

The network is a stand-in that sleeps for as long as its series says, in the HU of its voxels: the queue is the subject.
"""

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median

import ai
from node.cli.main import app
from node.runtime import processes
from storage.queries import health as asked
from storage.queries.worklist import Clock
from tests.benchmarks.bench_cost import ALWAYS, Series, numbered
from tests.corpus.images import cta
from tests.corpus.network import fullest
from tests.scale.model import Arrival, Overhead
from tests.scale.sleeper import level_hu, sleeper
from tests.support.running import RunningNode, wait_until

MODULE = "tests.scale.played"


class SleepingNode(RunningNode):
    """The node whose network sleeps."""

    module = MODULE


@contextmanager
def sleeping_node(folder: Path) -> Iterator[SleepingNode]:
    """A node whose worker has loaded its bundle."""
    folder.mkdir()
    node = SleepingNode(folder, **ALWAYS)
    try:
        wait_until(partial(_is_loaded, node.start()), 120, "the bundle is loaded")
        yield node
    finally:
        node.close()


def _is_loaded(node: RunningNode) -> bool:
    known = asked.processes(node.store.transactions.reading_plainly)
    return any(each.role == "work" and each.details.get("model") for each in known)


def prepared(arrivals: Sequence[Arrival], first: int = 0) -> list[Series]:
    """A series to be sent for each arrival."""
    return [numbered(cta(level_hu(arrival.service)), first + number) for number, arrival in enumerate(arrivals)]


def play(node: RunningNode, arrivals: Sequence[Arrival]) -> tuple[list[Arrival], list[Clock]]:
    """Send them at their times; return when they really came, and the node's clocks."""
    series, came = prepared(arrivals), [0.0] * len(arrivals)
    begun = time.monotonic()

    def send(number: int) -> None:
        series[number].send(node.config.node.port)
        came[number] = time.monotonic() - begun

    threads = []
    for number, arrival in enumerate(arrivals):
        time.sleep(max(0.0, begun + arrival.at - time.monotonic()))
        threads.append(threading.Thread(target=send, args=(number,)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    node.wait_for_delivered(len(arrivals), 600)
    really = [Arrival(at, arrival.service) for at, arrival in zip(came, arrivals, strict=True)]
    return sorted(really, key=lambda each: each.at), list(node.store.worklist.status(len(arrivals)).clocks)


def fitted(clocks: Sequence[Clock], services: Sequence[float]) -> Overhead:
    """What cases took that came one by one."""
    slept = median(services)
    return Overhead(
        settle=median(clock.settle + clock.wait for clock in clocks),
        claim=median(clock.total - clock.settle - clock.wait - clock.delivery for clock in clocks) - slept,
        deliver=median(clock.delivery for clock in clocks),
    )


def main() -> None:
    """`willis` whose network sleeps, in the processes that it starts as well."""
    vars(ai).update(analyse=sleeper, fullest=fullest)
    processes.PROGRAM = (sys.executable, "-m", MODULE)
    app()


if __name__ == "__main__":
    main()
