"""What requests other than C-STORE are answered."""

from collections.abc import Generator
from io import BytesIO
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom.dimse_primitives import C_ECHO, C_FIND, C_MOVE, N_ACTION, N_EVENT_REPORT
from pynetdicom.presentation import PresentationContextTuple
from pynetdicom.sop_class import (
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from node.net.dimse_messages import ProtocolViolation
from node.net.dimse_primitives import Request, bytes_of
from node.net.services import Handlers, responses
from node.net.upper_layer import Event

FIND, COMMITMENT = StudyRootQueryRetrieveInformationModelFind, StorageCommitmentPushModel
Matches = Generator[tuple[int | Dataset, Dataset | None], None, None]


def of(primitive: Any, sop_class: str) -> Request:
    return Request(None, primitive, PresentationContextTuple(1, sop_class, ExplicitVRLittleEndian))


def find(sop_class: str = FIND) -> C_FIND:
    asked = C_FIND()
    asked.MessageID, asked.AffectedSOPClassUID, asked.Priority = 7, sop_class, 0
    asked.Identifier = BytesIO(b"\x08\x00\x52\x00CS\x06\x00STUDY ")
    return asked


def action() -> N_ACTION:
    asked = N_ACTION()
    asked.MessageID, asked.RequestedSOPClassUID, asked.RequestedSOPInstanceUID, asked.ActionTypeID = (
        3, COMMITMENT, "1.2.840.10008.1.20.1.1", 1
    )  # fmt: skip
    return asked


def report() -> N_EVENT_REPORT:
    asked = N_EVENT_REPORT()
    asked.MessageID, asked.AffectedSOPClassUID, asked.AffectedSOPInstanceUID, asked.EventTypeID = (
        4, COMMITMENT, "1.2.840.10008.1.20.1.1", 2
    )  # fmt: skip
    return asked


def study(name: str) -> Dataset:
    ds = Dataset()
    ds.StudyID = name
    return ds


def test_an_echo_is_answered_without_anybody() -> None:
    asked = C_ECHO()
    asked.MessageID, asked.AffectedSOPClassUID = 9, Verification
    [answer] = responses(of(asked, Verification), Handlers())
    assert (answer.MessageIDBeingRespondedTo, answer.Status) == (9, 0x0000)


def test_each_match_is_a_pending_response_and_success_is_the_last() -> None:
    def two(request: Request) -> Matches:
        assert request.dataset.QueryRetrieveLevel == "STUDY"
        yield 0xFF00, study("A")
        yield 0xFF01, study("B")

    answers = list(responses(of(find(), FIND), Handlers(find=two)))
    assert [answer.Status for answer in answers] == [0xFF00, 0xFF01, 0x0000]
    sent = [answer.Identifier for answer in answers]
    assert sent[0].getvalue() == b"\x20\x00\x10\x00SH\x02\x00A "
    assert sent[2] is None


def test_a_failure_ends_the_matches_and_says_why() -> None:
    def fails(_request: Request) -> Matches:
        yield 0xFF00, study("A")
        status = Dataset()
        status.Status, status.ErrorComment, status.OffendingElement = 0xA900, "no such key", 0x00100010
        yield status, None
        raise AssertionError("asked for more")

    last = list(responses(of(find(), FIND), Handlers(find=fails)))[-1]
    assert (last.Status, last.ErrorComment, last.Identifier) == (0xA900, "no such key", None)
    assert int(last.OffendingElement) == 0x00100010


@pytest.mark.parametrize("nothing", [None, Dataset()])
def test_a_match_that_cannot_be_encoded_is_a_failure(nothing: Dataset | None) -> None:
    def empty(_request: Request) -> Matches:
        yield 0xFF00, nothing

    assert [each.Status for each in responses(of(find(), FIND), Handlers(find=empty))] == [0xC312]


def test_a_handler_that_fails_is_answered_as_a_failure() -> None:
    def breaks(_request: Request) -> Any:
        raise RuntimeError("broken")

    def breaks_later(_request: Request) -> Matches:
        yield 0xFF00, study("A")
        raise RuntimeError("broken")

    assert [each.Status for each in responses(of(find(), FIND), Handlers(find=breaks_later))] == [0xFF00, 0xC311]
    assert [each.Status for each in responses(of(action(), COMMITMENT), Handlers(action=breaks))] == [0x0110]
    assert [each.Status for each in responses(of(report(), COMMITMENT), Handlers(event_report=breaks))] == [0x0110]


def test_whoever_answers_is_closed_when_nobody_wants_the_rest() -> None:
    ended = []

    def endless(_request: Request) -> Matches:
        try:
            while True:
                yield 0xFF00, study("A")
        finally:
            ended.append(True)

    answers = responses(of(find(), FIND), Handlers(find=endless))
    next(answers)
    answers.close()
    assert ended == [True]


def test_actions_and_reports_are_answered_about_what_they_were() -> None:
    handlers = Handlers(
        action=lambda asked: (asked.request.ActionTypeID, None),
        event_report=lambda asked: (asked.request.EventTypeID, None),
    )
    [acted] = responses(of(action(), COMMITMENT), handlers)
    assert (acted.Status, acted.ActionTypeID, acted.AffectedSOPClassUID) == (1, 1, COMMITMENT)
    [reported] = responses(of(report(), COMMITMENT), handlers)
    assert (reported.Status, reported.EventTypeID, reported.MessageIDBeingRespondedTo) == (2, 2, 4)


def move() -> C_MOVE:
    asked = C_MOVE()
    asked.MessageID, asked.AffectedSOPClassUID, asked.MoveDestination, asked.Priority = 1, FIND, "X", 0
    asked.Identifier = bytes_of(study("A"), ExplicitVRLittleEndian)
    return asked


@pytest.mark.parametrize(
    ("asked", "sop_class", "why"),
    [
        (find(), Verification, "service is not offered"),  # what was negotiated decides, not what the message says
        (action(), Verification, "service is not offered"),
        (move(), FIND, "service is not offered"),
        (C_FIND(), FIND, "request incomplete"),
    ],
)
def test_what_was_not_negotiated_is_not_answered(asked: Any, sop_class: str, why: str) -> None:
    def nobody(_request: Request) -> Any:
        raise AssertionError("asked all the same")

    with pytest.raises(ProtocolViolation, match=why) as raised:
        list(responses(of(asked, sop_class), Handlers(nobody, nobody, nobody)))
    assert raised.value.event is Event.SEND_ABORT


def test_what_has_no_handler_is_not_offered() -> None:
    for asked, sop_class in ((find(), FIND), (action(), COMMITMENT), (report(), COMMITMENT)):
        with pytest.raises(ProtocolViolation, match="service is not offered"):
            list(responses(of(asked, sop_class), Handlers()))
