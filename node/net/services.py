"""The responses to a DIMSE request other than C-STORE, without I/O (PS3.7 9, 10)."""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom.dimse_primitives import C_ECHO, C_FIND, N_ACTION, N_EVENT_REPORT

from node.dicom.status import PROCESSING_FAILURE, SUCCESS, is_pending
from node.net.dimse_messages import ProtocolViolation
from node.net.dimse_primitives import Request, bytes_of
from node.net.upper_layer import Event

_FIND_FAILED, _FIND_NOT_ENCODED = 0xC311, 0xC312

Matches = Generator[tuple[int | Dataset, Dataset | None], None, None]


@dataclass(frozen=True)
class Handlers:
    """Who answers what; C-ECHO needs nobody.  What has no handler is not offered, and its association aborted."""

    find: Callable[[Request], Matches] | None = None
    """C-FIND: a pending status and an identifier for each match; the first status that is not pending is the last."""
    action: Callable[[Request], tuple[int, None]] | None = None
    """N-ACTION: the status."""
    event_report: Callable[[Request], tuple[int, None]] | None = None
    """N-EVENT-REPORT: the status."""


def responses(request: Request, handlers: Handlers) -> Generator[Any, None, None]:
    """The primitives to answer with, one after the other.  Raises ProtocolViolation where there is nothing to answer."""
    asked = request.request
    if not asked.is_valid_request:
        raise ProtocolViolation("request incomplete", Event.SEND_ABORT)
    if isinstance(asked, C_ECHO):
        yield response_to(asked, SUCCESS)
        return
    handler = {C_FIND: handlers.find, N_ACTION: handlers.action, N_EVENT_REPORT: handlers.event_report}.get(type(asked))
    sop_class = asked.RequestedSOPClassUID if isinstance(asked, N_ACTION) else asked.AffectedSOPClassUID
    # Who may ask nothing may not on another context: what was negotiated decides.
    if handler is None or sop_class != request.context.abstract_syntax:
        raise ProtocolViolation("service is not offered", Event.SEND_ABORT)
    if isinstance(asked, C_FIND):
        yield from _found(request, handler)
    else:
        yield response_to(asked, _status(request, handler))


def response_to(asked: Any, status: int) -> Any:
    """The response with this status, about what the request is about (PS3.7 9.3.5, 9.3.2, 10.3.4, 10.3.1)."""
    response = type(asked)()
    response.MessageIDBeingRespondedTo, response.Status = asked.MessageID, status
    prefix = "Requested" if isinstance(asked, N_ACTION) else "Affected"
    response.AffectedSOPClassUID = getattr(asked, f"{prefix}SOPClassUID")
    if isinstance(asked, N_ACTION | N_EVENT_REPORT):
        response.AffectedSOPInstanceUID = getattr(asked, f"{prefix}SOPInstanceUID")
        kind = "ActionTypeID" if isinstance(asked, N_ACTION) else "EventTypeID"
        setattr(response, kind, getattr(asked, kind))
    return response


def _found(request: Request, find: Callable[[Request], Any]) -> Generator[C_FIND, None, None]:
    """A success follows the last match, unless another status has ended them."""
    with closing(find(request)) as matches:
        while True:
            try:
                status, identifier = next(matches, (SUCCESS, None))
            except Exception:  # noqa: BLE001  the edge: whatever it is, the peer gets an answer
                status, identifier = _FIND_FAILED, None
            response = _find_response(request, status, identifier)
            yield response
            if not is_pending(response.Status):
                return


def _find_response(request: Request, status: int | Dataset, identifier: Dataset | None) -> C_FIND:
    response = response_to(request.request, status if isinstance(status, int) else status.Status)
    if isinstance(status, Dataset):
        for element in status:
            setattr(response, element.keyword, element.value)
    if is_pending(response.Status):
        response.Identifier = bytes_of(identifier or Dataset(), UID(request.context.transfer_syntax))
        if response.Identifier is None:
            response.Status = _FIND_NOT_ENCODED
    return response


def _status(request: Request, handler: Callable[[Request], Any]) -> int:
    try:
        return int(handler(request)[0])
    except Exception:  # noqa: BLE001  the edge: whatever it is, the peer gets an answer
        return PROCESSING_FAILURE
