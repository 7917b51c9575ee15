"""The Storage SCU against peers on loopback."""

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import JPEG2000, CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind, Verification

from node.config.peer import Peer
from node.dicom.conformance import IMPLEMENTATION_CLASS_UID
from node.errors import Refused, Unavailable
from node.scu import dimse, storage_scu
from node.scu.dimse import Entity, Timeouts
from node.scu.outgoing import Outgoing
from node.scu.query_scu import ask_count
from node.scu.storage_scu import Sent, deliver, send_files, word_for
from node.simulated_pacs import Fault, SimulatedPeer
from tests.support.dicom_factory import ct_series, save
from tests.support.running import free_port

PATIENT = Timeouts(acse=30, dimse=30, network=30)
"""Where nothing is waited for in vain: a machine may be busy."""
QUICK = replace(PATIENT, dimse=0.3)
PeerFactory = Callable[..., tuple[SimulatedPeer, Peer]]


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[PeerFactory]:
    """Starts simulated peers; they are gone after the test."""
    started: list[SimulatedPeer] = []

    def start(**options: Any) -> tuple[SimulatedPeer, Peer]:
        simulated = SimulatedPeer(tmp_path / f"peer{len(started)}", **options)
        port = simulated.start(0)
        started.append(simulated)
        return simulated, Peer(ae_title=simulated.ae_title, host="127.0.0.1", port=port)

    yield start
    for simulated in started:  # each takes half a second, which nobody needs to wait for
        threading.Thread(target=simulated.stop, daemon=True).start()


@pytest.fixture
def scp() -> Iterator[Callable[..., Peer]]:
    """Starts bare SCPs with these handlers for these SOP classes; they are gone after the test."""
    servers: list[Any] = []

    def start(*sop_classes: str, syntax: str = ImplicitVRLittleEndian, handlers: Any = ()) -> Peer:
        ae = AE(ae_title="BARE")
        for sop_class in sop_classes:
            ae.add_supported_context(sop_class, syntax)
        server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=list(handlers))
        servers.append(server)
        return Peer(ae_title="BARE", host="127.0.0.1", port=server.socket.getsockname()[1])

    yield start
    for server in servers:
        threading.Thread(target=server.shutdown, daemon=True).start()


@pytest.fixture
def slices(tmp_path: Path) -> list[Path]:
    """Three CT slices as files."""
    (tmp_path / "slices").mkdir()
    return save(ct_series(3), tmp_path / "slices")


def us(timeouts: Timeouts = PATIENT) -> Any:
    return Entity("WILLIS", timeouts)


@pytest.mark.parametrize(
    ("status", "word"),
    [(0x0000, "success"), (0x0111, "already there"), (0x0001, "warning 0x0001"), (0x0107, "warning 0x0107"),
     (0x0116, "warning 0x0116"), (0xB000, "warning 0xB000"), (0xB007, "warning 0xB007"), (0xBFFF, "warning 0xBFFF")],
)  # fmt: skip
def test_a_status_that_means_that_the_peer_has_it_is_a_word(status: int, word: str) -> None:
    assert word_for(status) == word


@pytest.mark.parametrize("status", [0xA700, 0xA701, 0xA7FF, 0x0110, 0x0213])
def test_a_status_that_may_pass_is_unavailable(status: int) -> None:
    with pytest.raises(Unavailable, match=f"status 0x{status:04X}"):
        word_for(status)


@pytest.mark.parametrize(
    "status", [0xA6FF, 0xA800, 0xA900, 0xAFFF, 0xC000, 0xCFFF, 0x0002, 0x0122, 0x0124, 0x0211, 0xFE00]
)
def test_any_other_status_is_refused(status: int) -> None:
    with pytest.raises(Refused, match=f"status 0x{status:04X}"):
        word_for(status)


def test_a_file_is_delivered_as_it_lies_on_disk(peer: PeerFactory, slices: list[Path]) -> None:
    simulated, address = peer()
    assert deliver(us(), address, Outgoing.read(slices[0])) == "success"
    sent, [got] = slices[0].read_bytes(), simulated.folder.iterdir()
    assert sent[-400:] == got.read_bytes()[-400:]
    assert dcmread(got) == dcmread(slices[0])


def test_a_file_that_the_disk_does_not_give_now_is_not_refused_for_good(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Is a directory"):
        Outgoing.read(tmp_path)
    assert list(send_files(us(), Peer(ae_title="X", host="127.0.0.1", port=free_port()), [tmp_path])) == [
        Sent(tmp_path, "skipped", "Is a directory")
    ]


def test_a_sop_class_that_the_peer_does_not_take_is_refused(scp: Callable[..., Peer], slices: list[Path]) -> None:
    address = scp(Verification)
    with pytest.raises(Refused, match="accepts none of: CT Image Storage"):
        deliver(us(), address, Outgoing.read(slices[0]))
    both = scp(Verification, CTImageStorage, syntax=JPEG2000)
    with pytest.raises(Refused, match="accepts none of: CT Image Storage"):
        deliver(us(), both, Outgoing.read(slices[0]))  # the file is in Explicit VR Little Endian


def test_what_is_proposed_for_a_file_is_its_own_syntax_first_and_implicit_vr_where_it_can_be_had() -> None:
    explicit, implicit = (CTImageStorage, ExplicitVRLittleEndian), (CTImageStorage, ImplicitVRLittleEndian)
    assert storage_scu.ways(*explicit) == [explicit, implicit]
    assert storage_scu.ways(*implicit) == [implicit, explicit]
    assert storage_scu.ways(CTImageStorage, JPEG2000) == [(CTImageStorage, JPEG2000)]


def test_a_context_that_the_peer_rejected_is_refused_by_name(scp: Callable[..., Peer], slices: list[Path]) -> None:
    address = scp(Verification)
    assoc = dimse.associate(us(), address, [(Verification, ImplicitVRLittleEndian)])
    with pytest.raises(Refused, match="the peer does not accept CT Image Storage in the file's transfer syntax"):
        storage_scu.store(assoc, Outgoing.read(slices[0]))
    assoc.release()
    with pytest.raises(Unavailable, match="ended"):
        storage_scu.store(assoc, Outgoing.read(slices[0]))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault.REJECT, "rejected the association"),
        (Fault.ABORT, "no answer: the association ended or timed out"),
        (Fault.SILENCE, "no answer: the association ended or timed out"),
        (Fault.REFUSE, "status 0xA700"),
    ],
)
def test_a_fault_that_may_pass_is_unavailable(peer: PeerFactory, slices: list[Path], fault: Fault, said: str) -> None:
    _, address = peer(fault=fault)
    with pytest.raises(Unavailable, match=said):
        deliver(us(QUICK if fault is Fault.SILENCE else PATIENT), address, Outgoing.read(slices[0]))


def test_a_peer_that_is_only_slow_gets_it(peer: PeerFactory, slices: list[Path]) -> None:
    _, address = peer(fault=Fault.SLOW, delay_seconds=0.2)
    assert deliver(us(), address, Outgoing.read(slices[0])) == "success"


def test_a_port_where_nobody_listens_is_unavailable(slices: list[Path]) -> None:
    address = Peer(ae_title="PACS", host="127.0.0.1", port=free_port())
    with pytest.raises(Unavailable, match=f"no association with PACS at 127.0.0.1:{address.port}"):
        deliver(us(), address, Outgoing.read(slices[0]))


def test_something_that_is_not_dicom_on_the_port_is_unavailable(slices: list[Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(Unavailable):
            deliver(us(), Peer(ae_title="X", host="127.0.0.1", port=server.getsockname()[1]), Outgoing.read(slices[0]))
        thread.join()


@pytest.mark.parametrize("content", [b"", b"not DICOM", b"\0" * 128 + b"DICM", b"\0" * 200])
def test_what_is_no_dicom_file_is_refused_before_any_association(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(Refused, match="not a DICOM file"):
        deliver(us(), Peer(ae_title="X", host="127.0.0.1", port=1), Outgoing.read(path))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused):
        Outgoing.read(tmp_path / "nothing")


def test_a_file_is_identified_by_its_meta_information(slices: list[Path]) -> None:
    outgoing = Outgoing.read(slices[0])
    assert (outgoing.sop_class_uid, outgoing.transfer_syntax) == (CTImageStorage, ExplicitVRLittleEndian)


def test_files_go_on_one_association_and_what_is_not_dicom_is_skipped_and_named(
    peer: PeerFactory, slices: list[Path], tmp_path: Path
) -> None:
    simulated, address = peer()
    notes = tmp_path / "notes.txt"
    notes.write_text("x")
    sent = list(send_files(us(), address, [slices[0], notes, *slices[1:]]))
    assert {(one.path, one.word, one.error) for one in sent} == {
        (notes, "skipped", "not a DICOM file"),
        *((path, "success", "") for path in slices),
    }
    assert len(simulated.requests) == 3


def test_each_refusal_is_told_and_the_others_are_still_sent(peer: PeerFactory, slices: list[Path]) -> None:
    simulated, address = peer(fault=Fault.REFUSE, status=0xC000)
    sent = list(send_files(us(), address, slices))
    assert [(one.word, one.error) for one in sent] == [("refused", "status 0xC000")] * 3
    assert len(simulated.requests) == 3


def test_an_association_that_the_peer_ended_is_opened_again(peer: PeerFactory, slices: list[Path]) -> None:
    simulated, address = peer(fault=Fault.ABORT)
    sent = list(send_files(us(), address, slices))
    assert [one.word for one in sent] == ["refused"] * 3
    assert len(simulated.requests) > 1


def test_a_peer_that_takes_none_of_the_files_refuses_each(scp: Callable[..., Peer], slices: list[Path]) -> None:
    sent = list(send_files(us(), scp(Verification), slices))
    assert [one.word for one in sent] == ["refused"] * 3


def test_nothing_to_send_opens_no_association() -> None:
    assert list(send_files(us(), Peer(ae_title="X", host="127.0.0.1", port=1), [])) == []


def test_a_peer_that_goes_away_half_way_is_not_knocked_at_again_and_each_file_left_is_told(
    peer: PeerFactory, tmp_path: Path
) -> None:
    simulated, address = peer()
    paths = save(ct_series(4), tmp_path)
    sending = send_files(us(), address, paths)
    assert next(sending).word == "success"
    simulated.fault = Fault.ABORT
    simulated.stop()
    assert next(sending).word == "refused"
    refused = "connection refused: the host is up and nothing listens on that port; start it or correct the port"
    said = f"no association with PACS at 127.0.0.1:{address.port}: {refused}"
    assert list(sending) == [storage_scu.Sent(path, "refused", said) for path in paths[2:]]


def test_without_any_association_sending_is_unavailable(slices: list[Path]) -> None:
    with pytest.raises(Unavailable):
        list(send_files(us(), Peer(ae_title="X", host="127.0.0.1", port=free_port()), slices))


def test_a_peer_tells_how_many_instances_it_holds(peer: PeerFactory) -> None:
    simulated, address = peer()
    simulated.held["2.25.1"]["2.25.11"] = {"a", "b", "c"}
    simulated.held["2.25.1"]["2.25.12"] = {"a"}
    assert ask_count(us(), address, "2.25.1", "2.25.11") == 3
    assert ask_count(us(), address, "2.25.1", "2.25.12") == 1
    assert ask_count(us(), address, "2.25.1", "2.25.404") is None


def test_a_peer_that_takes_no_queries_refuses_them(scp: Callable[..., Peer]) -> None:
    with pytest.raises(Refused, match="accepts none of: Study Root"):
        ask_count(us(), scp(Verification), "2.25.1", "2.25.11")


def answering(*answers: tuple[int, Dataset | None]) -> list[Any]:
    return [(evt.EVT_C_FIND, lambda _event: iter(answers))]


def counted(value: Any, series: str = "") -> Dataset:
    ds = Dataset()
    ds.QueryRetrieveLevel = "SERIES"
    ds.NumberOfSeriesRelatedInstances = value
    if series:
        ds.SeriesInstanceUID = series
    return ds


@pytest.mark.parametrize(
    ("answers", "count"),
    [
        ([(0xFF00, counted(5)), (0x0000, None)], 5),
        ([(0xFF01, counted(5)), (0x0000, None)], 5),
        ([(0xFF00, counted(None)), (0x0000, None)], None),
        ([(0xFF00, counted(7, "2.25.12")), (0xFF00, counted(5, "2.25.11")), (0x0000, None)], 5),
        ([(0xFF00, counted(7, "2.25.12")), (0x0000, None)], None),
        ([(0xA700, None)], None),
        ([(0x0000, None)], None),
    ],
)
def test_an_answer_without_a_number_is_none(scp: Callable[..., Peer], answers: Any, count: int | None) -> None:
    address = scp(StudyRootQueryRetrieveInformationModelFind, handlers=answering(*answers))
    assert ask_count(us(), address, "2.25.1", "2.25.11") == count


def test_a_peer_that_ends_the_association_instead_of_answering_is_unavailable(scp: Callable[..., Peer]) -> None:
    def abort(event: Any) -> Iterator[Any]:
        event.assoc.abort()
        yield 0xFE00, None

    address = scp(StudyRootQueryRetrieveInformationModelFind, handlers=[(evt.EVT_C_FIND, abort)])
    with pytest.raises(Unavailable):
        ask_count(us(), address, "2.25.1", "2.25.11")


def test_an_association_that_is_gone_before_the_question_is_unavailable(
    peer: PeerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, address = peer()
    associate = dimse.associate

    def gone(*arguments: Any) -> Any:
        assoc = associate(*arguments)
        assoc.abort()
        return assoc

    monkeypatch.setattr(dimse, "associate", gone)
    with pytest.raises(Unavailable, match="ended"):
        ask_count(us(), address, "2.25.1", "2.25.11")


def test_a_dicomweb_peer_has_no_associations_and_that_is_said() -> None:
    web = Peer.model_validate({"ae_title": "WEB", "url": "https://pacs.example/dicom-web"})
    with pytest.raises(Refused, match="WEB is reached by DICOMweb: it has a url, and no host and port"):
        dimse.associate(us(), web, [])


def test_an_echo_that_is_answered_with_another_status_than_success_is_none(scp: Callable[..., Peer]) -> None:
    address = scp(Verification, handlers=[(evt.EVT_C_ECHO, lambda _: 0x0122)])
    with pytest.raises(Unavailable, match="did not answer C-ECHO with success"):
        dimse.echo(us(), address)


def test_we_say_who_we_are(scp: Callable[..., Peer], slices: list[Path]) -> None:
    seen: list[tuple[str, str]] = []

    def remember(event: Any) -> int:
        requestor = event.assoc.requestor
        seen.append((requestor.ae_title, str(requestor.implementation_class_uid)))
        return 0x0000

    address = scp(CTImageStorage, syntax=ExplicitVRLittleEndian, handlers=[(evt.EVT_C_STORE, remember)])
    deliver(us(), address, Outgoing.read(slices[0]))
    assert seen == [("WILLIS", IMPLEMENTATION_CLASS_UID)]
