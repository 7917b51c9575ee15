"""Asking real peers for what is missing: Orthanc gives by C-MOVE, C-GET and WADO, dcmqrscp knows no destination."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import UID
from typer.testing import CliRunner, Result

from node.cli.main import app
from node.config.loading import load
from node.config.peer import Peer
from node.errors import Unavailable
from node.runtime.clock import utc_now
from node.scp.inlet import Inlet
from node.scp.receiver import Receiver
from node.scu import dimse
from node.scu.dimse import Entity, Timeouts
from node.scu.remote import remote_of
from node.scu.source import Listed
from node.scu.storage_scu import Sent, send_files
from node.simulated_pacs import Fault, SimulatedPeer
from node.workflow.context import Context
from node.workflow.retrieval import Brought, bring, retrieve
from node.workflow.settling import settle
from storage.errors import StorageFull
from storage.files.instances import Files, InstanceWriter
from storage.records import AssociationEnd
from storage.store import Store
from tests.interop.test_peers import Orthanc, program
from tests.support.builders import FakeClock, keep, series_now
from tests.support.dicom_factory import ct_series, save
from tests.support.orthanc import running, with_dicomweb
from tests.support.running import free_port, wait_until

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("logging_restored")]


@pytest.fixture(scope="module", autouse=True)
def unmeasured() -> None:
    """These are measured, unlike the others of this folder: nothing else retrieves."""


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """Orthanc with DICOMweb; it is told of Willis's port later."""
    with running(tmp_path_factory.mktemp("orthanc"), ("willis", "secret-word"), **with_dicomweb()) as orthanc:
        yield orthanc


Node = Callable[..., Context]


@pytest.fixture
def node(tmp_path: Path, sqlite_url: str, sqlite_store: Store, clock: FakeClock, orthanc: Orthanc) -> Iterator[Node]:
    """Makes a node in this process that Orthanc knows and that asks Orthanc."""
    started: list[Receiver] = []

    def make(receiving: bool = True, **peer: Any) -> Context:
        port, folder = free_port(), tmp_path / "var"
        sections: dict[str, dict[str, Any]] = {
            "node": {"port": port},
            "storage": {"directory": str(folder), "database_url": sqlite_url},
            "peers.PACS": {"ae_title": "ORTHANC", "host": "127.0.0.1", "port": orthanc.dicom_port} | peer,
        }
        lines = [
            f"[{section}]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in values.items())
            for section, values in sections.items()
        ]
        (tmp_path / "config.toml").write_text("\n".join(lines))
        config = load(tmp_path / "config.toml", {})
        modality = {"AET": "WILLIS", "Host": "127.0.0.1", "Port": port}
        orthanc.http.put("/modalities/willis", json=modality).raise_for_status()
        files = Files(folder)
        if receiving:
            started.append(Receiver(config, sqlite_store, files, lambda: None))
            started[-1].start()
        return Context(config, sqlite_store, files, lambda: None, clock)

    yield make
    for receiver in started:
        receiver.stop()


def in_orthanc(orthanc: Orthanc, folder: Path, name: str, count: int = 5) -> list[Dataset]:
    """A series of a study of its own that Orthanc holds."""
    number = sum(name.encode())
    series = ct_series(
        count, StudyInstanceUID=f"2.25.{number}1", SeriesInstanceUID=f"2.25.{number}2", AccessionNumber=f"A{number}"
    )
    for index, ds in enumerate(series):
        ds.SOPInstanceUID = f"2.25.{number}3{index:04}"
        ds.file_meta.MediaStorageSOPInstanceUID = UID(ds.SOPInstanceUID)
    orthanc.upload(save(series, folder))
    return series


def fetch(tmp_path: Path, study: str, peer: str = "ORTHANC") -> Result:
    return CliRunner().invoke(app, ["fetch", study, "--from", peer, "--config", str(tmp_path / "config.toml")])


@pytest.mark.parametrize("how", ["move", "get"])
def test_missing_slices_come_from_the_sender_before_the_quiet_timer_decides(
    node: Node, orthanc: Orthanc, tmp_path: Path, clock: FakeClock, how: str
) -> None:
    context, series = node(retrieve=how), in_orthanc(orthanc, tmp_path, f"missing {how}")
    row = keep(context.store, context.files, clock, [*series[:2], series[4]], calling_ae="ORTHANC")
    clock.advance(20)
    assert (settle(context), list(context.lacking)) == (0, [row.id])
    assert retrieve(context) == 2
    now = series_now(context.store, series[0].SeriesInstanceUID)
    assert (now.instance_count, now.expected_count) == (5, 5)
    wait_until(lambda: settle(context) == 1, what="the end of the association that the move opened")
    assert dict(context.store.worklist.case(str(row.id)) or {})["evidence"] == "count"
    parts = context.store.settling.contributions(row.id)
    assert [(part.instances, part.closed) for part in parts] == [
        (3, AssociationEnd.RELEASED),
        (2, AssociationEnd.RELEASED),
    ]
    kept = {file.sha256 for _, file in context.store.settling.instances(row.id)}
    assert len(kept) == 5
    assert all(context.files.holds(file) for _, file in context.store.settling.instances(row.id))


@pytest.mark.parametrize("how", ["move", "get"])
def test_a_study_is_fetched_by_accession_number_or_uid_and_what_is_known_does_not_come_again(
    node: Node, orthanc: Orthanc, tmp_path: Path, how: str
) -> None:
    node(retrieve=how)
    series = in_orthanc(orthanc, tmp_path, f"fetch {how}")
    done = fetch(tmp_path, series[0].AccessionNumber)
    assert (done.exit_code, "5 came, 0 known before, 0 failed" in done.output) == (0, True), done.output
    done = fetch(tmp_path, series[0].StudyInstanceUID, "PACS")
    assert (done.exit_code, "0 came, 5 known before, 0 failed" in done.output) == (0, True), done.output


def test_fetch_names_what_was_wrong_with_the_name(node: Node, orthanc: Orthanc, tmp_path: Path) -> None:
    node(receiving=False, retrieve="get")
    said = {
        ("A1", "ORTANC"): (2, "--from 'ORTANC' is no configured peer; did you mean ORTHANC?"),
        ("A1", "ORTHANC"): (1, "nothing found: no study with the Accession Number or Study Instance UID 'A1'"),
        ("A*", "ORTHANC"): (1, "'A*' is no Accession Number or Study Instance UID: no wildcards"),
    }
    for (study, peer), (status, complaint) in said.items():
        done = fetch(tmp_path, study, peer)
        assert (done.exit_code, complaint in done.output) == (status, True), done.output


def test_fetch_from_a_peer_that_is_not_configured_to_give_says_so(node: Node, tmp_path: Path) -> None:
    node(receiving=False)
    done = fetch(tmp_path, "A1")
    assert (done.exit_code, "set its retrieve to 'move' or 'get'" in done.output) == (1, True), done.output


def test_fetch_from_a_peer_that_rejects_us_says_so(node: Node, tmp_path: Path) -> None:
    pacs = SimulatedPeer(tmp_path / "pacs", fault=Fault.REJECT)
    node(receiving=False, retrieve="get", port=pacs.start(0))
    done = fetch(tmp_path, "A1")
    pacs.stop()
    assert (done.exit_code, "rejected the association" in done.output) == (1, True), done.output


def test_fetch_by_move_while_nobody_receives_says_that_nothing_came(
    node: Node, orthanc: Orthanc, tmp_path: Path
) -> None:
    node(receiving=False, retrieve="move")
    series = in_orthanc(orthanc, tmp_path, "nobody", 1)
    done = fetch(tmp_path, series[0].AccessionNumber)
    assert (done.exit_code, "does `willis serve` run" in done.output) == (1, True), done.output


@pytest.fixture
def dcmqrscp(tmp_path: Path) -> Iterator[int]:
    """The port of a dcmqrscp that knows no destination."""
    folder, port = tmp_path / "dcmqrscp", free_port()
    folder.mkdir()
    tables = "".join(f"{table} BEGIN\n{table} END\n" for table in ("HostTable", "VendorTable"))
    (folder / "dcmqrscp.cfg").write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n{tables}"
        f"AETable BEGIN\nORTHANC {folder} RW (9, 64mb) ANY\nAETable END\n"
    )
    process = subprocess.Popen([program("dcmqrscp"), "-c", str(folder / "dcmqrscp.cfg")], stderr=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(10)


def test_a_destination_that_the_peer_does_not_know_is_told_with_the_remedy_and_not_tried_again(
    node: Node, dcmqrscp: int, tmp_path: Path, clock: FakeClock
) -> None:
    context, series = node(receiving=False, retrieve="move", port=dcmqrscp), ct_series(3)
    peer = Peer(ae_title="ORTHANC", host="127.0.0.1", port=dcmqrscp)
    paths = save(series, tmp_path)
    wait_until(lambda: [sent.word for sent in try_to_send(peer, paths)] == ["success"] * 3, 20, "dcmqrscp answers")
    keep(context.store, context.files, clock, series[:2], calling_ae="ORTHANC")
    clock.advance(20)
    assert (settle(context), retrieve(context), settle(context)) == (0, 0, 1)
    assert series_now(context.store).expected_count is None

    done = fetch(tmp_path, series[0].StudyInstanceUID)
    assert done.exit_code == 1
    assert "0xA801: it does not know the destination WILLIS; configure this AE title" in done.output, done.output
    assert "or set retrieve = 'get'" in done.output


def try_to_send(peer: Peer, paths: list[Path]) -> list[Sent]:
    try:
        return list(send_files(Entity("PACS", Timeouts(2, 5, 5)), peer, paths))
    except Unavailable:
        return []


def test_a_peer_that_does_not_answer_is_asked_for_one_series_a_round_and_each_counts_an_attempt(
    node: Node, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, asked = node(receiving=False, retrieve="get", port=free_port()), list[str]()
    associate = dimse.associate

    def noted(*args: Any, **options: Any) -> Any:
        asked.append(args[1].ae_title)
        return associate(*args, **options)

    monkeypatch.setattr(dimse, "associate", noted)
    for number in (1, 2):
        slices = ct_series(3, SeriesInstanceUID=f"2.25.{number}", StudyInstanceUID=f"2.25.9{number}")
        for index, ds in enumerate(slices):
            ds.SOPInstanceUID = f"2.25.{number}7{index}"
        keep(context.store, context.files, clock, slices, calling_ae="ORTHANC")
    clock.advance(20)
    assert (settle(context), retrieve(context), asked) == (0, 0, ["ORTHANC"])
    assert [series_now(context.store, f"2.25.{number}").retrievals for number in (1, 2)] == [1, 1]


def test_a_peer_that_does_not_answer_is_asked_again_after_longer_and_longer_pauses(
    node: Node, clock: FakeClock
) -> None:
    context = node(receiving=False, retrieve="get", port=free_port())
    keep(context.store, context.files, clock, ct_series(3), calling_ae="ORTHANC")
    clock.advance(20)
    for pause_seconds in (5, 10):
        assert (settle(context), len(context.lacking), retrieve(context)) == (0, 1, 0)
        clock.advance(pause_seconds - 0.1)
        assert (settle(context), len(context.lacking)) == (0, 0)
        clock.advance(0.1)
    assert (settle(context), len(context.lacking), retrieve(context), settle(context)) == (0, 1, 0, 1)


def test_what_falls_short_is_no_release(node: Node, orthanc: Orthanc, tmp_path: Path) -> None:
    context, series = node(receiving=False, retrieve="get"), in_orthanc(orthanc, tmp_path, "short", 3)
    listed = Listed(series[0].StudyInstanceUID, series[0].SeriesInstanceUID)
    pacs = context.config.peers["PACS"]
    source = remote_of(context.config, pacs, context.trail, utc_now).source(20)
    with Inlet(context.config, context.store, context.files, pacs, context.trail, utc_now) as inlet:
        context.files.begin_instance = one_then_full(context.files)  # type: ignore[assignment, method-assign]
        brought = bring(source, inlet, context.store, listed)
    assert (brought, brought.failed) == (Brought(3, 0, 1), 2)
    [part] = context.store.settling.contributions(series_now(context.store, listed.series_instance_uid).id)
    assert part.closed is AssociationEnd.ABORTED


def one_then_full(files: Files) -> Callable[[bytes], InstanceWriter]:
    """The disk takes one instance more."""
    begin, begun = files.begin_instance, list[bytes]()

    def begin_instance(preamble: bytes) -> InstanceWriter:
        begun.append(preamble)
        if len(begun) > 1:
            raise StorageFull("full")
        return begin(preamble)

    return begin_instance
