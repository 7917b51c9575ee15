"""The Storage SCU: sends an object, and turns what the peer answers into success or one of two errors."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, _config, build_context, build_role
from pynetdicom.association import Association
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind, Verification

from node.config.sections import Node, Peer, Tls
from node.dicom.header import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.errors import Refused, Unavailable
from node.net.tls import check_fingerprint, client_context, peer_name, reason_for_failure
from storage.killpoints import here

# Files are sent as they lie on disk; only a peer that does not accept their syntax gets them encoded otherwise.
_config.STORE_SEND_CHUNKED_DATASET = True

DUPLICATE = 0x0111
_WARNINGS = (0x0001, 0x0107, 0x0116, *range(0xB000, 0xC000))
_TRANSIENT = (0x0110, 0x0213)
MAXIMUM_CONTEXTS = 128
_UNCOMPRESSED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)
"""Little endian, and each can be had from the others without touching a pixel."""


@dataclass(frozen=True)
class Timeouts:
    """Seconds: to connect and negotiate, for an answer, and of silence on the network."""

    acse: float = 30
    dimse: float = 60
    network: float = 60


def timeouts(settings: Node) -> Timeouts:
    """Those of [node]."""
    return Timeouts(settings.acse_timeout_seconds, settings.dimse_timeout_seconds, settings.network_timeout_seconds)


def judge(status: int) -> str:
    """A word for a C-STORE status that means that the peer has the object.

    Raises Unavailable where trying again may help, Refused where it will not (PS3.4 B.2.3, PS3.7 C).
    """
    if status == 0x0000:
        return "success"
    if status == DUPLICATE:
        return "already there"
    if status in _WARNINGS:
        return f"warning 0x{status:04X}"
    if 0xA700 <= status <= 0xA7FF or status in _TRANSIENT:
        raise Unavailable(f"status 0x{status:04X}")
    raise Refused(f"status 0x{status:04X}")


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


def store(assoc: Association, path: Path, sop_class: str) -> str:
    """The peer has the object in `path`; returns `judge`'s word.  Raises Unavailable or Refused."""
    let_reader_run(assoc)
    try:
        status = assoc.send_c_store(_as_accepted(assoc, path))
    except ValueError:
        raise Refused(f"the peer does not accept {UID(sop_class).name} in the file's transfer syntax") from None
    except (RuntimeError, AttributeError):
        raise Unavailable("the association ended") from None
    if "Status" not in status:
        raise Unavailable("no answer: the association ended or timed out")
    return judge(int(status.Status))


def _as_accepted(assoc: Association, path: Path) -> Path | Dataset:
    """The file, or its dataset where the peer accepts another uncompressed syntax than the file's."""
    kind = identify(path)
    if kind in {(cx.abstract_syntax, cx.transfer_syntax[0]) for cx in assoc.accepted_contexts}:
        return path
    return dcmread(path) if kind[1] in _UNCOMPRESSED else path


def ways(sop_class: str, syntax: str) -> list[tuple[str, str]]:
    """What to propose for such a file, the file's own syntax first (PS3.5 10.1: implicit VR is everybody's)."""
    if syntax not in _UNCOMPRESSED:
        return [(sop_class, syntax)]
    return [(sop_class, way) for way in dict.fromkeys((syntax, *_UNCOMPRESSED[:2]))]


def let_reader_run(assoc: Association, seconds: float = 1.0) -> None:
    """pynetdicom's reader thread has left the pause of the operation before.

    An operation that starts earlier finds it "paused", and then that thread takes its answer ("unexpected C-STORE").
    """
    deadline = time.monotonic() + seconds
    while assoc._is_paused and time.monotonic() < deadline:  # noqa: SLF001  nothing public tells
        time.sleep(0)


def deliver(ae: Entity, peer: Peer, path: Path) -> str:
    """The peer has the object in `path`, sent on an association of its own.  Raises Unavailable or Refused."""
    sop_class, syntax = identify(path)
    assoc = associate(ae, peer, ways(sop_class, syntax))
    here("before_send")
    try:
        return store(assoc, path, sop_class)
    finally:
        end(assoc)


def identify(path: Path) -> tuple[str, str]:
    """(SOP class UID, transfer syntax UID) of a DICOM file.  Raises Refused when it is not one that can be sent."""
    try:
        meta = dcmread(path, specific_tags=["SOPClassUID"], stop_before_pixels=True).file_meta
        return str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)
    except Exception:  # noqa: BLE001  the edge: pydicom raises whatever its parser stumbles over
        raise Refused("not a DICOM file") from None


@dataclass(frozen=True)
class Sent:
    """What became of one file.  `error` is empty when the peer has it."""

    path: Path
    word: str
    error: str = ""


def send_files(ae: Entity, peer: Peer, paths: Iterable[Path]) -> Iterator[Sent]:
    """Each file is sent on one association (a new one when the peer ended it), and what became of it is told.

    Raises Unavailable when no association can be had from the beginning; when the peer goes away later, each file left
    is told as refused.
    """
    known: list[tuple[Path, tuple[str, str]]] = []
    for path in paths:
        try:
            known.append((path, identify(path)))
        except Refused as error:
            yield Sent(path, "skipped", str(error))
    contexts = list(dict.fromkeys(way for _, kind in known for way in ways(*kind)))[:MAXIMUM_CONTEXTS]
    assoc: Association | None = None
    gone = ""
    try:
        for path, (sop_class, _) in known:
            if gone:
                yield Sent(path, "refused", gone)
                continue
            try:
                if assoc is None or not assoc.is_established:
                    assoc = associate(ae, peer, contexts)
            except Refused as error:
                yield Sent(path, "refused", str(error))
                continue
            except Unavailable as error:
                if assoc is None:
                    raise
                gone = str(error)
                yield Sent(path, "refused", gone)
                continue
            try:
                yield Sent(path, store(assoc, path, sop_class))
            except (Unavailable, Refused) as error:
                yield Sent(path, "refused", str(error))
    finally:
        if assoc is not None:
            end(assoc)


def count_query(study_instance_uid: str, series_instance_uid: str) -> Dataset:
    """The identifier that asks how many instances a series has (PS3.4 C.6.2)."""
    query = Dataset()
    query.QueryRetrieveLevel = "SERIES"
    query.StudyInstanceUID = study_instance_uid
    query.SeriesInstanceUID = series_instance_uid
    query.NumberOfSeriesRelatedInstances = None
    return query


def ask_count(ae: Entity, peer: Peer, study_instance_uid: str, series_instance_uid: str) -> int | None:
    """How many instances the peer says the series has (C-FIND, PS3.4 C.3.4); None when it does not say.

    Raises Unavailable when there is no answer.
    """
    query = count_query(study_instance_uid, series_instance_uid)
    model = StudyRootQueryRetrieveInformationModelFind
    assoc = associate(ae, peer, [(model, "1.2.840.10008.1.2.1"), (model, "1.2.840.10008.1.2")])
    try:
        for status, answer in assoc.send_c_find(query, model):
            if "Status" not in status:
                raise Unavailable("no answer: the association ended or timed out")
            if answer is not None and answer.get("NumberOfSeriesRelatedInstances") is not None:
                return int(answer.NumberOfSeriesRelatedInstances)
    except ValueError:
        raise Unavailable("the peer does not accept queries") from None
    except RuntimeError:
        raise Unavailable("the association ended") from None
    finally:
        end(assoc)
    return None


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
