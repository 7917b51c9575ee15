"""An association by what goes over its socket, without a receiver behind it: how each life ends, and what is said of it."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydicom import Dataset
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind, Verification
from structlog.testing import capture_logs

from node.net.acceptor import Acceptor
from node.net.association import Association, Services
from node.net.dimse_messages import Sink, StoreRequest
from node.net.dimse_primitives import Request
from node.net.negotiation import Entity, offered
from node.net.services import Handlers
from node.runtime import threads
from tests.support.raw_scu import (
    ABORT,
    COMMAND,
    ECHO_CONTEXT,
    LAST,
    RELEASE_RQ,
    STORE_CONTEXT,
    RawScu,
    associate_rq,
    command,
    echo_command,
    p_data,
    pdv,
    store_pdus,
    uid_bytes,
)
from tests.support.running import free_port, wait_until

FIND = StudyRootQueryRetrieveInformationModelFind
REJECT_PDU, RELEASE_RP_PDU, ABORT_PDU = 3, 6, 7
ECHO = p_data(pdv(ECHO_CONTEXT, COMMAND | LAST, echo_command()))
IDENTIFIER = b"\x08\x00\x52\x00CS\x06\x00STUDY "


@dataclass
class Peer:
    """An acceptor, and what became of the associations with it."""

    port: int = 0
    find: Callable[[Request], Any] | None = None
    ended: list[bool] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    associations: list[Association] = field(default_factory=list)
    acceptor: Acceptor | None = None

    def __enter__(self) -> "Peer":
        entity = Entity("2.25.1", "TEST", 65_536, 2, 1.0, 2.0, (offered(Verification), offered(FIND)))
        services = Services(
            self._begin,
            lambda _association, is_released: self.ended.append(is_released),
            lambda association: self.rejected.append(association.calling_ae),
            Handlers(find=self.find),
        )
        self.port, self.acceptor = free_port(), Acceptor(entity, services)
        self.acceptor.listen("127.0.0.1", self.port)
        return self

    def _begin(self, association: Association) -> Callable[[StoreRequest], Sink]:
        self.associations.append(association)

        def begin(_request: StoreRequest) -> Sink:
            raise AssertionError("no storage here")

        return begin

    def __exit__(self, *_error: object) -> None:
        assert self.acceptor is not None
        self.acceptor.stop_listening()
        for association in self.acceptor.associations:
            association.abort()
            association.join(5)

    def scu(self) -> RawScu:
        return RawScu(self.port).associate(associate_rq(sop_class=FIND))


@pytest.fixture
def peer() -> Iterator[Peer]:
    with Peer() as made:
        yield made


def find_values(message_id: int = 7) -> list[bytes]:
    request = command({
        0x0002: uid_bytes(FIND), 0x0100: b"\x20\x00", 0x0110: message_id.to_bytes(2, "little"), 0x0700: b"\0\0",
        0x0800: b"\0\0",
    })  # fmt: skip
    return [pdv(STORE_CONTEXT, COMMAND | LAST, request), pdv(STORE_CONTEXT, LAST, IDENTIFIER)]


def cancel_value(message_id: int = 7) -> bytes:
    request = command({0x0100: b"\xff\x0f", 0x0120: message_id.to_bytes(2, "little"), 0x0800: b"\x01\x01"})
    return pdv(STORE_CONTEXT, COMMAND | LAST, request)


def matches(count: int, seconds: float = 0.0) -> Callable[[Request], Any]:
    """A query with so many answers, each of which takes so long."""

    def find(request: Request) -> Generator[tuple[int, Dataset | None], None, None]:
        for _ in range(count):
            if request.assoc.has_cancelled(request.request.MessageID):
                yield 0xFE00, None
                return
            time.sleep(seconds)
            ds = Dataset()
            ds.StudyID = "A"
            yield 0xFF00, ds

    return find


ENDS = {
    "of unknown type": (struct.pack(">BBL", 0x42, 0, 4) + b"abcd", (2, 1)),
    "that is fine, but not now": (associate_rq(), (2, 2)),
    "that answers what nobody asked": (struct.pack(">BBLL", 6, 0, 4, 0), (2, 2)),
    "that says what it may not": (struct.pack(">BBL", 4, 0, 0), (2, 6)),
    "that cannot be read": (struct.pack(">BBL", 7, 0, 1) + b"x", (2, 6)),
}


@pytest.mark.parametrize("what", ENDS)
def test_a_pdu_that_may_not_come_is_answered_by_an_abort_of_the_provider_with_its_reason(peer: Peer, what: str) -> None:
    pdu, abort = ENDS[what]
    with peer.scu() as scu:
        scu.send(pdu)
        assert scu.pdu() == (ABORT_PDU, bytes((0, 0, *abort)))
        assert scu.pdu() == (0, b"")
    assert wait_until(lambda: peer.ended, 5) == [False]


@pytest.mark.parametrize("first", [RELEASE_RQ, ECHO, b"GET / HTTP/1.1\r\n\r\n"], ids=["release", "data", "http"])
def test_whoever_does_not_begin_with_a_request_is_aborted_by_the_user(peer: Peer, first: bytes) -> None:
    with RawScu(peer.port) as scu:
        scu.send(first)
        assert scu.pdu() == (ABORT_PDU, b"\0\0\0\0")
    assert peer.ended == []


def test_another_protocol_version_is_rejected_by_the_provider(peer: Peer) -> None:
    request = bytearray(associate_rq())
    request[6:8] = b"\x00\x02"
    with RawScu(peer.port) as scu:
        scu.send(bytes(request))
        assert scu.pdu() == (REJECT_PDU, b"\0\1\2\2")
    assert peer.ended == []


def test_one_too_many_is_rejected_for_now_and_counts_no_more_when_it_is_gone(peer: Peer) -> None:
    with peer.scu(), peer.scu() as second, RawScu(peer.port) as third:
        third.send(associate_rq())
        assert third.pdu() == (REJECT_PDU, b"\0\2\3\2")
        assert peer.rejected == ["RAW"]
        third.socket.close()
        second.release()
        wait_until(lambda: peer.acceptor is not None and len(peer.acceptor.associations) == 1, 5)
        peer.scu().release()


class Unrecordable(list[bool]):
    """Takes nothing, as a database that is away."""

    def append(self, _is_released: bool) -> None:
        raise RuntimeError("away")


def test_an_association_that_fails_and_whose_end_cannot_be_recorded_is_gone_all_the_same() -> None:
    with capture_logs() as logs, Peer(ended=Unrecordable()) as peer, peer.scu() as scu:
        scu.send(store_pdus(FIND, "1.2.3", b"")[0])
        assert scu.ended() == 0
        acceptor = peer.acceptor
        wait_until(lambda: acceptor is not None and not acceptor.associations, 5)
    failures = [each["error"] for each in logs if each["event"] == "association_failed"]
    assert failures == ["AssertionError", "RuntimeError"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_connection_for_whose_thread_there_is_no_memory_is_closed_and_the_next_is_served(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(_thread: threading.Thread) -> None:
        raise MemoryError

    with monkeypatch.context() as short_of_memory:
        short_of_memory.setattr(threads, "LONGEST_SECONDS", 0.05)
        short_of_memory.setattr(Association, "_bootstrap", out_of_memory, raising=False)
        with RawScu(peer.port) as refused:
            assert refused.ended() == 0
    assert peer.acceptor is not None
    assert peer.acceptor.associations == []
    with peer.scu() as scu:
        scu.release()


def test_a_command_set_with_an_element_of_another_group_is_aborted(peer: Peer) -> None:
    with peer.scu() as scu:
        scu.send(p_data(pdv(ECHO_CONTEXT, COMMAND | LAST, echo_command() + struct.pack("<HHL", 8, 0x58, 0))))
        assert scu.pdu() == (ABORT_PDU, bytes((0, 0, 2, 6)))


def test_a_service_that_is_not_offered_is_aborted_by_the_user(peer: Peer) -> None:
    with peer.scu() as scu:
        scu.send(p_data(*find_values()))
        assert scu.pdu() == (ABORT_PDU, b"\0\0\0\0")


def test_a_query_on_the_context_of_an_echo_is_not_answered() -> None:
    with Peer(find=matches(1)) as peer, RawScu(peer.port).associate(associate_rq()) as scu:
        on_echo = [value[:4] + bytes((ECHO_CONTEXT,)) + value[5:] for value in find_values()]
        scu.send(p_data(*on_echo))
        assert scu.pdu() == (ABORT_PDU, b"\0\0\0\0")


def statuses(scu: RawScu) -> list[int]:
    """Up to the final one."""
    found: list[int] = []
    while not found or found[-1] == 0xFF00:
        response = scu.response()
        found.append(int.from_bytes(response[0x0900], "little"))
        if response[0x0800] != b"\x01\x01":
            scu.pdu()
    return found


def test_a_cancel_in_the_pdu_of_its_request_is_understood() -> None:
    with Peer(find=matches(3)) as peer, peer.scu() as scu:
        scu.send(p_data(*find_values(), cancel_value()))
        assert statuses(scu) == [0xFE00]
        scu.send(p_data(*find_values(), cancel_value(8)))
        assert statuses(scu) == [0xFF00, 0xFF00, 0xFF00, 0x0000]
        scu.release()


def test_a_release_in_the_midst_of_answers_ends_them_and_is_answered() -> None:
    with Peer(find=matches(50, 0.05)) as peer, peer.scu() as scu:
        scu.send(p_data(*find_values()))
        assert scu.status() == 0xFF00
        scu.pdu()
        scu.send(RELEASE_RQ)
        assert statuses(scu)[-1] == 0xFE00
        assert scu.pdu() == (RELEASE_RP_PDU, b"\0\0\0\0")
        assert wait_until(lambda: peer.ended, 5) == [True]


def test_an_abort_in_the_midst_of_answers_stops_them_and_nothing_more_is_sent() -> None:
    asked = threading.Event()

    def find(request: Request) -> Generator[tuple[int, Dataset | None], None, None]:
        try:
            yield from matches(500, 0.01)(request)
        finally:
            asked.set()

    with Peer(find=find) as peer, peer.scu() as scu:
        scu.send(p_data(*find_values()) + ABORT)
        assert asked.wait(5)
        assert wait_until(lambda: peer.ended, 5) == [False]


def test_an_answer_to_nothing_is_ignored(peer: Peer) -> None:
    response = command({
        0x0002: uid_bytes(Verification), 0x0100: b"\x30\x80", 0x0120: b"\1\0", 0x0800: b"\x01\x01", 0x0900: b"\0\0",
    })  # fmt: skip
    with peer.scu() as scu:
        scu.send(p_data(pdv(ECHO_CONTEXT, COMMAND | LAST, response)) + ECHO)
        assert scu.status() == 0x0000
        scu.release()


def test_a_peer_that_releases_and_closes_at_once_has_released(peer: Peer) -> None:
    with peer.scu() as scu:
        scu.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        scu.send(RELEASE_RQ)
        time.sleep(0.1)
    assert wait_until(lambda: peer.ended, 5) == [True]


def test_after_an_abort_the_connection_is_closed_even_when_the_peer_does_not(peer: Peer) -> None:
    with peer.scu() as scu:
        scu.send(struct.pack(">BBL", 0x42, 0, 0))
        assert scu.pdu()[0] == ABORT_PDU
        began = time.monotonic()
        assert scu.pdu() == (0, b"")
        assert time.monotonic() - began < 5


def test_who_is_served_in_another_thread_is_aborted_from_there(peer: Peer) -> None:
    with peer.scu() as scu:
        scu.send(ECHO)
        assert scu.status() == 0x0000
        peer.associations[0].abort()
        assert scu.pdu() == (ABORT_PDU, b"\0\0\0\0")
    assert wait_until(lambda: peer.ended, 5) == [False]
