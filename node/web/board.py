"""The cases that all open pages show, read once for all of them; and who waits for a change.

What changed is found by the numbers of the newest rows (`Triage.changed`).  All cases are read at the start, and rarely
again as a net.
"""

import asyncio
import threading
import time
from bisect import insort
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

from node.rules.urgency import rank
from node.runtime import log
from storage.database.changes import Changes
from storage.queries.triage import NOT_ENDED, Mark, Triage
from storage.queries.worklist import Row

LOOK_SECONDS = 0.1
NET_SECONDS = 1.0
"""Between two looks at the database where every host says what it changes."""
RANKED = timedelta(seconds=60)
"""The order is as of this long ago at most: waiting weighs one more each hour."""
READ_SECONDS = 60.0
"""All cases are read again so long after the last time, if anything was written: what `Triage.changed` does not find."""
PAUSE_SECONDS = 0.25
"""Between two events."""
GROWTH_SECONDS = 5.0
"""The same where cases in work have got more slices or got on, to be analysed say, and nothing else has changed."""
WATCHED_SECONDS = 60.0
"""After the last page has left it counts as watched: the next one may be on its way."""
_GROWING = frozenset(("instance_count", "last_instance_at", "conflicts", "stage"))
_IN_WORK = 3
_MOST_KEPT = 64

T = TypeVar("T")
_Entry = tuple[tuple[int, float], int]
"""The rank of a case and its number, which is negative so that of two alike the newer comes first."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """All cases as they were at one time, by number.  `number` differs from snapshot to snapshot.

    `news`: so often something has changed that is more than how far a case in work is.
    """

    number: int
    news: int
    cases: Mapping[int, Row]
    _order: list[tuple[datetime, list[_Entry]]] = field(default_factory=list, repr=False)
    _kept: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def ranked(self, now: datetime, wanted: Callable[[Row], bool], key: Hashable = None) -> Sequence[Row]:
        """Those that are wanted, the most urgent first, as of `RANKED` ago at most.

        With a `key`, which says what is wanted, the list is made once for all who ask with the same.
        """
        if not self._order or not timedelta() <= now - self._order[0][0] < RANKED:
            entries = sorted((_rank(row, now), -case) for case, row in self.cases.items())
            self._order[:] = [(now, entries)]
        ranked_at, entries = self._order[0]

        def found() -> Sequence[Row]:
            return [row for _, case in entries if wanted(row := self.cases[-case])]

        return found() if key is None else self.kept((ranked_at, key), found)

    def kept(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` returned for this key on this snapshot."""
        if key not in self._kept:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept[key] = made = make()
            return made
        found: T = self._kept.get(key) or make()  # another thread may have cleared it
        return found

    def changed(self, rows: Mapping[int, Row | None]) -> "Snapshot":
        """The next snapshot, with these rows; None: the case is gone.  Itself when none of them differs."""
        different = {case: row for case, row in rows.items() if row != self.cases.get(case)}
        if not different:
            return self
        is_news = any(not _only_grew(self.cases.get(case), row) for case, row in different.items())
        cases = dict(self.cases)
        for case, row in different.items():
            if row is None:
                cases.pop(case, None)
            else:
                cases[case] = row
        order = []
        for ranked_at, entries in self._order:
            patched = [entry for entry in entries if -entry[1] not in different]
            for case, row in different.items():
                if row is not None:
                    insort(patched, (_rank(row, ranked_at), -case))
            order.append((ranked_at, patched))
        return Snapshot(self.number + 1, self.news + is_news, cases, order)

    def differing(self, later: "Snapshot") -> list[int]:
        """The cases of a later snapshot that are not as they are in this one."""
        return [case for case, row in later.cases.items() if row is not self.cases.get(case)]


def _rank(row: Row, now: datetime) -> tuple[int, float]:
    return rank(
        row["priority"], row["p_present"], row["diameter_mm"], row["top_location"], row["last_instance_at"], now
    )


def _only_grew(before: Row | None, after: Row | None) -> bool:
    if before is None or after is None or after["priority"] != _IN_WORK:
        return False
    return all(value == before[name] for name, value in after.items() if name not in _GROWING)


class Board:
    """The latest snapshot.  Threads read it; the event loop awaits the next."""

    def __init__(self, triage: Triage, changes: Changes, hears: Callable[[], bool] = lambda: False) -> None:
        """Nothing is read yet.  `hears`: whether `look` is called when something has changed."""
        self._triage, self._changes, self._hears = triage, changes, hears
        self._is_to_look = threading.Event()
        self._snapshot = Snapshot(0, 0, {})
        self._stamp = ""
        self._mark = Mark(0, 0, 0, 0)
        self._read_at = 0.0
        self._deliveries: dict[Sequence[int], Mapping[int, str]] = {}
        self._lock = threading.Lock()
        self._waiting: set[asyncio.Queue[str]] = set()
        self._left_at = -WATCHED_SECONDS
        self.is_away = False
        """Whether the cases could not be read when they were last looked at."""

    def current(self) -> Snapshot:
        """The cases as the database has them now.  Raises the database's errors."""
        with self._lock:
            return self._current()

    def deliveries(self, case_ids: Sequence[int]) -> Mapping[int, str]:
        """How the reports of cases of the latest snapshot stand on their way, read once for all pages that show the same."""
        with self._lock:
            if len(self._deliveries) >= _MOST_KEPT:
                self._deliveries.clear()
            key = tuple(case_ids)
            if key not in self._deliveries:
                self._deliveries[key] = self._triage.deliveries(case_ids)
            return self._deliveries[key]

    def look(self) -> None:
        """Something has changed, for whoever watches."""
        self._is_to_look.set()

    def _current(self) -> Snapshot:
        stamp = self._changes.stamp()
        if stamp == self._stamp:
            return self._snapshot
        now = time.monotonic()
        if self._snapshot.number == 0 or now - self._read_at > READ_SECONDS:
            mark = self._triage.mark()
            rows: dict[int, Row | None] = dict.fromkeys(self._snapshot.cases)
            rows |= {row["case_id"]: row for row in self._triage.cases()}
            self._read_at = now
        else:
            in_work = {case: row for case, row in self._snapshot.cases.items() if row["stage"] in NOT_ENDED}
            mark, rows = self._triage.changed(self._mark, in_work)
        changed = self._snapshot.changed(rows)
        self._snapshot = changed if changed.number else Snapshot(1, 0, {})
        self._stamp, self._mark = stamp, mark
        self._deliveries.clear()
        return self._snapshot

    @property
    def is_watched(self) -> bool:
        """Whether a page waits for what changes, or did a moment ago."""
        return bool(self._waiting) or time.monotonic() - self._left_at < WATCHED_SECONDS

    def subscribe(self) -> "asyncio.Queue[str]":
        """A queue that gets the name of each event from now on."""
        mine: asyncio.Queue[str] = asyncio.Queue()
        self._waiting.add(mine)
        return mine

    def unsubscribe(self, mine: "asyncio.Queue[str]") -> None:
        """The queue gets nothing more."""
        self._left_at = time.monotonic()  # before it has left: another thread asks `is_watched`
        self._waiting.discard(mine)

    async def watch(self, stopping: Callable[[], bool]) -> None:
        """Notifies whoever waits; goes on until cancelled.

        "changed": the cases have.  "grown 7 12": only these, which are in work, have got on.  "away": they cannot be read.
        "end": all is to end.
        """
        shown, changed_at, looked_at = Snapshot(-1, -1, {}), 0.0, 0.0
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if stopping():
                self._notify("end")
            is_due = self._is_to_look.is_set() or not self._hears() or time.monotonic() - looked_at >= NET_SECONDS
            if not self._waiting or not is_due:
                continue
            self._is_to_look.clear()
            looked_at = time.monotonic()
            try:
                found = await asyncio.to_thread(self.current)
            except Exception as error:  # noqa: BLE001  the edge: the pages outlive the database
                if not self.is_away:
                    log.get().error("database_away", error=type(error).__name__)
                    self._notify("away")
                self.is_away = True
                continue
            is_news = found.news != shown.news or self.is_away
            has_grown = found.number != shown.number and time.monotonic() - changed_at >= GROWTH_SECONDS
            if is_news or has_grown:
                self._notify("changed" if is_news else " ".join(("grown", *map(str, shown.differing(found)))))
                shown, changed_at, self.is_away = found, time.monotonic(), False
                await asyncio.sleep(PAUSE_SECONDS)

    def _notify(self, event: str) -> None:
        for each in self._waiting:
            each.put_nowait(event)
