"""P-DATA without I/O: command sets and the fragments that messages come in (PS3.7 6.3, 9.3; PS3.8 9.3.5, annex E).

Only C-STORE is understood here.  What is not a C-STORE request is collected, within a limit, for `dimse_primitives`.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Protocol

from node.net.upper_layer import Event, Pdu

C_STORE_RQ, C_STORE_RSP = 0x0001, 0x8001
NO_DATASET = 0x0101
LARGEST_COMMAND_BYTES = 16_384
LARGEST_OTHER_DATASET_BYTES = 1 << 20
LARGEST_LIST_BYTES = 8 << 20
"""Of an N-ACTION or N-EVENT-REPORT request: some 80,000 instances whose storage commitment is asked for."""
_N_EVENT_REPORT_RQ, _N_ACTION_RQ = 0x0100, 0x0130
_COMMAND, _LAST = 0x01, 0x02
LARGEST_DATASET_PDU_BYTES = 131_072
_FIELD, _MESSAGE_ID, _RESPONDING_TO, _DATASET_TYPE, _STATUS = 0x0100, 0x0110, 0x0120, 0x0800, 0x0900
_SOP_CLASS, _ERROR_COMMENT, _SOP_INSTANCE = 0x0002, 0x0902, 0x1000
_NUMBERS_OF_RESPONSE = struct.Struct("<" + "HHLH" * 4).pack
"""Four elements of group 0000, each with a number of 16 bits."""


class ProtocolViolation(Exception):
    """The peer did what the Standard forbids: its association is aborted.  The message is a code, for the log."""

    def __init__(self, message: str, event: Event = Event.INVALID_PDU) -> None:
        """`event` is what it is to the association's table."""
        super().__init__(message)
        self.event = event


@dataclass(frozen=True)
class StoreRequest:
    """A C-STORE request; what the peer says is not yet believed."""

    context_id: int
    message_id: int
    sop_class_uid: str
    sop_instance_uid: str


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


class Readable(Protocol):
    """An open file."""

    def read(self, count: int, /) -> bytes:
        """At most so many bytes; none at the end."""


@dataclass(frozen=True)
class OtherMessage:
    """A message that is no C-STORE request: its command set, and its dataset, None where it has none."""

    context_id: int
    command: bytes
    dataset: bytes | None


Begin = Callable[[StoreRequest], Sink]
Store = tuple[StoreRequest, Answer]


@dataclass
class _Message:
    """The message that has begun.  Its command set is complete when it has a sink, or a dataset to fill."""

    context_id: int
    bytes: int = 0
    command: bytearray = field(default_factory=bytearray)
    store: tuple[StoreRequest, Sink] | None = None
    dataset: bytearray | None = None
    most_bytes: int = LARGEST_OTHER_DATASET_BYTES


class Messages:
    """Puts the messages of one association together.

    For each fragment call `begin_fragment`, `data` with its bytes in pieces, then `end_fragment`.
    """

    def __init__(self, begin: Begin, takes_other_groups: bool = False) -> None:
        """`begin` is called when the command set of a C-STORE request is complete.  See `read_command`."""
        self._begin, self._takes_other_groups = begin, takes_other_groups
        self._message: _Message | None = None
        self._flags = 0

    @property
    def is_between_messages(self) -> bool:
        """Whether the next fragment begins a message."""
        return self._message is None

    @property
    def message_bytes(self) -> int:
        """How much of the message that has begun is here."""
        return self._message.bytes if self._message else 0

    def begin_fragment(self, context_id: int, flags: int) -> None:
        """Raises ProtocolViolation when this fragment cannot follow."""
        message = self._message
        if message is None:
            message = self._message = _Message(context_id)
        elif context_id != message.context_id:
            raise ProtocolViolation("fragments of two messages are mixed")
        in_dataset = message.store is not None or message.dataset is not None
        if bool(flags & _COMMAND) == in_dataset:
            raise ProtocolViolation("command after dataset" if in_dataset else "dataset without command")
        self._flags = flags

    def data(self, piece: memoryview) -> None:
        """The next bytes of the fragment.  Raises ProtocolViolation when there are too many for what they are."""
        message = self._begun()
        message.bytes += len(piece)
        if message.store is not None:
            message.store[1].write(piece)
        elif message.dataset is None:
            message.command += piece
            if len(message.command) > LARGEST_COMMAND_BYTES:
                raise ProtocolViolation("command set too long")
        else:
            message.dataset += piece
            if len(message.dataset) > message.most_bytes:
                raise ProtocolViolation("dataset too long for this command")

    def end_fragment(self) -> Store | OtherMessage | None:
        """The message that this fragment has completed.  Raises ProtocolViolation."""
        if not self._flags & _LAST:
            return None
        message = self._begun()
        if self._flags & _COMMAND and self._has_dataset(message):
            return None
        self._message = None
        if message.store is not None:
            request, sink = message.store
            return request, sink.finish()
        dataset = None if message.dataset is None else bytes(message.dataset)
        return OtherMessage(message.context_id, bytes(message.command), dataset)

    def abandon(self) -> None:
        """The message that has begun will not be completed."""
        message, self._message = self._message, None
        if message is not None and message.store is not None:
            message.store[1].abandon()

    def _begun(self) -> _Message:
        if self._message is None:
            raise AssertionError("a fragment begins before its data")
        return self._message

    def _has_dataset(self, message: _Message) -> bool:
        """The command set is complete: whether a dataset follows, for which there is a place now."""
        command = read_command(message.command, self._takes_other_groups)
        has_dataset = _number(command, _DATASET_TYPE) != NO_DATASET
        if _number(command, _FIELD) == C_STORE_RQ:
            request = StoreRequest(
                message.context_id,
                _number(command, _MESSAGE_ID),
                _uid(command, _SOP_CLASS),
                _uid(command, _SOP_INSTANCE),
            )
            message.store = request, self._begin(request)
        elif has_dataset:
            message.dataset = bytearray()
            if _number(command, _FIELD) in (_N_EVENT_REPORT_RQ, _N_ACTION_RQ):
                message.most_bytes = LARGEST_LIST_BYTES
        return has_dataset


def read_command(data: bytes | bytearray, takes_other_groups: bool = False) -> dict[int, bytes]:
    """The elements of group 0000, Implicit VR Little Endian (PS3.7 6.3.1).  Raises ProtocolViolation.

    Others are a violation, or passed over: Orthanc 1.10.1 lists what failed, (0008,0058), in its last C-GET response.
    """
    command, at = {}, 0
    while at < len(data):
        if len(data) - at < 8:
            raise ProtocolViolation("command set truncated")
        group, element, length = struct.unpack_from("<HHL", data, at)
        at += 8
        if length > len(data) - at or (group and not takes_other_groups):
            raise ProtocolViolation("command set malformed")
        if not group:
            command[element] = bytes(data[at : at + length])
        at += length
    return command


def _number(command: dict[int, bytes], element: int) -> int:
    value = command.get(element, b"")
    if len(value) != 2:
        raise ProtocolViolation("command set without a number that it needs")
    return int.from_bytes(value, "little")


def _uid(command: dict[int, bytes], element: int) -> str:
    """Up to the first NUL: some senders fill a field of 64 bytes, and leave what was in it behind."""
    try:
        return command.get(element, b"").partition(b"\0")[0].decode("ascii").rstrip()
    except UnicodeDecodeError:
        return ""


def store_response(request: StoreRequest, answer: Answer, maximum_bytes: int) -> bytes:
    """The P-DATA-TF PDUs of the C-STORE response, each as long as the peer takes them (PS3.7 9.3.1.2)."""

    def uid(element: int, text: str) -> bytes:
        value = text.encode("ascii") if len(text) <= 64 else b""
        return _element(element, value + b"\0" * (len(value) % 2))

    comment = answer.comment[:64].encode("ascii", "replace")
    body = b"".join((
        uid(_SOP_CLASS, request.sop_class_uid),
        _NUMBERS_OF_RESPONSE(
            0, _FIELD, 2, C_STORE_RSP, 0, _RESPONDING_TO, 2, request.message_id,
            0, _DATASET_TYPE, 2, NO_DATASET, 0, _STATUS, 2, answer.status,
        ),
        _element(_ERROR_COMMENT, comment + b" " * (len(comment) % 2)) if comment else b"",
        uid(_SOP_INSTANCE, request.sop_instance_uid),
    ))  # fmt: skip
    command = _element(0, struct.pack("<L", len(body))) + body
    return b"".join(message_pdus(request.context_id, command, None, maximum_bytes))


def _element(element: int, value: bytes) -> bytes:
    return struct.pack("<HHL", 0, element, len(value)) + value


def message_pdus(context_id: int, command: bytes, dataset: Readable | None, maximum_bytes: int) -> Iterator[bytes]:
    """P-DATA-TF PDUs that carry a message, the rest of `dataset` as it is; each as long as the peer takes them (0: any)."""
    yield from _fragments(context_id, _COMMAND, BytesIO(command), maximum_bytes)
    if dataset is not None:
        yield from _fragments(context_id, 0, dataset, maximum_bytes)


def _fragments(context_id: int, kind: int, content: Readable, maximum_bytes: int) -> Iterator[bytes]:
    # an even number of bytes each (PS3.8 annex E.1), also where the peer names an odd maximum
    room = max(2, (min(maximum_bytes or LARGEST_DATASET_PDU_BYTES, LARGEST_DATASET_PDU_BYTES) - 6) & ~1)
    piece, flags = content.read(room), kind
    while not flags & _LAST:
        following = content.read(room) if len(piece) == room else b""
        flags = kind if following else kind | _LAST
        yield struct.pack(">BBLLBB", Pdu.P_DATA_TF, 0, len(piece) + 6, len(piece) + 2, context_id, flags) + piece
        piece = following
