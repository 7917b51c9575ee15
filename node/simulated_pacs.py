"""A simulated PACS, with faults on demand: for demonstrations, for tests, and for trying an installation.

It stores what it gets, answers C-ECHO, answers C-FIND on the study root with the counts of what it holds, and commits to
keep what it holds.
"""

import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import (
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from node.config.peer import Peer
from node.dicom import commitment
from node.dicom.commitment import Result
from node.dicom.conformance import TRANSFER_SYNTAXES
from node.dicom.status import NO_SUCH_INSTANCE, OUT_OF_RESOURCES, PENDING, PROCESSING_FAILURE, SUCCESS
from node.errors import ConfigError, NodeError
from node.scu import commitment_scu, dimse


class Fault(StrEnum):
    """How the peer misbehaves."""

    NONE = "none"
    REJECT = "reject"
    """Rejects every association."""
    REFUSE = "refuse"
    """Answers every C-STORE with a failure status."""
    ABORT = "abort"
    """Aborts the association instead of answering a C-STORE."""
    SILENCE = "silence"
    """Never answers a C-STORE."""
    SLOW = "slow"
    """Answers a C-STORE after a delay."""
    UNCOMMITTED = "uncommitted"
    """Answers every storage commitment with a failure."""
    NO_COMMITMENT = "no-commitment"
    """Takes every request for storage commitment, and never answers it."""


class SimulatedPeer:
    """A PACS in a thread of this process."""

    def __init__(
        self,
        folder: Path,
        ae_title: str = "PACS",
        fault: Fault = Fault.NONE,
        status: int = OUT_OF_RESOURCES,
        delay_seconds: float = 5.0,
        on_stored: Callable[[Path], None] = lambda _path: None,
        commits_to: Peer | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`folder` receives the objects, one `<SOP Instance UID>.dcm` each; `status` is what REFUSE answers.

        With `tls` it speaks nothing else.  Storage commitment is answered on an association with `commits_to`, or else
        on the one of the request.
        """
        self.folder = folder
        self.ae_title = ae_title
        self.fault = fault
        self.status = status
        self.delay_seconds = delay_seconds
        self.held: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        """Study UID → series UID → SOP Instance UIDs."""
        self.classes: dict[str, str] = {}
        """The SOP class of what it holds, by SOP Instance UID, where it knows it."""
        self.requests: list[str] = []
        """The SOP Instance UID of every C-STORE request, in order."""
        self.port = 0
        """Where it listens, once it does."""
        self.commits_to = commits_to
        self._tls = tls
        self.transactions: list[str] = []
        """The Transaction UID of every request for storage commitment, in order."""
        self._on_stored = on_stored
        self._stopping = threading.Event()
        self._server: Any = None

    def start(self, port: int, host: str = "127.0.0.1") -> int:
        """Associations are accepted from now on; returns the port (0: a free one).  Raises ConfigError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._stopping.clear()
        ae = AE(ae_title=self.ae_title)
        ae.maximum_pdu_size = 131_072
        ae.maximum_associations = 100
        ae.add_supported_context(Verification)
        ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        ae.add_supported_context(StorageCommitmentPushModel)
        for context in AllStoragePresentationContexts:
            ae.add_supported_context(context.abstract_syntax, list(TRANSFER_SYNTAXES))
        if self.fault is Fault.REJECT:
            ae.require_calling_aet = ["NOBODY"]
        handlers = [(evt.EVT_C_STORE, self._on_store), (evt.EVT_C_FIND, self._on_find)]
        handlers.append((evt.EVT_N_ACTION, self._on_action))
        try:
            self._server = ae.start_server((host, port), block=False, evt_handlers=handlers, ssl_context=self._tls)
        except OSError as error:
            raise ConfigError(f"port {port}: {error.strerror}; choose another with --port") from None
        self.port = int(self._server.socket.getsockname()[1])
        return self.port

    def stop(self) -> None:
        """The peer is gone, like a PACS that is switched off; what it holds stays."""
        self._stopping.set()
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def _on_store(self, event: Any) -> int:
        self.requests.append(str(event.request.AffectedSOPInstanceUID))
        if self.fault is Fault.REFUSE:
            return self.status
        if self.fault is Fault.ABORT:
            event.assoc.abort()
            return OUT_OF_RESOURCES
        if self.fault is Fault.SILENCE:
            self._stopping.wait()
        if self.fault is Fault.SLOW:
            time.sleep(self.delay_seconds)
        path = self.folder / f"{event.request.AffectedSOPInstanceUID}.dcm"
        path.write_bytes(event.encoded_dataset())
        ds = event.dataset
        self.held[ds.StudyInstanceUID][ds.SeriesInstanceUID].add(ds.SOPInstanceUID)
        self.classes[ds.SOPInstanceUID] = ds.SOPClassUID
        self._on_stored(path)
        return SUCCESS

    def _on_action(self, event: Any) -> tuple[int, None]:
        transaction_uid, items = commitment.read_request(event.action_information)
        self.transactions.append(transaction_uid)
        held = {uid for series in self.held.values() for instances in series.values() for uid in instances}
        lost = {} if self.fault is not Fault.UNCOMMITTED else dict.fromkeys(items, PROCESSING_FAILURE)
        lost |= {item: NO_SUCH_INSTANCE for item in items if item[1] not in held}
        result = Result(transaction_uid, tuple(item for item in items if item not in lost), lost)
        if self.fault is not Fault.NO_COMMITMENT:
            threading.Thread(target=self._commit, args=(event.assoc, result), daemon=True).start()
        return SUCCESS, None

    def _commit(self, assoc: Any, result: Result) -> None:
        time.sleep(0.05)  # the request is acknowledged first
        if self.commits_to is not None:
            us = dimse.Entity(self.ae_title, dimse.Timeouts(5, 5, 5))
            with suppress(NodeError):  # whoever refuses it does without
                commitment_scu.send_result(us, self.commits_to, result)
            return
        information = commitment.result_dataset(result)
        assoc.send_n_event_report(information, result.event_type, StorageCommitmentPushModel, commitment.INSTANCE_UID)

    def _on_find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        query = event.identifier
        for study, of_study in list(self.held.items()):
            for series, instances in list(of_study.items()):
                if study == query.get("StudyInstanceUID", study) and series == query.get("SeriesInstanceUID", series):
                    for answer in self._answers(query.QueryRetrieveLevel, instances):
                        answer.StudyInstanceUID, answer.SeriesInstanceUID = study, series
                        yield PENDING, answer
        yield SUCCESS, None

    def _answers(self, level: str, instances: set[str]) -> Iterator[Dataset]:
        """Of one series: itself with its count, or its instances, each with its SOP class where that is known."""
        answer = Dataset()
        answer.QueryRetrieveLevel = level
        if level != "IMAGE":
            answer.NumberOfSeriesRelatedInstances = len(instances)
            yield answer
            return
        for uid in sorted(instances):
            each = Dataset()
            each.QueryRetrieveLevel, each.SOPInstanceUID, each.SOPClassUID = level, uid, self.classes.get(uid, "")
            yield each
