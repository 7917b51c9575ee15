"""A function that runs again and again: never twice at once, and no wakeup is lost."""

import threading
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from apscheduler.schedulers.background import BackgroundScheduler

from node.runtime import log
from node.runtime.clock import utc_now

LATE_AFTER_SECONDS = 240.0
"""Of a job that says nothing else, and three of its periods at least."""
_running = threading.local()


class Progress:
    """When something that is never to stand still last got on."""

    def __init__(self, name: str, late_after_seconds: float, clock: Callable[[], datetime] = utc_now) -> None:
        """It gets on now; health calls it late after so many seconds without `made`."""
        self.name, self.late_after_seconds, self._clock = name, late_after_seconds, clock
        self._at = clock()

    def made(self) -> None:
        """It got on."""
        self._at = self._clock()

    def as_details(self) -> dict[str, Any]:
        """For the heartbeat."""
        return {"at": self._at.isoformat(), "late_after_seconds": self.late_after_seconds}


def still_working() -> None:
    """The job whose function calls this gets on, though it has not finished: one of many things is done."""
    if job := getattr(_running, "job", None):
        job.progress.made()


class Job:
    """Runs its function after each wakeup.  Wakeups during a run cause one more run."""

    def __init__(
        self,
        name: str,
        seconds: float | None,
        on_wakeup: bool,
        run: Callable[[], object],
        late_after_seconds: float = 0,
    ) -> None:
        """`run` is due every so many seconds (None: never) and, with `on_wakeup`, when another process wakes this one.

        The scheduler follows the wall clock: when that is set back it would wake nobody until it is as late again.  So
        after twice the `seconds` without a wakeup the function runs too.  `name` is for the log.  `late_after_seconds`:
        longer than one step of it can take.
        """
        self.progress = Progress(name, max(late_after_seconds or LATE_AFTER_SECONDS, 3 * (seconds or 0)))
        self.name, self.seconds, self.on_wakeup = name, seconds, on_wakeup
        self._function = run
        self._woken = threading.Event()
        self._stopping = False

    def wake(self) -> None:
        """The function will run, as soon as it is not running."""
        self._woken.set()

    def woken_within(self, seconds: float) -> bool:
        """Whether it was woken since the function began, or is within the seconds: for one that could go on."""
        return self._woken.wait(seconds)

    def stop(self) -> None:
        """`run` returns after the function's present run."""
        self._stopping = True
        self._woken.set()

    def run(self) -> None:
        """Runs the function wakeup by wakeup until `stop`.  An error of it is logged; the next wakeup tries again."""
        _running.job = self
        longest_seconds = None if self.seconds is None else 2 * self.seconds
        while True:
            self._woken.wait(longest_seconds)
            self._woken.clear()
            if self._stopping:
                return
            try:
                self._function()
                self.progress.made()
            except Exception as error:  # noqa: BLE001  the edge: one failed run must not stop the job
                log.get().error("job_failed", where=self.name, error=type(error).__name__)

    def start(self) -> threading.Thread:
        """`run` in a thread of its own."""
        thread = threading.Thread(target=self.run, name=self.name, daemon=True)
        thread.start()
        return thread


def scheduler_of(jobs: Iterable[Job]) -> BackgroundScheduler:
    """A scheduler that, once started, wakes each of the jobs every so many seconds."""
    scheduler = BackgroundScheduler()
    for job in jobs:
        if job.seconds is not None:
            scheduler.add_job(job.wake, "interval", seconds=job.seconds, coalesce=True, max_instances=1)
    return scheduler
