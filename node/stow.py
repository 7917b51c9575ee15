"""STOW-RS (PS3.18 10.5): an object goes to a DICOMweb peer as it lies on disk, and the answer becomes success or an error."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from pydicom import dcmread

from node import sender
from node.config import Peer, Tls
from node.dicomweb import Json, Service, failure, text_of
from node.errors import NodeError, Refused, Unavailable
from node.multipart import body_of
from node.sender import DUPLICATE, Sent, Timeouts
from storage.killpoints import here

_CHUNK_BYTES, _MOST_CHUNKS = 65_536, 16
"""No more of an answer is read."""
_BUSY = (0x0110, 0x0213)
_REFERENCED, _FAILED = "00081199", "00081198"
_SOP_INSTANCE_UID, _WARNING_REASON, _FAILURE_REASON = "00081155", "00081196", "00081197"


@dataclass(frozen=True)
class Answer:
    """A Store Instances Response Module (PS3.18 I.2): by SOP Instance UID the Warning and the Failure Reasons; 0: none."""

    stored: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, int] = field(default_factory=dict)


def read_answer(body: bytes) -> Answer:
    """What the body says of each instance; nothing where it is no DICOM JSON."""
    try:
        module = json.loads(body)
        module = module[0] if isinstance(module, list) else module
        return Answer(_reasons(module, _REFERENCED, _WARNING_REASON), _reasons(module, _FAILED, _FAILURE_REASON))
    except (ValueError, AttributeError, IndexError, KeyError, TypeError):
        return Answer()


def _reasons(module: Json, sequence: str, reason: str) -> dict[str, int]:
    items = module.get(sequence, {}).get("Value") or ()
    return {str(_first(item, _SOP_INSTANCE_UID, "")): int(_first(item, reason, 0)) for item in items}


def _first(item: Json, tag: str, default: Any) -> Any:
    return (item.get(tag, {}).get("Value") or [default])[0]


def judge(peer: Peer, status: int, answer: Answer, sop_instance_uid: str) -> str:
    """A word for an answer that means that the peer has the one instance that was sent.

    Raises Unavailable where trying again may help, Refused where it will not (PS3.18 10.5.3, I.2).
    """
    reason = answer.failed.get(sop_instance_uid, answer.failed.get(""))
    if reason is not None:
        return _judge_failure(f"HTTP {status}, failure reason 0x{reason:04X}", reason)
    warning = answer.stored.get(sop_instance_uid)
    if warning:
        return f"warning 0x{warning:04X}"
    if 200 <= status < 300 or warning is not None:
        return "success" if status == 200 else "accepted"
    raise failure(peer, status)


def _judge_failure(said: str, reason: int) -> str:
    if reason == DUPLICATE:
        return "already there"
    raise Unavailable(said) if 0xA700 <= reason <= 0xA7FF or reason in _BUSY else Refused(said)


def deliver(peer: Peer, timeouts: Timeouts, tls: Tls | None, path: Path) -> str:
    """The peer has the object in `path`; returns `judge`'s word.  Raises Unavailable, Refused or ConfigError.

    Servers have reasons of their own for a 409 of what they have already: after one, the server is asked for it.
    """
    sender.identify(path)
    content = path.read_bytes()
    boundary = hashlib.sha256(content).hexdigest()
    ds = dcmread(path, specific_tags=["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
    with Service(peer, timeouts, tls) as service:
        here("before_send")
        with service.answering():
            response = service.post(
                f"{peer.url}/studies",
                body_of(content, boundary),
                f'multipart/related; type="application/dicom"; boundary={boundary}',
                "application/dicom+json",
            )
            body = b"".join(islice(response.iter_content(_CHUNK_BYTES), _MOST_CHUNKS))
        try:
            return judge(peer, response.status_code, read_answer(body), str(ds.SOPInstanceUID))
        except Refused:
            if response.status_code == 409 and _holds(service, ds):
                return "already there"
            raise


def send_files(peer: Peer, timeouts: Timeouts, tls: Tls | None, paths: Iterable[Path]) -> Iterator[Sent]:
    """Each file is sent, and what became of it is told.  Raises Unavailable when the peer cannot be had."""
    for path in paths:
        try:
            sender.identify(path)
        except Refused as error:
            yield Sent(path, "skipped", str(error))
            continue
        try:
            yield Sent(path, deliver(peer, timeouts, tls, path))
        except Refused as error:
            yield Sent(path, "refused", str(error))


def _holds(service: Service, ds: Any) -> bool:
    """Whether the service lists the instance."""
    try:
        with service.answering():
            found = service.client.search_for_instances(
                str(ds.StudyInstanceUID), str(ds.SeriesInstanceUID),
                search_filters={"SOPInstanceUID": str(ds.SOPInstanceUID)},
            )  # fmt: skip
            return any(text_of(each, "00080018") == ds.SOPInstanceUID for each in found)
    except NodeError:
        return False
