"""A socket read into one reused buffer, without polling and without patience for those who dawdle."""

import contextlib
import select
import socket
import ssl
import struct
import time
from collections.abc import Iterator

BUFFER_BYTES = 131_072 + 64
SLOWEST_BYTES_PER_SECOND = 1024
_QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)
_TIMEVAL = struct.Struct("@ll")


class Closed(Exception):
    """The peer, or we, closed the connection."""


class HandshakeFailed(Closed):
    """No TLS came about; the message is OpenSSL's reason, for the log."""


class TooSlow(Exception):
    """Nothing came for too long, or what came did not get complete in time."""


class Wire:
    """The bytes that come from one connection.

    A read blocks in the kernel, which wakes it when there are bytes, at the timeout, or after `interrupt`.
    """

    def __init__(self, connection: socket.socket, timeout_seconds: float) -> None:
        """`timeout_seconds` is how long to wait for the first byte of something, and then for the rest of it."""
        self._connection = connection
        self._is_tls = isinstance(connection, ssl.SSLSocket)
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._start = self._end = 0
        self._timeout_seconds = self._began = 0.0
        self.set_timeout(timeout_seconds)

    def set_timeout(self, seconds: float) -> None:
        """From now on this is the timeout, of sending too."""
        self._timeout_seconds = seconds
        self._wait(seconds)

    def _wait(self, seconds: float) -> None:
        """A system call gives up after so long.  OpenSSL tries again by itself unless Python waits for it."""
        if self._is_tls:
            self._connection.settimeout(seconds)
            return
        timeval = _TIMEVAL.pack(int(seconds), max(1, int(seconds % 1 * 1e6)))
        self._connection.settimeout(None)
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)

    def shake_hands(self) -> None:
        """TLS: the handshake is done.  Raises Closed, HandshakeFailed, TooSlow."""
        if isinstance(self._connection, ssl.SSLSocket):
            try:
                self._connection.do_handshake()
            except TimeoutError:
                raise TooSlow from None
            except ssl.SSLEOFError:
                raise Closed from None
            except ssl.SSLCertVerificationError as error:
                raise HandshakeFailed(error.verify_message) from None
            except ssl.SSLError as error:
                raise HandshakeFailed((error.reason or "not TLS").lower().replace("_", " ")) from None
            except OSError:
                raise Closed from None

    def interrupt(self) -> None:
        """Called by any thread: whoever reads gets Closed, now and later.  Sending is still possible."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._connection, socket.SHUT_RD)

    def close(self) -> None:
        """The connection and the buffer are gone."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._connection, socket.SHUT_RDWR)
        self._connection.close()
        self._buffer = memoryview(b"")
        self._start = self._end = 0

    def begin(self) -> None:
        """Something begins: its first byte is here, and the rest has the timeout.  Raises Closed, TooSlow."""
        if self._start == self._end:
            self._start = self._end = 0
            self._receive(len(self._buffer), 0)
        self._began = time.monotonic()

    def has_more_within(self, seconds: float) -> bool:
        """Whether a byte, or the end of the connection, comes in time."""
        if self._start < self._end or (isinstance(self._connection, ssl.SSLSocket) and self._connection.pending()):
            return True
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        while poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            if not self._is_tls or self._has_data():
                return True
        return False

    def _has_data(self) -> bool:
        """Whether what came over TLS is for us: a session ticket is not, and half a record is nothing yet."""
        self._start = self._end = 0
        self._connection.settimeout(0)
        try:
            self._receive(len(self._buffer), 0)
        except TooSlow:
            return False
        except Closed:  # the next read finds that too
            return True
        finally:
            self._wait(self._timeout_seconds)
        return True

    def take(self, count: int) -> memoryview:
        """The next `count` bytes, few, until the next call.  Raises Closed, TooSlow."""
        if self._end - self._start < count:
            held = self._end - self._start
            self._buffer[:held] = bytes(self._buffer[self._start : self._end])
            self._start, self._end = 0, held
            while self._end < count:
                self._check_progress()
                self._receive(len(self._buffer) - self._end, 0)
        taken = self._buffer[self._start : self._start + count]
        self._start += count
        return taken

    def pieces(self, count: int) -> Iterator[memoryview]:
        """The next `count` bytes in large pieces, each until the next.  Raises Closed, TooSlow."""
        while count:
            held = self._end - self._start
            if not held:
                self._check_progress()
                self._start = self._end = 0
                # Exactly what is missing, in one system call: the kernel waits for all of it.
                self._receive(min(count, len(self._buffer)), 0 if self._is_tls else socket.MSG_WAITALL)
                held = self._end
            size = min(held, count)
            piece = self._buffer[self._start : self._start + size]
            self._start += size
            count -= size
            yield piece

    def _receive(self, most: int, flags: int) -> None:
        try:
            if _QUICK_ACK is not None:
                # Lasts until the kernel thinks better of it.  Without, a sender that leaves Nagle's algorithm on (most
                # do) waits 40 ms for our acknowledgement between the command and the dataset of every instance.
                self._connection.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)
            count = self._connection.recv_into(self._buffer[self._end : self._end + most], most, flags)
        except (TimeoutError, BlockingIOError, ssl.SSLWantReadError):
            raise TooSlow from None
        except (OSError, ValueError):
            raise Closed from None
        if not count:
            raise Closed
        self._end += count

    def _check_progress(self) -> None:
        if time.monotonic() - self._began > self._timeout_seconds:
            raise TooSlow

    def send(self, data: bytes) -> None:
        """`data` is with the kernel.  Raises Closed, also when the peer does not read for too long."""
        try:
            self._connection.sendall(data)
        except OSError:
            raise Closed from None

    def discard_until_closed(self, patience_seconds: float) -> bool:
        """Whether the peer closed the connection in time; whatever it still sent is gone."""
        deadline = time.monotonic() + patience_seconds
        self._start = self._end = 0
        while (left := deadline - time.monotonic()) > 0:
            try:
                self._wait(left)
                self._receive(len(self._buffer), 0)
            except Closed:
                return True
            except (TooSlow, OSError):
                return False
            self._end = 0
        return False


def is_too_slow(message_bytes: int, seconds: float, grace_seconds: float) -> bool:
    """Whether a message that has come so far is a slow-loris: alive, but below what any network does."""
    return seconds > grace_seconds and message_bytes < SLOWEST_BYTES_PER_SECOND * (seconds - grace_seconds)
