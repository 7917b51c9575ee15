"""Whatever runs at the site is killed under load, one after the other, or the object store is away for a moment.

`python -m tests.scale_demo.kills --each 50`: status 0 if nothing is lost and nothing reported twice.
"""

import argparse
import math
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from random import Random

from node.runtime.clock import utc_now
from tests.conftest import running_postgresql
from tests.scale_demo.shown import Clock, reported, waits
from tests.scale_demo.site import NoneBusy, Say, Site, running_site
from tests.soak.load import Load
from tests.soak.proof import Verdict, of_cases, waiting
from tests.support.object_store import running_object_store
from tests.support.running import wait_until

AWAY_SECONDS = 2.0
"""Of what nobody starts again by itself: a host, the scheduler, PostgreSQL, the object store."""
WORKER, SCHEDULER, RECEIVER = "a busy worker of the engine", "the scheduler", "a receiver"
POSTGRESQL, STORE_AWAY = "PostgreSQL", "the object store, away"
HOST, OWN_WORKER = "a host", "a host's own worker"
KINDS = (WORKER, SCHEDULER, RECEIVER, POSTGRESQL, STORE_AWAY, HOST, OWN_WORKER)
STORE_LONG_AWAY = "the object store, long away"
SHARES = {"cta": 0.7, "broken_off": 0.1, "other": 0.1, "query": 0.1}
"""What the senders do."""
SECONDS_BETWEEN = 3.0
"""Between the beginnings of two studies."""
AHEAD = 0.2
"""So much more of what is wanted of it no kind may have behind it than another."""
MOST_TRIES = 5
DRAINED_SECONDS = 900.0


@dataclass(frozen=True)
class Event:
    """What happened from when until when, the time included in which something was away."""

    kind: str
    begun: datetime
    ended: datetime


@dataclass
class Found:
    """What came of it.  `waited`: by series, the seconds from its last slice to its report in the PACS.

    `longest`, by kind: the seconds that a report took that was under way at such an event, and a sending until all of it
    was acknowledged; of several events at once, each counts.
    """

    verdict: Verdict
    waited: Mapping[str, float]
    done: Counter[str]
    longest: Mapping[str, tuple[float, float]]

    @property
    def is_good(self) -> bool:
        """Nothing is lost, nothing doubled."""
        return not (self.verdict.lost or self.verdict.doubled)


class Kills:
    """What can happen to the site, by name."""

    def __init__(self, site: Site, random: Random, long_away_seconds: float = 0.0) -> None:
        """Nothing has happened yet."""
        self._site, self._random = site, random
        self._kinds: dict[str, Callable[[], object]] = {
            WORKER: site.kill_a_busy_worker,
            SCHEDULER: lambda: site.kill_scheduler(AWAY_SECONDS),
            RECEIVER: lambda: self._process_of_a_host(b"receive"),
            POSTGRESQL: lambda: site.kill_postgresql(AWAY_SECONDS),
            STORE_AWAY: lambda: site.take_store_away(AWAY_SECONDS),
            HOST: lambda: site.kill_host(self._host(), AWAY_SECONDS),
            OWN_WORKER: lambda: self._process_of_a_host(b"work"),
            STORE_LONG_AWAY: lambda: site.take_store_away(long_away_seconds),
        }
        self.done: list[Event] = []

    def happen(self, kind: str) -> None:
        """It has.  Raises NoneBusy where it could not."""
        begun = utc_now()
        self._kinds[kind]()
        self.done.append(Event(kind, begun, utc_now()))

    def some(self, wanted: Mapping[str, int], seconds: float) -> Iterator[str]:
        """Each kind has happened so often, in a drawn order, or so much time has passed; each is named before it happens.

        Raises NoneBusy where one of a kind could not happen `MOST_TRIES` times in a row.
        """
        left, end, tries = Counter(wanted), time.monotonic() + seconds, Counter[str]()
        while (left := +left) and time.monotonic() < end:
            kind = wait_until(lambda: self._next(left, wanted), 300, f"one of {list(left)} can happen")
            yield kind
            tries[kind] += 1
            try:
                self.happen(kind)
            except NoneBusy:
                if tries[kind] == MOST_TRIES:
                    raise
            else:
                left[kind] -= 1
                tries[kind] = 0

    def _next(self, left: Mapping[str, int], wanted: Mapping[str, int]) -> str | None:
        """One that can happen now: what the engine suffers waits until it serves, and the others go ahead a little meanwhile."""
        serves = self._site.serves()
        least = max(left[kind] / wanted[kind] for kind in left) - AHEAD
        may = [
            each for each in left if left[each] / wanted[each] > least and (serves or each not in (WORKER, SCHEDULER))
        ]
        return self._random.choice(may) if may else None

    def _host(self) -> str:
        return self._random.choice(list(self._site.hosts.nodes))

    def _process_of_a_host(self, role: bytes) -> None:
        node = self._site.hosts.nodes[self._host()]
        os.kill(wait_until(lambda: node.child(role), 300, f"{node.folder.name} has {role.decode()}"), signal.SIGKILL)


def evenly(count: int, random: Random) -> Counter[str]:
    """So many of all kinds, of each about as many."""
    drawn = [kind for _ in range(-(-count // len(KINDS))) for kind in random.sample(KINDS, len(KINDS))]
    return Counter(drawn[:count])


def killed_under_load(
    site: Site,
    wanted: Mapping[str, int],
    seed: int,
    say: Say,
    seconds: float = math.inf,
    long_away_seconds: float = 0.0,
) -> Found:
    """Each kind has happened so often, or as often as there was time in so many seconds; at last the object store was away for
    so long; and nothing is under way any longer.
    """
    random = Random(seed)
    kills = Kills(site, random, long_away_seconds)
    load = Load(site.hosts.address, site.hosts.address, SECONDS_BETWEEN, seed, shares=SHARES)
    trouble = ""
    load.start()
    try:
        try:
            for number, kind in enumerate(kills.some(wanted, seconds), 1):
                time.sleep(random.uniform(0.5, 3.0))
                say(f"{number}: {kind}; {len(load.sent.acknowledged)} instances acknowledged up to now")
            if long_away_seconds:
                say(f"the object store is away for {long_away_seconds:g} s")
                kills.happen(STORE_LONG_AWAY)
        finally:
            load.stop()
        say("nothing more is sent; what is under way comes to its end")
        wait_until(lambda: not any(waiting(site.hosts.store).values()), DRAINED_SECONDS, "nothing is under way")
    except Exception as error:  # noqa: BLE001  whatever it is, what came of the rest is told
        trouble = f"it did not come to its end: {type(error).__name__}: {error}"
    verdict = of_cases(site.hosts.store, site.hosts.where, load.sent, site.hosts.pacs.folder)
    verdict.lost += filter(None, [trouble])
    there = reported(site, load.sent.series)
    longest = {
        kind: (_longest(kills.done, kind, list(there.values())), _longest(kills.done, kind, load.sent.sendings))
        for kind in dict.fromkeys(event.kind for event in kills.done)
    }
    return Found(verdict, waits(site, load.sent.series), Counter(event.kind for event in kills.done), longest)


def _longest(events: Sequence[Event], kind: str, spans: Sequence[tuple[datetime, datetime]]) -> float:
    """Of those that were under way at an event of the kind, the seconds of the longest."""
    mine = [event for event in events if event.kind == kind]
    met = [
        (end - begin).total_seconds()
        for begin, end in spans
        if any(begin <= event.ended and event.begun <= end for event in mine)
    ]
    return max(met, default=0.0)


def main() -> int:
    """What happens, in lines; at the end a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=50, help="kills of each part; of a host and its own worker a fifth")
    parser.add_argument("--only", choices=KINDS, nargs="+", help="these parts, each so often")
    parser.add_argument("--minutes", type=float, default=math.inf, help="fewer kills where they would take longer")
    parser.add_argument(
        "--away-minutes", type=float, default=10.0, help="at the end, the object store is away for so long"
    )
    parser.add_argument("--seed", type=int, default=0, help="0: drawn")
    options = parser.parse_args()
    seed = options.seed or Random().randrange(1 << 30)
    fewer = dict.fromkeys((HOST, OWN_WORKER), -(-options.each // 5))
    wanted = dict.fromkeys(options.only, options.each) if options.only else dict.fromkeys(KINDS, options.each) | fewer
    clock, folder = Clock(), Path(tempfile.mkdtemp(prefix="willis-kills-", dir="/tmp"))
    clock.say(f"seed {seed}, {wanted}, in {folder}")
    with (
        running_postgresql() as postgresql,
        running_object_store() as s3,
        running_site(folder, postgresql, s3, clock.say, ai__attempts="10") as site,
    ):
        found = killed_under_load(site, wanted, seed, clock.say, 60 * options.minutes, 60 * options.away_minutes)
    clock.say("nothing of it runs any longer")
    for line in _table(found):
        print(line, flush=True)
    if found.is_good:
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if found.is_good else 1


def _table(found: Found) -> list[str]:
    """The result, as Markdown."""
    rows = [
        f"| {kind} | {found.done[kind]} | {report:.1f} | {sending:.1f} |"
        for kind, (report, sending) in found.longest.items()
    ]
    waited = sorted(found.waited.values())
    middle = f"{waited[len(waited) // 2]:.1f} s" if waited else "none came"
    return [
        "| what | times | longest report, s | longest sending, s |", "|---|---|---|---|", *rows, "",
        f"lost {len(found.verdict.lost)}, doubled {len(found.verdict.doubled)}, {found.verdict.counts}",
        f"last slice to report: median {middle}, the longest {[round(each, 1) for each in waited[-8:]]}",
        *found.verdict.lost, *found.verdict.doubled,
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
