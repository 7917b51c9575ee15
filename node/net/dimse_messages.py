"""P-DATA without I/O: command sets and the fragments that messages come in (PS3.7 6.3, 9.3; PS3.8 9.3.5, annex E).

Only C-STORE is understood here.  What is not a C-STORE request is collected, within a limit, for pynetdicom's DIMSE.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

P_DATA_TF = 0x04
C_STORE_RQ, C_STORE_RSP = 0x0001, 0x8001
NO_DATASET = 0x0101
LARGEST_COMMAND_BYTES = 16_384
LARGEST_OTHER_DATASET_BYTES = 1 << 20
_COMMAND, _LAST = 0x01, 0x02
_LARGEST_RESPONSE_PDU_BYTES = 16_384
_FIELD, _MESSAGE_ID, _RESPONDING_TO, _DATASET_TYPE, _STATUS = 0x0100, 0x0110, 0x0120, 0x0800, 0x0900
_SOP_CLASS, _ERROR_COMMENT, _SOP_INSTANCE = 0x0002, 0x0902, 0x1000


class ProtocolViolation(Exception):
    """The peer did what the Standard forbids: its association is aborted.  The message is a code, for the log."""


@dataclass(frozen=True)
class StoreRequest:
    """A C-STORE request; what the peer says is not yet believed."""

    context_id: int
    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    has_dataset: bool


@dataclass(frozen=True)
class Answer:
    """The status of a C-STORE response, and its Error Comment."""

    status: int
    comment: str = ""


class Sink(Protocol):
    """Takes the dataset of one C-STORE request.  `write` and `finish` do not raise: what went wrong is the answer."""

    def write(self, data: memoryview) -> None:
        """The next bytes; valid only during the call."""

    def finish(self) -> Answer:
        """All bytes were written; the answer is true when it is given."""

    def abandon(self) -> None:
        """The rest will never come: nothing is left of the instance."""


@dataclass(frozen=True)
class OtherMessage:
    """A message for pynetdicom: (context, message control header and fragment) for each part."""

    context_id: int
    parts: tuple[tuple[int, bytes], ...]


Begin = Callable[[StoreRequest], Sink]
Store = tuple[StoreRequest, Answer]


class Messages:
    """Puts the messages of one association together.

    For each fragment call `begin_fragment`, `data` with its bytes in pieces, then `end_fragment`.
    """

    def __init__(self, begin: Begin) -> None:
        """`begin` is called when the command set of a C-STORE request is complete."""
        self._begin = begin
        self._context_id = 0
        self._command = bytearray()
        self._request: StoreRequest | None = None
        self._sink: Sink | None = None
        self._other: list[tuple[int, bytes]] = []
        self._dataset = bytearray()
        self._flags = 0
        self.is_between_messages = True
        self.message_bytes = 0

    def begin_fragment(self, context_id: int, flags: int) -> None:
        """Raises ProtocolViolation when this fragment cannot follow."""
        if self.is_between_messages:
            self._context_id, self.is_between_messages, self.message_bytes = context_id, False, 0
        elif context_id != self._context_id:
            raise ProtocolViolation("fragments of two messages are mixed")
        in_dataset = self._sink is not None or bool(self._other)
        if bool(flags & _COMMAND) == in_dataset:
            raise ProtocolViolation("command after dataset" if in_dataset else "dataset without command")
        self._flags = flags

    def data(self, piece: memoryview) -> None:
        """The next bytes of the fragment.  Raises ProtocolViolation when there are too many for what they are."""
        self.message_bytes += len(piece)
        if self._sink is not None:
            self._sink.write(piece)
        elif self._flags & _COMMAND:
            self._command += piece
            if len(self._command) > LARGEST_COMMAND_BYTES:
                raise ProtocolViolation("command set too long")
        else:
            self._dataset += piece
            if len(self._dataset) > LARGEST_OTHER_DATASET_BYTES:
                raise ProtocolViolation("dataset too long for this command")

    def end_fragment(self) -> Store | OtherMessage | None:
        """The message that this fragment has completed.  Raises ProtocolViolation."""
        is_last = bool(self._flags & _LAST)
        if self._flags & _COMMAND:
            return self._command_is_complete() if is_last else None
        if not is_last:
            return None
        if self._sink is None:
            self._other.append((self._context_id, bytes([_LAST]) + bytes(self._dataset)))
            return self._other_is_complete()
        sink, self._sink, request = self._sink, None, self._request
        if request is None:
            raise AssertionError("a sink has its request")
        self._reset()
        return request, sink.finish()

    def abandon(self) -> None:
        """The message that has begun will not be completed."""
        sink, self._sink = self._sink, None
        self._reset()
        if sink is not None:
            sink.abandon()

    def _reset(self) -> None:
        self._command = bytearray()
        self._request = None
        self._other, self._dataset = [], bytearray()
        self.is_between_messages = True

    def _command_is_complete(self) -> Store | OtherMessage | None:
        command = read_command(self._command)
        has_dataset = _number(command, _DATASET_TYPE) != NO_DATASET
        if _number(command, _FIELD) != C_STORE_RQ:
            self._other.append((self._context_id, b"\x03" + bytes(self._command)))
            return None if has_dataset else self._other_is_complete()
        self._request = StoreRequest(
            self._context_id,
            _number(command, _MESSAGE_ID),
            _uid(command, _SOP_CLASS),
            _uid(command, _SOP_INSTANCE),
            has_dataset,
        )
        self._sink = self._begin(self._request)
        if has_dataset:
            return None
        sink, self._sink, request = self._sink, None, self._request
        self._reset()
        return request, sink.finish()

    def _other_is_complete(self) -> OtherMessage:
        message = OtherMessage(self._context_id, tuple(self._other))
        self._reset()
        return message


def read_command(data: bytes | bytearray) -> dict[int, bytes]:
    """The elements of group 0000, Implicit VR Little Endian (PS3.7 6.3.1).  Raises ProtocolViolation."""
    command, at = {}, 0
    while at < len(data):
        if len(data) - at < 8:
            raise ProtocolViolation("command set truncated")
        group, element, length = struct.unpack_from("<HHL", data, at)
        at += 8
        if group != 0 or length > len(data) - at:
            raise ProtocolViolation("command set malformed")
        command[element] = bytes(data[at : at + length])
        at += length
    return command


def _number(command: dict[int, bytes], element: int) -> int:
    value = command.get(element, b"")
    if len(value) != 2:
        raise ProtocolViolation("command set without a number that it needs")
    return int.from_bytes(value, "little")


def _uid(command: dict[int, bytes], element: int) -> str:
    try:
        return command.get(element, b"").decode("ascii").rstrip("\0 ")
    except UnicodeDecodeError:
        return ""


def store_response(request: StoreRequest, answer: Answer) -> bytes:
    """The command set of the C-STORE response (PS3.7 9.3.1.2)."""

    def uid(text: str) -> bytes:
        value = text.encode("ascii") if len(text) <= 64 else b""
        return value + b"\0" * (len(value) % 2)

    elements = [
        (_SOP_CLASS, uid(request.sop_class_uid)),
        (_FIELD, struct.pack("<H", C_STORE_RSP)),
        (_RESPONDING_TO, struct.pack("<H", request.message_id)),
        (_DATASET_TYPE, struct.pack("<H", NO_DATASET)),
        (_STATUS, struct.pack("<H", answer.status)),
    ]
    if answer.comment:
        comment = answer.comment[:64].encode("ascii", "replace")
        elements.append((_ERROR_COMMENT, comment + b" " * (len(comment) % 2)))
    elements.append((_SOP_INSTANCE, uid(request.sop_instance_uid)))
    body = b"".join(struct.pack("<HHL", 0, element, len(value)) + value for element, value in elements)
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def command_pdus(context_id: int, command: bytes, maximum_bytes: int) -> Iterator[bytes]:
    """P-DATA-TF PDUs that carry `command`, none longer than the peer's maximum (0: it has none)."""
    room = max(1, min(maximum_bytes or _LARGEST_RESPONSE_PDU_BYTES, _LARGEST_RESPONSE_PDU_BYTES) - 6)
    for at in range(0, len(command), room):
        piece = command[at : at + room]
        flags = _COMMAND | (_LAST if at + room >= len(command) else 0)
        yield struct.pack(">BBLLBB", P_DATA_TF, 0, len(piece) + 6, len(piece) + 2, context_id, flags) + piece
