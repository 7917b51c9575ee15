"""What a peer sends, PDU by PDU and P-DATA value by value; both sides of an association read by it (PS3.8 9.3)."""

import math
import struct
import time
from collections.abc import Container
from typing import Any

from node.net.dimse_messages import Messages, OtherMessage, ProtocolViolation, Store
from node.net.pdus import control_pdu, read_control
from node.net.socket_reader import TooSlow, Wire, is_too_slow
from node.net.upper_layer import Event

LINGER_SECONDS = 1.0


class PduReader:
    """Reads from `wire`; every method raises Closed, TooSlow or ProtocolViolation."""

    def __init__(self, wire: Wire, messages: Messages, grace_seconds: float = math.inf) -> None:
        """`messages` are put together of what comes; one that takes longer than `grace_seconds` must not dawdle."""
        self._wire, self._messages, self._grace_seconds = wire, messages, grace_seconds
        self._message_began = 0.0
        self.contexts: Container[int] = ()
        """The numbers of the presentation contexts that were accepted."""
        self.data_left = 0
        """Bytes of the P-DATA-TF that has begun."""

    def head(self) -> tuple[int, int]:
        """Type and length of the PDU that has begun."""
        kind, _, length = struct.unpack(">BBL", self._wire.take(6))
        return kind, length

    def rest(self, kind: int, length: int) -> tuple[Event, Any]:
        """What the PDU is to a table, and its primitive, where it has one."""
        known = control_pdu(kind, length)
        head = struct.pack(">BBL", kind, 0, length)
        return read_control(known, head + b"".join(bytes(piece) for piece in self._wire.pieces(length)))

    def end(self, acse_seconds: float) -> Event:
        """What ends AWAITING_CLOSE: the peer has closed the connection, or its moment is over.  Nothing is read any more."""
        is_closed = self._wire.discard_until_closed(min(acse_seconds, LINGER_SECONDS))
        return Event.CLOSED if is_closed else Event.ARTIM_EXPIRED

    def value(self, is_wanted: bool = True) -> Store | OtherMessage | None:
        """The message that the next presentation data value completes (PS3.8 9.3.5.1); unless `is_wanted` it is passed over."""
        if self.data_left < 6:
            raise ProtocolViolation("P-DATA value truncated")
        size, context_id, flags = struct.unpack(">LBB", self._wire.take(6))
        self.data_left -= 4 + size
        if size < 2 or self.data_left < 0:
            raise ProtocolViolation("P-DATA value of impossible length")
        if not is_wanted:
            for _ in self._wire.pieces(size - 2):
                pass
            return None
        return self._fragment(size - 2, context_id, flags)

    def _fragment(self, size: int, context_id: int, flags: int) -> Store | OtherMessage | None:
        messages = self._messages
        if messages.is_between_messages:
            self._message_began = time.monotonic()
            if context_id not in self.contexts:
                raise ProtocolViolation("presentation context was not accepted")
        messages.begin_fragment(context_id, flags)
        for piece in self._wire.pieces(size):
            messages.data(piece)
        message = messages.end_fragment()
        taken_seconds = time.monotonic() - self._message_began
        if message is None and is_too_slow(messages.message_bytes, taken_seconds, self._grace_seconds):
            raise TooSlow
        return message
