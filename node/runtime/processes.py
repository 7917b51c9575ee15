"""The processes of a node and how they know of each other."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from node.runtime.backoff import Backoff

CONFIG_ERROR = 2
"""The exit status of a process that cannot use its configuration or the database."""
DEVICE_LOST = 5
"""The exit status of a process whose GPU no longer answers (EIO)."""
NO_MEMORY = 12
"""The exit status of a process that ran out of memory (ENOMEM)."""
PROGRAM = (sys.executable, "-m", "node")
"""How a process of the node is started; its role and its arguments follow."""
NO_SPINNING = {"OPENBLAS_NUM_THREADS": "1", "GOMP_SPINCOUNT": "1000"}
"""The environment of a process that analyses: a network's threads wait for each other, and where others compute too, those
that spin meanwhile take the cores from them."""
RESTARTS = Backoff(first_seconds=1.0, longest_seconds=30.0)
"""The pauses before a process that ended is started again; one that ran for longer than the longest begins anew."""


def worker_name(pid: int) -> str:
    """What a worker process signs its claims with."""
    return f"{socket.gethostname()}:{pid}"


def has_died(worker: str) -> bool:
    """Whether the process that signed so ran on this host and is gone.  A process id used again looks alive."""
    host, _, pid = worker.rpartition(":")
    if host != socket.gethostname() or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


@dataclass
class Child:
    """A process of ours and how often it was started again lately."""

    role: str
    arguments: list[str]
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    failures: int = 0
    start_at: float = 0.0
    started_at: float = 0.0
    starts: int = 0

    def start(self) -> None:
        """The process runs, out of reach of a terminal's Ctrl-C: it ends when it is asked to, or when its standard input closes.

        Raises OSError where the host has no memory, process or descriptor for it.
        """
        command = [*PROGRAM, self.role, *self.arguments]
        self.process = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.PIPE, env=dict(self.environment), start_new_session=True
        )
        self.started_at = time.monotonic()
        self.starts += 1

    def reload(self) -> None:
        """The process is asked to reload, or will read all anew when it next starts: a byte waits where it listens.

        Not by a signal: one that came before it is heard would end the process.
        """
        if self.process is not None and self.process.stdin is not None:
            with suppress(OSError):
                self.process.stdin.write(b"\n")
                self.process.stdin.flush()

    def pause(self) -> None:
        """It is to start again later, each time twice as late."""
        self.failures += 1
        self.start_at = time.monotonic() + RESTARTS.after(self.failures)

    def ended(self, code: int) -> bool:
        """The process is to start again after a pause; False when it never ran: starting it again will not help.

        One that did run could use its configuration: what it cannot use now, such as the database, comes back.
        """
        ran_long = time.monotonic() - self.started_at > RESTARTS.longest_seconds
        if ran_long:
            self.failures = 0
        self.pause()
        self.process = None
        return code != CONFIG_ERROR or self.starts > 1 or ran_long


def asked_to_stop(*numbers: signal.Signals) -> Callable[[], bool]:
    """Whether one of these signals has come since; to be called in the main thread.

    A plain flag: a handler may interrupt the thread that waits, and to set an Event it would wait for a lock of that thread.
    """
    came: list[int] = []
    for number in numbers:
        signal.signal(number, lambda number, _frame: came.append(number))
    return lambda: bool(came)


def end_with_parent(on_reload: Callable[[], None] = lambda: None) -> None:
    """This process ends when its supervisor has: its standard input then reads end of file.

    `on_reload` is called, in another thread, when the supervisor asks for it; see `Child.reload`.
    """

    def watch() -> None:
        while os.read(0, 1024):
            on_reload()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def on_hangup(do: Callable[[], None]) -> None:
    """`do` is called, in another thread, at each SIGHUP; to be called before any other thread runs."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})

    def watch() -> None:
        while signal.sigwait({signal.SIGHUP}):
            do()

    threading.Thread(target=watch, daemon=True).start()


LEASE_SLACK_SECONDS = 30
"""The alarm kills a hung analysis before its lease ends."""
