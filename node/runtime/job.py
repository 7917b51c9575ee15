"""A verb that runs whenever it is rung for: never twice at once, and no ring is lost."""

import threading
from collections.abc import Callable

from node.runtime import log


class Job:
    """Runs `verb` after each ring.  A ring during a run causes one more run."""

    def __init__(self, name: str, verb: Callable[[], object], longest_pause_seconds: float | None = None) -> None:
        """`name` is for the log.  After the longest pause the verb runs without a ring.

        The metronome follows the wall clock: when that is set back it would not ring until it is as late again.
        """
        self.name = name
        self._longest_pause_seconds = longest_pause_seconds
        self._verb = verb
        self._rung = threading.Event()
        self._stopping = False

    def wake(self) -> None:
        """The verb will run, as soon as it is not running."""
        self._rung.set()

    def woken_within(self, seconds: float) -> bool:
        """Whether it was rung since the verb began, or is within the seconds: for a verb that could go on."""
        return self._rung.wait(seconds)

    def stop(self) -> None:
        """`run` returns after the verb's present run."""
        self._stopping = True
        self._rung.set()

    def run(self) -> None:
        """Runs the verb ring by ring until `stop`.  An error of the verb is logged; the next ring tries again."""
        while True:
            self._rung.wait(self._longest_pause_seconds)
            self._rung.clear()
            if self._stopping:
                return
            try:
                self._verb()
            except Exception as error:  # noqa: BLE001  the edge: one failed beat must not stop the clock
                log.get().error("beat_failed", where=self.name, error=type(error).__name__)

    def start(self) -> threading.Thread:
        """`run` in a thread of its own."""
        thread = threading.Thread(target=self.run, name=self.name, daemon=True)
        thread.start()
        return thread
