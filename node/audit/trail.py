"""Where audit messages go: a file, and a syslog server over TLS.  Whoever records one never waits for either."""

import contextlib
import os
import queue
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Protocol

from node.audit.messages import Party, Reporter
from node.config.sections import Config
from node.errors import safe_message
from node.net.tls import held_context
from node.runtime import log
from node.runtime.backoff import Backoff

_PRIORITY = 10 * 8 + 5  # security/authorization messages, notice (RFC 5424 6.2.1)
_LAST_SECONDS = 2.0
_TIMEOUT_SECONDS = 10.0
_PAUSES = Backoff(first_seconds=1.0, longest_seconds=60.0)
_MOST_AT_ONCE = 256
_TROUBLE_SECONDS = 30.0
"""A disk or a server may be away for a moment."""


class Repository(Protocol):
    """Takes messages; raises OSError when it cannot now, and then has taken none of them."""

    def write(self, messages: Sequence[bytes]) -> None:
        """The messages are where they belong."""

    def close(self) -> None:
        """Nothing is held open."""


class AuditFile:
    """Appends a line for each message.  A file that logrotate has moved away or removed is made anew."""

    def __init__(self, path: Path) -> None:
        """`path` is opened at the first message; what it makes, only its owner reads."""
        self._path = path
        self._descriptor = -1
        self._is_torn = False

    def write(self, messages: Sequence[bytes]) -> None:
        """In one system call, so that two processes do not mix their lines; survives kill -9, not power loss."""
        if self._descriptor >= 0 and not self._is_current():
            self.close()
        if self._descriptor < 0:
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        data = (b"\n" if self._is_torn else b"") + b"".join(message + b"\n" for message in messages)
        written = os.write(self._descriptor, data)
        self._is_torn = written < len(data)
        if self._is_torn:  # the disk is full: all of them come again, on lines of their own
            raise OSError("no space left")

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._path.stat())
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """The file is closed."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class SyslogRepository:
    """Sends each message as RFC 5424 says, framed by its length, over TLS (RFC 5425)."""

    def __init__(self, address: tuple[str, int], name: str, context: Callable[[], ssl.SSLContext]) -> None:
        """`name` is what the server's certificate must bear."""
        self._address, self._name, self._context = address, name, context
        self._connection: ssl.SSLSocket | None = None

    def write(self, messages: Sequence[bytes]) -> None:
        """What was on its way when the connection broke may be lost, or come twice: the protocol has no answer."""
        if self._connection is not None and self._has_ended(self._connection):
            self.close()
        try:
            if self._connection is None:
                plain = socket.create_connection(self._address, _TIMEOUT_SECONDS)
                self._connection = self._context().wrap_socket(plain, server_hostname=self._name)
            self._connection.sendall(b"".join(map(syslog_frame, messages)))
        except OSError:
            self.close()
            raise

    def _has_ended(self, connection: ssl.SSLSocket) -> bool:
        """A syslog server says nothing: what can be read is its end, or TLS's own."""
        if not select.select([connection], [], [], 0)[0]:
            return False
        try:
            connection.setblocking(False)
            return not connection.recv(1)
        except ssl.SSLWantReadError:
            return False
        except OSError:
            return True
        finally:
            connection.settimeout(_TIMEOUT_SECONDS)

    def close(self) -> None:
        """The connection is closed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.close()


def syslog_frame(message: bytes) -> bytes:
    """Octet count, space, and the message after its header (RFC 5425 4.3, RFC 5424 6, PS3.15 A.6)."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    host = socket.gethostname() or "-"
    header = f"<{_PRIORITY}>1 {at} {host} willis {os.getpid()} DICOM+RFC3881 - \ufeff"
    line = header.encode() + message
    return str(len(line)).encode() + b" " + line


class Lane:
    """A bounded queue before one repository, and the thread between."""

    def __init__(self, name: str, repository: Repository, length: int, pauses: Backoff = _PAUSES) -> None:
        """`name` is what the log calls it."""
        self._name, self._repository, self._pauses = name, repository, pauses
        self._queue: queue.Queue[bytes] = queue.Queue(length)
        self._dropped = 0
        self._error, self._failing_since = "", 0.0
        self._held: list[bytes] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._log = log.get()
        self._thread = threading.Thread(target=self._run, name=f"audit {name}", daemon=True)
        self._thread.start()

    def put(self, message: bytes) -> None:
        """The message waits for its turn; where too many do, it is dropped and counted."""
        try:
            self._queue.put_nowait(message)
        except queue.Full:
            self._drop(1)

    @property
    def trouble(self) -> str:
        """Why nothing has been written for a while, "" where it is."""
        error, since = self._error, self._failing_since
        return f"{self._name}: {error}" if error and time.monotonic() - since > _TROUBLE_SECONDS else ""

    def _drop(self, count: int) -> None:
        with self._lock:
            self._dropped += count

    def _run(self) -> None:
        failures = 0
        while True:
            self._held = self._held or self._next()
            if not self._held:
                return
            try:
                self._repository.write(self._held)
            except OSError as error:
                self._log.warning("audit_delayed", where=self._name, error=type(error).__name__, count=len(self._held))
                if not failures:
                    self._failing_since = time.monotonic()
                self._error = safe_message(error)
                failures += 1
                if self._stopping.wait(self._pauses.after(failures)):
                    return
                continue
            self._held, failures, self._error = [], 0, ""
            self._say_dropped()

    def _next(self) -> list[bytes]:
        """The messages that wait, at least one; none when the lane is closed and empty."""
        held: list[bytes] = []
        while not held:
            try:
                held.append(self._queue.get(timeout=0.2))
            except queue.Empty:
                if self._stopping.is_set():
                    return []
        with contextlib.suppress(queue.Empty):
            while len(held) < _MOST_AT_ONCE:
                held.append(self._queue.get_nowait())
        return held

    def _say_dropped(self) -> None:
        with self._lock:
            count, self._dropped = self._dropped, 0
        if count:
            self._log.error("audit_messages_dropped", where=self._name, count=count)

    def close(self) -> None:
        """What could be written in a moment is; the rest is counted as dropped."""
        self._stopping.set()
        self._thread.join(_LAST_SECONDS)
        self._drop(self._queue.qsize() + len(self._held))
        self._say_dropped()
        self._repository.close()


class Trail:
    """Records the messages that `reporter` makes."""

    def __init__(self, reporter: Reporter | None = None, lanes: Sequence[Lane] = ()) -> None:
        """Without lanes nothing is recorded."""
        self._reporter = reporter or Reporter(Party("", ""))
        self._lanes = lanes

    def record(self, make: Callable[[Reporter], bytes]) -> None:
        """What `make` makes is on its way.  Never waits."""
        if self._lanes:
            message = make(self._reporter)
            for lane in self._lanes:
                lane.put(message)

    def as_details(self) -> dict[str, str]:
        """For the heartbeat: what cannot be written to, and why; nothing as a rule."""
        troubles = "; ".join(filter(None, (lane.trouble for lane in self._lanes)))
        return {"audit_trouble": troubles} if troubles else {}

    def close(self) -> None:
        """Nothing is recorded any longer."""
        for lane in self._lanes:
            lane.close()


def open_trail(config: Config) -> Trail:
    """The trail that [audit] asks for.  Raises ConfigError when the certificates of [node.tls] cannot be used."""
    settings, lanes = config.audit, list[Lane]()
    if settings.file:
        lanes.append(Lane("file", AuditFile(config.storage.directory / settings.file), settings.queue_messages))
    if settings.syslog_host and config.node.tls is not None:
        address = (settings.syslog_host, settings.syslog_port)
        name = settings.syslog_tls_name or settings.syslog_host
        held_context(config.node.tls)  # raises now what it would later
        repository = SyslogRepository(address, name, partial(held_context, config.node.tls))
        lanes.append(Lane("syslog", repository, settings.queue_messages))
    return Trail(Reporter(Party(config.node.ae_title, socket.gethostname()), settings.patient_ids), lanes)
