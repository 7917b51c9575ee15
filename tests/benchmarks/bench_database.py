"""What the database takes with so many cases held: `make bench-database`.

Fills a new PostgreSQL database, or with `--database SQLite` one in a temporary folder, with finished cases
(`filled_database`); then times what a case costs from its first instance to its delivery and what the node asks again and
again, and prints the query plans of what took longer than the goal.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from itertools import count as counter
from pathlib import Path
from typing import Any

from sqlalchemy import text

from node.dicom.conformance import IMAGE_CLASSES
from storage.conditions import Between, Condition, Level, Like
from storage.queries import health
from storage.queries.retention import Why
from storage.queries.shadow import Bundles
from storage.queries.triage import NOT_ENDED
from storage.records import AssociationEnd, Ended, Opened, Received
from storage.stages import Event, Outcome
from storage.store import Store
from tests.benchmarks.filled_database import SINGLE_IMAGES, fill, is_filled
from tests.support.builders import conclusion, header, report_object, stored_file
from tests.support.plans import plans

GOAL_MS = 20.0
ROUNDS, MOST_MS = 40, 6000.0
INSTANCES = 20
"""Of the case that is timed from its first instance to its delivery."""
QUERIES: dict[str, dict[str, Condition]] = {
    "everything, the first 2,000": {},
    "a patient's name": {"name_key": [Like("doe^123*")]},
    "an accession number": {"accession_number": ["A4711"]},
    "a day": {"study_date": [Between("20260112", "20260112")]},
    "what is positive on a day": {"study_date": [Between("20260112", "20260112")], "outcome": ["positive"]},
}
DATABASES = ("PostgreSQL", "SQLite")
_HOUR = timedelta(hours=1)
_NUMBERS = counter(1)


def one_case(store: Store) -> None:
    """A series came, was settled, claimed and finished, and its report delivered, as the node does it."""
    now, uid, number = datetime.now(UTC), f"2.25.9{time.time_ns()}", next(_NUMBERS)
    association = int(store.intake.take([Opened("127.0.0.1:11112", "PACS", now)])[0])
    for index in range(1, INSTANCES + 1):
        head = header(index, uid, study_instance_uid=f"{uid}.0", acquisition_key=uid)
        store.intake.take([Received(head, stored_file(head), association, "PACS", now)])
    store.intake.take([Ended(association, AssociationEnd.RELEASED, now)])
    [series] = [each for each in store.settling.receiving() if each.series_instance_uid == uid]
    store.settling.contributions(series.id)
    store.settling.instances(series.id)
    store.settling.habits("PACS", 5)
    store.settling.endings(series, IMAGE_CLASSES)
    store.settling.siblings(series)
    store.settling.last_instance_in_study(series.study_instance_uid)
    store.settling.leave(series, Event.SETTLED, "count", now)
    claim = store.queue.claim_next("worker", now, _HOUR, 3)
    assert claim is not None
    store.settling.instances(claim.series.id)
    store.queue.predecessor(claim.series.id)
    outcome = Outcome.POSITIVE if number % 5 == 0 else Outcome.NEGATIVE
    store.queue.finish(claim, conclusion(outcome), report_object(f"2.25.8{time.time_ns()}"), ("ELSEWHERE",), now)
    delivery = store.outbox.due.claim(datetime.now(UTC), _HOUR, ("PACS",))
    assert delivery is not None
    store.outbox.accepted(delivery, datetime.now(UTC))


def asked(store: Store, held: int) -> dict[str, Callable[[], Any]]:
    """What the node asks again and again."""
    now, old = datetime.now(UTC), datetime(2015, 1, 1, tzinfo=UTC)
    one, *others = store.settling.receiving()
    shown = {row["case_id"]: row for row in store.triage.cases() if row["stage"] in NOT_ENDED}
    leaving, mark, reading = iter(others), store.triage.mark(), store.transactions.reading_plainly
    number = 5 * (held // 10)
    case = store.worklist.case(str(number))
    assert case is not None
    sites = [f"SITE{number}" for number in range(3)]
    bundles, day = Bundles("a" * 64, "9.9", "0.1"), timedelta(days=1)
    candidates = store.retention.candidates
    return {
        "a case, from its first instance to its delivery": lambda: one_case(store),
        "settle: series being received": store.settling.receiving,
        "settle: who brought a series": lambda: store.settling.contributions(one.id),
        "settle: its instances": lambda: store.settling.instances(one.id),
        "settle: its siblings": lambda: store.settling.siblings(one),
        "settle: last instance of its study": lambda: store.settling.last_instance_in_study(one.study_instance_uid),
        "settle: a peer's habits": lambda: store.settling.habits("PACS", 5),
        "settle: habits of one who sends single images": lambda: store.settling.habits(SINGLE_IMAGES, 5),
        "settle: a stranger's habits": lambda: store.settling.habits("NOBODY", 5),
        "settle: it is ready": lambda: store.settling.leave(next(leaving), Event.SETTLED, "count", now),
        "claim": lambda: store.queue.claim("worker", now, _HOUR, 3),
        "claim, of stat sites first": lambda: store.queue.claim("worker", now, _HOUR, 3, sites),
        "claim, of a stat site that has none": lambda: store.queue.claim("worker", now, _HOUR, 3, ["NOBODY"]),
        "claim: exhausted": lambda: store.queue.claim_exhausted("worker", now, _HOUR, 3),
        "claim: whether another waits": lambda: store.queue.other_waits(None),
        "outbox: claim what is due": lambda: store.outbox.due.claim(now, _HOUR),
        "every second: commitments that are due": lambda: store.commitments.due.claim(now, _HOUR),
        "every second: results of commitments that are due": lambda: store.commitment_requests.due.claim(now, _HOUR),
        "every 2 s: cases to notify of": lambda: store.notifications.unacknowledged(now - 2 * day),
        "every 2 s: late cases": lambda: store.notifications.late(now - _HOUR, now - 2 * day),
        "every 2 s: canaries that are left": store.canaries.left,
        "every 2 s: patients' series in work": store.canaries.real_ones_in_work,
        "every 5 s: notifications to forget": lambda: store.notifications.forget(now - 30 * day),
        "every 10 s: leases that ended": lambda: store.queue.expire(old),
        "every 10 s: who holds claims": store.queue.claimants,
        "every 10 s: arrived in the future": lambda: store.settling.stamp_anew(lambda: now),
        "every 10 s: deliveries due in the future": lambda: store.outbox.due.hasten(now, 2 * day),
        "every 10 s: commitments due in the future": lambda: store.commitments.due.hasten(now, 2 * day),
        "every 10 s: reviews that are owed": lambda: store.review_documents.owed(now, 50),
        "every 60 s: removals that have begun": lambda: store.retention.unended(now),
        "every 60 s: what is old": lambda: candidates(old, 50),
        "every 60 s: what is old, where all is": lambda: candidates(now, 50),
        "every 60 s: what the full disk may lose": lambda: candidates(now - day, 50, Why.SPACE),
        "every 60 s: what holds no image": lambda: candidates(now - day, 50, Why.OTHER_OBJECTS, IMAGE_CLASSES),
        "every 60 s: what holds an image": lambda: store.retention.note_images(now - day, 5000, IMAGE_CLASSES),
        "every 60 s: old associations": lambda: store.retention.forget_associations(old, 5000),
        "every hour: cases of each scanner (and pages)": lambda: store.drift.scanners(4.0),
        "second bundle: whether somebody waits": store.shadows.somebody_waits,
        "second bundle: its next attempt": lambda: store.shadows.begin(bundles, now - 3650 * day, _HOUR),
        "worklist: the most urgent 100": store.worklist.rows,
        "worklist: a case by its number": lambda: store.worklist.case(str(number)),
        "pages: what has changed": lambda: store.triage.changed(mark, shown),
        "pages: all cases, every 60 s": store.triage.cases,
        "pages: how cases are delivered": lambda: store.triage.deliveries(range(number, number + 100)),
        "pages: a case's deliveries": lambda: store.worklist.deliveries(number),
        "pages: a case's earlier ones": lambda: store.earlier.cases(case),
        "pages: how good it is, 30 days": lambda: store.statistics.since(now - 30 * day),
        "health: what waits": lambda: health.waiting(reading),
        "metrics: counts": store.worklist.counts,
        "willis status": lambda: store.worklist.status(1000),
        "start: doubtful instances": lambda: store.intake.doubtful_instances("127.0.0.1:11112"),
        "start: lost associations": lambda: store.intake.lose_associations("127.0.0.1:11112", now),
        **{f"query: {what}": partial(store.cfind.find, Level.STUDY, asks, 2001) for what, asks in QUERIES.items()},
    }


RARE = ("query:", "start:", "every hour", "pages: how good", "pages: all cases", "willis status")
"""What nobody asks all the time is printed, and not held to the goal."""


@contextmanager
def opened(database: str, url: str) -> Iterator[Store]:
    """An empty store that is gone afterwards; with a `url` that one, which stays."""
    from tests.conftest import running_postgresql

    if url:
        store = Store.open(url)
        yield store
        store.close()
    elif database == "SQLite":
        with tempfile.TemporaryDirectory(prefix="willis-bench-") as folder:
            store = Store.open(f"sqlite:///{Path(folder) / 'willis.db'}")
            yield store
            store.close()
    else:
        with running_postgresql(GENEROUS) as server, server.database() as of_server:
            store = Store.open(of_server)
            yield store
            store.close()


GENEROUS = (
    "-c shared_buffers=1GB -c max_wal_size=2GB -c checkpoint_timeout=30min -c wal_level=minimal -c max_wal_senders=0"
    " -c max_parallel_workers_per_gather=0"
)
"""No parallel workers: they would hide what a scan costs."""


@dataclass(frozen=True)
class Took:
    """Milliseconds: the median and the 95th percentile of the rounds, and the median of processor time, server and this."""

    median: float
    late: float
    processor: float

    def __str__(self) -> str:
        return f"{self.median:.1f} ({self.late:.1f}); {self.processor:.1f}"


def took(store: Store, ask: Callable[[], Any]) -> Took:
    """What it takes; of fewer rounds where it is slow."""
    waited, used = list[float](), list[float]()
    ask()  # for the first time, which nobody counts
    while len(waited) < 2 or (len(waited) < ROUNDS and sum(waited) < MOST_MS):
        began, processor = time.perf_counter(), _processor_ms(store)
        ask()
        waited.append(1000 * (time.perf_counter() - began))
        used.append(_processor_ms(store) - processor)
    late = statistics.quantiles(waited, n=20, method="inclusive")[-1]
    return Took(statistics.median(waited), late, statistics.median(used))


def _processor_ms(store: Store) -> float:
    """What this process and the server's for our connections have used so far."""
    used = time.process_time_ns()
    if store.transactions.engine.dialect.name == "postgresql":
        for pid in _servers(store):
            with suppress(OSError):
                used += int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
    return used / 1e6


@cache
def _servers(store: Store) -> tuple[int, ...]:
    with store.transactions.reading() as session:
        asked_for = (
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
        )
        return tuple(session.scalars(text(asked_for)))


def main() -> None:
    """Prints the table and the plans."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument(
        "--cases", type=int, nargs="+", default=[1_000_000], help="so many are held, one after another"
    )
    arguments.add_argument("--waiting", type=int, default=1000, help="so many of them are ready")
    arguments.add_argument("--database", choices=DATABASES, default="PostgreSQL")
    arguments.add_argument(
        "--url", default="", help="of a database that is empty, or was filled by this, in place of a new one"
    )
    arguments.add_argument("--only", default="", help="what has this in its name alone")
    options = arguments.parse_args()
    table: dict[str, list[str]] = {}
    slow: dict[str, list[str]] = {}
    for held in options.cases:
        with opened(options.database, options.url) as store:
            began = time.monotonic()
            if not is_filled(store):
                fill(store, held, min(options.waiting, held // 3))
            print(f"{held} cases, there in {time.monotonic() - began:.0f} s; load {os.getloadavg()[0]:.1f}", flush=True)
            for name, ask in asked(store, held).items():
                if options.only in name:
                    found = took(store, ask)
                    table.setdefault(name, []).append(str(found))
                    print(f"    {found!s:30} {name}", flush=True)
                    if min(found.median, found.processor) > GOAL_MS and not name.startswith(RARE):
                        slow[f"{name}, {held} cases"] = plans(store, asked(store, held)[name])
            print(f"load {os.getloadavg()[0]:.1f}", flush=True)
    print(
        f"\n| ms, median (95th percentile) of at most {ROUNDS}; processor time | {' | '.join(f'{held:,}' for held in options.cases)} |"
    )
    print(f"|---|{'---|' * len(options.cases)}")
    for name, cells in table.items():
        print(f"| {name} | {' | '.join(cells)} |")
    for name, lines in slow.items():
        print(f"\nslower than {GOAL_MS:g} ms: {name}\n" + "\n".join(lines))
    raise SystemExit(bool(slow))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
