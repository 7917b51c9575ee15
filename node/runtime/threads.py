"""Threads that are started for whoever comes, however little memory there is."""

import threading

LONGEST_SECONDS = 10.0
"""A thread that does not run by then never will."""


class _Begun(threading.Event):
    """What `Thread.start` waits for, without end if it is not stopped."""

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(LONGEST_SECONDS if timeout is None else timeout)


def start(thread: threading.Thread) -> None:
    """The thread runs.  Raises RuntimeError where it does not: there is no memory for it.

    `Thread.start` alone would wait for ever for a thread that has no memory to begin with (CPython's issue 140746), and who
    accepts connections would accept no further one.
    """
    begun = _Begun()
    thread._started = begun  # type: ignore[attr-defined]  # noqa: SLF001  nothing public says for how long
    thread.start()
    if not begun.is_set():
        raise RuntimeError("there is no memory for a new thread")
