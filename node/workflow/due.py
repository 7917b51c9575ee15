"""One round of attempts at what is due; the same for deliveries, commitments, the results of commitment requests and notifications."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic

from node.errors import Unavailable, safe_message
from node.runtime import log
from node.runtime.job import still_working
from node.workflow.context import Context, Held
from storage.errors import ObjectsAway
from storage.queries.due import Attempt, Due, Record, WithDue


@dataclass(frozen=True)
class Attempts(Generic[Record]):
    """One kind of attempts.  `name` begins the names of their events in the log, which `logger` writes."""

    name: str
    attempt: Callable[[Context, Record], bool]
    """Whether it succeeded.  What it raises postpones it."""
    give_up: Callable[[Context, Record, str], None]
    """Instead of postponing what is too old; gets the message of what `attempt` raised."""
    logger: Callable[[Record], Any]
    renewed: timedelta | None = None
    """For what may be made twice: the lease is so short and renewed, so that a process that died keeps nobody waiting for longer."""


class _Leased(Generic[Record]):
    """What this process attempts; two threads use it."""

    def __init__(self, due: Due[Record], claimed: Record, lease: timedelta, until: datetime) -> None:
        self._due, self._claimed, self._lease, self._until = due, claimed, lease, until
        self._unanswered: list[datetime] = []
        """The ends of leases for which the database was asked and gave no answer: it may have one of them."""
        self._one_at_a_time = threading.Lock()

    def give_back(self, at: datetime) -> None:
        """It is due then, and the attempt does not count."""
        with self._one_at_a_time:
            self._due.give_back(self._claimed, at, self._unanswered)

    def renew(self, now: datetime) -> None:
        """It is nobody else's for another lease, unless an attempt cannot take so long."""
        with self._one_at_a_time:
            if now < self._until:
                until, maybe = min(now + self._lease, self._until), tuple(self._unanswered)
                self._unanswered.append(until)
                self._claimed = self._due.renew(self._claimed, until, maybe) or self._claimed
                self._unanswered.clear()


def each_due(context: Context, queue: WithDue[Record], kind: Attempts[Record], lease: timedelta) -> int:
    """Each that is due was attempted once; returns how many attempts succeeded.  `lease`: longer than one can take.

    A peer that cannot be had is asked for nothing else in this round: its timeouts must not hold up the others.  Where the
    database fails, whatever the peer answered, the attempt does not count, and is made again after its lease.  What the
    object store would have to give while it is away is left to who has it: now and then one is tried, and none given up.
    """
    succeeded, away, due = 0, set[str](), queue.due
    short = min(kind.renewed or lease, lease)
    while not context.stopping.is_set() and (claimed := due.claim(context.clock(), short, away)):
        leased = _Leased(due, claimed, short, context.clock() + lease)
        with context.holding(Held(leased.give_back, leased.renew) if kind.renewed else Held(leased.give_back)):
            still_working()
            try:
                succeeded += kind.attempt(context, claimed)
            except Exception as error:  # noqa: BLE001  the edge: whatever it is, the others go on
                if due.is_of_database(error):
                    log.get().error("attempt_not_recorded", peer=claimed.peer, error=type(error).__name__)
                    leased.give_back(context.clock() + short)
                    continue
                if isinstance(error, Unavailable):
                    away.add(claimed.peer)
                if isinstance(error, ObjectsAway) and due.store_is_away(context.clock()):
                    queue.postponed(claimed, safe_message(error), context.clock())
                    due.wake_hosts()
                    kind.logger(claimed).warning(f"{kind.name}_left_to_others", error=safe_message(error))
                    continue
                _postpone(context, queue, kind, claimed, safe_message(error))
    return succeeded


def _postpone(context: Context, queue: WithDue[Record], kind: Attempts[Record], claimed: Record, error: str) -> None:
    """It is due again later, or given up."""
    if is_too_old(context, claimed):
        kind.give_up(context, claimed, error)
        return
    wait = context.retry_after(claimed.attempts)
    queue.postponed(claimed, error, context.clock() + wait)
    seconds = round(wait.total_seconds(), 1)
    kind.logger(claimed).warning(f"{kind.name}_postponed", error=error, next_attempt_seconds=seconds)


def is_too_old(context: Context, claimed: Attempt) -> bool:
    """Whether it has been attempted for `give_up_hours`."""
    return context.clock() - claimed.created_at >= timedelta(hours=context.config.delivery.give_up_hours)
