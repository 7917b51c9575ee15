"""What is done with others, recorded in the audit trail as it begins and as it ends."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from node.audit.messages import Party, Question, Reporter, Study
from node.audit.trail import Trail
from node.config.peer import Peer
from node.errors import safe_message

Clock = Callable[[], datetime]


@contextmanager
def sending(trail: Trail, clock: Clock, peer: Peer, study: Study) -> Iterator[None]:
    """This is sent to the peer within; the trail says when that began and how it ended."""
    to = Party(peer.ae_title, peer.host)
    began = clock()
    trail.record(lambda reporter: reporter.begin_transferring(study, to, began))
    with _ending(trail, clock, lambda reporter, at, error: reporter.sent(study, to, at, error)):
        yield


@contextmanager
def asking(trail: Trail, clock: Clock, peer: Peer, query: Dataset) -> Iterator[None]:
    """The peer is asked within; the trail says what was asked and how it ended.  Of QIDO-RS, what would be asked by C-FIND."""
    identifier, to = encode(query, False, True) or b"", Party(peer.ae_title, peer.host)
    asked = Question(StudyRootQueryRetrieveInformationModelFind, identifier, ExplicitVRLittleEndian)
    with _ending(trail, clock, lambda reporter, at, error: reporter.query(reporter.us, to, asked, at, error)):
        yield


def asked_by(event: Any, patient_ids: bool) -> Question:
    """What a peer asks by C-FIND, as it came; without `patient_ids` without the attributes of a patient (group 0010)."""
    syntax, sent = UID(event.context.transfer_syntax), event.request.Identifier
    identifier = sent.getvalue() if sent is not None else b""
    if not patient_ids:
        try:
            bare = Dataset({each.tag: each for each in event.dataset if each.tag.group != 0x0010})
            identifier = encode(bare, syntax.is_implicit_VR, syntax.is_little_endian) or b""
        except Exception:  # noqa: BLE001  the edge: what cannot be read may name a patient
            identifier = b""
    return Question(str(event.request.AffectedSOPClassUID), identifier, syntax)


@contextmanager
def _ending(trail: Trail, clock: Clock, message: Callable[[Reporter, datetime, str], bytes]) -> Iterator[None]:
    """The trail gets the message with when what is done within ended, and with what went wrong, "" for nothing."""
    error = ""
    try:
        yield
    except Exception as failure:
        error = safe_message(failure)
        raise
    finally:
        ended = clock()
        trail.record(lambda reporter: message(reporter, ended, error))
