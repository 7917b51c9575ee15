"""An SCP made of bytes: accepts one association, and then does exactly what a test wants, right or wrong."""

import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from node.config.peer import Peer
from node.net.negotiation import Entity, accept, offered
from node.net.pdus import encoded, read_control
from node.net.upper_layer import Pdu
from tests.support.raw_scu import COMMAND, LAST, command, p_data, parse_command, pdv

ABORT, RELEASE_RQ, RELEASE_RP = (struct.pack(">BBLL", kind, 0, 4, 0) for kind in (7, 5, 6))
NO_DATASET, HAS_DATASET = 0x0101, 0x0001


class RawScp:
    """Listens on loopback; `script` runs in a thread with the first association."""

    def __init__(self, script: Callable[["RawScp"], None], *sop_classes: str, maximum_bytes: int = 16_384) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        contexts = tuple(offered(sop_class, in_both_roles=True) for sop_class in sop_classes)
        self._entity = Entity("2.25.4712", "RAW", maximum_bytes, 1, 5, 5, contexts)
        self._script = script
        self.socket: socket.socket = self._listening
        self.failure: BaseException | None = None
        self.peer = Peer(ae_title="RAW", host="127.0.0.1", port=self._listening.getsockname()[1])
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What the script found wrong is raised."""
        self._thread.join(10)
        self._listening.close()
        self.socket.close()
        if kind is None and self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        try:
            self.socket, _ = self._listening.accept()
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket.settimeout(10)
            kind, body = self.pdu()
            _, request = read_control(Pdu(kind), struct.pack(">BBL", kind, 0, len(body)) + body)
            self.send(encoded(Pdu.A_ASSOCIATE_AC, accept(request, self._entity).answer))
            self._script(self)
        except BaseException as error:  # noqa: BLE001  for the thread of the test
            self.failure = error

    def send(self, *data: bytes) -> None:
        """These bytes are sent."""
        self.socket.sendall(b"".join(data))

    def _take(self, count: int) -> bytes:
        taken = b""
        while len(taken) < count:
            if not (piece := self.socket.recv(count - len(taken))):
                raise ConnectionError("closed")
            taken += piece
        return taken

    def pdu(self) -> tuple[int, bytes]:
        """Type and body of the next PDU; type 0 when there is none any more."""
        try:
            kind, _, length = struct.unpack(">BBL", self._take(6))
            return kind, self._take(length)
        except ConnectionError:
            return 0, b""

    def message(self) -> tuple[dict[int, bytes], bytes]:
        """Command set and dataset of the next message."""
        parts, found = [b"", b""], dict[int, bytes]()
        while True:
            kind, body = self.pdu()
            assert kind == 4, f"PDU {kind} instead of P-DATA-TF"
            flags = body[5]
            parts[not flags & COMMAND] += body[6:]
            if not flags & LAST:
                continue
            found = found or parse_command(parts[0])
            if not flags & COMMAND or found[0x0800] == struct.pack("<H", NO_DATASET):
                return found, parts[1]

    def answer(self, request: dict[int, bytes], status: int, dataset: bytes = b"", message_id: int = 0) -> None:
        """A response to the request, or to another `message_id`."""
        field = struct.unpack("<H", request[0x0100])[0] | 0x8000
        responding_to = struct.pack("<H", message_id) if message_id else request[0x0110]
        elements = {0x0100: struct.pack("<H", field), 0x0120: responding_to, 0x0900: struct.pack("<H", status)}
        elements[0x0800] = struct.pack("<H", HAS_DATASET if dataset else NO_DATASET)
        pdus = [p_data(pdv(1, COMMAND | LAST, command(elements)))]
        self.send(*pdus, *([p_data(pdv(1, LAST, dataset))] if dataset else []))

    def answer_release(self) -> None:
        """The peer asks for release, and gets it."""
        kind, _ = self.pdu()
        assert kind == 5, f"PDU {kind} instead of A-RELEASE-RQ"
        self.send(RELEASE_RP)
