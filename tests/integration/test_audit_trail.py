"""The audit trail of a node that dcmtk sends to and that sends to a PACS: in its file, and at a syslog server over TLS."""

import base64
import os
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from xml.etree.ElementTree import Element, fromstring

import pytest
from pydicom import Dataset, dcmread
from pynetdicom.dsutils import decode

from node.audit.messages import Activity
from node.audit.trail import Trail, open_trail
from node.config.sections import Config
from node.dicom.multipart import body_of
from node.net.tls import server_context
from node.runtime.clock import utc_now
from node.scp.inlet import Inlet
from node.scu.remote import remote_of
from node.scu.source import Listed
from node.simulated_pacs import Fault
from node.workflow import delivery, settling
from node.workflow.retrieval import bring
from tests.support.audit_schema import check
from tests.support.builders import encoded, keep
from tests.support.certificates import Certificates, dcmtk
from tests.support.dicom_factory import ct_series, save
from tests.support.node_fixtures import NodeFactory
from tests.support.raw_scu import ABORT, RawScu, all_of, store_pdus
from tests.support.running import free_port, wait_until
from tests.support.site import PeerFactory, SiteFactory, peers
from tests.support.web_server import Asked, Said, ServerFactory

Opener = Callable[..., Trail]


class SyslogServer:
    """Takes frames of RFC 5425 until it is stopped."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self.received = b""
        self._listening = context.wrap_socket(socket.create_server(("127.0.0.1", port)), server_side=True)
        self._connections: list[ssl.SSLSocket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        try:
            while True:
                connection, _ = self._listening.accept()
                self._connections.append(connection)
                while data := connection.recv(65_536):
                    self.received += data
        except OSError:
            return

    @property
    def messages(self) -> list[bytes]:
        """The XML of each whole frame."""
        found, rest = [], self.received
        while match := re.match(rb"(\d+) ", rest):
            frame, rest = rest[match.end() :][: int(match[1])], rest[match.end() + int(match[1]) :]
            found.append(frame.partition(b"\xef\xbb\xbf")[2])
        return found

    def stop(self) -> None:
        self._listening.close()
        for connection in self._connections:
            socket.socket.shutdown(connection, socket.SHUT_RDWR)


@pytest.fixture
def trail_to(tmp_path: Path) -> Iterator[Opener]:
    """Opens trails; they are closed after the test."""
    opened: list[Trail] = []

    def make(**sections: object) -> Trail:
        config = Config.model_validate({"storage": {"directory": tmp_path}} | sections)
        opened.append(open_trail(config))
        return opened[-1]

    yield make
    for trail in opened:
        trail.close()


def events(lines: list[bytes]) -> list[tuple[str | None, Element]]:
    """Event code and message of each line, all of them valid."""
    found = [fromstring(line) for line in lines]
    for message in found:
        check(message)
    return [(code.get("csd-code"), message) for message in found for code in message.iter("EventID")]


def test_received_refused_and_sent_are_in_the_file_one_message_for_each_association_and_study(
    site: SiteFactory, peer: PeerFactory, trail_to: Opener, tmp_path: Path
) -> None:
    pacs = peer()
    made = site(trail=trail_to(), peers=peers(pacs.port))
    paths = [*save(ct_series(3), tmp_path)]
    other = ct_series(2, StudyInstanceUID="2.25.9", SeriesInstanceUID="2.25.10", AccessionNumber="ACC2")
    for number, ds in enumerate(other):
        ds.SOPInstanceUID = f"2.25.99{number}"
    (tmp_path / "other").mkdir()
    paths += save(other, tmp_path / "other")

    def send(calling: str) -> int:
        command = [dcmtk("storescu"), "-aet", calling, "-aec", "WILLIS", "127.0.0.1", str(made.config.node.port)]
        return subprocess.run([*command, *map(str, paths)], capture_output=True, timeout=30, check=False).returncode

    assert send("PACS") == 0
    assert send("STRANGER") != 0
    made.report()
    assert delivery.deliver(made.context) == 1
    path = tmp_path / "audit.log"
    lines = wait_until(lambda: (found := path.read_bytes().splitlines())[4:] and found, 10)
    safe_message = events(lines)
    assert sorted(code for code, _ in safe_message if code) == ["110102", "110104", "110104", "110104", "110113"]
    counts = {}
    for message in (message for code, message in safe_message if code == "110104"):
        event, study = message.find("EventIdentification"), message.find("ParticipantObjectIdentification")
        if event is not None and study is not None and event.get("EventActionCode") == "C":
            instances = [each.get("NumberOfInstances") for each in message.iter("SOPClass")]
            counts[study.get("ParticipantObjectID")] = instances
    assert counts == {str(ct_series(1)[0].StudyInstanceUID): ["3"], "2.25.9": ["2"]}
    alert = next(m for code, m in safe_message if code == "110113")
    assert [each.get("UserID") for each in alert.iter("ActiveParticipant")] == ["WILLIS", "STRANGER"]
    assert [code for code, _ in safe_message][-2:] == ["110102", "110104"]  # the report: begun, and sent


def send_and_abort(port: int, slices: list[Dataset], folder: Path) -> int:
    """storescu aborts where it would release; returns how many were answered with success."""
    command = [dcmtk("storescu"), "--abort", "127.0.0.1", str(port), *map(str, save(slices, folder))]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    return len(slices)


def send_and_be_killed(port: int, slices: list[Dataset], folder: Path) -> int:
    """storescu is killed while it waits for the last file to be readable."""
    *paths, last = save(slices, folder)
    last.unlink()
    os.mkfifo(last)
    command = [dcmtk("storescu"), "-v", "127.0.0.1", str(port), *map(str, [*paths, last])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as storescu:
        assert storescu.stdout is not None
        for line in storescu.stdout:
            if f"Sending file: {last}" in line:
                break
        storescu.kill()
    return len(paths)


def send_half(port: int, slices: list[Dataset], last_words: bytes = b"") -> int:
    """`last_words` follow in the middle of the last slice, and then the connection ends."""
    *whole, half = slices
    with RawScu(port).associate() as scu:
        assert [scu.store(ds, encoded(ds)) for ds in whole] == [0x0000] * len(whole)
        scu.send(all_of(store_pdus(half.SOPClassUID, half.SOPInstanceUID, encoded(half), 100)[:-1]) + last_words)
    return len(whole)


@pytest.mark.parametrize(
    "send",
    [
        send_and_abort,
        send_and_be_killed,
        lambda port, slices, _: send_half(port, slices),
        lambda port, slices, _: send_half(port, slices, ABORT),
    ],
    ids=["storescu --abort", "storescu killed", "connection ended in a slice", "A-ABORT in a slice"],
)
def test_what_an_association_brought_before_it_was_aborted_is_in_the_file_as_a_failure(
    site: SiteFactory, trail_to: Opener, tmp_path: Path, send: Callable[[int, list[Dataset], Path], int]
) -> None:
    kept = send(site(trail=trail_to()).config.node.port, ct_series(3), tmp_path)
    path = tmp_path / "audit.log"
    wait_until(lambda: path.exists() and path.read_bytes().endswith(b"\n"), 10)
    [(code, message)] = events(path.read_bytes().splitlines())
    event = message.find("EventIdentification")
    assert event is not None
    assert (code, event.get("EventActionCode"), event.get("EventOutcomeIndicator")) == ("110104", "C", "4")
    assert event.findtext("EventOutcomeDescription") == "the association was aborted"
    assert [each.get("NumberOfInstances") for each in message.iter("SOPClass")] == [str(kept)]


def test_a_report_in_whose_middle_the_pacs_aborts_is_in_the_file_as_a_failure(
    site: SiteFactory, peer: PeerFactory, trail_to: Opener, tmp_path: Path
) -> None:
    made = site(trail=trail_to(), peers=peers(peer(fault=Fault.ABORT).port))
    made.report()
    assert delivery.deliver(made.context) == 0
    path = tmp_path / "audit.log"
    lines = wait_until(lambda: path.exists() and (found := path.read_bytes().splitlines())[1:] and found, 10)
    outcomes = [
        (code, event.get("EventOutcomeIndicator"), event.findtext("EventOutcomeDescription"))
        for code, message in events(lines)
        for event in message.iter("EventIdentification")
    ]
    assert outcomes == [("110102", "0", None), ("110104", "4", "no answer: the association ended or timed out")]


def test_start_and_stop_of_the_node_are_in_the_file_around_all_else(node_in: NodeFactory, tmp_path: Path) -> None:
    node = node_in()
    assert node.process is not None
    assert [each.error for each in node.send(save(ct_series(2), tmp_path))] == ["", ""]
    node.stop()
    safe_message = events((node.config.storage.directory / "audit.log").read_bytes().splitlines())
    assert [code for code, _ in safe_message] == ["110100", "110104", "110100"]
    for (_, message), what in zip((safe_message[0], safe_message[-1]), ("110120", "110121"), strict=True):
        assert [each.get("csd-code") for each in message.iter("EventTypeCode")] == [what]
        [node_itself] = message.iter("ActiveParticipant")
        assert node_itself.get("UserID") == str(node.process.pid)
        assert node_itself.get("AlternativeUserID") == "AETITLES=WILLIS"


def test_without_patient_ids_the_file_names_no_patient(site: SiteFactory, trail_to: Opener, tmp_path: Path) -> None:
    made = site(trail=trail_to(audit={"patient_ids": False}))
    [ds] = ct_series(1)
    [path] = save([ds], tmp_path)
    command = [dcmtk("storescu"), "127.0.0.1", str(made.config.node.port), str(path)]
    subprocess.run(command, check=True, timeout=30)
    log = tmp_path / "audit.log"
    wait_until(lambda: log.exists() and log.read_bytes().endswith(b"\n"), 10)
    assert str(ds.StudyInstanceUID).encode() in log.read_bytes()
    assert str(ds.PatientID).encode() not in log.read_bytes()


def queries(path: Path, count: int) -> list[tuple[str, list[str | None], Dataset]]:
    """Outcome, who asked whom, and what, of each Query message in the file."""

    def whole() -> list[bytes]:
        """What is being written is read in part, too."""
        return path.read_bytes().rpartition(b"\n")[0].splitlines() if path.exists() else []

    lines = wait_until(lambda: (each := whole())[count - 1 :] and each, 10)
    asked = []
    for message in (message for code, message in events(lines) if code == "110112"):
        text = message.findtext(".//ParticipantObjectQuery")
        detail = base64.b64decode(message.find(".//ParticipantObjectDetail").get("value"))  # type: ignore[union-attr, arg-type]
        query = decode(BytesIO(base64.b64decode(text or "")), detail == b"1.2.840.10008.1.2", True)
        outcome = message.find("EventIdentification").get("EventOutcomeIndicator")  # type: ignore[union-attr]
        asked.append((str(outcome), [each.get("UserID") for each in message.iter("ActiveParticipant")], query))
    return asked


@pytest.mark.parametrize("patient_ids", [True, False])
def test_who_asked_us_what_is_in_the_file_and_a_patient_only_with_patient_ids(
    site: SiteFactory, trail_to: Opener, tmp_path: Path, patient_ids: bool
) -> None:
    made = site(trail=trail_to(audit={"patient_ids": patient_ids}), peers=peers(1))
    for keys in (["StudyInstanceUID=2.25.7", "PatientName=Secret*"], ["StudyDate=yesterday"]):
        command = [dcmtk("findscu"), "-S", "-aet", "PACS", "-aec", "WILLIS", "127.0.0.1", str(made.config.node.port)]
        command += [option for key in ["QueryRetrieveLevel=STUDY", *keys] for option in ("-k", key)]
        subprocess.run(command, check=False, capture_output=True, timeout=30)
    good, bad = queries(tmp_path / "audit.log", 2)
    assert (good[0], good[1], bad[0]) == ("0", ["PACS", "WILLIS"], "4")
    assert good[2].StudyInstanceUID == "2.25.7"
    assert str(good[2].get("PatientName", "")) == ("Secret*" if patient_ids else "")


def test_what_we_ask_and_get_from_a_peer_is_in_the_file(
    site: SiteFactory, trail_to: Opener, web: ServerFactory, tmp_path: Path
) -> None:
    [path] = save(ct_series(1), tmp_path)
    ds = dcmread(path)
    listed = [{"00080018": {"vr": "UI", "Value": [str(ds.SOPInstanceUID)]}}]
    multipart = {"Content-Type": "multipart/related; boundary=edge"}

    def answer(asked: Asked) -> Said:
        if "/instances" in asked.path:
            return Said.of(listed)
        if asked.path.endswith("/series") or "?" in asked.path:
            return Said.of([])
        return Said(200, body_of(path.read_bytes(), "edge"), multipart)

    pacs = web(answer).peer(retrieve="wado")
    made = site(trail=trail_to(), peers={"PACS": pacs})
    series = Listed(str(ds.StudyInstanceUID), str(ds.SeriesInstanceUID))
    source = remote_of(made.config, pacs, made.context.trail, utc_now).source(20)
    assert source.studies(accession_number="A7") == []
    assert source.series(series.study_instance_uid) == []
    with Inlet(made.config, made.store, made.files, pacs, made.context.trail, utc_now) as inlet:
        assert bring(source, inlet, made.store, series).came == 1
    log = tmp_path / "audit.log"
    asked = queries(log, 4)
    assert [(outcome, who) for outcome, who, _ in asked] == [("0", ["WILLIS", "PACS"])] * 3
    study, of_study, query = (each for _, _, each in asked)
    assert (study.QueryRetrieveLevel, study.AccessionNumber) == ("STUDY", "A7")
    assert (of_study.QueryRetrieveLevel, of_study.StudyInstanceUID) == ("SERIES", ds.StudyInstanceUID)
    assert (query.QueryRetrieveLevel, query.SeriesInstanceUID) == ("IMAGE", ds.SeriesInstanceUID)
    [*_, (code, came)] = events(log.read_bytes().splitlines())
    assert (code, [each.get("UserID") for each in came.iter("ActiveParticipant")]) == ("110104", ["PACS", "WILLIS"])
    assert str(ds.PatientID).encode() in log.read_bytes()


@pytest.mark.parametrize("how", ["C-FIND", "QIDO-RS"])
def test_whom_we_ask_for_a_count_is_in_the_file(
    site: SiteFactory, trail_to: Opener, web: ServerFactory, peer: PeerFactory, tmp_path: Path, how: str
) -> None:
    at = {"host": "127.0.0.1", "port": peer().port} if how == "C-FIND" else {"url": web(Said.of([])).url}
    made = site(trail=trail_to(), peers={"PACS": {"ae_title": "PACS", "answers_queries": True} | at})
    series = keep(made.store, made.files, made.clock, ct_series(3))
    made.clock.advance(1)
    settling.settle(made.context)
    [(outcome, who, query)] = queries(tmp_path / "audit.log", 1)
    assert (outcome, who, query.QueryRetrieveLevel) == ("0", ["WILLIS", "PACS"], "SERIES")
    assert query.SeriesInstanceUID == series.series_instance_uid


def test_the_look_after_a_conflict_is_in_the_file(
    site: SiteFactory, trail_to: Opener, web: ServerFactory, tmp_path: Path
) -> None:
    listed = [{"00080018": {"vr": "UI", "Value": ["2.25.771"]}}]
    pacs = web(lambda asked: Said(409) if asked.method == "POST" else Said.of(listed)).peer()
    made = site(trail=trail_to(), peers={"PACS": pacs})
    made.report()
    assert delivery.deliver(made.context) == 1
    [(outcome, who, query)] = queries(tmp_path / "audit.log", 3)
    assert (outcome, who, query.QueryRetrieveLevel) == ("0", ["WILLIS", "PACS"], "IMAGE")
    assert query.SOPInstanceUID == made.delivery().sop_instance_uid == "2.25.771"


def test_a_syslog_server_gets_the_messages_over_tls_also_those_from_before_it_came_and_after_it_came_back(
    certificates: Certificates, trail_to: Opener
) -> None:
    tls, port = certificates.of(), free_port()
    trail = trail_to(node={"tls": tls}, audit={"file": "", "syslog_host": "127.0.0.1", "syslog_port": port})

    def record(what: Activity) -> None:
        trail.record(lambda reporter: reporter.activity(what, 1, utc_now()))

    record(Activity.START)
    server = SyslogServer(port, server_context(tls))
    wait_until(lambda: len(server.messages) == 1, 10)
    server.stop()
    server = SyslogServer(port, server_context(tls))
    record(Activity.STOP)
    wait_until(lambda: len(server.messages) == 1, 10)
    server.stop()
    ((code, message),) = events(server.messages)
    assert code == "110100"
    assert [each.get("csd-code") for each in message.iter("EventTypeCode")] == ["110121"]
