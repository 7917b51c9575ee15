"""Associations that we open, and C-ECHO on one."""

import socket
import ssl
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom.dimse_primitives import C_ECHO
from pynetdicom.sop_class import Verification

from node.config.peer import Peer
from node.config.sections import Node, Tls
from node.dicom import status
from node.dicom.conformance import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.errors import Refused, Unavailable
from node.net.dimse_messages import LARGEST_DATASET_PDU_BYTES
from node.net.negotiation import request
from node.net.pdus import user_information
from node.net.requestor import Keep, OnReport, Requestor
from node.net.tls import check_fingerprint, connect, held_context, reason_of

_LOOK = "does it know our AE title and address, and is the port its DICOM port?"


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
    ourselves = user_information(LARGEST_DATASET_PDU_BYTES, IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME)
    proposal = request((entity.ae_title, peer.ae_title), contexts, scp_roles, ourselves)
    with ExitStack() as unless_established:
        connection = unless_established.enter_context(_connected(entity, peer, where))
        if isinstance(connection, ssl.SSLSocket):
            check_fingerprint(peer, connection.getpeercert(binary_form=True))
        assoc = Requestor(connection, limits.acse, limits.dimse, limits.network, keep, on_report)
        assoc.negotiate(proposal)
        if assoc.contexts:
            unless_established.pop_all()
            return assoc
        if assoc.is_established:
            assoc.abort()
            raise Refused(f"{where} accepts none of: {', '.join(sorted({UID(kind).name for kind, _ in contexts}))}")
    if assoc.is_rejected:
        raise Unavailable(f"{where} rejected the association; {_LOOK}")
    raise Unavailable(f"no association with {where}: {assoc.why_over or 'the peer ended it'}; {_LOOK}")


def _connected(entity: Entity, peer: Peer, where: str) -> socket.socket:
    """A connection, over TLS where the peer wants it."""
    context = held_context(entity.tls) if peer.tls and entity.tls else None
    if peer.tls and context is None:
        raise Refused(f"{peer.ae_title} wants TLS, and [node.tls] is not configured")
    try:
        connection = connect(peer, context, entity.timeouts.acse)
    except (OSError, UnicodeError) as error:
        raise Unavailable(f"no association with {where}: {reason_of(error)}") from None
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def echo(entity: Entity, peer: Peer) -> None:
    """The peer answered a C-ECHO (PS3.4 A).  Raises Unavailable, Refused or ConfigError."""
    with associate(entity, peer, [(Verification, ImplicitVRLittleEndian)]) as assoc:
        question = C_ECHO()
        question.AffectedSOPClassUID = Verification
        [(answer, _)] = assoc.ask(question, assoc.contexts_of(Verification)[0])
    if answer.Status != status.SUCCESS:
        raise Unavailable(f"{peer.ae_title} did not answer C-ECHO with success")
