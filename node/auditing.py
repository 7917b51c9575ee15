"""What the node's own process does with others, told to the audit trail as it begins and as it ends."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from node.audit import Party, Reporter, Study
from node.audit_trail import Trail
from node.config import Peer
from node.errors import told
from node.sender import count_query

Clock = Callable[[], datetime]


@contextmanager
def sending(trail: Trail, clock: Clock, peer: Peer, path: Path) -> Iterator[None]:
    """The object in `path` is sent to the peer within; the trail says when that began and how it ended."""
    study, to = _study_of(path), Party(peer.ae_title, peer.host)
    began = clock()
    trail.record(lambda reporter: reporter.begin_transferring(study, to, began))
    with _ending(trail, clock, lambda reporter, at, error: reporter.sent(study, to, at, error)):
        yield


def _study_of(path: Path) -> Study:
    """Of an object of ours."""
    wanted = ["SOPClassUID", "StudyInstanceUID", "PatientID", "AccessionNumber"]
    ds = dcmread(path, specific_tags=wanted, stop_before_pixels=True)
    study = Study(str(ds.StudyInstanceUID), str(ds.get("PatientID") or ""), str(ds.get("AccessionNumber") or ""))
    study.count(str(ds.SOPClassUID))
    return study


@contextmanager
def asking(trail: Trail, clock: Clock, peer: Peer, study_instance_uid: str, series_instance_uid: str) -> Iterator[None]:
    """The peer is asked within how many instances the series has; the trail says what was asked and how it ended."""
    query = encode(count_query(study_instance_uid, series_instance_uid), False, True) or b""
    to, model = Party(peer.ae_title, peer.host), StudyRootQueryRetrieveInformationModelFind

    def message(reporter: Reporter, at: datetime, error: str) -> bytes:
        return reporter.query(to, model, query, ExplicitVRLittleEndian, at, error)

    with _ending(trail, clock, message):
        yield


@contextmanager
def _ending(trail: Trail, clock: Clock, message: Callable[[Reporter, datetime, str], bytes]) -> Iterator[None]:
    """The trail gets the message with when what is done within ended, and with what went wrong, "" for nothing."""
    error = ""
    try:
        yield
    except Exception as failure:
        error = told(failure)
        raise
    finally:
        ended = clock()
        trail.record(lambda reporter: message(reporter, ended, error))
