"""A day of many sites on this machine: `make simulate DAY=1`.

Two hosts, an engine of two workers, PostgreSQL, an S3 object store and HAProxy (`tests.scale_demo`), to which so many sites
send in minutes what they send in a day: head angiographies that are analysed, plain CT, radiographs, MR and ultrasound that
are kept, and objects of a vendor's own class, which are refused.  Each part is killed in between.  At the end: what is lost or
doubled, how long reports took, of which site the longest, and what the queueing model says of the same arrivals, to which
nothing happens.  Its overheads are fitted to a few angiographies that came one by one before.

The network is a stand-in that sleeps; the angiographies are small.  Status 1: something is lost or doubled, or was not as planned.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from random import Random

import numpy as np

from node.runtime.clock import utc_now
from tests.conftest import running_postgresql
from tests.scale.model import HOURS, Arrival, Overhead, percentile, turnarounds
from tests.scale.played import fitted
from tests.scale.sites import ANGIOGRAPHY, BESIDE, PRIVATE, Senders, Study, drawn, peers
from tests.scale_demo import kills as happening
from tests.scale_demo.kills import Kills
from tests.scale_demo.shown import Clock, reported
from tests.scale_demo.site import Say, Site, running_site
from tests.soak.proof import Verdict, of_cases, waiting
from tests.support.object_store import running_object_store
from tests.support.running import wait_until

SERIES_A_DAY = 1.5
"""Head angiographies of a site: an eighth of what it would send, so that two processor cores keep pace with minutes for a day."""
PLAN = (
    (6.5, happening.RECEIVER), (8.5, happening.WORKER), (9.5, happening.SCHEDULER), (10.5, happening.STORE_AWAY),
    (12.0, happening.POSTGRESQL), (13.5, happening.HOST), (15.5, happening.OWN_WORKER), (17.0, happening.WORKER),
)  # fmt: skip
"""What happens at which hour."""
DRAINED_SECONDS = 300.0
CALM_SECONDS = 20.0
"""So long after something happened the site is calm again."""


@dataclass(frozen=True)
class Case:
    """An angiography that is reported.  `came`: seconds after the beginning; `waited` from there; `modelled`: what the model says."""

    site: int
    came: float
    waited: float
    modelled: float
    is_calm: bool
    """Nothing had happened while it was under way, or shortly before."""


@dataclass(frozen=True)
class Happened:
    """An event in seconds after the beginning."""

    kind: str
    begun: float
    ended: float


@dataclass
class Played:
    """A day that has passed."""

    hour_seconds: float
    studies: Sequence[Study]
    cases: Sequence[Case]
    happened: Sequence[Happened]
    verdict: Verdict
    done: Mapping[str, int]
    trouble: Sequence[str] = ()
    """What was not as planned."""

    @property
    def is_good(self) -> bool:
        """Nothing is lost, nothing doubled, nothing was taken that should be refused, and all was as planned."""
        was_refused = self.done.get("refused", 0) == self.done.get(PRIVATE, 0)
        return was_refused and not (self.verdict.lost or self.verdict.doubled or self.trouble)


def overhead(site: Site, alone: int, say: Say) -> Overhead:
    """That of angiographies that come one by one."""
    senders, service = Senders(site), 0.5
    for number in range(alone):
        before = len(list(site.hosts.pacs.folder.glob("*.dcm")))
        senders.send(900_000 + number, Study(0.0, 0, ANGIOGRAPHY, service))
        wait_until(lambda: len(list(site.hosts.pacs.folder.glob("*.dcm"))) > before, 300, "its report has come")  # noqa: B023
        time.sleep(1.0)
    found = fitted(site.hosts.store.worklist.status(alone).clocks, [service] * alone)
    say(
        f"one by one, seconds: settle {found.settle:.2f}, beside the network {found.claim:.2f}, deliver {found.deliver:.2f}"
    )
    return found


def play(
    site: Site,
    studies: Sequence[Study],
    hour_seconds: float,
    plan: Sequence[tuple[float, str]],
    beside: Overhead,
    say: Say,
) -> Played:
    """The day has passed, all that was planned has happened, and nothing is under way any longer."""
    senders, kills, trouble = Senders(site), Kills(site, Random(len(studies))), list[str]()
    held = len(list(site.hosts.pacs.folder.glob("*.dcm")))
    begun, start = utc_now(), time.monotonic()

    def comes(seconds: float) -> bool:
        """Whether it is so late by now; False: all is to stop."""
        return not senders.stopping.wait(max(0.0, start + seconds - time.monotonic()))

    def happen() -> None:
        for hour, kind in plan:
            if not comes(hour * hour_seconds):
                trouble.append(f"{kind} at {_clock(hour)}: it was not its turn in time")
                continue
            say(f"{_clock(hour)}  {kind}")
            try:
                kills.happen(kind)
            except Exception as error:  # noqa: BLE001  whatever it is, the day goes on
                trouble.append(f"{kind} at {_clock(hour)}: {type(error).__name__}: {error}")
                say(f"       it did not happen: {error}")

    def progress() -> None:
        for hour in range(1, len(HOURS) + 1):
            if not comes(hour * hour_seconds):
                return
            sent, there = senders.done[ANGIOGRAPHY], len(list(site.hosts.pacs.folder.glob("*.dcm"))) - held
            others = sum(senders.done[kind] for kind in BESIDE)
            say(f"{_clock(hour)}  {sent} angiographies sent, {there} reports in the PACS; {others} other studies")

    with ThreadPoolExecutor(64) as threads:
        running = [threads.submit(happen), threads.submit(progress)]
        try:
            for number, study in enumerate(studies):
                comes(study.at)
                running.append(threads.submit(senders.send, number, study))
            wait(running, DRAINED_SECONDS)
        finally:
            senders.stopping.set()
    trouble += [f"{type(error).__name__}: {error}" for each in running if (error := each.exception())]
    try:
        wait_until(lambda: not any(waiting(site.hosts.store).values()), DRAINED_SECONDS, "nothing is under way")
    except AssertionError as error:
        trouble.append(str(error))
    found = of_cases(site.hosts.store, site.hosts.where, senders.sent, site.hosts.pacs.folder)
    happened = [
        Happened(each.kind, (each.begun - begun).total_seconds(), (each.ended - begun).total_seconds())
        for each in kills.done
    ]
    return Played(
        hour_seconds, studies, _cases(site, senders, happened, begun, beside), happened, found, senders.done, trouble
    )


def _clock(hour: float) -> str:
    return f"{int(hour):02d}:{round(hour % 1 * 60):02d}"


def _cases(site: Site, senders: Senders, happened: Sequence[Happened], begun: datetime, beside: Overhead) -> list[Case]:
    """In the order in which they came."""
    there = sorted(reported(site, senders.sites).items(), key=lambda each: each[1][0])
    came = [(last - begun).total_seconds() for _, (last, _) in there]
    arrivals = [
        Arrival(at, senders.services[uid], senders.sites[uid]) for at, (uid, _) in zip(came, there, strict=True)
    ]
    modelled = turnarounds(arrivals, len(site.workers), beside)
    return [
        Case(
            arrival.site,
            arrival.at,
            waited := (there_at - last).total_seconds(),
            seconds,
            not any(each.begun <= arrival.at + waited and arrival.at <= each.ended + CALM_SECONDS for each in happened),
        )
        for arrival, (_, (last, there_at)), seconds in zip(arrivals, there, modelled, strict=True)
    ]


def table(played: Played) -> list[str]:
    """What came of the day, as Markdown."""
    calm = [case for case in played.cases if case.is_calm]
    rows = [
        f"| {name} | {_seconds(real)} | {_seconds(said)} | {f'{said / real:.2f}' if real else ''} |"
        for name, real, said in (
            *_percentiles("", played.cases), *_percentiles(" where nothing had happened", calm), *_of_sites(played.cases),
        )
    ]  # fmt: skip
    sent = Counter(study.kind for study in played.studies)
    return [
        f"| last slice → report, seconds, {len(played.cases)} angiographies | measured | the model | ratio |",
        "|---|---|---|---|", *rows, "",
        "| sent | studies |", "|---|---|",
        *(f"| {kind}{' (refused, as it should be)' if kind == 'private object' else ''} | {sent[kind]} |" for kind in sent),
        f"| attempts that failed and were made again | {played.done.get('again', 0)} |", "",
        f"lost {len(played.verdict.lost)}, doubled {len(played.verdict.doubled)}, {played.verdict.counts}",
        *played.verdict.lost, *played.verdict.doubled, *(f"not as planned: {each}" for each in played.trouble),
    ]  # fmt: skip


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f}"


def _percentiles(where: str, cases: Sequence[Case]) -> list[tuple[str, float, float]]:
    real, said = [case.waited for case in cases], [case.modelled for case in cases]
    return [
        (f"median{where}", percentile(real, 50), percentile(said, 50)),
        (f"95th percentile{where}", percentile(real), percentile(said)),
        (f"most{where}", max(real, default=0.0), max(said, default=0.0)),
    ]


def _of_sites(cases: Sequence[Case]) -> list[tuple[str, float, float]]:
    """Of the 95th percentiles of the sites that sent any, the median and the most."""
    of_sites = [[case for case in cases if case.site == site] for site in {case.site for case in cases}]
    real = [percentile([case.waited for case in own]) for own in of_sites]
    said = [percentile([case.modelled for case in own]) for own in of_sites]
    return [
        ("the median site's 95th percentile", percentile(real, 50), percentile(said, 50)),
        ("the slowest site's", max(real, default=0.0), max(said, default=0.0)),
    ]


def main() -> int:
    """What happens, in lines; at the end a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=6.0, help="that the day takes")
    parser.add_argument("--series-a-day", type=float, default=SERIES_A_DAY, help="head angiographies of a site")
    parser.add_argument("--alone", type=int, default=8, help="angiographies that come one by one before")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    os.environ["WILLIS_TEST_NETWORK"] = "tests.scale.sleeper:sleeper"
    clock, folder = Clock(), Path(tempfile.mkdtemp(prefix="willis-day-", dir="/tmp"))
    hour_seconds = 60 * options.minutes / len(HOURS)
    studies = drawn(np.random.default_rng(options.seed), options.sites, options.series_a_day, hour_seconds)
    with ExitStack() as running:
        postgresql, s3 = running.enter_context(running_postgresql()), running.enter_context(running_object_store())
        more = peers(options.sites) | {"node__echo_seconds": "0"}
        site = running.enter_context(running_site(folder, postgresql, s3, clock.say, **more))
        beside = overhead(site, options.alone, clock.say)
        clock.say(f"{options.sites} sites send {len(studies)} studies in {options.minutes:g} minutes, which are a day")
        played = play(site, studies, hour_seconds, PLAN, beside, clock.say)
    for line in table(played):
        print(line, flush=True)
    if options.picture:
        from tests.scale.picture import draw_day

        draw_day(options.picture, played)
    if played.is_good:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        print(f"the logs of every part are in {folder}")
    return 0 if played.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
