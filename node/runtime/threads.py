"""Threads that are started for whoever comes, however little memory there is."""

import threading

LONGEST_SECONDS = 10.0
"""A thread that has not begun by then is given up."""


class _Begun(threading.Event):
    """What `Thread.start` waits for; `came` says whether it was told."""

    came = False

    def wait(self, timeout: float | None = None) -> bool:
        self.came = super().wait(LONGEST_SECONDS if timeout is None else timeout)
        return self.came


def start(thread: threading.Thread) -> None:
    """The thread runs.  Raises RuntimeError where it does not, which then never will: there is no memory for it.

    For a thread that begins without memory `Thread.start` waits for ever (CPython's issue 140746): a port's thread would
    accept no further connection.
    """
    if not hasattr(thread, "_started"):  # a Python that waits otherwise
        thread.start()
        return
    begun = thread._started = _Begun()  # noqa: SLF001  nothing public says how long to wait
    thread.start()
    if not begun.came:
        with threading._active_limbo_lock:  # type: ignore[attr-defined]  # noqa: SLF001
            threading._limbo.pop(thread, None)  # type: ignore[attr-defined]  # noqa: SLF001  it would be kept, and run if it is only late
        raise RuntimeError("there is no memory for a new thread")
