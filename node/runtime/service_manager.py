"""What the service manager is told of a process that it started: sd_notify(3), a datagram on its socket.

Without `NOTIFY_SOCKET` in the environment nobody is told anything.
"""

import os
import socket
from collections.abc import Mapping

from node.runtime import log

_SOCKET, _USEC, _PID = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"
VARIABLES = (_SOCKET, _USEC, _PID)
"""Of the environment: for the process that was started, and not for its children."""


class ServiceManager:
    """Tells systemd of this process."""

    def __init__(self, environment: Mapping[str, str] = os.environ, pid: int | None = None) -> None:
        """`environment` is as it was when the process was started, `pid` its own."""
        address = environment.get(_SOCKET, "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        is_meant = environment.get(_PID, str(pid or os.getpid())) == str(pid or os.getpid())
        microseconds = environment.get(_USEC, "")
        self.watchdog_seconds = int(microseconds) / 1e6 if is_meant and microseconds.isdecimal() else None
        """It has to hear `watchdog` within so long, or starts the process anew; None: it does not listen for that."""

    @property
    def listens(self) -> bool:
        """Whether there is one."""
        return bool(self._address)

    def ready(self) -> None:
        """It knows that the service is there."""
        self._tell("READY=1")

    def stopping(self, within_seconds: float) -> None:
        """It knows that the service ends as it should, and waits so long for it, whatever its own limit is."""
        self._tell(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={within_seconds * 1e6:.0f}")

    def watchdog(self) -> None:
        """It knows that the process is not stuck."""
        self._tell("WATCHDOG=1")

    def status(self, words: str) -> None:
        """`systemctl status` shows these words."""
        self._tell(f"STATUS={' '.join(words.split())}")

    def _tell(self, assignment: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(1.0)
                sender.sendto(assignment.encode(), self._address)
        except OSError as error:  # it starts us anew if it does not hear from us; we need it for nothing else
            log.get().warning("service_manager_not_told", error=type(error).__name__)
