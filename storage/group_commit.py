"""Several associations' instances in one transaction: one flush of the database answers all that wait for it.

An association offers its instance when the bytes are complete, then makes the file durable; meanwhile the one
committing thread runs the statements.  It commits when every file of its group is durable, so a row never promises a
file that power loss could take.  Whoever offers while a group is being committed belongs to the next one.
"""

import queue
import threading
from collections.abc import Iterable

from storage.intake import Intake
from storage.records import Added, Arrived

LARGEST_GROUP = 64


class Withdrawn(Exception):
    """An instance of the group has no file: the group begins again without it."""


class Offer:
    """An instance that waits to be committed.  Its association calls either `withdraw` or `outcome`, once."""

    def __init__(self, arrived: Arrived) -> None:
        self.arrived = arrived
        self.withdrawn = False
        self._file = threading.Lock()
        self._file.acquire()
        self._done = threading.Lock()
        self._done.acquire()
        self._outcome: Added | Exception = Withdrawn()

    def withdraw(self) -> None:
        """There is no file: the instance will not be added."""
        self.withdrawn = True
        self._file.release()

    def outcome(self) -> Added:
        """The file is durable; returns what became of the instance once its row is too.  Raises what went wrong."""
        self._file.release()
        self._done.acquire()
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome

    def wait_for_file(self) -> None:
        """The association has made up its mind.  Raises Withdrawn."""
        with self._file:
            if self.withdrawn:
                raise Withdrawn

    def settle(self, outcome: Added | Exception) -> None:
        """The association may answer."""
        self._outcome = outcome
        self._done.release()


class GroupCommit:
    """The one thread of a receiver that adds instances to the database."""

    def __init__(self, intake: Intake) -> None:
        """Nothing runs before `start`."""
        self._intake = intake
        self._offers: queue.SimpleQueue[Offer | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Offers are committed from now on."""
        self._offers = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="group-commit", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """What was offered until now is committed; what is offered later is refused."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._offers.put(None)
        if thread is not None:
            thread.join()

    def offer(self, arrived: Arrived) -> Offer:
        """The statements for `arrived` run soon; they are committed when its file is durable."""
        offer = Offer(arrived)
        with self._lock:
            running = self._thread is not None
            if running:
                self._offers.put(offer)
        if not running:
            offer.settle(RuntimeError("the receiver is stopping"))
        return offer

    def _run(self) -> None:
        while True:
            group: list[Offer | None] = [self._offers.get()]
            while len(group) < LARGEST_GROUP and not self._offers.empty():
                group.append(self._offers.get())
            self._commit([offer for offer in group if offer is not None])
            if None in group:
                return

    def _commit(self, group: list[Offer]) -> None:
        """Every offer is settled: together, or, when that fails, each for itself."""
        if not group:
            return
        try:
            added = self._add(group)
        except Exception as error:  # noqa: BLE001  the edge: whatever it is, the associations are told, and answer it
            if len(group) == 1:
                group[0].settle(error)
                return
            for offer in group:
                self._commit([offer])
        else:
            for offer, outcome in zip(group, added, strict=True):
                offer.settle(outcome)

    def _add(self, group: list[Offer]) -> list[Added]:
        def files_are_durable(offers: Iterable[Offer] = group) -> None:
            for offer in offers:
                offer.wait_for_file()

        return self._intake.add_instances([offer.arrived for offer in group], files_are_durable)
