"""An association that a peer opened: one thread, which blocks in the kernel and drives the acceptor's table.

| what comes | what is done |
|---|---|
| A-ASSOCIATE, A-RELEASE, A-ABORT, a PDU of unknown type, the end of the connection | a step of `upper_layer.ACCEPTOR` |
| P-DATA of a C-STORE request | streamed into a sink, which gives the answer |
| P-DATA of anything else | collected, within a limit, and answered by `services` |

Nothing of it waits in a queue: what comes is handled before the next is read, and what is to be sent is with the kernel
when the call that sends it returns.
"""

import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any

from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom.dimse_primitives import C_CANCEL
from pynetdicom.presentation import PresentationContext

from node.net.dimse_messages import (
    Begin,
    Messages,
    OtherMessage,
    ProtocolViolation,
    Readable,
    Store,
    store_response,
)
from node.net.dimse_primitives import Request, bytes_of, pdus_of, primitive_of
from node.net.negotiation import Entity, accept
from node.net.pdu_reader import PduReader
from node.net.pdus import LARGEST_CONTROL_PDU_BYTES, encoded, maximum_length, pdu_of, reject_pdu
from node.net.services import Handlers, responses
from node.net.socket_reader import Closed, HandshakeFailed, TooSlow, Wire
from node.net.upper_layer import ACCEPTOR, VERSION_NOT_SUPPORTED, Event, Pdu, State, advance
from node.runtime import log
from storage.killpoints import kill_point

QUIET_SECONDS = 0.5
LOCAL_LIMIT_EXCEEDED = (2, 3, 2)
"""Result, source and reason: transient, by the provider's presentation layer (PS3.8 9.3.4)."""


class Gate:
    """Who is heard and who may associate.  This one is open to everybody."""

    def turns_away(self, _host: str) -> bool:
        """Whether a connection of the host is closed unheard."""
        return False

    def refusal(self, _association: "Association") -> tuple[int, int, int] | None:
        """Result, source and reason of the rejection; None: the association may be negotiated."""
        return None

    def admitted(self, association: "Association") -> None:
        """The association came about."""

    def failed(self, association: "Association", reason: str) -> None:
        """It did not, and not because the peer went away."""


@dataclass(frozen=True)
class Services:
    """What is done for whoever calls."""

    begin: Callable[["Association"], Begin]
    """Makes what is called for each C-STORE request of an association."""
    ended: Callable[["Association", bool], None] = lambda _association, _is_released: None
    """An association that was established is no longer; whether it was released, and not aborted."""
    rejected: Callable[["Association"], None] = lambda _association: None
    """There are too many at once for it."""
    handlers: Handlers = field(default_factory=Handlers)


class Association(threading.Thread):
    """One that we accept; its thread does all the work."""

    def __init__(
        self,
        connection: socket.socket,
        host: str,
        entity: Entity,
        services: Services,
        gate: Gate,
        others: "set[Association]",
    ) -> None:
        """`connection` is closed by the thread; a TLS handshake is still to be done on it.

        The association is one of `others` until it has ended.
        """
        super().__init__(name="AssociationThread", daemon=True)
        self.connection, self.host = connection, host
        self.calling_ae = self.called_ae = ""
        """The AE titles of the request, once it is here."""
        self.proposed: frozenset[str] = frozenset()
        self.refused: frozenset[str] = frozenset()
        """The abstract syntaxes of the request, and those of them that were not accepted."""
        self._entity, self._services, self._gate, self._others = entity, services, gate, others
        self._wire = Wire(connection, entity.acse_timeout_seconds)
        self._state = State.IDLE
        self._was_established = self._is_released = False
        self._contexts: Mapping[int, PresentationContext] = {}
        self._peer_maximum_bytes = 0
        self._messages = Messages(services.begin(self))
        self._reader = PduReader(self._wire, self._messages, entity.network_timeout_seconds)
        self._stop_wanted = False
        self._errands: deque[Callable[[], None]] = deque()
        self._on_answer: Callable[[Any], None] | None = None
        self._is_serving = False
        self._cancelled: set[int | None] = set()
        self._interruption: Exception | None = None
        self._log = log.get()

    def accepted_context(self, context_id: int) -> PresentationContext:
        """The presentation context that was accepted under this number."""
        return self._contexts[context_id]

    # What handlers of this thread may call.

    def when_quiet(self, errand: Callable[[], None]) -> None:
        """`errand` runs in this thread once the peer has been quiet for a moment, if the association is still open."""
        self._errands.append(errand)

    def send_request(self, request: Any, context_id: int, dataset: Dataset, on_answer: Callable[[Any], None]) -> None:
        """A request of ours is with the peer; `on_answer` gets its answer, if one comes."""
        self._on_answer, request.MessageID = on_answer, 1
        self._send(request, context_id, bytes_of(dataset, UID(self._contexts[context_id].transfer_syntax[0])))

    def has_cancelled(self, message_id: int) -> bool:
        """Whether there is no use in answering the request any further (C-CANCEL, or the association ends).

        What was answered so far is with the peer.
        """
        try:
            while self._interruption is None and self._state is State.ESTABLISHED and self._has_more_within(0):
                self._next()
        except (Closed, TooSlow, ProtocolViolation) as error:
            self._interruption = error  # for the loop that serves the association, not for whoever asks here
        return self._interruption is not None or self._state is not State.ESTABLISHED or message_id in self._cancelled

    # What other threads may call.

    def abort(self) -> None:
        """The association's thread aborts it as soon as it has finished the instance that is complete."""
        self._stop_wanted = True
        self._wire.interrupt()

    # The thread.

    def run(self) -> None:
        """Serves the association until its connection is closed; then nothing of it is left."""
        try:
            for step in (self._live, self._wire.close, self._end):
                try:
                    step()
                except Exception as error:  # noqa: BLE001  the edge: whatever it is, it ends this association and no other
                    self._log.warning("association_failed", error=type(error).__name__)
        finally:
            self._others.discard(self)

    def _live(self) -> None:
        try:
            self._step(Event.CONNECTION_CAME)
            self._wire.shake_hands()
            self._negotiate()
            self._wire.set_timeout(self._entity.network_timeout_seconds)
            self._serve()
        except HandshakeFailed as error:
            self._failed(str(error))
            self._step(Event.CLOSED)
        except Closed:
            if self._stop_wanted and self._state is State.ESTABLISHED:
                self._drop("stopped", Event.SEND_ABORT)
            elif self._state is not State.IDLE:  # where the peer has aborted already
                self._step(Event.CLOSED)
        except TooSlow:
            if self._was_established:
                self._drop("timeout", Event.SEND_ABORT)
            else:
                self._failed("timeout")
                self._step(Event.ARTIM_EXPIRED)
        except ProtocolViolation as error:
            self._drop(str(error), error.event)
            self._failed(str(error))
        self._end()
        if self._state is State.AWAITING_CLOSE:
            self._step(self._reader.end(self._entity.acse_timeout_seconds))

    def _end(self) -> None:
        """Whoever was served on the association knows, once, how it ended."""
        self._messages.abandon()
        if self._was_established:
            self._was_established = False
            self._services.ended(self, self._is_released)

    def _step(self, event: Event, pdu: bytes = b"") -> None:
        """The table's step is made, and its PDU is with the kernel.  Raises Closed when it cannot be."""
        step = advance(ACCEPTOR, self._state, event)
        self._state = step.state
        if sent := pdu_of(step, pdu):
            self._wire.send(sent)

    def _drop(self, reason: str, event: Event) -> None:
        """The association is aborted, if the peer is still there to read it."""
        self._messages.abandon()
        self._log.warning("association_dropped", calling_ae=self.calling_ae, reason=reason)
        with suppress(Closed):
            self._step(event)

    def _failed(self, reason: str) -> None:
        if not self._was_established:
            self._gate.failed(self, reason)

    # Association control.

    def _negotiate(self) -> None:
        """The request is answered, if one came."""
        request = self._next()
        if self._state is not State.DECIDING:
            return
        self.calling_ae, self.called_ae = str(request.calling_ae_title).strip(), str(request.called_ae_title).strip()
        self._peer_maximum_bytes = maximum_length(request)
        refusal = self._gate.refusal(self)
        if refusal is None and len(self._others) > self._entity.maximum_associations:
            refusal = LOCAL_LIMIT_EXCEEDED
            self._services.rejected(self)
        if refusal is not None:
            self._step(Event.SEND_REJECT, reject_pdu(*refusal))
            return
        accepted = accept(request, self._entity)
        self._contexts = self._reader.contexts = accepted.contexts
        self.proposed = frozenset(str(each.abstract_syntax) for each in request.presentation_context_definition_list)
        self.refused = accepted.refused
        self._was_established = True
        self._step(Event.SEND_ACCEPT, encoded(Pdu.A_ASSOCIATE_AC, accepted.answer))
        self._gate.admitted(self)

    def _serve(self) -> None:
        """The peer has got what it asked for until it asks for release, and the release too."""
        while self._state is State.ESTABLISHED:
            if self._errands and not self._has_more_within(QUIET_SECONDS):
                self._errands.popleft()()
            self._next()
        if self._state is State.RELEASE_REQUESTED:
            self._is_released = True
            self._messages.abandon()
            self._step(Event.SEND_RELEASE_RESPONSE)

    def _has_more_within(self, seconds: float) -> bool:
        return bool(self._reader.data_left) or self._wire.has_more_within(seconds)

    def _next(self) -> Any:
        """The next value of P-DATA, or PDU, was handled.

        Returns the primitive of a PDU that has one.  Raises Closed, TooSlow, ProtocolViolation.
        """
        if self._reader.data_left:
            return self._came(self._reader.value())
        self._wire.begin()
        kind, length = self._reader.head()
        if kind == Pdu.P_DATA_TF and self._state is State.ESTABLISHED:
            return self._begin_data(length)
        event, primitive = self._reader.rest(kind, length)
        if advance(ACCEPTOR, self._state, event).abort is not None:
            raise ProtocolViolation("unexpected PDU", event)
        self._step(event, reject_pdu(*VERSION_NOT_SUPPORTED) if event is Event.OTHER_VERSION else b"")
        return primitive

    # Messages.

    def _begin_data(self, length: int) -> None:
        """A P-DATA-TF (PS3.8 9.3.5) begins, with values of so many bytes."""
        if length > (self._entity.maximum_pdu_bytes or LARGEST_CONTROL_PDU_BYTES):
            raise ProtocolViolation("PDU longer than announced")
        if length < 6:
            raise ProtocolViolation("P-DATA without a value")
        self._reader.data_left = length

    def _came(self, message: Store | OtherMessage | None) -> None:
        """The message, if one is complete, was answered."""
        if isinstance(message, OtherMessage):
            self._take_other(message)
        elif message is not None:
            kill_point("before_answer")
            self._step(Event.SEND_DATA, store_response(*message, self._peer_maximum_bytes))
            kill_point("after_answer")
        if message is not None and self._stop_wanted:
            raise Closed

    def _take_other(self, message: OtherMessage) -> None:
        """A request was answered; what came while it was, `has_cancelled` has read, if anybody has."""
        primitive, is_response = primitive_of(message)
        if isinstance(primitive, C_CANCEL):  # it may come too late, which nobody minds
            self._cancelled.add(primitive.MessageIDBeingRespondedTo)
        elif is_response:
            if primitive.is_valid_response and self._on_answer is not None:
                on_answer, self._on_answer = self._on_answer, None
                on_answer(primitive)
        elif self._is_serving:
            raise ProtocolViolation("request before the last was answered")
        else:
            self._respond(Request(self, primitive, self._contexts[message.context_id].as_tuple))

    def _respond(self, request: Request) -> None:
        self._cancelled.clear()
        self._is_serving = True
        try:
            with closing(responses(request, self._services.handlers)) as answers:
                for response in answers:
                    if not self._may_answer():
                        break
                    self._send(response, request.context.context_id)
        finally:
            self._is_serving = False
        if self._interruption is not None:
            raise self._interruption

    def _may_answer(self) -> bool:
        return self._interruption is None and self._state in (State.ESTABLISHED, State.RELEASE_REQUESTED)

    def _send(self, primitive: Any, context_id: int, dataset: Readable | None = None) -> None:
        self._step(Event.SEND_DATA, b"".join(pdus_of(primitive, context_id, self._peer_maximum_bytes, dataset)))
