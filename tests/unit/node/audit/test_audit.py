"""Audit messages against the schema of PS3.15 A.5.1, and the trail that carries them."""

import base64
import re
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from xml.etree.ElementTree import Element, fromstring

import pytest

from node.audit.messages import Activity, Party, Person, Question, Reporter, Study
from node.audit.trail import AuditFile, Lane, Trail, syslog_frame
from node.runtime.backoff import Backoff
from tests.support.audit_schema import check
from tests.support.running import wait_until

AT = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
US, PACS, CALLER = Party("WILLIS", "willis-1"), Party("PACS", "10.0.0.7"), Party("CT9", "10.0.0.9")
STUDY = Study("2.25.1", "SECRET-ID-7", "ACC1", {"1.2.840.10008.5.1.4.1.1.2": 400})

ASKED = Question("1.2.840.10008.5.1.4.1.2.2.1", b"\x08\0", "1.2.840.10008.1.2.1")


def messages(reporter: Reporter) -> dict[str, Element]:
    """One of each kind."""
    made = {
        "start": reporter.activity(Activity.START, 4711, AT),
        "stop": reporter.activity(Activity.STOP, 4711, AT),
        "begin": reporter.begin_transferring(STUDY, PACS, AT),
        "sent": reporter.sent(STUDY, PACS, AT),
        "not sent": reporter.sent(STUDY, PACS, AT, "status 0xA700"),
        "received": reporter.received(STUDY, CALLER, AT),
        "query": reporter.query(US, PACS, ASKED, AT),
        "query to us": reporter.query(CALLER, US, ASKED, AT, "cannot answer now"),
        "refused": reporter.node_refused(CALLER, "calling AE title is not on the list", AT),
        "no tls": reporter.node_refused(Party("", "2001:db8::1"), "no TLS: wrong version number", AT),
        "account": reporter.account_changed("dr.b", "role lead", Person("root", "10.0.0.9"), AT),
    }
    assert not any(b"\n" in message for message in made.values())
    return {name: fromstring(message) for name, message in made.items()}


def coded(message: Element, path: str) -> list[tuple[str | None, str | None]]:
    return [(found.get("csd-code"), found.get("codeSystemName")) for found in message.findall(path)]


@pytest.mark.parametrize("patient_ids", [True, False])
def test_every_message_keeps_to_the_schema(patient_ids: bool) -> None:
    for message in messages(Reporter(US, patient_ids)).values():
        check(message)


@pytest.mark.parametrize(
    ("name", "event", "types", "action", "outcome", "roles"),
    [
        ("start", "110100", ["110120"], "E", "0", ["110150"]),
        ("stop", "110100", ["110121"], "E", "0", ["110150"]),
        ("begin", "110102", [], "E", "0", ["110153", "110152"]),
        ("sent", "110104", [], "R", "0", ["110153", "110152"]),
        ("not sent", "110104", [], "R", "4", ["110153", "110152"]),
        ("received", "110104", [], "C", "0", ["110153", "110152"]),
        ("query", "110112", [], "E", "0", ["110153", "110152"]),
        ("query to us", "110112", [], "E", "4", ["110153", "110152"]),
        ("refused", "110113", ["110126"], "E", "4", []),
    ],
)
def test_each_event_has_its_codes(
    name: str, event: str, types: list[str], action: str, outcome: str, roles: list[str]
) -> None:
    message = messages(Reporter(US))[name]
    identification = message.find("EventIdentification")
    assert identification is not None
    assert coded(message, "EventIdentification/EventID") == [(event, "DCM")]
    assert coded(message, "EventIdentification/EventTypeCode") == [(kind, "DCM") for kind in types]
    assert (identification.get("EventActionCode"), identification.get("EventOutcomeIndicator")) == (action, outcome)
    assert identification.get("EventDateTime") == "2026-01-02T03:04:05.678+00:00"
    assert coded(message, "ActiveParticipant/RoleIDCode") == [(role, "DCM") for role in roles]


def test_source_and_destination_are_who_they_are() -> None:
    made = messages(Reporter(US))
    for name, expected in (("sent", ["WILLIS", "PACS"]), ("received", ["CT9", "WILLIS"])):
        participants = made[name].findall("ActiveParticipant")
        assert [each.get("UserID") for each in participants] == expected
        assert [each.get("AlternativeUserID") for each in participants] == [f"AETITLES={title}" for title in expected]
        assert [each.get("UserIsRequestor") for each in participants] == ["true", "false"]
    assert [each.get("NetworkAccessPointTypeCode") for each in made["received"].findall("ActiveParticipant")] == [
        "2",
        "1",
    ]


def test_a_transfer_names_study_accession_classes_and_patient_and_without_patient_ids_no_patient() -> None:
    study, patient = messages(Reporter(US))["received"].findall("ParticipantObjectIdentification")
    assert (study.get("ParticipantObjectID"), coded(study, "ParticipantObjectIDTypeCode")) == (
        "2.25.1",
        [("110180", "DCM")],
    )
    (sop_class,) = study.findall("ParticipantObjectDescription/SOPClass")
    assert dict(sop_class.items()) == {"UID": "1.2.840.10008.5.1.4.1.1.2", "NumberOfInstances": "400"}
    assert [each.get("Number") for each in study.findall("ParticipantObjectDescription/Accession")] == ["ACC1"]
    assert (patient.get("ParticipantObjectID"), coded(patient, "ParticipantObjectIDTypeCode")) == (
        "SECRET-ID-7", [("2", "RFC-3881")],
    )  # fmt: skip
    assert b"SECRET" not in Reporter(US, patient_ids=False).received(STUDY, CALLER, AT)


def test_query_and_alert_carry_what_was_asked_and_why() -> None:
    made = messages(Reporter(US))
    query = made["query"].find("ParticipantObjectIdentification/ParticipantObjectQuery")
    assert query is not None
    assert base64.b64decode(query.text or "") == b"\x08\0"
    details = made["query"].findall("ParticipantObjectIdentification/ParticipantObjectDetail")
    details += made["refused"].findall("ParticipantObjectIdentification/ParticipantObjectDetail")
    assert [(each.get("type"), base64.b64decode(each.get("value") or "")) for each in details] == [
        ("TransferSyntax", b"1.2.840.10008.1.2.1"),
        ("Alert Description", b"calling AE title is not on the list"),
    ]


def test_what_xml_cannot_carry_or_would_read_as_markup_does_no_harm() -> None:
    odd = Study("2.25.1", 'a"<b>&\x00\n', "", {})
    message = fromstring(Reporter(US).received(odd, Party("A<B", "h"), AT))
    check(message)
    patient = message.findall("ParticipantObjectIdentification")[-1]
    assert patient.get("ParticipantObjectID") == 'a"<b>&??'


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'EventOutcomeIndicator="0"', b'EventOutcomeIndicator="1"'),
        (b"csd-code", b"code"),
        (b"<ParticipantObjectName />", b""),
        (b'UserIsRequestor="true"', b'UserIsRequestor="yes"'),
        (b"AuditSourceID", b"Source"),
        (b'NumberOfInstances="400"', b""),
        (b"2026-01-02T", b"2026-01-02 "),
    ],
)
def test_the_check_itself_finds_what_breaks_the_schema(old: bytes, new: bytes) -> None:
    message = Reporter(US).received(STUDY, CALLER, AT)
    assert old in message
    with pytest.raises(AssertionError):
        check(fromstring(message.replace(old, new)))


# --- the trail


class Stubborn:
    """A repository that is away until it is told otherwise."""

    def __init__(self) -> None:
        self.there = threading.Event()
        self.taken: list[bytes] = []

    def write(self, messages: Sequence[bytes]) -> None:
        if not self.there.is_set():
            raise ConnectionRefusedError
        self.taken += messages

    def close(self) -> None: ...


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, object]]]:
    """What lanes log."""
    lines: list[tuple[str, dict[str, object]]] = []

    class Logger:
        def warning(self, event: str, **values: object) -> None:
            lines.append((event, values))

        error = warning

    monkeypatch.setattr("node.audit.trail.log.get", Logger)
    return lines


def wait_for(condition: object, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_sink_that_is_away_holds_nobody_up_and_gets_what_waited_and_what_was_dropped_is_counted(
    said: list[tuple[str, dict[str, object]]],
) -> None:
    repository = Stubborn()
    lane = Lane("syslog", repository, 3, Backoff(0.05, 60.0))
    lane.put(b"first")
    wait_for(lambda: said)  # it holds the first, in vain
    start = time.monotonic()
    for number in range(10):
        lane.put(b"%d" % number)
    assert time.monotonic() - start < 0.5
    repository.there.set()
    wait_for(lambda: len(repository.taken) == 4)
    lane.close()
    assert repository.taken == [b"first", b"0", b"1", b"2"]
    assert ("audit_messages_dropped", {"where": "syslog", "count": 7}) in said


def test_what_cannot_be_written_for_a_while_is_told_to_whoever_asks_how_the_node_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = Lane("file", AuditFile(tmp_path / "nowhere" / "audit.log"), 10, Backoff(0.01, 0.01))
    trail = Trail(lanes=[lane])
    trail.record(lambda reporter: reporter.activity(Activity.START, 1, AT))
    wait_until(lambda: lane._error != "", what="it has failed")
    assert trail.as_details() == {}, "it may be there in a moment"
    monkeypatch.setattr("node.audit.trail._TROUBLE_SECONDS", 0.0)
    assert trail.as_details() == {"audit_trouble": "file: no such file or folder; create it or correct the path"}
    (tmp_path / "nowhere").mkdir()
    wait_until(lambda: trail.as_details() == {}, what="it was written")
    trail.close()


def test_what_a_sink_never_took_is_counted_at_the_end(said: list[tuple[str, dict[str, object]]]) -> None:
    lane = Lane("syslog", Stubborn(), 10, Backoff(0.05, 60.0))
    for _ in range(5):
        lane.put(b"x")
    wait_for(lambda: said)
    lane.close()
    assert said[-1] == ("audit_messages_dropped", {"where": "syslog", "count": 5})


def test_what_a_sink_is_still_at_in_the_end_is_counted_too(
    said: list[tuple[str, dict[str, object]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, free = threading.Event(), threading.Event()

    class Slow:
        def write(self, messages: Sequence[bytes]) -> None:
            begun.set()
            free.wait(10)
            raise OSError("away")

        def close(self) -> None:
            free.set()

    monkeypatch.setattr("node.audit.trail._LAST_SECONDS", 0.05)
    lane = Lane("syslog", Slow(), 10)
    lane.put(b"x")
    assert begun.wait(5)
    lane.close()
    assert said[-1] == ("audit_messages_dropped", {"where": "syslog", "count": 1})


def test_the_file_is_for_its_owner_is_appended_to_and_made_anew_when_logrotate_has_moved_it(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    trail = Trail(Reporter(US), [Lane("file", AuditFile(path), 100)])
    trail.record(lambda reporter: reporter.activity(Activity.START, 1, AT))
    wait_for(path.exists)
    wait_for(lambda: path.read_bytes().endswith(b"\n"))
    assert path.stat().st_mode & 0o777 == 0o600
    path.rename(tmp_path / "audit.log.1")
    trail.record(lambda reporter: reporter.activity(Activity.STOP, 1, AT))
    trail.close()
    assert b"110120" in (tmp_path / "audit.log.1").read_bytes()
    assert b"110121" in path.read_bytes()
    again = AuditFile(path)
    again.write([b"<x/>"])
    again.close()
    assert len(path.read_bytes().splitlines()) == 2


def test_after_a_full_disk_every_message_is_whole_on_a_line_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    repository, write = AuditFile(tmp_path / "audit.log"), os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    with pytest.raises(OSError, match="no space"):
        repository.write([b"<one/>"])
    monkeypatch.undo()
    repository.write([b"<one/>", b"<two/>"])
    repository.close()
    assert (tmp_path / "audit.log").read_bytes().splitlines() == [b"<on", b"<one/>", b"<two/>"]


def test_a_trail_without_lanes_makes_no_message() -> None:
    Trail().record(lambda _reporter: pytest.fail("made"))


def test_a_syslog_frame_has_its_length_and_the_header_of_rfc_5424() -> None:
    frame = syslog_frame(b"<AuditMessage />")
    length, _, line = frame.partition(b" ")
    assert int(length) == len(line)
    assert re.fullmatch(
        rb"<85>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \S+ willis \d+ DICOM\+RFC3881 - \xef\xbb\xbf<AuditMessage />",
        line,
    )
