"""An association that we request, in the caller's own thread: what comes is read while it is waited for (PS3.8 9.2).

The table of `node.net.upper_layer` says what follows what; this file reads, sends and waits.  Nothing runs beside the
caller, so nobody else can take an answer: it is read by whoever asked.  What the peer asks of us meanwhile (C-STORE of
a C-GET, N-EVENT-REPORT) is answered in the same place.
"""

import math
import socket
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, Self

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom.dimse_primitives import C_CANCEL, C_FIND, C_GET, C_MOVE, N_EVENT_REPORT
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext

from node.dicom.status import PROCESSING_FAILURE, SOP_CLASS_NOT_SUPPORTED, is_pending
from node.errors import Refused, Unavailable
from node.net.dimse_messages import (
    Answer,
    Messages,
    OtherMessage,
    ProtocolViolation,
    Readable,
    Store,
    StoreRequest,
    store_response,
)
from node.net.dimse_primitives import bytes_of, dataset_of, pdus_of, primitive_of
from node.net.negotiation import agreed
from node.net.pdu_reader import PduReader
from node.net.pdus import encoded, maximum_length, pdu_of
from node.net.services import response_to
from node.net.socket_reader import Closed, TooSlow, Wire
from node.net.upper_layer import REQUESTOR, Event, Pdu, State, advance
from node.runtime import log

ENDED, NO_ANSWER = "the association ended", "no answer: the association ended or timed out"
_NOT_KEPT = 0xC211
_IN_SEVERAL = (C_FIND, C_GET, C_MOVE)
_OVER = (State.IDLE, State.AWAITING_CLOSE)

Keep = Callable[[str, str, str, memoryview], int]
"""(SOP class UID, SOP Instance UID, transfer syntax UID, dataset) → the C-STORE status: 0 when it is durable."""
OnReport = Callable[[int, Callable[[], Dataset]], int]
"""(event type, how to decode the Event Information, which may raise) → the N-EVENT-REPORT status."""


class Requestor:
    """One association.  What fails raises Unavailable, and then the association is over."""

    def __init__(
        self,
        connection: socket.socket,
        acse_seconds: float,
        dimse_seconds: float,
        network_seconds: float,
        keep: Keep | None = None,
        on_report: OnReport | None = None,
    ) -> None:
        """`connection` is open.  Timeouts: to negotiate and release, for each answer, and to get something sent."""
        self._wire = Wire(connection, acse_seconds)
        self._acse_seconds, self._dimse_seconds, self._network_seconds = acse_seconds, dimse_seconds, network_seconds
        self._keep, self._on_report = keep, on_report
        self._state = advance(REQUESTOR, State.IDLE, Event.CONNECT).state
        self._messages = Messages(self._begin, takes_other_groups=True)
        self._reader = PduReader(self._wire, self._messages)
        self.contexts: dict[int, PresentationContext] = {}
        """What the peer accepted, by number."""
        self._answers: deque[Any] = deque()
        self._complete = 0
        self._message_id = 0
        self._peer_maximum_bytes = 0
        self.is_rejected = False
        self.why_over = ""
        """Why it was not established: the peer was silent, closed the connection, or speaks no DICOM."""
        self.deadline = math.inf
        """On the monotonic clock: what is under way then ends.  Until then the peer may take its time for an answer."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.release()

    # --- its life

    def negotiate(self, request: A_ASSOCIATE) -> None:
        """The association is established, or over; then `is_rejected` says whether the peer refused it."""
        end = time.monotonic() + self._acse_seconds
        with self._over_if_it_fails():
            self._happens(Event.CONNECTED, encoded(Pdu.A_ASSOCIATE_RQ, request))
            if self._is_in(*_OVER):  # the peer had hung up before that was sent
                raise Closed
            event, answer = self._next_pdu(end)
            self.is_rejected = event is Event.A_ASSOCIATE_RJ
            if event is Event.A_ASSOCIATE_AC:
                self.contexts = self._reader.contexts = agreed(request, answer)
                self._peer_maximum_bytes = maximum_length(answer)

    def _is_in(self, *states: State) -> bool:
        return self._state in states

    @property
    def is_established(self) -> bool:
        """Whether a request can be sent.  What came meanwhile has been dealt with."""
        with self._over_if_it_fails():
            while self._is_in(State.ESTABLISHED) and self._wire.has_more_within(0):
                self._next_pdu(time.monotonic() + self._network_seconds)
        return self._is_in(State.ESTABLISHED)

    def release(self) -> None:
        """The association is over: released where it was still there, else as it ended.  Never raises."""
        if not self.is_established:
            return
        self._messages.abandon()
        end = time.monotonic() + self._acse_seconds
        with self._over_if_it_fails():
            self._happens(Event.SEND_RELEASE)
            while not self._is_in(*_OVER):
                self._next_pdu(end)

    def abort(self) -> None:
        """The association is over; the peer gets an A-ABORT, where it is still there."""
        self._end(Event.SEND_ABORT)

    @contextmanager
    def _over_if_it_fails(self) -> Iterator[None]:
        """Closed, TooSlow and ProtocolViolation end the association, and no more; anything else that is raised ends it too."""
        try:
            yield
        except Closed:
            self.why_over = "it took the connection and closed it without an answer"
            self._end(Event.CLOSED)
        except TooSlow:
            self.why_over = f"it took the connection and did not answer within {self._acse_seconds:g} s"
            self.abort()
        except ProtocolViolation as error:
            self.why_over = "what answered there speaks no DICOM"
            self._end(error.event)
        except BaseException:
            self.abort()
            raise

    def _end(self, event: Event) -> None:
        """The association is over by `event`, if it was not yet."""
        self._messages.abandon()
        if not self._is_in(*_OVER):
            self._happens(event)

    def _happens(self, event: Event, pdu: bytes = b"") -> None:
        """The table's step is made: its PDU is with the kernel (`pdu`, where it is none of ours), its state is ours."""
        step = advance(REQUESTOR, self._state, event)
        self._state = step.state
        if sent := pdu_of(step, pdu):
            try:
                self._send(sent)
            except Closed:
                self._happens(Event.CLOSED)
                return
        if step.action.closes:
            self._wire.close()
        elif self._is_in(State.RELEASE_REQUESTED, State.COLLISION_OF_REQUESTOR):
            self._happens(Event.SEND_RELEASE_RESPONSE)
        elif self._is_in(State.AWAITING_CLOSE):
            self._happens(self._reader.end(self._acse_seconds))

    # --- requests

    def contexts_of(self, sop_class: str, as_scu: bool = True) -> list[PresentationContext]:
        """The accepted contexts of the SOP class, each with its one transfer syntax; in which we are SCU, or whatever."""
        contexts = self.contexts.values()
        return [cx for cx in contexts if cx.abstract_syntax == sop_class and (cx.as_scu or not as_scu)]

    def ask(
        self, request: Any, context: PresentationContext, dataset: Dataset | None = None, file: Readable | None = None
    ) -> Generator[tuple[Any, Dataset | None], None, None]:
        """The responses (a primitive of pynetdicom's, its Identifier), until one whose status is not pending.

        The dataset of the request is encoded as the context wants it, or is the rest of `file` as it is.  Who takes no
        more of the responses cancels the request (PS3.7 9.3.2.3).
        """
        if not self.is_established:
            raise Unavailable(ENDED)
        if dataset is not None:
            file = bytes_of(dataset, _syntax(context))
            if file is None:
                raise Refused("a value of the request cannot be encoded")
        self._answers.clear()
        self._message_id = request.MessageID = self._message_id % 0xFFFF + 1
        message_id, is_final = self._message_id, False
        with self._over_if_it_fails():  # what was broken off cannot be ended as it began; nor can the association
            self._send_message(request, context, file)
        while not is_final:
            answer = self._answer_to(message_id)
            is_final = not (isinstance(answer, _IN_SEVERAL) and is_pending(answer.Status))
            try:
                yield answer, _identifier(answer, context)
            except GeneratorExit:
                if not is_final and self._is_in(State.ESTABLISHED):
                    self._cancel(message_id, context)
                raise

    def _send_message(self, primitive: Any, context: PresentationContext, file: Readable | None = None) -> None:
        """The message is on its way.  Raises Closed, or what reading `file` raises."""
        for pdu in pdus_of(primitive, context.context_id, self._peer_maximum_bytes, file):
            self._send(pdu)

    def _send(self, pdu: bytes) -> None:
        self._wire.set_timeout(self._network_seconds)
        self._wire.send(pdu)

    def _answer_to(self, message_id: int) -> Any:
        """The next response to our message.  Raises Unavailable: none comes."""
        while not self._answers:
            with self._over_if_it_fails():
                self._next_message()
            if not self._is_in(State.ESTABLISHED):
                raise Unavailable(NO_ANSWER)
            while self._answers and self._answers[0].MessageIDBeingRespondedTo != message_id:
                self._answers.popleft()  # of a request that was given up
        return self._answers.popleft()

    def _next_message(self) -> None:
        """One message came, in time, or the association ended."""
        complete = self._complete
        end = self.deadline if self.deadline < math.inf else time.monotonic() + self._dimse_seconds
        while complete == self._complete and self._is_in(State.ESTABLISHED):
            self._next_pdu(end)

    def _cancel(self, message_id: int, context: PresentationContext) -> None:
        """The peer was asked to stop, and has said that it did, or had its time to."""
        cancel = C_CANCEL()
        cancel.MessageIDBeingRespondedTo = message_id
        end = time.monotonic() + self._acse_seconds
        with self._over_if_it_fails():
            self._send_message(cancel, context)
            while self._is_in(State.ESTABLISHED) and all(is_pending(answer.Status) for answer in self._answers):
                self._next_pdu(end)

    # --- what comes

    def listen(self, seconds: float, is_done: Callable[[], bool]) -> None:
        """What the peer asks of us was answered for so long, or until `is_done`, or the association ended."""
        end = time.monotonic() + seconds
        with self._over_if_it_fails():
            while not is_done() and self._is_in(State.ESTABLISHED) and (left_seconds := end - time.monotonic()) > 0:
                if self._wire.has_more_within(left_seconds):
                    self._next_pdu(time.monotonic() + self._network_seconds)

    def _next_pdu(self, end: float) -> tuple[Event, Any]:
        """One PDU was dealt with; what it is, and its primitive.  Raises Closed, TooSlow after `end`, ProtocolViolation."""
        self._wait_until(end)
        self._wire.begin()
        self._wait_until(end)
        kind, length = self._reader.head()
        if kind == Pdu.P_DATA_TF:
            self._take_data(length)
            return Event.P_DATA_TF, None
        event, primitive = self._reader.rest(kind, length)
        self._happens(event)
        return event, primitive

    def _wait_until(self, end: float) -> None:
        left_seconds = end - time.monotonic()
        if left_seconds <= 0:
            raise TooSlow
        self._wire.set_timeout(left_seconds)

    def _take_data(self, length: int) -> None:
        """The presentation data values of one P-DATA-TF have gone where they belong (PS3.8 9.3.5)."""
        is_wanted = self._is_in(State.ESTABLISHED)
        self._happens(Event.P_DATA_TF)
        if not self._is_in(State.ESTABLISHED, State.AWAITING_RELEASE):
            raise Closed
        self._reader.data_left = length
        while self._reader.data_left:
            self._came(self._reader.value(is_wanted))

    def _came(self, message: Store | OtherMessage | None) -> None:
        """A message that is complete was answered, or is kept for whoever waits for it."""
        if message is None:
            return
        self._complete += 1
        if not isinstance(message, OtherMessage):
            self._send(store_response(*message, self._peer_maximum_bytes))
            return
        primitive, is_response = primitive_of(message)
        if isinstance(primitive, N_EVENT_REPORT) and not is_response and primitive.is_valid_request:
            self._answer_report(primitive, self.contexts[message.context_id])
        elif is_response and primitive.is_valid_response:
            self._answers.append(primitive)
        else:
            raise ProtocolViolation("a request that no SCU serves")

    def _answer_report(self, report: N_EVENT_REPORT, context: PresentationContext) -> None:
        response = response_to(report, PROCESSING_FAILURE)
        if self._on_report is not None:
            try:
                response.Status = self._on_report(
                    report.EventTypeID, lambda: dataset_of(report.EventInformation, _syntax(context))
                )
            except Exception as error:  # noqa: BLE001  the edge: the peer is answered, and may report again
                log.get().error("report_failed", error=type(error).__name__)
        self._send_message(response, context)

    def _begin(self, request: StoreRequest) -> "_Kept":
        """The sink of an instance that a C-GET brings; it is refused where we are not SCP of its class."""
        context = self.contexts[request.context_id]
        is_ours = context.as_scp and context.abstract_syntax == request.sop_class_uid
        return _Kept(request, str(context.transfer_syntax[0]), self._keep if is_ours else None)


class _Kept:
    """The dataset of one C-STORE request in memory, until `keep` has it."""

    def __init__(self, request: StoreRequest, syntax: str, keep: Keep | None) -> None:
        self._request, self._syntax, self._keep = request, syntax, keep
        self._dataset = bytearray()

    def write(self, data: memoryview) -> None:
        """See Sink."""
        self._dataset += data

    def finish(self) -> Answer:
        """See Sink."""
        if self._keep is None:
            return Answer(SOP_CLASS_NOT_SUPPORTED)
        uids = self._request.sop_class_uid, self._request.sop_instance_uid, self._syntax
        try:
            return Answer(self._keep(*uids, memoryview(self._dataset)))
        except Exception as error:  # noqa: BLE001  the edge: this instance is refused, and the others still come
            log.get().error("instance_failed", error=type(error).__name__)
            return Answer(_NOT_KEPT)

    def abandon(self) -> None:
        """See Sink."""
        self._dataset = bytearray()


def _syntax(context: PresentationContext) -> UID:
    return UID(context.transfer_syntax[0])


def _identifier(answer: Any, context: PresentationContext) -> Dataset | None:
    """The Identifier of a response; None where it has none, or none that can be read."""
    content = getattr(answer, "Identifier", None)
    if content is None or not content.getvalue():
        return None
    try:
        return dataset_of(content, _syntax(context))
    except Exception:  # noqa: BLE001  the edge: pydicom raises whatever its parser stumbles over
        return None
