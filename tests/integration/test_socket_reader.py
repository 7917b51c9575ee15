"""What a connection has to give, over TLS: the socket is readable before there is a byte for us."""

import socket
import ssl
import threading
import time
from collections.abc import Iterator

import pytest

from node.net.socket_reader import Wire
from node.net.tls import server_context
from tests.support.certificates import Certificates


class TlsPeer:
    """The client, whose records a test sends in the pieces that it wants."""

    def __init__(self, connection: socket.socket, ca: str) -> None:
        self.connection = connection
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cafile=ca)
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="127.0.0.1")

    def shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self.connection.sendall(self._outgoing.read())
                self._incoming.write(self.connection.recv(65_536))
            else:
                self.connection.sendall(self._outgoing.read())
                return

    def record(self, data: bytes) -> bytes:
        self._tls.write(data)
        return self._outgoing.read()


@pytest.fixture
def both(certificates: Certificates) -> Iterator[tuple[Wire, TlsPeer]]:
    """Our end and the peer's, the handshake done."""
    context = server_context(certificates.of(require_peer_certificate=False))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        peer = TlsPeer(socket.create_connection(listening.getsockname()), str(certificates.folder / "ca.pem"))
        plain, _ = listening.accept()
    wire = Wire(context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False), 5)
    shaking = threading.Thread(target=peer.shake_hands)
    shaking.start()
    wire.shake_hands()
    shaking.join(5)
    yield wire, peer
    wire.close()
    peer.connection.close()


def test_a_record_of_which_half_is_here_is_waited_for_until_the_deadline(both: tuple[Wire, TlsPeer]) -> None:
    wire, peer = both
    record = peer.record(b"x" * 100)
    peer.connection.sendall(record[:20])
    start = time.monotonic()
    assert not wire.has_more_within(0.3)
    assert time.monotonic() - start >= 0.3
    threading.Timer(0.2, peer.connection.sendall, [record[20:]]).start()
    assert wire.has_more_within(5)
    wire.begin()
    assert bytes(wire.take(100)) == b"x" * 100


def test_a_connection_that_ends_has_that_to_give(both: tuple[Wire, TlsPeer]) -> None:
    wire, peer = both
    peer.connection.close()
    assert wire.has_more_within(5)
