"""Hears what any host at the same PostgreSQL has made due, or changed of what the pages show."""

import threading
from collections.abc import Callable
from pathlib import Path
from random import Random

from node.errors import safe_message
from node.runtime import log
from node.runtime.backoff import Backoff
from node.runtime.notify import NODE_PROCESS, WORKER_PROCESS, wake
from storage.database.wakeups import Heard, Listening, Whom

RECONNECTS = Backoff(first_seconds=1.0, longest_seconds=30.0)
"""The pauses before the database is connected to again."""
_LOOK_SECONDS = 0.5
"""So often it is asked whether it is to stop, and whether it is wanted."""


def wake_process(directory: Path, heard: Heard, random: Random) -> None:
    """The process of this installation that it concerns wakes, a worker by lot; the pages listen themselves."""
    if heard.whom is Whom.NODES:
        wake(directory, NODE_PROCESS)
    elif heard.whom is Whom.WORKERS and heard.is_drawn(random):
        wake(directory, WORKER_PROCESS)


class Listener:
    """Listens in a thread of its own from `start` to `stop`, while it is wanted.

    What it does not hear is found at the next look, as without it.
    """

    def __init__(
        self,
        connect: Callable[[], Listening | None],
        wake: Callable[[Heard], None],
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        """`connect` is `Store.listening`; where that is None there is no other host.  `wake` is called in the thread.

        While it is not wanted there is no connection: each one costs the server something at every change.
        """
        self._connect, self._wake, self._is_wanted = connect, wake, is_wanted
        self._stopping = threading.Event()
        self._hears = False
        self._thread = threading.Thread(target=self._run, name="listener", daemon=True)

    @property
    def hears(self) -> bool:
        """Whether there is a connection now, and looking often is not needed."""
        return self._hears

    def start(self) -> None:
        """It listens as soon as it is wanted and the database can be had, and whenever both are so."""
        self._thread.start()

    def stop(self) -> None:
        """It listens no longer."""
        self._stopping.set()
        self._thread.join(2 * _LOOK_SECONDS)

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            if not self._is_wanted():
                failures = 0
                self._stopping.wait(_LOOK_SECONDS)
                continue
            try:
                connected = self._connect()
                if connected is None:
                    return
                with connected:
                    failures = 0
                    self._listen(connected)
            except Exception as error:  # noqa: BLE001  the edge: whatever the database raises, it is connected to again
                if not failures:  # once an outage
                    log.get().warning("other_hosts_not_heard", error=safe_message(error))
                failures += 1
            finally:
                self._hears = False
            self._stopping.wait(RECONNECTS.after(failures) if failures else 0)

    def _listen(self, connected: Listening) -> None:
        """Until it is to stop, or is not wanted."""
        self._hears = True
        for whom in Whom:  # for what was said while nobody listened
            self._wake(Heard(whom))
        while not self._stopping.is_set() and self._is_wanted():
            for heard in connected.wait(_LOOK_SECONDS):
                self._wake(heard)
