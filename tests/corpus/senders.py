"""Real senders: dcmtk's storescu and dcmsend, and Orthanc, which sends what it holds to a modality."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from node.config.peer import Peer
from tests.interop.test_peers import Orthanc, program, run
from tests.support.orthanc import running

CALLING = "PACS"


class Sender(Protocol):
    """Sends files to the node, on one association."""

    name: str
    can_abort: bool

    def send(self, paths: Sequence[Path], aborted: bool) -> None:
        """The sender has ended with success: every instance was accepted."""


class Dcmtk:
    """storescu or dcmsend."""

    def __init__(self, name: str, address: Peer) -> None:
        """`address`: the node's."""
        self.name, self.can_abort = name, name == "storescu"
        self._command = [program(name), "-aet", CALLING, "-aec", address.ae_title, address.host, str(address.port)]

    def send(self, paths: Sequence[Path], aborted: bool) -> None:
        """As `Sender.send`."""
        run(*self._command, *(["--abort"] if aborted else []), *paths)


class SendToModality:
    """Orthanc, to which the files are given first.  It sends in an order of its own."""

    name, can_abort = "Orthanc", False

    def __init__(self, orthanc: Orthanc, address: Peer) -> None:
        """`address`: the node's."""
        self._http = orthanc.http
        modality = {"AET": address.ae_title, "Host": address.host, "Port": address.port}
        self._http.put("/modalities/willis", json=modality).raise_for_status()

    def send(self, paths: Sequence[Path], aborted: bool) -> None:
        """As `Sender.send`."""
        assert not aborted, "Orthanc cannot break off"
        held = [self._http.post("/instances", content=path.read_bytes()).raise_for_status().json() for path in paths]
        identifiers = list(dict.fromkeys(each["ID"] for each in held))
        done = self._http.post("/modalities/willis/store", json={"Resources": identifiers, "Timeout": 60})
        assert done.raise_for_status().json()["FailedInstancesCount"] == 0, done.text


def all_senders(folder: Path, address: Peer, running_as_long_as: ExitStack) -> list[Sender]:
    """Every sender; Orthanc runs in `folder` until the stack is closed."""
    folder.mkdir()
    orthanc = running_as_long_as.enter_context(running(folder, DicomAet=CALLING))
    return [Dcmtk("storescu", address), Dcmtk("dcmsend", address), SendToModality(orthanc, address)]
