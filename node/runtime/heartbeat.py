"""A process of the node says every few seconds that it runs, so that `willis status` notices when it does not."""

import os
import socket
import threading
from collections.abc import Callable
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

from node.errors import safe_message
from node.runtime import log
from node.runtime.clock import utc_now
from node.runtime.memory import give_back_memory
from node.runtime.processes import has_died
from storage.queries.processes import Processes
from storage.running import Process

PERIOD_SECONDS = 3.0
_BEATS_A_MINUTE = 20
_LAST_SECONDS = 5.0
_FORGOTTEN = timedelta(hours=1)
"""A process of another host, or of a container that is gone, is missed for so long."""


class Heartbeat:
    """Beats in a thread of its own from `start` to `stop`; every minute the process lets go of free memory too."""

    def __init__(
        self, processes: Processes, role: str, folder: Path, details: Callable[[], dict[str, Any]] = dict
    ) -> None:
        """`role`: the command that the process is; `details` are asked for at every beat."""
        self._processes, self._details = processes, details
        self._first = _process(role, folder)
        self._stopping = threading.Event()
        self._one_at_a_time = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._is_failing = False

    def start(self) -> None:
        """It is known that the process runs; those of its role that died here before are no longer missed."""
        self._try(self._forget_others)
        self._try(self._beat)
        self._thread.start()

    def stop(self) -> None:
        """The process ends as it should, and nobody misses it; unless the database takes nothing for too long."""
        self._stopping.set()
        self._thread.join(_LAST_SECONDS)

    def beat(self) -> None:
        """What the process says of itself now is known at once; nothing, once it ends."""
        self._try(self._beat)

    def _run(self) -> None:
        for number in count():
            if self._stopping.wait(PERIOD_SECONDS):
                break
            self._try(self._beat)
            if number % _BEATS_A_MINUTE == 0:
                give_back_memory()
        self._try(self._end)  # here: after the last beat, however long that took

    def _forget_others(self) -> None:
        first = self._first
        self._processes.forget(
            first.role, first.folder, lambda host, pid: has_died(f"{host}:{pid}"), utc_now() - _FORGOTTEN
        )

    def _beat(self) -> None:
        with self._one_at_a_time:
            if self._stopping.is_set():
                return
            changes = {"beat_at": utc_now(), "details": self._details()}
            self._processes.beat(Process(**{**vars(self._first), **changes}))

    def _end(self) -> None:
        with self._one_at_a_time:
            self._processes.end(self._first.name)

    def _try(self, step: Callable[[], None]) -> None:
        """The step was made, or the log says once that it cannot be: health notices its absence."""
        try:
            step()
            self._is_failing = False
        except Exception as error:  # noqa: BLE001  the edge: the process outlives its database
            if not self._is_failing:
                log.get().warning("heartbeat_failed", error=safe_message(error))
            self._is_failing = True


def note_trouble(processes: Processes, role: str, folder: Path, trouble: str) -> None:
    """It is known why this process ends now: the words that its log has."""
    first = _process(role, folder)
    processes.forget(role, first.folder, lambda host, pid: has_died(f"{host}:{pid}"), utc_now() - _FORGOTTEN)
    processes.beat(Process(**{**vars(first), "details": {"trouble": trouble}}))


def _process(role: str, folder: Path) -> Process:
    host, pid, now = socket.gethostname()[:64], os.getpid(), utc_now()
    return Process(f"{role}:{host}:{pid}", role, host, pid, str(folder.absolute()), now, now)
