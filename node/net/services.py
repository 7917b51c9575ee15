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
        yield _echoed(asked)
        return
    sop_class = asked.RequestedSOPClassUID if isinstance(asked, N_ACTION) else asked.AffectedSOPClassUID
    is_negotiated = sop_class == request.context.abstract_syntax  # who may ask nothing may not on another context
    if isinstance(asked, C_FIND) and handlers.find is not None and is_negotiated:
        yield from _found(request, handlers.find)
    elif isinstance(asked, N_ACTION) and handlers.action is not None and is_negotiated:
        yield _acted(request, handlers.action)
    elif isinstance(asked, N_EVENT_REPORT) and handlers.event_report is not None and is_negotiated:
        yield event_reported(request, handlers.event_report)
    else:
        raise ProtocolViolation("service is not offered", Event.SEND_ABORT)


def _echoed(asked: C_ECHO) -> C_ECHO:
    response = C_ECHO()
    response.MessageIDBeingRespondedTo = asked.MessageID
    response.AffectedSOPClassUID = asked.AffectedSOPClassUID
    response.Status = SUCCESS
    return response


def _found(request: Request, find: Callable[[Request], Matches]) -> Generator[C_FIND, None, None]:
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
    response = C_FIND()
    response.MessageIDBeingRespondedTo = request.message_id
    response.AffectedSOPClassUID = request.request.AffectedSOPClassUID
    if isinstance(status, Dataset):
        for element in status:
            setattr(response, element.keyword, element.value)
    else:
        response.Status = status
    if is_pending(response.Status):
        response.Identifier = bytes_of(identifier or Dataset(), UID(request.context.transfer_syntax))
        if response.Identifier is None:
            response.Status = _FIND_NOT_ENCODED
    return response


def _acted(request: Request, act: Callable[[Request], tuple[int, None]]) -> N_ACTION:
    response = N_ACTION()
    response.MessageIDBeingRespondedTo = request.message_id
    response.AffectedSOPClassUID = request.request.RequestedSOPClassUID
    response.AffectedSOPInstanceUID = request.request.RequestedSOPInstanceUID
    response.ActionTypeID = request.action_type
    response.Status = _status(request, act)
    return response


def event_reported(request: Request, report: Callable[[Request], tuple[int, None]]) -> N_EVENT_REPORT:
    """The response to an N-EVENT-REPORT, with the status that `report` gives it."""
    response = N_EVENT_REPORT()
    response.MessageIDBeingRespondedTo = request.message_id
    response.AffectedSOPClassUID = request.request.AffectedSOPClassUID
    response.AffectedSOPInstanceUID = request.request.AffectedSOPInstanceUID
    response.EventTypeID = request.event_type
    response.Status = _status(request, report)
    return response


def _status(request: Request, handler: Callable[[Request], tuple[int, None]]) -> int:
    try:
        return handler(request)[0]
    except Exception:  # noqa: BLE001  the edge: whatever it is, the peer gets an answer
        return PROCESSING_FAILURE
