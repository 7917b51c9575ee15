"""The byte path under pynetdicom's associations: one thread each, which blocks in the kernel instead of polling.

pynetdicom runs two threads an association; both sleep 1 ms between looks and read 4,096 bytes at a time.  Here its
negotiation (ACSE), its PDU classes and its state machine stay, and one thread drives them:

| what comes | who handles it |
|---|---|
| A-ASSOCIATE, A-RELEASE, A-ABORT, an unknown PDU, the end of the connection | pynetdicom's state machine (PS3.8 9.2) |
| P-DATA of a C-STORE request | streamed into a sink; in Sta6 its action DT-2 changes no state, so none is run |
| P-DATA of anything else (C-ECHO) | collected, within a limit, for pynetdicom's DIMSE and service classes |

What this file knows of pynetdicom's inside is listed in `node.net.pynetdicom_guard` and compared when it is imported.
"""

import contextlib
import queue
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from pynetdicom import evt, fsm
from pynetdicom.association import Association
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import C_CANCEL
from pynetdicom.pdu_primitives import A_ASSOCIATE, P_DATA

from node.net.dimse_messages import (
    P_DATA_TF,
    Begin,
    Messages,
    OtherMessage,
    ProtocolViolation,
    Store,
    command_pdus,
    store_response,
)
from node.net.pynetdicom_guard import check_pynetdicom
from node.net.socket_reader import Closed, HandshakeFailed, TooSlow, Wire, is_too_slow
from node.runtime import log
from storage.killpoints import kill_point

LARGEST_CONTROL_PDU_BYTES = 1 << 20
LINGER_SECONDS = 1.0
QUIET_SECONDS = 0.5
_A_ASSOCIATE_RQ, _A_ABORT = 0x01, 0x07
_OF_PRIMITIVES = {"Evt7", "Evt8", "Evt9", "Evt14", "Evt15"}
_KNOWN_PDUS = range(_A_ASSOCIATE_RQ, _A_ABORT + 1)

check_pynetdicom()


class Gate(Protocol):
    """Who is heard and who may associate."""

    def turns_away(self, host: str) -> bool:
        """Whether a connection of the host is closed unheard."""

    def refusal(self, association: Any, connection: socket.socket) -> tuple[int, int, int] | None:
        """Result, source and reason of the rejection; None: the association may be negotiated."""

    def admitted(self, association: Any) -> None:
        """The association came about."""

    def failed(self, association: Any, reason: str) -> None:
        """It did not, and not because the peer went away."""


class DirectAssociation(Association):  # type: ignore[misc]  # pynetdicom has no types here
    """An acceptor whose thread does all the work.  `begin` makes the sink of each C-STORE request."""

    is_established: bool
    is_aborted: bool
    is_released: bool

    def __init__(self, entity: Any, begin: Callable[[Any], Begin], gate: Gate | None = None) -> None:
        super().__init__(entity, "acceptor")
        self._gate = gate
        self._messages = Messages(begin(self))
        self._wire: Wire | None = None
        self._stop_wanted = False
        self._message_began = 0.0
        self._errands: deque[Callable[[], None]] = deque()
        self._on_answer: Callable[[Any], None] | None = None
        self._is_serving = False
        self._cancelled: set[int | None] = set()
        self._interruption: Exception | None = None
        self._log = log.get()

    def _bind_defaults(self) -> None:
        """Only what answers requests; the handlers that print PDUs and datasets stay away."""
        for event in evt._INTERVENTION_EVENTS:  # noqa: SLF001
            self.bind(event, evt.get_default_handler(event))

    def accepted_context(self, context_id: int) -> Any:
        """The presentation context that was accepted under this number."""
        return self._accepted_cx[context_id]

    # What handlers of this thread may call.

    def when_quiet(self, errand: Callable[[], None]) -> None:
        """`errand` runs in this thread once the peer has been quiet for a moment, if the association is still open."""
        self._errands.append(errand)

    def send_request(self, request: Any, context_id: int, on_answer: Callable[[Any], None]) -> None:
        """A request of ours is with the peer; `on_answer` gets its answer, if one comes."""
        self._on_answer = on_answer
        self.dimse.send_msg(request, context_id)
        self._turn()

    def has_cancelled(self, message_id: int) -> bool:
        """Whether there is no use in answering the request any further (C-CANCEL, or the association ends).

        What was answered so far is with the peer.
        """
        try:
            self._turn()
            while self._wire is not None and self._interruption is None and self._wire.has_more_within(0):
                self._next_pdu(self._wire, self._acceptor_limit())
        except (Closed, TooSlow, ProtocolViolation) as error:
            self._interruption = error  # for the loop that serves the association, not for whoever asks here
        return self._interruption is not None or message_id in self._cancelled

    # What other threads, and handlers of this one, may call.

    def _abort_blocking(self, block: bool = True) -> None:
        """The association's thread aborts it as soon as it has finished the instance that is complete."""
        self._stop_wanted = True
        if threading.current_thread() is self:
            return
        if self._wire is not None:
            self._wire.interrupt()
        if block:
            self.join(2 * LINGER_SECONDS)

    def _abort_nonblocking(self, block: bool = False) -> None:  # noqa: ARG002
        self._abort_blocking(block=False)

    # The thread.

    def run_reactor(self) -> None:
        """Serves the association until its connection is closed; then nothing of it is left."""
        wire = self._wire = Wire(self.dul.socket.socket, self.acse_timeout)
        try:
            self._dul_ready.set()
            self._turn()
            self._serve(wire)
        except Exception as error:  # noqa: BLE001  the edge: whatever it is, it ends this association and no other
            self._log.warning("association_failed", error=type(error).__name__)
        finally:
            self._messages.abandon()
            self._end(wire)

    def _serve(self, wire: Wire) -> None:
        try:
            wire.shake_hands()
            self._negotiate(wire)
            wire.set_timeout(self.network_timeout)
            while self.is_established:
                if self._errands and not wire.has_more_within(QUIET_SECONDS):
                    self._errands.popleft()()
                if self._next_pdu(wire, self._acceptor_limit()):
                    self._attend()
        except HandshakeFailed as error:
            self._failed(str(error))
            self._event("Evt17")
        except Closed:
            if self._stop_wanted and self.is_established:
                self._abort("stopped")
            else:
                self._event("Evt17")
        except TooSlow:
            if self.is_established:
                self._abort("timeout")
            else:
                self._failed("timeout")
                self._event("Evt18")
        except ProtocolViolation as error:
            self._drop(str(error))
            self._failed(str(error))
            self._event("Evt19")
        self._attend()
        if self.dul.state_machine.current_state == "Sta13":
            closed = wire.discard_until_closed(min(self.acse_timeout, LINGER_SECONDS))
            self._event("Evt17" if closed else "Evt18")

    def _failed(self, reason: str) -> None:
        if self._gate is not None and not self.is_established:
            self._gate.failed(self, reason)

    def _acceptor_limit(self) -> int:
        """The longest P-DATA-TF that the peer may send: what we announced."""
        limit = self.acceptor.maximum_length
        return int(limit) if limit else LARGEST_CONTROL_PDU_BYTES

    def _negotiate(self, wire: Wire) -> None:
        """As pynetdicom's acceptor does: the request is answered."""
        self._next_pdu(wire, 0)
        primitive = self.dul.receive_pdu(wait=False)
        if not isinstance(primitive, A_ASSOCIATE):
            return
        self.requestor.primitive = primitive
        self.requestor.ae_title = primitive.calling_ae_title
        evt.trigger(self, evt.EVT_REQUESTED, {})
        refusal = self._gate.refusal(self, self.dul.socket.socket) if self._gate is not None else None
        if refusal is not None:
            self.acse.send_reject(*refusal)
            self.kill()
        elif not self.is_aborted and not self.is_rejected:
            self.acse.negotiate_association()
        if self._gate is not None and self.is_established:
            self._gate.admitted(self)
        self._turn()

    def _next_pdu(self, wire: Wire, longest_data: int) -> bool:
        """The next PDU was handled; whether pynetdicom had a part in it.  Raises Closed, TooSlow, ProtocolViolation."""
        wire.begin()
        kind, _, length = struct.unpack(">BBL", wire.take(6))
        if kind == P_DATA_TF and longest_data:
            if length > longest_data:
                raise ProtocolViolation("PDU longer than announced")
            return self._take_data(wire, length)
        if kind not in _KNOWN_PDUS:
            raise ProtocolViolation("unknown PDU")
        if length > (LARGEST_CONTROL_PDU_BYTES if kind == _A_ASSOCIATE_RQ else 4096):
            raise ProtocolViolation("control PDU too long")
        body = bytearray(struct.pack(">BBL", kind, 0, length))
        for piece in wire.pieces(length):
            body += piece
        self._hand_over(body)
        return True

    def _take_data(self, wire: Wire, length: int) -> bool:
        """The presentation data values of one P-DATA-TF (PS3.8 9.3.5) have gone where they belong: some to pynetdicom?"""
        messages, others = self._messages, False
        if length < 6:
            raise ProtocolViolation("P-DATA without a value")
        while length:
            if length < 6:
                raise ProtocolViolation("P-DATA value truncated")
            size, context_id, flags = struct.unpack(">LBB", wire.take(6))
            length -= 4 + size
            if size < 2 or length < 0:
                raise ProtocolViolation("P-DATA value of impossible length")
            if messages.is_between_messages:
                self._message_began = time.monotonic()
                if context_id not in self._accepted_cx:
                    raise ProtocolViolation("presentation context was not accepted")
            messages.begin_fragment(context_id, flags)
            for piece in wire.pieces(size - 2):
                messages.data(piece)
            message = messages.end_fragment()
            if isinstance(message, OtherMessage):
                self._serve_other(message)
                others = True
            elif message is not None:
                self._answer(wire, message)
            elif is_too_slow(messages.message_bytes, time.monotonic() - self._message_began, self.network_timeout):
                raise TooSlow
        return others

    def _answer(self, wire: Wire, store: Store) -> None:
        request, answer = store
        response = store_response(request, answer)
        kill_point("before_answer")
        wire.send(b"".join(command_pdus(request.context_id, response, self.requestor.maximum_length)))
        kill_point("after_answer")
        if self._stop_wanted:
            raise Closed

    def _serve_other(self, message: OtherMessage) -> None:
        """pynetdicom's DIMSE and service classes have answered, or aborted."""
        decoder = DIMSEMessage()
        try:
            for part in message.parts:
                primitive = P_DATA()
                primitive.presentation_data_value_list.append([message.context_id, part[1]])
                decoder.decode_msg(primitive, self)
            request = decoder.message_to_primitive()
        except Exception:  # noqa: BLE001  the edge: pynetdicom raises whatever its parser stumbles over
            raise ProtocolViolation("message cannot be decoded") from None
        if isinstance(request, C_CANCEL):  # it may come too late, which nobody minds
            self._cancelled.add(request.MessageIDBeingRespondedTo)
        elif request.is_valid_response and self._on_answer is not None:
            on_answer, self._on_answer = self._on_answer, None
            on_answer(request)
        elif self._is_serving:
            raise ProtocolViolation("request before the last was answered")
        else:
            self._serve_alone(request, message.context_id)
        self._turn()
        if self._stop_wanted:
            raise Closed

    def _serve_alone(self, request: Any, context_id: int) -> None:
        """pynetdicom's service class has answered; what came meanwhile was read by `has_cancelled`, if at all."""
        self._cancelled.clear()
        self._is_serving = True
        try:
            self._serve_request(request, context_id)
        finally:
            self._is_serving = False
        if self._interruption is not None:
            raise self._interruption

    # pynetdicom's state machine, turned by hand.

    def _hand_over(self, pdu_bytes: bytearray) -> None:
        """The state machine has dealt with a PDU that is not ours: as `DULServiceProvider._read_pdu_data` does."""
        provider = self.dul
        try:
            pdu, event = provider._decode_pdu(pdu_bytes)  # noqa: SLF001
        except Exception:  # noqa: BLE001  the edge: pynetdicom raises whatever its parser stumbles over
            raise ProtocolViolation("PDU cannot be decoded") from None
        provider._recv_pdu.put(pdu)  # noqa: SLF001
        self._event(event)

    def _event(self, event: str) -> None:
        self.dul.event_queue.put(event)
        self._turn()

    def _turn(self) -> None:
        """No event and no primitive waits any longer: one round of `DULServiceProvider.run_reactor` after the other."""
        provider = self.dul
        while True:
            try:
                event = provider.event_queue.get(block=False)
            except queue.Empty:
                if not provider._process_recv_primitive():  # noqa: SLF001
                    return
                continue
            if (event, provider.state_machine.current_state) in fsm.TRANSITION_TABLE:
                provider.state_machine.do_action(event)
            elif event in _OF_PRIMITIVES:  # it would wait for ever: nobody is there any longer to be sent it
                provider.to_provider_queue.get(block=False)

    def _attend(self) -> None:
        """A release was answered, an abort noted: as `Association._run_reactor` does."""
        if self.is_established and self.acse.is_release_requested():
            self._messages.abandon()
            self.acse.send_release(is_response=True)
            self.is_released, self.is_established = True, False
            self._turn()
            evt.trigger(self, evt.EVT_RELEASED, {})
        elif self.acse.is_aborted():
            self._messages.abandon()
            self.dul.receive_pdu(wait=False)
            self.is_aborted, self.is_established = True, False
            evt.trigger(self, evt.EVT_ABORTED, {})
        elif self._stop_wanted and self.is_established:
            self._abort("stopped")

    def _abort(self, reason: str) -> None:
        self._drop(reason)
        self._sent_abort = True
        self.acse.send_abort(0x00)
        self._turn()
        evt.trigger(self, evt.EVT_ABORTED, {})

    def _drop(self, reason: str) -> None:
        self._messages.abandon()
        self._log.warning("association_dropped", calling_ae=str(self.requestor.ae_title).strip(), reason=reason)

    def _end(self, wire: Wire) -> None:
        """Nothing holds the connection, the buffer or, through it, the receiver's memory."""
        self._kill, self.is_established = True, False
        self.dul.kill_dul()
        with contextlib.suppress(OSError):
            wire.close()
        self.dul.socket.socket = None
        if self.dul.state_machine.current_state != "Sta1":
            evt.trigger(self, evt.EVT_CONN_CLOSE, {"address": self.requestor.address_info.as_tuple})
