"""The Storage SCU: sends an object, and turns what the peer answers into success or one of two errors."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import PresentationContext

from node.config.peer import Peer
from node.dicom.status import DUPLICATE_INSTANCE, SUCCESS, is_warning, may_pass
from node.errors import Refused, Unavailable
from node.net.requestor import ENDED, Requestor
from node.scu import dimse
from node.scu.dimse import Entity
from node.scu.outgoing import Outgoing
from storage.killpoints import kill_point

MAXIMUM_CONTEXTS = 128
_UNCOMPRESSED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)
"""Little endian, and each can be had from the others without touching a pixel."""
_LOW_PRIORITY = 2


def word_for(status: int) -> str:
    """A word for a C-STORE status that means that the peer has the object.

    Raises Unavailable where trying again may help, Refused where it will not (PS3.4 B.2.3, PS3.7 C).
    """
    if status == SUCCESS:
        return "success"
    if status == DUPLICATE_INSTANCE:
        return "already there"
    if is_warning(status):
        return f"warning 0x{status:04X}"
    raise (Unavailable if may_pass(status) else Refused)(f"status 0x{status:04X}")


def store(assoc: Requestor, outgoing: Outgoing) -> str:
    """The peer has the object; returns `word_for`'s word.  Raises Unavailable or Refused."""
    if not assoc.is_established:
        raise Unavailable(ENDED)
    context, request = _context(assoc, outgoing), C_STORE()
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = outgoing.sop_class_uid, outgoing.sop_instance_uid
    request.Priority = _LOW_PRIORITY
    if context.transfer_syntax[0] == outgoing.transfer_syntax:
        with outgoing.dataset() as file:
            [(answer, _)] = assoc.ask(request, context, file=file)
    else:
        [(answer, _)] = assoc.ask(request, context, dcmread(outgoing.path))
    return word_for(int(answer.Status))


def _context(assoc: Requestor, outgoing: Outgoing) -> PresentationContext:
    """That of the file's transfer syntax, else of another uncompressed one.  Raises Refused."""
    accepted = {str(context.transfer_syntax[0]): context for context in assoc.contexts_of(outgoing.sop_class_uid)}
    for syntax in dict.fromkeys((outgoing.transfer_syntax, *_UNCOMPRESSED)):
        if syntax in accepted and (syntax == outgoing.transfer_syntax or outgoing.transfer_syntax in _UNCOMPRESSED):
            return accepted[syntax]
    raise Refused(f"the peer does not accept {UID(outgoing.sop_class_uid).name} in the file's transfer syntax")


def ways(sop_class: str, syntax: str) -> list[tuple[str, str]]:
    """What to propose for such a file, the file's own syntax first (PS3.5 10.1: implicit VR is everybody's)."""
    if syntax not in _UNCOMPRESSED:
        return [(sop_class, syntax)]
    return [(sop_class, way) for way in dict.fromkeys((syntax, *_UNCOMPRESSED[:2]))]


def deliver(entity: Entity, peer: Peer, outgoing: Outgoing) -> str:
    """The peer has the object, sent on an association of its own.  Raises Unavailable or Refused."""
    with dimse.associate(entity, peer, ways(outgoing.sop_class_uid, outgoing.transfer_syntax)) as assoc:
        kill_point("before_send")
        return store(assoc, outgoing)


@dataclass(frozen=True)
class Sent:
    """What became of one file.  `error` is empty when the peer has it."""

    path: Path
    word: str
    error: str = ""


def readable(paths: Iterable[Path]) -> Iterator[Outgoing | Sent]:
    """Each file, or that it is none that can be sent."""
    for path in paths:
        try:
            yield Outgoing.read(path)
        except Refused as error:
            yield Sent(path, "skipped", str(error))
        except OSError as error:
            yield Sent(path, "skipped", error.strerror or "cannot be read")


def send_files(entity: Entity, peer: Peer, paths: Iterable[Path]) -> Iterator[Sent]:
    """Each file is sent on one association (a new one when the peer ended it), and what became of it comes.

    Raises Unavailable when no association can be had from the beginning; when the peer goes away later, each file left
    is refused.
    """
    found = list(readable(paths))
    yield from (each for each in found if isinstance(each, Sent))
    files = [each for each in found if isinstance(each, Outgoing)]
    proposals = [way for outgoing in files for way in ways(outgoing.sop_class_uid, outgoing.transfer_syntax)]
    contexts = list(dict.fromkeys(proposals))[:MAXIMUM_CONTEXTS]
    assoc: Requestor | None = None
    try:
        for number, outgoing in enumerate(files):
            try:
                if assoc is None or not assoc.is_established:
                    assoc = dimse.associate(entity, peer, contexts)
            except Unavailable as error:
                if assoc is None:
                    raise
                yield from (Sent(left.path, "refused", str(error)) for left in files[number:])
                return
            except Refused as error:
                yield Sent(outgoing.path, "refused", str(error))
                continue
            try:
                yield Sent(outgoing.path, store(assoc, outgoing))
            except (Unavailable, Refused) as error:
                yield Sent(outgoing.path, "refused", str(error))
    finally:
        if assoc is not None:
            assoc.release()
