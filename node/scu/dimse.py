"""Associations that we open, and C-ECHO on one."""

import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom.dimse_primitives import C_ECHO
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import build_context, build_role
from pynetdicom.sop_class import Verification

from node.config.peer import Peer
from node.config.sections import Node, Tls
from node.dicom import status
from node.dicom.conformance import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.errors import Refused, Unavailable
from node.net.requestor import Keep, OnReport, Requestor
from node.net.tls import check_fingerprint, client_context, connect, reason_of

_APPLICATION_CONTEXT = UID("1.2.840.10008.3.1.1.1")
_LARGEST_PDU_BYTES = 131_072


@dataclass(frozen=True)
class Timeouts:
    """Seconds: to connect and negotiate, for an answer, and of silence on the network."""

    acse: float = 30
    dimse: float = 60
    network: float = 60


def timeouts(settings: Node) -> Timeouts:
    """Those of [node]."""
    return Timeouts(settings.acse_timeout_seconds, settings.dimse_timeout_seconds, settings.network_timeout_seconds)


@dataclass(frozen=True)
class Entity:
    """An application entity of ours that opens associations; `tls` is for peers that want it, and read when one does."""

    ae_title: str
    timeouts: Timeouts = Timeouts()
    tls: Tls | None = None


def our_entity(settings: Node, limits: Timeouts | None = None) -> Entity:
    """The node's, with its own timeouts or these."""
    return Entity(settings.ae_title, limits or timeouts(settings), settings.tls)


def associate(
    entity: Entity,
    peer: Peer,
    contexts: Sequence[tuple[str, str]],
    scp_roles: Sequence[str] = (),
    keep: Keep | None = None,
    on_report: OnReport | None = None,
) -> Requestor:
    """An established association for these (SOP class, transfer syntax) pairs.

    We propose to be SCP of the SOP classes `scp_roles`; `keep` takes what comes by C-STORE then, `on_report` what comes
    by N-EVENT-REPORT.  Raises Unavailable, Refused when the peer accepts none of the pairs, or ConfigError when it wants
    TLS and our certificates cannot be used.
    """
    if peer.url:
        raise Refused(f"{peer.ae_title} is reached by DICOMweb: it has a url, and no host and port")
    where, limits = f"{peer.ae_title} at {peer.host}:{peer.port}", entity.timeouts
    connection = _connected(entity, peer, where)
    assoc = Requestor(connection, limits.acse, limits.dimse, limits.network, keep, on_report)
    assoc.negotiate(_request(entity, peer, contexts, scp_roles))
    if assoc.has_contexts:
        return assoc
    if assoc.is_rejected:
        raise Unavailable(f"{where} rejected the association")
    if assoc.is_established:
        assoc.abort()
        raise Refused(f"{where} accepts none of: {', '.join(sorted({UID(kind).name for kind, _ in contexts}))}")
    raise Unavailable(f"no association with {where}")


def _connected(entity: Entity, peer: Peer, where: str) -> socket.socket:
    """A connection, over TLS where the peer wants it, with the one whose certificate is expected."""
    context = client_context(entity.tls) if peer.tls and entity.tls else None
    if peer.tls and context is None:
        raise Refused(f"{peer.ae_title} wants TLS, and [node.tls] is not configured")
    try:
        connection = connect(peer, context, entity.timeouts.acse)
    except OSError as error:
        why = reason_of(error) if context else ""
        raise Unavailable(f"no association with {where}{f': {why}' if why else ''}") from None
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if isinstance(connection, ssl.SSLSocket):
        try:
            check_fingerprint(peer, connection.getpeercert(binary_form=True))
        except Unavailable:
            connection.close()
            raise
    return connection


def _request(entity: Entity, peer: Peer, contexts: Sequence[tuple[str, str]], scp_roles: Sequence[str]) -> A_ASSOCIATE:
    """Raises ValueError when there are more than 128 pairs."""
    maximum, uid = MaximumLengthNotification(), ImplementationClassUIDNotification()
    version = ImplementationVersionNameNotification()
    maximum.maximum_length_received = _LARGEST_PDU_BYTES
    uid.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    proposed = [build_context(UID(sop_class), UID(syntax)) for sop_class, syntax in contexts]
    for number, context in enumerate(proposed):
        context.context_id = 2 * number + 1
    request = A_ASSOCIATE()
    request.application_context_name = _APPLICATION_CONTEXT
    request.calling_ae_title, request.called_ae_title = entity.ae_title, peer.ae_title
    request.presentation_context_definition_list = proposed
    roles = [build_role(UID(sop_class), scp_role=True) for sop_class in scp_roles]
    request.user_information = [maximum, uid, version, *roles]
    return request


def echo(entity: Entity, peer: Peer) -> None:
    """The peer answered a C-ECHO (PS3.4 A).  Raises Unavailable, Refused or ConfigError."""
    with associate(entity, peer, [(Verification, ImplicitVRLittleEndian)]) as assoc:
        request = C_ECHO()
        request.AffectedSOPClassUID = Verification
        [(answer, _)] = assoc.ask(request, assoc.contexts_of(Verification)[0])
    if answer.Status != status.SUCCESS:
        raise Unavailable(f"{peer.ae_title} did not answer C-ECHO with success")
