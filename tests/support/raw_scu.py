"""A Storage SCU made of bytes: sends exactly what a test wants, in the pieces that it wants, right or wrong."""

import socket
import ssl
import struct
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

from pydicom import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification
from pynetdicom.sop_class import Verification

RELEASE_RQ = struct.pack(">BBLL", 5, 0, 4, 0)
ABORT = struct.pack(">BBLL", 7, 0, 4, 0)
STORE_CONTEXT, ECHO_CONTEXT = 1, 3
ECHO_RQ, STORE_RQ = 0x0030, 0x0001
COMMAND, LAST = 1, 2


def associate_rq(
    maximum_bytes: int = 16_384,
    sop_class: str = CTImageStorage,
    syntax: str = ExplicitVRLittleEndian,
    calling: str = "RAW",
) -> bytes:
    """An A-ASSOCIATE-RQ with a storage context (1) and one for C-ECHO (3)."""
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = calling, "WILLIS"
    contexts = [build_context(sop_class, [syntax]), build_context(Verification)]
    for number, context in zip((STORE_CONTEXT, ECHO_CONTEXT), contexts, strict=True):
        context.context_id = number
    primitive.presentation_context_definition_list = contexts
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received, implementation.implementation_class_uid = maximum_bytes, "2.25.4711"
    primitive.user_information = [length, implementation]
    encoded: bytes = A_ASSOCIATE_RQ(primitive).encode()
    return encoded


def command(elements: dict[int, bytes]) -> bytes:
    """A command set: group 0000, Implicit VR Little Endian, with its group length."""
    body = b"".join(struct.pack("<HHL", 0, key, len(value)) + value for key, value in sorted(elements.items()))
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def uid_bytes(uid: str) -> bytes:
    """A UID as a value of even length."""
    return uid.encode() + b"\0" * (len(uid) % 2)


def store_command(sop_class: str, sop_instance: str, message_id: int = 1, dataset_type: int = 1) -> bytes:
    """The command set of a C-STORE request."""
    return command({
        0x0002: uid_bytes(sop_class), 0x0100: struct.pack("<H", STORE_RQ), 0x0110: struct.pack("<H", message_id),
        0x0700: b"\0\0", 0x0800: struct.pack("<H", dataset_type), 0x1000: uid_bytes(sop_instance),
    })  # fmt: skip


def echo_command(message_id: int = 1) -> bytes:
    """The command set of a C-ECHO request."""
    return command({
        0x0002: uid_bytes(Verification), 0x0100: struct.pack("<H", ECHO_RQ), 0x0110: struct.pack("<H", message_id),
        0x0800: struct.pack("<H", 0x0101),
    })  # fmt: skip


def pdv(context_id: int, flags: int, data: bytes) -> bytes:
    """A presentation data value item (PS3.8 9.3.5.1)."""
    return struct.pack(">LBB", len(data) + 2, context_id, flags) + data


def p_data(*items: bytes) -> bytes:
    """A P-DATA-TF PDU with these presentation data values."""
    body = b"".join(items)
    return struct.pack(">BBL", 4, 0, len(body)) + body


def fragments(context_id: int, kind: int, data: bytes, size: int) -> list[bytes]:
    """`data` as presentation data values of at most `size` bytes; the last says so."""
    starts = range(0, len(data), size) if data else [0]
    return [pdv(context_id, kind | (LAST if at + size >= len(data) else 0), data[at : at + size]) for at in starts]


def store_pdus(sop_class: str, sop_instance: str, dataset: bytes, size: int = 16_000) -> list[bytes]:
    """The PDUs of one C-STORE request, a presentation data value each."""
    parts = fragments(STORE_CONTEXT, COMMAND, store_command(sop_class, sop_instance), size)
    return [p_data(part) for part in parts + fragments(STORE_CONTEXT, 0, dataset, size)]


class RawScu:
    """One connection, with TLS where `tls` says how."""

    def __init__(self, port: int, timeout_seconds: float = 20.0, tls: ssl.SSLContext | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout_seconds)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket)

    def associate(self, request: bytes | None = None) -> Self:
        """The association is accepted."""
        self.send(request or associate_rq())
        kind, _ = self.pdu()
        assert kind == 2, f"association answered by PDU {kind}"
        return self

    def send(self, data: bytes, pieces_of: int = 0) -> None:
        """`data` is sent, at once or in pieces of so many bytes."""
        for at in range(0, len(data), pieces_of or len(data)):
            self.socket.sendall(data[at : at + (pieces_of or len(data))])

    def exactly(self, count: int) -> bytes:
        """So many bytes; fewer when the connection ends."""
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                break
            data += piece
        return data

    def pdu(self) -> tuple[int, bytes]:
        """Type and body of the next PDU; (0, b"") when the connection ended."""
        head = self.exactly(6)
        if len(head) < 6:
            return 0, b""
        return head[0], self.exactly(struct.unpack(">L", head[2:])[0])

    def response(self) -> dict[int, bytes]:
        """The command set of the next message."""
        data = b""
        while True:
            kind, body = self.pdu()
            assert kind == 4, f"PDU {kind} instead of P-DATA"
            flags = body[5]
            data += body[6:]
            if flags & LAST:
                return parse_command(data)

    def status(self) -> int:
        """The status of the next message."""
        return int.from_bytes(self.response()[0x0900], "little")

    def store(self, ds: Dataset, dataset: bytes, size: int = 16_000) -> int:
        """The status of a C-STORE of `dataset`, announced as `ds`."""
        self.send(b"".join(store_pdus(ds.SOPClassUID, ds.SOPInstanceUID, dataset, size)))
        return self.status()

    def release(self) -> None:
        """The association was released and the connection is closed."""
        self.send(RELEASE_RQ)
        kind, _ = self.pdu()
        assert kind == 6, f"PDU {kind} instead of A-RELEASE-RP"
        self.socket.close()

    def ended(self) -> int:
        """The type of the PDU that came before the connection ended, 0 for none."""
        last = 0
        try:
            while True:
                kind, _ = self.pdu()
                if not kind:
                    return last
                last = kind
        except ConnectionError:
            return last

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()


def parse_command(data: bytes) -> dict[int, bytes]:
    """Element → value of a command set."""
    found, at = {}, 0
    while at < len(data):
        _, element, length = struct.unpack_from("<HHL", data, at)
        found[element] = data[at + 8 : at + 8 + length]
        at += 8 + length
    return found


def all_of(pdus: Iterable[bytes] | Sequence[bytes]) -> bytes:
    """The PDUs, one after the other."""
    return b"".join(pdus)
