"""STOW-RS (PS3.18 10.5): an object goes to a DICOMweb peer as it lies on disk, and the answer becomes success or an error."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from node.config.peer import Peer
from node.config.sections import Tls
from node.dicom.multipart import body_of
from node.dicom.status import DUPLICATE_INSTANCE, may_pass
from node.errors import Refused, Unavailable
from node.scu.audited import Asking
from node.scu.dicomweb import Json, Service, failure, first, text_of
from node.scu.dimse import Timeouts
from node.scu.outgoing import Outgoing
from node.scu.source import identifier
from node.scu.storage_scu import Sent, readable
from storage.killpoints import kill_point

_CHUNK_BYTES, _MOST_CHUNKS = 65_536, 16
"""No more of an answer is read."""
_REFERENCED, _FAILED, _OTHER_FAILURES = "00081199", "00081198", "0008119A"
_SOP_INSTANCE_UID, _WARNING_REASON, _FAILURE_REASON = "00081155", "00081196", "00081197"


@dataclass(frozen=True)
class ResponseModule:
    """A Store Instances Response Module (PS3.18 I.2): by SOP Instance UID the Warning and the Failure Reasons; 0: none.

    A failure that names no instance has the UID "".
    """

    stored: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, int] = field(default_factory=dict)


def read_response(body: bytes) -> ResponseModule:
    """What the body says of each instance; nothing where it is no DICOM JSON."""
    try:
        module = json.loads(body)
        module = module[0] if isinstance(module, list) else module
        failed = _reasons(module, _OTHER_FAILURES, _FAILURE_REASON) | _reasons(module, _FAILED, _FAILURE_REASON)
        return ResponseModule(_reasons(module, _REFERENCED, _WARNING_REASON), failed)
    except (ValueError, AttributeError, IndexError, KeyError, TypeError):
        return ResponseModule()


def _reasons(module: Json, sequence: str, reason: str) -> dict[str, int]:
    items = module.get(sequence, {}).get("Value") or ()
    return {str(first(item, _SOP_INSTANCE_UID, "")): int(first(item, reason, 0)) for item in items}


def word_for(peer: Peer, status: int, module: ResponseModule, sop_instance_uid: str) -> str:
    """A word for an answer that says that the peer has the one instance that was sent; "" for a success that does not say so.

    Raises Unavailable where trying again may help, Refused where it will not (PS3.18 10.5.3, I.2).
    """
    warning, reason = module.stored.get(sop_instance_uid), module.failed.get(sop_instance_uid)
    if warning is None and reason is None:
        reason = module.failed.get("")
    if reason is not None:
        return _word_for_failure(f"HTTP {status}, failure reason 0x{reason:04X}", reason)
    if warning:
        return f"warning 0x{warning:04X}"
    if warning is not None:
        return "success" if status == 200 else "accepted"
    if 200 <= status < 300:
        return ""
    raise failure(peer, status)


def _word_for_failure(status: str, reason: int) -> str:
    if reason == DUPLICATE_INSTANCE:
        return "already there"
    raise (Unavailable if may_pass(reason) else Refused)(status)


def deliver(
    peer: Peer, timeouts: Timeouts, tls: Tls | None, outgoing: Outgoing, asking: Asking = lambda _query: nullcontext()
) -> str:
    """The peer has the object; returns `word_for`'s word.  Raises Unavailable, Refused or ConfigError.

    Servers have reasons of their own for a 409 of what they have already, and a success may come from something that
    is no DICOMweb service: after either the server is asked for the object.
    """
    content = outgoing.path.read_bytes()
    boundary = hashlib.sha256(content).hexdigest()
    content_type = f'multipart/related; type="application/dicom"; boundary={boundary}'
    with Service(peer, timeouts, tls) as service:
        kill_point("before_send")
        body = body_of(content, boundary)
        with (
            service.answering(),
            service.post(f"{peer.url}/studies", body, content_type, "application/dicom+json") as response,
        ):
            status, answer = response.status_code, b"".join(islice(response.iter_content(_CHUNK_BYTES), _MOST_CHUNKS))
        try:
            word = word_for(peer, status, read_response(answer), outgoing.sop_instance_uid)
        except Refused:
            if status == 409 and _holds(service, outgoing, asking):
                return "already there"
            raise
        if word or _holds(service, outgoing, asking):
            return word or "accepted"
    raise Unavailable(
        f"{peer.ae_title} answered HTTP {status}, but does not name the object, nor list it; "
        "is url that of its DICOMweb service?"
    )


def send_files(peer: Peer, timeouts: Timeouts, tls: Tls | None, paths: Iterable[Path]) -> Iterator[Sent]:
    """Each file is sent, and what became of it comes.  Raises Unavailable when the peer cannot be had."""
    for found in readable(paths):
        if isinstance(found, Sent):
            yield found
            continue
        try:
            yield Sent(found.path, deliver(peer, timeouts, tls, found))
        except Refused as error:
            yield Sent(found.path, "refused", str(error))


def _holds(service: Service, outgoing: Outgoing, asking: Asking) -> bool:
    """Whether the service lists the instance; False where it takes no such query.  Raises Unavailable."""
    uids = outgoing.study.study_instance_uid, outgoing.series_instance_uid
    query = identifier(
        "IMAGE", SOPInstanceUID=outgoing.sop_instance_uid, StudyInstanceUID=uids[0], SeriesInstanceUID=uids[1]
    )
    try:
        with asking(query), service.answering():
            found = service.client.search_for_instances(
                *uids, search_filters={"SOPInstanceUID": outgoing.sop_instance_uid}
            )
            return any(text_of(each, "00080018") == outgoing.sop_instance_uid for each in found)
    except Refused:
        return False
