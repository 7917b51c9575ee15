"""What several associations bring in one transaction: one flush of the database answers all that wait for it.

An association offers its instance when the file lies under its name, and flushes the file while the one committing
thread adds the row: the disk then does all flushes at once.  Whoever offers while a group is being committed belongs to
the next one.  See docs/receive-path.md for what this means after power loss.
"""

import contextlib
import queue
import threading
import time

from storage.pending import Pending
from storage.queries.intake import Intake
from storage.records import Added, Change, Ended

LARGEST_GROUP = 64
PATIENCE_SECONDS = 0.02
"""How long the end of an association waits for company: no answer depends on it, and one flush less does everybody good."""
AGAIN_SECONDS = 10.0
"""After which the end of an association that the database refused is taken to it again, where nothing else comes before."""


class Offer:
    """A change that waits to be committed: an instance, or an association that began or ended."""

    def __init__(self, change: Change) -> None:
        self.change = change
        pending = Pending[Added | int]()
        self.complete = pending.complete
        """The association may answer."""
        self.outcome = pending.outcome
        """What `Intake.take` returns for the change, once it is durable.  Raises what went wrong; then nothing changed."""


class GroupCommit:
    """The one thread of a receiver that writes to the database what comes."""

    def __init__(self, intake: Intake) -> None:
        """Nothing runs before `start`."""
        self._intake = intake
        self.forget_instance = intake.forget_instance
        self._offers: queue.SimpleQueue[Offer | None] = queue.SimpleQueue()
        self._refused_ends: list[Change] = []
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._busy_since: float | None = None

    def start(self) -> None:
        """Offers are committed from now on."""
        self._offers = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="group-commit", daemon=True)
        self._thread.start()

    def busy_seconds(self) -> float:
        """For how long the group that is being committed has been; 0 where none is."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def stop(self) -> None:
        """What was offered until now is committed; what is offered later is refused."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._offers.put(None)
        if thread is not None:
            thread.join()

    def offer(self, change: Change) -> Offer:
        """`change` is made soon, together with what others offer meanwhile."""
        offer = Offer(change)
        with self._lock:
            running = self._thread is not None
            if running:
                self._offers.put(offer)
        if not running:
            offer.complete(RuntimeError("the receiver is stopping"))
        return offer

    def _run(self) -> None:
        while True:
            group: list[Offer | None] = [Offer(end) for end in self._refused_ends]
            with contextlib.suppress(queue.Empty):
                group.insert(0, self._offers.get(timeout=AGAIN_SECONDS if group else None))
            self._refused_ends = []
            if group[0] is not None and isinstance(group[0].change, Ended):
                with contextlib.suppress(queue.Empty):
                    group.append(self._offers.get(timeout=PATIENCE_SECONDS))
            while len(group) < LARGEST_GROUP and not self._offers.empty():
                group.append(self._offers.get())
            self._busy_since = time.monotonic()
            self._commit([offer for offer in group if offer is not None])
            self._busy_since = None
            if None in group:
                return

    def _commit(self, group: list[Offer]) -> None:
        """Every offer is completed: together, or each for itself when one of them may be why that failed.

        When the database is locked or away nobody is tried again: each would wait for its time-out, after the other.
        But an association whose end was refused would count as open: the end goes with the next group once more.
        """
        failure = self._taken(group)
        if failure is None:
            return
        for offer in group:
            mine: Exception | None = failure
            if len(group) > 1 and not self._intake.concerns_everybody(failure):
                mine = self._taken([offer])
            if mine is not None:
                if isinstance(offer.change, Ended) and self._intake.concerns_everybody(mine):
                    self._refused_ends.append(offer.change)
                offer.complete(mine)
                failure = mine

    def _taken(self, group: list[Offer]) -> Exception | None:
        """None when every offer of the group was committed and completed, else why none was."""
        if not group:
            return None
        try:
            outcomes = self._intake.take([offer.change for offer in group])
        except Exception as error:  # noqa: BLE001  the edge: whatever it is, the associations get it, and answer it
            return error
        for offer, outcome in zip(group, outcomes, strict=True):
            offer.complete(outcome)
        return None
