"""Queries over real associations on loopback: statuses, C-CANCEL, the limit, and who may ask."""

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.datadict import keyword_for_tag
from pydicom.tag import BaseTag
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind
from sqlalchemy.exc import OperationalError

from node.dicom import query
from node.scp import query_scp
from storage.conditions import Level
from storage.store import Store
from tests.support.builders import FakeClock, add, header, received, reported
from tests.support.raw_scu import (
    ABORT,
    COMMAND,
    ECHO_CONTEXT,
    LAST,
    STORE_CONTEXT,
    RawScu,
    associate_rq,
    command,
    echo_command,
    p_data,
    pdv,
    uid_bytes,
)
from tests.support.site import Site, SiteFactory, peers

FIND = StudyRootQueryRetrieveInformationModelFind
Answers = list[tuple[Dataset, Dataset | None]]


@pytest.fixture
def asked(site: SiteFactory) -> Site:
    """A site whose peer PACS may ask."""
    return site(peers=peers(11113))


def study_query(**keys: Any) -> Dataset:
    ds = Dataset()
    ds.QueryRetrieveLevel = "STUDY"
    ds.StudyInstanceUID = None
    for keyword, value in keys.items():
        setattr(ds, keyword, value)
    return ds


def ask(made: Site, identifier: Dataset, calling: str = "PACS", syntax: str = ExplicitVRLittleEndian) -> Answers:
    """Every response: (command set with the status, Identifier)."""
    entity = AE(calling)
    entity.add_requested_context(FIND, syntax)
    assoc = entity.associate("127.0.0.1", made.config.node.port, ae_title="WILLIS")
    assert assoc.is_established
    responses = list(assoc.send_c_find(identifier, FIND))
    assoc.release()
    return responses


def statuses(responses: Answers) -> list[int]:
    return [status.Status for status, _ in responses]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_every_match_is_a_pending_response_and_success_the_last(
    asked: Site, store_of: Callable[[int], Store], syntax: str
) -> None:
    store_of(3)
    responses = ask(asked, study_query(PatientName="doe^*"), syntax=syntax)
    assert statuses(responses) == [0xFF00, 0xFF00, 0xFF00, 0x0000]
    uids = {found.StudyInstanceUID for _, found in responses if found is not None}
    assert uids == {"2.25.20", "2.25.21", "2.25.22"}
    assert statuses(ask(asked, study_query(PatientName="", PatientBirthDate=""))) == [0xFF01] * 3 + [0x0000]
    assert statuses(ask(asked, study_query(PatientID="nobody"))) == [0x0000]


@pytest.fixture
def store_of(sqlite_store: Store, clock: FakeClock) -> Callable[[int], Store]:
    """The site's store with so many studies in it."""

    def fill(count: int) -> Store:
        for number in range(count):
            received(sqlite_store, clock, 1, f"2.25.1{number}", study_instance_uid=f"2.25.2{number}")
        return sqlite_store

    return fill


def test_the_most_urgent_is_answered_first_with_its_outcome(asked: Site, clock: FakeClock) -> None:
    received(asked.store, clock, 1, "2.25.1", study_instance_uid="2.25.9")
    reported(asked.store, clock, series="2.25.2")
    identifier = study_query()
    identifier.private_block(0x0099, "WILLIS", create=True).add_new(0x01, "CS", "")
    (_, first), (_, second), _ = ask(asked, identifier)
    assert first is not None and second is not None
    assert [ds[0x0099, 0x1001].value for ds in (first, second)] == ["POSITIVE", ""]


ONE_OTHER: dict[str, tuple[str, Any, Any]] = {
    "PatientName": ("patient_name", "Doe^John", "Roe^Ann"),
    "PatientID": ("patient_id", "P-1", "P-2"),
    "IssuerOfPatientID": ("issuer_of_patient_id", "HOSPITAL", "CLINIC"),
    "StudyInstanceUID": ("study_instance_uid", "2.25.91", "2.25.92"),
    "StudyDate": ("study_date", "20261123", "20261124"),
    "StudyTime": ("study_time", "101500", "111500"),
    "StudyID": ("study_id", "S1", "S2"),
    "AccessionNumber": ("accession_number", "A-1", "A-2"),
    "ModalitiesInStudy": ("modality", "CT", "MR"),
    "SeriesInstanceUID": ("series_instance_uid", "2.25.1", "2.25.2"),
    "Modality": ("modality", "CT", "MR"),
    "SeriesNumber": ("series_number", 3, 4),
    "SeriesDescription": ("series_description", "CTA", "native"),
    "SOPInstanceUID": ("sop_instance_uid", "2.25.71", "2.25.72"),
    "SOPClassUID": ("sop_class_uid", CTImageStorage, EnhancedCTImageStorage),
    "InstanceNumber": ("instance_number", 7, 8),
}
"""By keyword: the header's field, and the values of two studies, series or images that differ in it."""


def level_of(key: query.Key) -> Level:
    """The highest that has the key."""
    return next(level for level in Level if level in key.levels)


@pytest.mark.parametrize("tag", [tag for tag, key in query.KEYS.items() if key.is_matched], ids=keyword_for_tag)
def test_each_key_alone_tells_one_from_the_other(asked: Site, clock: FakeClock, tag: BaseTag) -> None:
    keyword, level = keyword_for_tag(tag), level_of(query.KEYS[tag])
    field, one, other = ONE_OTHER[keyword]
    for number, value in ((1, one), (2, other)):
        place = {
            Level.STUDY: {"series_instance_uid": f"2.25.{number}", "study_instance_uid": f"2.25.9{number}"},
            Level.SERIES: {"series_instance_uid": f"2.25.{number}", "study_instance_uid": "2.25.9"},
            Level.IMAGE: {"series_instance_uid": "2.25.1", "study_instance_uid": "2.25.9"},
        }[level]
        add(asked.store, clock, header(number, **(place | {field: value})))
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level.name
    if level is not Level.STUDY:
        identifier.StudyInstanceUID = "2.25.9"
    if level is Level.IMAGE:
        identifier.SeriesInstanceUID = "2.25.1"
    setattr(identifier, keyword, one)
    (_, found), (last, _) = ask(asked, identifier)
    assert found is not None
    assert found[tag].value == one
    assert last.Status == 0x0000


def test_what_cannot_be_answered_fails_with_a_comment_and_the_association_goes_on(asked: Site) -> None:
    entity = AE("PACS")
    entity.add_requested_context(FIND, ExplicitVRLittleEndian)
    assoc = entity.associate("127.0.0.1", asked.config.node.port)
    for wrong, status, comment, element in (
        (study_query(QueryRetrieveLevel="PATIENT"), 0xA900, "QueryRetrieveLevel must be STUDY, SERIES or IMAGE", 0x00080052),
        (study_query(QueryRetrieveLevel="IMAGE"), 0xA900, "StudyInstanceUID must be one UID at IMAGE level", 0x0020000D),
        (study_query(StudyDate="today"), 0xC000, "StudyDate must be a date or a range of two", 0x00080020),
    ):  # fmt: skip
        [(answer, found)] = list(assoc.send_c_find(wrong, FIND))
        assert (answer.Status, answer.ErrorComment, answer.OffendingElement, found) == (status, comment, element, None)
    assert statuses(list(assoc.send_c_find(study_query(), FIND))) == [0x0000]
    assoc.release()


def test_of_too_many_the_first_are_answered_and_the_rest_is_not_passed_over_in_silence(
    asked: Site, store_of: Callable[[int], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query_scp, "MOST_ANSWERS", 2)
    store_of(3)
    responses = ask(asked, study_query())
    assert statuses(responses) == [0xFF00, 0xFF00, 0xA700]
    assert responses[-1][0].ErrorComment == "more than 2 match; these are the first"


def test_a_database_that_is_away_is_said_and_nothing_of_its_words(asked: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_arguments: Any) -> Any:
        raise OperationalError("SELECT 'Doe^Jane'", {}, Exception("gone"))

    monkeypatch.setattr(type(asked.store.cfind), "find", away)
    [(answer, _)] = ask(asked, study_query())
    assert (answer.Status, answer.ErrorComment) == (0xA700, "cannot answer now: OperationalError")


def test_nobody_may_ask_who_is_not_configured(site: SiteFactory) -> None:
    entity = AE("STRANGER")
    entity.add_requested_context(FIND, ExplicitVRLittleEndian)
    open_to_all = site()
    assoc = entity.associate("127.0.0.1", open_to_all.config.node.port)
    assert (assoc.is_established, assoc.is_aborted) == (False, True)  # no context was accepted
    with RawScu(site(peers=peers(11113)).config.node.port) as scu:
        scu.send(associate_rq(calling="STRANGER"))
        assert scu.pdu() == (3, b"\0\1\1\3")  # PS3.8 9.3.4: permanent, service user, calling AE title


# --- C-CANCEL, with a peer that decides itself what it sends when


IDENTIFIER = b"\x08\x00\x52\x00CS\x06\x00STUDY "


def find_request(message_id: int = 7, identifier: bytes = IDENTIFIER) -> bytes:
    request = command({
        0x0002: uid_bytes(FIND), 0x0100: b"\x20\x00", 0x0110: message_id.to_bytes(2, "little"), 0x0700: b"\0\0",
        0x0800: b"\0\0",
    })  # fmt: skip
    return p_data(pdv(STORE_CONTEXT, COMMAND | LAST, request)) + p_data(pdv(STORE_CONTEXT, LAST, identifier))


def cancel_request(message_id: int = 7) -> bytes:
    request = command({0x0100: b"\xff\x0f", 0x0120: message_id.to_bytes(2, "little"), 0x0800: b"\x01\x01"})
    return p_data(pdv(STORE_CONTEXT, COMMAND | LAST, request))


def echo_request() -> bytes:
    return p_data(pdv(ECHO_CONTEXT, COMMAND | LAST, echo_command()))


def rest(scu: RawScu) -> list[int]:
    """The statuses up to the final one."""
    found = []
    while True:
        response = scu.response()
        found.append(int.from_bytes(response[0x0900], "little"))
        if response[0x0800] != b"\x01\x01":
            scu.pdu()  # the Identifier
        if found[-1] not in (0xFF00, 0xFF01):
            return found


@pytest.fixture
def scu(site: SiteFactory, store_of: Callable[[int], Store]) -> Iterator[RawScu]:
    """An association of the peer RAW with a site that holds three studies."""
    store_of(3)
    made = site(peers=peers(11113, ae_title="RAW"))
    with RawScu(made.config.node.port).associate(associate_rq(sop_class=FIND)) as associated:
        yield associated


def test_a_cancelled_query_ends_with_the_answers_that_were_sent_and_the_association_goes_on(scu: RawScu) -> None:
    scu.send(find_request() + cancel_request())
    assert rest(scu) == [0xFE00]
    scu.send(cancel_request() + cancel_request(8) + find_request())  # too late, and of something else
    assert rest(scu) == [0xFF00, 0xFF00, 0xFF00, 0x0000]
    scu.send(find_request() + cancel_request(8))
    assert rest(scu) == [0xFF00, 0xFF00, 0xFF00, 0x0000]
    scu.send(echo_request())
    assert scu.status() == 0x0000
    scu.release()


def test_an_identifier_that_cannot_be_decoded_fails_and_the_association_goes_on(scu: RawScu) -> None:
    endless = b"\x08\x00\x10\x11SQ\0\0\xff\xff\xff\xff"  # a sequence of undefined length, and nothing of it
    scu.send(find_request(identifier=IDENTIFIER + endless))
    response = scu.response()
    assert int.from_bytes(response[0x0900], "little") == 0xC000
    assert response[0x0902].startswith(b"the Identifier cannot be read")
    scu.send(find_request())
    assert rest(scu) == [0xFF00, 0xFF00, 0xFF00, 0x0000]


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer takes a while."""
    answer = query.identifier_of

    def wait(*arguments: Any) -> Dataset:
        time.sleep(0.2)
        return answer(*arguments)

    monkeypatch.setattr(query_scp, "identifier_of", wait)


@pytest.mark.usefixtures("slowly")
def test_each_answer_is_with_the_peer_before_the_next_is_made_and_a_cancel_stops_the_rest(scu: RawScu) -> None:
    scu.send(find_request())
    assert scu.status() == 0xFF00
    scu.pdu()
    scu.send(cancel_request())
    assert rest(scu)[-1] == 0xFE00


@pytest.mark.usefixtures("slowly")
@pytest.mark.parametrize(
    "more", [echo_request(), ABORT, b"\x09garbage", b""], ids=["request", "abort", "garbage", "end"]
)
def test_whatever_comes_in_the_midst_of_answers_ends_the_association_and_no_other(scu: RawScu, more: bytes) -> None:
    port = scu.socket.getpeername()[1]
    scu.send(find_request())
    assert scu.status() == 0xFF00
    start = time.monotonic()
    if more:
        scu.send(more)
    else:
        scu.socket.shutdown(socket.SHUT_WR)
    scu.ended()
    assert time.monotonic() - start < 2
    with RawScu(port).associate(associate_rq(sop_class=FIND)) as other:
        other.send(echo_request())
        assert other.status() == 0x0000
