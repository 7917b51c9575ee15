"""Why no association came about, in words that tell one cause from another."""

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from node.config.peer import Peer
from node.errors import Unavailable
from node.net.tls import server_context
from node.scu import dimse
from node.scu.dimse import Entity, Timeouts, echo
from node.simulated_pacs import Fault, SimulatedPeer
from tests.support.certificates import Certificates, certificates
from tests.support.running import free_port

__all__ = ["certificates"]
ENTITY = Entity("WILLIS", Timeouts(acse=0.5, dimse=1, network=1))


def why(port: int, host: str = "127.0.0.1", entity: Entity = ENTITY, **keys: object) -> str:
    """What an echo to this port says."""
    with pytest.raises(Unavailable) as raised:
        echo(entity, Peer.model_validate({"ae_title": "PACS", "host": host, "port": port, **keys}))
    return str(raised.value)


def answered_by(answer: Callable[[socket.socket], object]) -> str:
    """What an echo says of a program that does this with each connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        said = why(server.getsockname()[1])
        thread.join(10)
    return said


def test_a_peer_that_refuses_one_that_is_silent_and_one_that_hangs_up_are_told_apart(tmp_path) -> None:  # type: ignore[no-untyped-def]
    assert "connection refused: the host is up and nothing listens on that port" in why(free_port())
    until_closed = answered_by(lambda connection: [None for _ in iter(lambda: connection.recv(4096), b"")] and None)
    assert "it took the connection and did not answer within 0.5 s" in until_closed
    assert "closed it without an answer" in answered_by(lambda connection: connection.recv(4096) and None)
    assert "speaks no DICOM" in answered_by(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    pacs = SimulatedPeer(tmp_path / "pacs", "PACS", Fault.REJECT)
    assert "rejected the association; does it know our AE title" in why(pacs.start(0))
    pacs.stop()


def test_a_peer_that_hangs_up_before_it_was_asked_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
    monkeypatch.setattr(dimse, "connect", lambda *_: ours)
    assert "closed it without an answer" in why(104)


@pytest.mark.parametrize(
    ("host", "cause"), [("no.such.host.invalid", "cannot be resolved"), ("a..b", "that is no host name")]
)
def test_a_name_that_leads_nowhere_is_no_traceback(host: str, cause: str) -> None:
    assert cause in why(104, host)


def test_a_peer_that_refuses_our_expired_certificate_says_so(tmp_path, certificates: Certificates) -> None:  # type: ignore[no-untyped-def]
    tls = certificates.of()
    pacs = SimulatedPeer(tmp_path / "pacs", "PACS", tls=server_context(tls))
    port = pacs.start(0)
    said = why(
        port, entity=Entity("WILLIS", Timeouts(acse=5, dimse=5, network=5), certificates.of("expired")), tls=True
    )
    pacs.stop()
    assert "our certificate" in said or "closed it without an answer" in said
