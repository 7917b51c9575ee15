"""Associations that we open, and C-ECHO on one."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom import AE, _config, build_context, build_role
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification

from node.config.peer import Peer
from node.config.sections import Node, Tls
from node.dicom.conformance import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.errors import Refused, Unavailable
from node.net.tls import check_fingerprint, client_context, peer_name, reason_for_failure

# Files are sent as they lie on disk; only a peer that does not accept their syntax gets them encoded otherwise.
_config.STORE_SEND_CHUNKED_DATASET = True


@dataclass(frozen=True)
class Timeouts:
    """Seconds: to connect and negotiate, for an answer, and of silence on the network."""

    acse: float = 30
    dimse: float = 60
    network: float = 60


def timeouts(settings: Node) -> Timeouts:
    """Those of [node]."""
    return Timeouts(settings.acse_timeout_seconds, settings.dimse_timeout_seconds, settings.network_timeout_seconds)


class Entity(AE):  # type: ignore[misc]  # pynetdicom has no types here
    """An application entity of ours that opens associations; `tls` is for peers that want it."""

    tls: Tls | None = None


def entity(ae_title: str, timeouts: Timeouts, settings: Tls | None = None) -> Entity:
    """An application entity of ours that opens associations; its certificates are read when a peer wants TLS."""
    ae = Entity(ae_title=ae_title)
    ae.tls = settings
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.acse_timeout = timeouts.acse
    ae.dimse_timeout = timeouts.dimse
    ae.network_timeout = timeouts.network
    ae.connection_timeout = timeouts.acse
    return ae


def associate(
    ae: Entity,
    peer: Peer,
    contexts: Sequence[tuple[str, str]],
    handlers: Sequence[Any] = (),
    scp_roles: Sequence[str] = (),
) -> Association:
    """An established association for these (SOP class, transfer syntax) pairs.

    `handlers` are pynetdicom's, for what the peer asks of us on it; we propose to be SCP of the SOP classes
    `scp_roles`.  Raises Unavailable, Refused when the peer accepts none of the pairs, or ConfigError when it wants TLS
    and our certificates cannot be used.
    """
    if peer.url:
        raise Refused(f"{peer.ae_title} is reached by DICOMweb: it has a url, and no host and port")
    context = client_context(ae.tls) if peer.tls and ae.tls else None
    if peer.tls and context is None:
        raise Refused(f"{peer.ae_title} wants TLS, and [node.tls] is not configured")
    proposed = [build_context(UID(sop_class), UID(syntax)) for sop_class, syntax in contexts]
    assoc = ae.associate(
        peer.host,
        peer.port,
        contexts=proposed,
        ae_title=peer.ae_title,
        max_pdu=131_072,
        ext_neg=[build_role(UID(sop_class), scp_role=True) for sop_class in scp_roles],
        evt_handlers=list(handlers),
        tls_args=(context, peer_name(peer)) if context else None,
    )
    where = f"{peer.ae_title} at {peer.host}:{peer.port}"
    if assoc.is_established:
        if context:
            _check_fingerprint(assoc, peer)
        let_reader_run(assoc)
        return assoc
    if assoc.is_rejected:
        raise Unavailable(f"{where} rejected the association")
    if assoc.rejected_contexts and not assoc.accepted_contexts:
        raise Refused(f"{where} accepts none of: {', '.join(sorted({UID(kind).name for kind, _ in contexts}))}")
    why = reason_for_failure(peer, context, ae.acse_timeout) if context else ""
    raise Unavailable(f"no association with {where}{f': {why}' if why else ''}")


def _check_fingerprint(assoc: Association, peer: Peer) -> None:
    """Nothing but the association request has been sent by then.  Raises Unavailable; the association is aborted."""
    try:
        check_fingerprint(peer, assoc.dul.socket.socket.getpeercert(binary_form=True))
    except Unavailable:
        assoc.abort()
        raise


def let_reader_run(assoc: Association, seconds: float = 1.0) -> None:
    """pynetdicom's reader thread has left the pause of the operation before.

    An operation that starts earlier finds it "paused", and then that thread takes its answer ("unexpected C-STORE").
    """
    deadline = time.monotonic() + seconds
    while assoc._is_paused and time.monotonic() < deadline:  # noqa: SLF001  nothing public tells
        time.sleep(0)


def echo(ae: Entity, peer: Peer) -> None:
    """The peer answered a C-ECHO (PS3.4 A).  Raises Unavailable, Refused or ConfigError."""
    assoc = associate(ae, peer, [(Verification, ImplicitVRLittleEndian)])
    try:
        status = assoc.send_c_echo()
    except RuntimeError:
        raise Unavailable("the association ended") from None
    finally:
        end(assoc)
    if status.get("Status") != 0x0000:
        raise Unavailable(f"{peer.ae_title} did not answer C-ECHO with success")


def end(assoc: Association) -> None:
    """The association is released, if it is still there.

    As `Association.release`, which waits for ever when the peer ends it at the same moment: the reader thread that it
    waits for has gone.
    """
    let_reader_run(assoc)
    if not assoc.is_established:
        return
    assoc._reactor_checkpoint.clear()  # noqa: SLF001
    while not assoc._is_paused and assoc.is_alive():  # noqa: SLF001
        time.sleep(0.0001)
    if assoc.is_alive() and assoc.is_established:
        assoc.acse.negotiate_release()
    assoc._reactor_checkpoint.set()  # noqa: SLF001
