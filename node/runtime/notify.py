"""Wakeups between processes: one spares a wait until a job is due, and losing it costs no more than that wait."""

import hashlib
import select
import socket
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Self

NODE_PROCESS, WORKER_PROCESS = "node", "worker"


def _address(directory: Path, name: str) -> str:
    """A socket path short enough for every system (108 bytes), the same for everybody with this directory."""
    digest = hashlib.sha256(str(directory.absolute()).encode()).hexdigest()[:16]
    return str(Path(tempfile.gettempdir()) / f"willis-{digest}-{name}.sock")


def wake(directory: Path, name: str) -> None:
    """Whoever waits for the wakeup `name` of this installation wakes.  Nobody there, or no descriptor: nothing happens."""
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.sendto(b"!", _address(directory, name))


class Wakeup:
    """Waits for wakeups.  One process at a time owns a name; the latest wins."""

    def __init__(self, directory: Path, name: str) -> None:
        """The socket is open; wakeups from now on are kept until `wait`."""
        self._path = Path(_address(directory, name))
        self._path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self._path))
        self._path.chmod(0o600)
        self._inode = self._path.stat().st_ino
        self._socket.setblocking(False)

    def wait(self, timeout_seconds: float) -> bool:
        """Whether a wakeup came before the timeout.  Several count once."""
        ready, _, _ = select.select([self._socket], [], [], timeout_seconds)
        if not ready:
            return False
        with suppress(BlockingIOError):
            while True:
                self._socket.recv(16)
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        with suppress(FileNotFoundError):
            if self._path.stat().st_ino == self._inode:  # else it is the socket of a later owner
                self._path.unlink()
        self._socket.close()
