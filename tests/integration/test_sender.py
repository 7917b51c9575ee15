"""What peers answer, as errors that say whether trying again helps."""

from pathlib import Path

import pytest
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from node.config.peer import Peer
from node.errors import Refused, Unavailable
from node.scu.dimse import Entity, Timeouts
from node.scu.outgoing import Outgoing
from node.scu.storage_scu import deliver, send_files
from node.simulated_pacs import Fault, SimulatedPeer
from tests.support.running import free_port

SHORT = Timeouts(acse=5, dimse=1, network=5)


def a_file(folder: Path) -> Path:
    """A CT slice on disk."""
    from tests.integration.test_bad_input import small_slice

    small_slice(1).save_as(folder / "slice.dcm", enforce_file_format=True)
    return folder / "slice.dcm"


def test_a_peer_that_accepts_no_such_object_refuses_for_good(tmp_path: Path) -> None:
    port, ae = free_port(), AE("PACS")
    ae.add_supported_context(Verification)
    server = ae.start_server(("127.0.0.1", port), block=False)
    peer = Peer(ae_title="PACS", host="127.0.0.1", port=port)
    try:
        with pytest.raises(Refused, match="CT Image Storage"):
            deliver(Entity("WILLIS", SHORT), peer, Outgoing.read(a_file(tmp_path)))
        (sent,) = send_files(Entity("WILLIS", SHORT), peer, [a_file(tmp_path)])
        assert (sent.word, "accepts none" in sent.error) == ("refused", True)
    finally:
        server.shutdown()


@pytest.mark.parametrize(
    ("fault", "status", "error"),
    [
        (Fault.REJECT, 0, Unavailable),
        (Fault.REFUSE, 0xA700, Unavailable),
        (Fault.REFUSE, 0x0110, Unavailable),
        (Fault.REFUSE, 0xC000, Refused),
        (Fault.REFUSE, 0xA900, Refused),
        (Fault.REFUSE, 0x0122, Refused),
        (Fault.ABORT, 0, Unavailable),
        (Fault.SILENCE, 0, Unavailable),
    ],
)
def test_each_fault_says_whether_trying_again_helps(
    tmp_path: Path, fault: Fault, status: int, error: type[Exception]
) -> None:
    pacs = SimulatedPeer(tmp_path / "pacs", fault=fault, status=status)
    peer = Peer(ae_title="PACS", host="127.0.0.1", port=pacs.start(0))
    try:
        with pytest.raises(error):
            deliver(Entity("WILLIS", SHORT), peer, Outgoing.read(a_file(tmp_path)))
    finally:
        pacs.stop()


@pytest.mark.parametrize(
    ("status", "word"), [(0x0111, "already there"), (0xB000, "warning 0xB000"), (0x0000, "success")]
)
def test_a_duplicate_and_a_warning_count_as_delivered(tmp_path: Path, status: int, word: str) -> None:
    pacs = SimulatedPeer(tmp_path / "pacs", fault=Fault.REFUSE, status=status)
    peer = Peer(ae_title="PACS", host="127.0.0.1", port=pacs.start(0))
    try:
        assert deliver(Entity("WILLIS", SHORT), peer, Outgoing.read(a_file(tmp_path))) == word
    finally:
        pacs.stop()
