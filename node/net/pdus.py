"""The PDUs of association control, from and to bytes, by pynetdicom's classes (PS3.8 9.3).  P-DATA-TF: `dimse_messages`."""

from typing import Any

from pydicom.uid import UID
from pynetdicom import pdu
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
)

from node.net.dimse_messages import ProtocolViolation
from node.net.upper_layer import Event, Pdu, Step

APPLICATION_CONTEXT = UID("1.2.840.10008.3.1.1.1")
LARGEST_CONTROL_PDU_BYTES = 1 << 20
_LARGEST_OTHER_BYTES = 4096
_PROTOCOL_VERSION = 1
"""The bit of version 1, which alone is looked at (PS3.8 table 9-11)."""
_ASSOCIATES = {Pdu.A_ASSOCIATE_RQ: pdu.A_ASSOCIATE_RQ, Pdu.A_ASSOCIATE_AC: pdu.A_ASSOCIATE_AC}
_CLASSES = _ASSOCIATES | {
    Pdu.A_ASSOCIATE_RJ: pdu.A_ASSOCIATE_RJ,
    Pdu.A_RELEASE_RQ: pdu.A_RELEASE_RQ,
    Pdu.A_RELEASE_RP: pdu.A_RELEASE_RP,
    Pdu.A_ABORT: pdu.A_ABORT_RQ,
}


def control_pdu(kind: int, length: int) -> Pdu:
    """The type of a PDU of this length that is not P-DATA-TF.  Raises ProtocolViolation when there is no such one."""
    try:
        known = Pdu(kind)
    except ValueError:
        raise ProtocolViolation("unknown PDU", Event.UNRECOGNIZED_PDU) from None
    if length > (LARGEST_CONTROL_PDU_BYTES if known in _ASSOCIATES else _LARGEST_OTHER_BYTES):
        raise ProtocolViolation("control PDU too long")
    return known


def read_control(kind: Pdu, pdu_bytes: bytes) -> tuple[Event, Any]:
    """What the whole PDU is to a table, and its primitive.  Raises ProtocolViolation when it cannot be read."""
    if kind is Pdu.P_DATA_TF:
        return Event.P_DATA_TF, None
    read = _CLASSES[kind]()
    try:
        read.decode(pdu_bytes)
        if kind is Pdu.A_ASSOCIATE_RQ and not read.protocol_version & _PROTOCOL_VERSION:
            return Event.OTHER_VERSION, None
        return Event[kind.name], read.to_primitive()
    except Exception:  # noqa: BLE001  the edge: pynetdicom raises whatever its parser stumbles over
        raise ProtocolViolation("PDU cannot be decoded") from None


def encoded(kind: Pdu, primitive: A_ASSOCIATE | None = None) -> bytes:
    """An A-ASSOCIATE-RQ or A-ASSOCIATE-AC of the primitive, or an A-RELEASE-RQ or A-RELEASE-RP, which needs none."""
    return bytes(_CLASSES[kind](primitive).encode())


def reject_pdu(result: int, source: int, reason: int) -> bytes:
    """An A-ASSOCIATE-RJ (PS3.8 9.3.4)."""
    primitive = A_ASSOCIATE()
    primitive.result, primitive.result_source, primitive.diagnostic = result, source, reason
    return encoded(Pdu.A_ASSOCIATE_RJ, primitive)


def abort_pdu(source: int, reason: int) -> bytes:
    """An A-ABORT (PS3.8 9.3.8)."""
    abort = pdu.A_ABORT_RQ()
    abort.source, abort.reason_diagnostic = source, reason
    return bytes(abort.encode())


def pdu_of(step: Step, pdu: bytes = b"") -> bytes:
    """The PDU that the step sends, empty where it sends none; `pdu` where the step alone does not say what is in it."""
    if step.abort is not None:
        return abort_pdu(*step.abort)
    if step.action.sends in (Pdu.A_RELEASE_RQ, Pdu.A_RELEASE_RP):
        return encoded(step.action.sends)
    return b"" if step.action.sends is None else pdu


def user_information(maximum_pdu_bytes: int, class_uid: str, version_name: str) -> list[Any]:
    """What each side says of itself (PS3.7 D.3.3.1, D.3.3.2)."""
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    version = ImplementationVersionNameNotification()
    length.maximum_length_received = maximum_pdu_bytes
    implementation.implementation_class_uid = UID(class_uid)
    version.implementation_version_name = version_name
    return [length, implementation, version]


def maximum_length(primitive: A_ASSOCIATE) -> int:
    """The longest P-DATA-TF that the other side takes, in bytes; 0: it has no limit, or says nothing."""
    for item in primitive.user_information:
        if isinstance(item, MaximumLengthNotification):
            return int(item.maximum_length_received or 0)
    return 0
