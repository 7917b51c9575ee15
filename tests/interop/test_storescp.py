"""dcmtk's storescp as a PACS that is choosy: what it stores is what we made."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from node.config.peer import Peer
from node.errors import Unavailable
from node.scu.dimse import Entity, Timeouts, echo
from node.scu.outgoing import Outgoing
from node.scu.storage_scu import deliver
from tests.interop.test_peers import program
from tests.interop.test_report_validators import study_contents
from tests.support.dicom_factory import ct_series
from tests.support.reports import encoded, received
from tests.support.running import free_port, wait_until

pytestmark = pytest.mark.interop
StoreScp = Callable[..., Peer]


@pytest.fixture
def storescp(tmp_path: Path) -> Iterator[StoreScp]:
    """Starts storescp with these options, which stores in `stored`; it is gone after the test."""
    started: list[subprocess.Popen[bytes]] = []
    (tmp_path / "stored").mkdir()

    def start(*options: str) -> Peer:
        port = free_port()
        command = [program("storescp"), "-pm", "-uf", "-od", str(tmp_path / "stored"), *options, str(port)]
        started.append(subprocess.Popen(command))
        peer = Peer(ae_title="STORESCP", host="127.0.0.1", port=port)
        wait_until(lambda: _answers(peer), 10, "storescp answers")
        return peer

    yield start
    for process in started:
        process.terminate()
        process.wait(10)


def _answers(peer: Peer) -> bool:
    try:
        echo(Entity("WILLIS", Timeouts(acse=2)), peer)
    except Unavailable:
        return False
    return True


NAMES = {
    "ISO_IR 100": (b"ISO_IR 100", "Müller^Jürgen".encode("latin-1")),
    "ISO_IR 192": (b"ISO_IR 192", "Łukasz^Ωμέγα".encode()),
    "ISO 2022 IR 87": (b"\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"),
}


@pytest.mark.parametrize(
    ("options", "syntax"),
    [
        (["+xi"], ImplicitVRLittleEndian),
        (["+xe"], ExplicitVRLittleEndian),
        (["+xi", "--max-pdu", "4096"], ImplicitVRLittleEndian),
        (["--max-pdu", "4096"], ExplicitVRLittleEndian),
    ],
)
def test_a_report_is_stored_in_the_syntax_that_the_peer_takes(
    storescp: StoreScp, tmp_path: Path, options: list[str], syntax: str
) -> None:
    peer = storescp(*options)
    reports: dict[str, Path] = {}
    for name, (character_set, patient_name) in NAMES.items():
        headers = [
            received(ds, character_set, PatientName=patient_name, IssuerOfPatientID=b"HOSPITAL A")
            for ds in ct_series(6, SeriesInstanceUID=f"2.25.7{len(reports)}")
        ]
        path = tmp_path / f"{name}.dcm"
        path.write_bytes(encoded(headers, report_uid=f"2.25.8{len(reports)}"))
        assert deliver(Entity("WILLIS", Timeouts()), peer, Outgoing.read(path)) == "success"
        reports[name] = path
    stored = [path for path in (tmp_path / "stored").iterdir() if path.name.startswith("SR")]
    assert len(stored) == len(reports)
    by_uid = {dcmread(path).SOPInstanceUID: path for path in stored}
    for name, path in reports.items():
        made = dcmread(path)
        got = dcmread(by_uid[made.SOPInstanceUID])
        assert got.file_meta.TransferSyntaxUID == syntax
        assert got.get_item("PatientName").value.rstrip() == NAMES[name][1].rstrip()
        assert (got.IssuerOfPatientID, got.PatientID) == ("HOSPITAL A", made.PatientID)
        assert got.to_json() == made.to_json()


@pytest.mark.parametrize(("options", "syntax"), [(["+xi"], ImplicitVRLittleEndian), (["+xe"], ExplicitVRLittleEndian)])
def test_summaries_and_segmentations_are_stored_in_it_too(
    storescp: StoreScp, tmp_path: Path, options: list[str], syntax: str
) -> None:
    peer, sent = storescp(*options), {}
    for number, content in enumerate(study_contents()[7::2] + study_contents()[-1:]):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(content)
        assert deliver(Entity("WILLIS", Timeouts()), peer, Outgoing.read(path)) == "success"
        sent[str(dcmread(path).SOPInstanceUID)] = path
    stored = {str(ds.SOPInstanceUID): ds for ds in map(dcmread, (tmp_path / "stored").iterdir())}
    assert stored.keys() == sent.keys()
    assert {ds.Modality for ds in stored.values()} == {"OT", "SEG"}
    for uid, path in sent.items():
        got, made = stored[uid], dcmread(path)
        assert got.file_meta.TransferSyntaxUID == syntax
        for ds in (got, made):
            ds["PixelData"].VR = "OW"  # in implicit VR it always is (PS3.5 A.1)
        assert got.to_json() == made.to_json()
