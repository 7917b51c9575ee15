"""What an association request is answered."""

from typing import Any

import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless
from pynetdicom import build_context, build_role
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    AsynchronousOperationsWindowNegotiation,
    ImplementationVersionNameNotification,
    SCP_SCU_RoleSelectionNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification

from node.net.negotiation import Entity, accept, offered
from node.net.pdus import encoded, maximum_length, read_control, user_information
from node.net.upper_layer import Event, Pdu

ENTITY = Entity(
    "2.25.1", "WILLIS_TEST", 65_536, 5, 1.0, 1.0,
    (
        offered(Verification),
        offered(CTImageStorage, [JPEG2000Lossless, ExplicitVRLittleEndian]),
        offered(StorageCommitmentPushModel, in_both_roles=True),
    ),
)  # fmt: skip


def request(*contexts: Any, items: tuple[Any, ...] = ()) -> A_ASSOCIATE:
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = "CT1", "WILLIS"
    for number, context in enumerate(contexts):
        context.context_id = 2 * number + 1
    primitive.presentation_context_definition_list = list(contexts)
    primitive.user_information = [*user_information(16_384, "2.25.2", "PEER"), *items]
    return primitive


def answered(primitive: A_ASSOCIATE) -> A_ASSOCIATE:
    """The answer, through the bytes that a peer reads."""
    event, read = read_control(Pdu.A_ASSOCIATE_RQ, encoded(Pdu.A_ASSOCIATE_RQ, primitive))
    assert event is Event.A_ASSOCIATE_RQ
    event, answer = read_control(Pdu.A_ASSOCIATE_AC, encoded(Pdu.A_ASSOCIATE_AC, accept(read, ENTITY).answer))
    assert event is Event.A_ASSOCIATE_AC
    return answer


def test_each_context_is_answered_alone_and_our_preferred_syntax_wins() -> None:
    ct = build_context(CTImageStorage, [ImplicitVRLittleEndian, ExplicitVRLittleEndian, JPEG2000Lossless])
    mr = build_context("1.2.840.10008.5.1.4.1.1.4")
    only_implicit = build_context(CTImageStorage, ImplicitVRLittleEndian)
    results = answered(request(ct, mr, only_implicit)).presentation_context_definition_results_list
    assert {context.context_id: context.result for context in results} == {1: 0, 3: 3, 5: 4}
    assert accept(request(ct), ENTITY).contexts[1].transfer_syntax == [JPEG2000Lossless]


def test_only_accepted_contexts_may_be_used() -> None:
    accepted = accept(request(build_context("1.2.840.10008.5.1.4.1.1.4"), build_context(Verification)), ENTITY)
    assert list(accepted.contexts) == [3]


def test_the_answer_says_who_we_are_and_how_much_we_take() -> None:
    answer = answered(request(build_context(Verification)))
    assert maximum_length(answer) == 65_536
    assert answer.implementation_class_uid == "2.25.1"
    versions = [item for item in answer.user_information if isinstance(item, ImplementationVersionNameNotification)]
    assert [version.implementation_version_name for version in versions] == ["WILLIS_TEST"]


@pytest.mark.parametrize(
    ("proposed", "agreed"),
    [((True, False), (True, False)), ((False, True), (False, True)), ((True, True), (True, True))],
)
def test_a_peer_has_the_roles_in_storage_commitment_that_it_proposes(
    proposed: tuple[bool, bool], agreed: tuple[bool, bool]
) -> None:
    role = build_role(StorageCommitmentPushModel, *proposed)
    answer = answered(request(build_context(StorageCommitmentPushModel), items=(role,)))
    [said] = [item for item in answer.user_information if isinstance(item, SCP_SCU_RoleSelectionNegotiation)]
    assert (said.scu_role, said.scp_role) == agreed


def test_roles_of_other_classes_and_what_is_not_supported_are_not_answered() -> None:
    identity, window, extended = (
        UserIdentityNegotiation(), AsynchronousOperationsWindowNegotiation(), SOPClassExtendedNegotiation()
    )  # fmt: skip
    identity.user_identity_type, identity.primary_field, identity.positive_response_requested = 1, b"somebody", True
    window.maximum_number_operations_invoked = window.maximum_number_operations_performed = 5
    extended.sop_class_uid, extended.service_class_application_information = CTImageStorage, b"\x02\x00"
    role = build_role(CTImageStorage, scp_role=True)
    items = (role, identity, window, extended)
    answer = answered(request(build_context(CTImageStorage, ExplicitVRLittleEndian), items=items))
    assert [context.result for context in answer.presentation_context_definition_results_list] == [0]
    kinds = {type(item) for item in answer.user_information}
    assert not kinds & {type(item) for item in items}


def test_a_request_of_another_protocol_version_is_known_as_such() -> None:
    pdu = bytearray(encoded(Pdu.A_ASSOCIATE_RQ, request(build_context(Verification))))
    pdu[6:8] = b"\x00\x02"
    assert read_control(Pdu.A_ASSOCIATE_RQ, bytes(pdu))[0] is Event.OTHER_VERSION
    pdu[6:8] = b"\x00\x03"  # version 1 among others: its bit alone is looked at (PS3.8 table 9-11)
    assert read_control(Pdu.A_ASSOCIATE_RQ, bytes(pdu))[0] is not Event.OTHER_VERSION
