"""The cases that all open pages show, read once for all of them when the database has changed; and who waits for that."""

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from node.rules.urgency import rank
from node.runtime import log
from storage.database.changes import Changes
from storage.queries.triage import Triage
from storage.queries.worklist import Row

LOOK_SECONDS = 0.25
RANKED_SECONDS = 10
READ_SECONDS = 20.0
"""All cases are read again so long after the last time, if anything was written: what their stamp does not tell of."""
PAUSE_SECONDS = 1.0
"""Between two events, so that slices that stream in do not have every page drawn anew for each."""


@dataclass(frozen=True)
class Snapshot:
    """All cases as they were at one time.  `number` differs from snapshot to snapshot."""

    number: int
    cases: tuple[Row, ...]
    _order: dict[int, list[Row]] = field(default_factory=dict, compare=False, repr=False)

    def ranked(self, now: datetime, wanted: Callable[[Row], bool]) -> list[Row]:
        """Those that are wanted, the most urgent first, as of the last `RANKED_SECONDS`: all open pages ask at once."""
        period = int(now.timestamp() // RANKED_SECONDS)
        order = self._order.get(period)
        if order is None:
            order = sorted(self.cases, key=lambda row: _rank(row, now))
            self._order.clear()
            self._order[period] = order
        return list(filter(wanted, order))


def _rank(row: Row, now: datetime) -> tuple[int, float]:
    return rank(
        row["priority"], row["p_present"], row["diameter_mm"], row["top_location"], row["last_instance_at"], now
    )


class Board:
    """The latest snapshot.  Threads read it; the event loop awaits the next."""

    def __init__(self, triage: Triage, changes: Changes) -> None:
        """Nothing is read yet."""
        self._triage, self._changes = triage, changes
        self._snapshot = Snapshot(0, ())
        self._stamp = self._compared = self._cases_stamp = ""
        self._read_at = 0.0
        self._lock = threading.Lock()
        self._waiting: set[asyncio.Queue[str]] = set()

    def current(self) -> Snapshot:
        """The cases as the database has them now.  Raises the database's errors."""
        with self._lock:
            stamp = self._changes.stamp()
            now = time.monotonic()
            is_recent = now - self._read_at <= READ_SECONDS
            if stamp == self._stamp or (is_recent and stamp == self._compared):
                return self._snapshot
            cases_stamp = self._triage.stamp()
            self._compared = stamp
            if is_recent and cases_stamp == self._cases_stamp:
                return self._snapshot  # heartbeats and deliveries alone were written, as a rule
            cases = tuple(self._triage.cases())
            self._stamp, self._cases_stamp, self._read_at = stamp, cases_stamp, now
            if cases != self._snapshot.cases or self._snapshot.number == 0:
                self._snapshot = Snapshot(self._snapshot.number + 1, cases)
            return self._snapshot

    def subscribe(self) -> "asyncio.Queue[str]":
        """A queue that gets the name of each event from now on."""
        mine: asyncio.Queue[str] = asyncio.Queue()
        self._waiting.add(mine)
        return mine

    def unsubscribe(self, mine: "asyncio.Queue[str]") -> None:
        """The queue gets nothing more."""
        self._waiting.discard(mine)

    async def watch(self) -> None:
        """Tells whoever waits when the cases have changed ("changed"), or cannot be read ("away"), until cancelled."""
        known, is_away = -1, False
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if not self._waiting:
                continue
            try:
                number = (await asyncio.to_thread(self.current)).number
            except Exception as error:  # noqa: BLE001  the edge: the pages outlive the database
                if not is_away:
                    log.get().error("database_away", error=type(error).__name__)
                    self._tell("away")
                is_away = True
                continue
            if number != known or is_away:
                known, is_away = number, False
                self._tell("changed")
                await asyncio.sleep(PAUSE_SECONDS)

    def _tell(self, event: str) -> None:
        for each in self._waiting:
            each.put_nowait(event)
