"""The Storage SCU: sends an object, and turns what the peer answers into success or one of two errors."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.association import Association

from node.config.peer import Peer
from node.errors import Refused, Unavailable
from node.scu.dimse import Entity, associate, end, let_reader_run
from storage.killpoints import kill_point

DUPLICATE = 0x0111


_WARNINGS = (0x0001, 0x0107, 0x0116, *range(0xB000, 0xC000))


_TRANSIENT = (0x0110, 0x0213)


MAXIMUM_CONTEXTS = 128


_UNCOMPRESSED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)
"""Little endian, and each can be had from the others without touching a pixel."""


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


def deliver(ae: Entity, peer: Peer, path: Path) -> str:
    """The peer has the object in `path`, sent on an association of its own.  Raises Unavailable or Refused."""
    sop_class, syntax = identify(path)
    assoc = associate(ae, peer, ways(sop_class, syntax))
    kill_point("before_send")
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
