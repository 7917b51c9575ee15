"""What happens at the site, in lines as it happens and in a table at the end."""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from node.cli.app import console
from tests.scale_demo.site import Site
from tests.soak.load import SentSeries
from tests.soak.proof import Verdict, series_of_reports

LOOK_SECONDS = 0.2


class Clock:
    """Says a line with the seconds since it was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return time.monotonic() - self._began

    def say(self, text: str) -> None:
        """The line is shown."""
        console.print(f"{self.seconds:5.1f} s  {text}", highlight=False, soft_wrap=True)


class Watch:
    """Says, in a thread of its own, who analysed what and when each report is in the PACS, from `start` to `stop`."""

    def __init__(self, site: Site, clock: Clock) -> None:
        """`answered`: the workers of the engine that answered, by case."""
        self.answered: dict[int, list[str]] = defaultdict(list)
        self._site, self._clock = site, clock
        self._delivered = {row["case_id"] for row in _all(site)}
        self._read = {worker.log: worker.log.stat().st_size for worker in site.workers}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """It looks."""
        self._thread.start()

    def stop(self) -> None:
        """It has looked once more."""
        self._stopping.set()
        self._thread.join()
        self._look()

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        for worker in self._site.workers:
            for case, seconds in self._answers(worker.log):
                self.answered[case].append(worker.folder.name)
                self._clock.say(f"{worker.folder.name} analysed case {case} in {seconds:.1f} s")
        for row in _all(self._site):
            if row["delivered_at"] and row["case_id"] not in self._delivered:
                self._delivered.add(row["case_id"])
                seconds = (row["delivered_at"] - row["last_instance_at"]).total_seconds()
                text = f"the report of case {row['case_id']} ({row['outcome']}) is in the PACS"
                self._clock.say(f"{text}, {seconds:.1f} s after the last slice")

    def _answers(self, log: Path) -> Iterator[tuple[int, float]]:
        with log.open("rb") as lines:
            lines.seek(self._read[log])
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                self._read[log] += len(line)
                if b'"answered"' in line:
                    said = json.loads(line)
                    yield said["case"], said["seconds"]


def _all(site: Site) -> Sequence[Mapping[str, Any]]:
    """Of each case its row in the worklist."""
    return site.hosts.store.worklist.rows(limit=1_000_000)


def waits(site: Site, series: Container[str]) -> dict[str, float]:
    """Of each of these series that is reported, the seconds from its last slice to its report in the PACS."""
    return {uid: (there - last).total_seconds() for uid, (last, there) in reported(site, series).items()}


def reported(site: Site, series: Container[str]) -> dict[str, tuple[datetime, datetime]]:
    """Of each of these series that is reported, when its last slice came and when its report was in the PACS."""
    return {
        row["series_instance_uid"]: (row["last_instance_at"], row["delivered_at"])
        for row in _all(site)
        if row["series_instance_uid"] in series and row["delivered_at"]
    }


def slices_at(site: Site, series: str) -> dict[str, int]:
    """How many files of the series came to each host."""
    found = dict.fromkeys(site.hosts.nodes, 0)
    known = next(row for row in _all(site) if row["series_instance_uid"] == series)
    for _, file in site.hosts.store.settling.instances(known["case_id"]):
        for name, node in site.hosts.nodes.items():
            found[name] += (node.config.storage.directory / file.path).exists()
    return found


def table(site: Site, senders: Mapping[str, str], sent: Mapping[str, SentSeries], watch: Watch) -> Table:
    """A row for each case.  `senders`: who sent each series."""
    shown, held, waited = Table(), list(series_of_reports(site.hosts.pacs.folder).values()), waits(site, senders)
    for heading in ("case", "from", "slices (at a, at b)", "analysed by", "attempts", "outcome", "reports", "waited"):
        shown.add_column(heading, no_wrap=True)
    rows = [row for row in _all(site) if row["series_instance_uid"] in senders]
    for row in sorted(rows, key=lambda row: int(row["case_id"])):
        uid, case = row["series_instance_uid"], row["case_id"]
        at = slices_at(site, uid)
        by = ", ".join(dict.fromkeys(watch.answered[case])) or "a host itself"
        seconds = f"{waited[uid]:.1f} s" if uid in waited else "no report"
        shown.add_row(
            str(case), senders[uid], f"{row['instance_count']} of {sent[uid].count} ({at['a']}, {at['b']})",
            by, str(row["attempts"]), row["outcome"] or row["stage"], str(held.count(uid)), seconds,
        )  # fmt: skip
    return shown


def summary(verdict: Verdict, studies: int, waited: Mapping[str, float]) -> list[str]:
    """The verdict in lines."""
    return [
        f"studies: {studies}; lost: {len(verdict.lost)}; doubled: {len(verdict.doubled)}",
        f"the longest wait for a report: {max(waited.values(), default=0.0):.1f} s",
        *verdict.lost,
        *verdict.doubled,
    ]
