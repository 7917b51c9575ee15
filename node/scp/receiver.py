"""The Storage SCP: an instance is on disk and in the database before its sender reads "success"."""

import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from node.audit.messages import Party, Reporter, Study
from node.audit.trail import Trail, open_trail
from node.config.sections import Config
from node.dicom.conformance import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    STORAGE_CLASSES,
    TRANSFER_SYNTAXES,
)
from node.errors import ConfigError
from node.net.dimse_messages import Begin, Sink, StoreRequest
from node.net.listener import DirectServer
from node.net.tls import server_context
from node.runtime import log
from node.runtime.notify import NODE_PROCESS, wake
from node.runtime.processes import has_died
from node.scp.commitment_scp import CommitmentScp, Settler
from node.scp.gatekeeper import Gatekeeper
from node.scp.instance import IncomingInstance
from node.scp.query_scp import QueryScp
from node.scp.session import _MOST_STUDIES, _Logged, receiver_name
from storage.files.instances import Files
from storage.queries.group_commit import GroupCommit, Offer
from storage.records import Closed, Ended, Header, Opened
from storage.store import Store


class Receiver:
    """The Storage and Verification SCP of one process."""

    def __init__(
        self, config: Config, store: Store, files: Files, wake: Callable[[], None], trail: Trail | None = None
    ) -> None:
        """`wake` is called when an association has ended, and so a series may be whole; `trail` records who came."""
        self._config = config
        self._store = store
        self._files = files
        self._commits = GroupCommit(store.intake)
        self._wake = wake
        self._name = receiver_name(config.node)
        self._associations: dict[Any, Offer] = {}
        self._lock = threading.Lock()
        self._servers: list[Any] = []
        self._trail = trail or Trail()
        self._received: dict[Any, dict[str, Study]] = {}
        self._gate = Gatekeeper(config, files.root, self._trail, _now)
        self._commits_run = False
        self._log = log.get()

    def start(self) -> None:
        """Associations are accepted from now on.  Raises ConfigError when a port cannot be had; then nothing was done."""
        settings = self._config.node
        secure = server_context(settings.tls) if settings.tls else None
        listeners: list[tuple[str, int, ssl.SSLContext | None]] = []
        if secure is None or settings.tls is None or not settings.tls.required:
            listeners.append(("[node]", settings.port, None))
        if secure is not None and settings.tls is not None:
            listeners.append(("[node.tls]", settings.tls.port, secure))
        for (
            section,
            port,
            _,
        ) in listeners:  # before `_recover`, which would take a living receiver's associations for lost
            with self._naming_port(section, port):
                socket.create_server((settings.host, port), family=_family(settings.host)).close()
        self._recover()
        self._files.sweep_incoming(has_died)
        handlers = [
            (evt.EVT_RELEASED, self._on_end, [Closed.RELEASED]),
            (evt.EVT_ABORTED, self._on_end, [Closed.ABORTED]),
            (evt.EVT_CONN_CLOSE, self._on_end, [Closed.ABORTED]),
            (evt.EVT_REJECTED, self._on_rejected),
            (evt.EVT_N_ACTION, CommitmentScp(self._store, self._files, _now).on_action),
            (evt.EVT_N_EVENT_REPORT, self._on_event_report),
            (evt.EVT_C_FIND, QueryScp(self._store, self._trail, _now).on_find),
        ]
        self._commits.start()
        self._commits_run = True
        entity = self._entity()
        for section, port, secure in listeners:
            self._listen(entity, section, port, handlers, secure)

    def _listen(self, entity: AE, section: str, port: int, handlers: list[Any], secure: ssl.SSLContext | None) -> None:
        host = self._config.node.host
        with self._naming_port(section, port):
            self._servers.append(DirectServer.start(entity, (host, port), self._begin, handlers, secure, self._gate))
        self._log.info("receiver_started", host=host, port=port)

    @contextmanager
    def _naming_port(self, section: str, port: int) -> Iterator[None]:
        """An OSError inside stops the receiver and says which port cannot be had."""
        try:
            yield
        except OSError as error:
            self.stop()
            raise ConfigError(
                f"{section} port = {port}: {error.strerror}; stop the program that holds "
                f"{self._config.node.host}:{port} or choose another port"
            ) from None

    def _recover(self) -> None:
        """What power loss took before it was acknowledged is not in the database either.

        A file that the disk does not let us read is left as it is, and as doubtful: its association stays open.
        """
        intake, unread = self._store.intake, list[str]()
        for sop_instance_uid, file in intake.doubtful_instances(self._name).items():
            try:
                if not self._files.holds(file):
                    intake.forget_instance(sop_instance_uid, file)
                    self._files.discard(file)
                    self._log.warning("unacknowledged_instance_forgotten")
            except OSError as error:
                unread.append(sop_instance_uid)
                self._log.error(
                    "doubtful_instance_unreadable",
                    where=str(self._files.path(file)),
                    error=error.strerror,
                    remedy="check the disk and who may read the file; the next start looks at it again",
                )
        intake.lose_associations(self._name, _now(), but_of=unread)

    def stop(self, patience_seconds: float = 0.0) -> None:
        """No association is accepted any longer; those still open after `patience_seconds` are aborted."""
        for server in self._servers:
            server.shutdown()
        deadline = time.monotonic() + patience_seconds
        while self._associations and time.monotonic() < deadline:
            time.sleep(0.05)
        open_ones = [association for server in self._servers for association in server.active_associations]
        for association in open_ones:
            association.abort(block=False)
        for association in open_ones:
            association.join(max(1.0, deadline - time.monotonic()))
        if self._commits_run:
            self._commits.stop()
        self._servers, self._commits_run = [], False

    def _entity(self) -> AE:
        settings = self._config.node
        entity = AE(ae_title=settings.ae_title)
        entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        entity.maximum_associations = settings.maximum_associations
        entity.maximum_pdu_size = settings.maximum_pdu_bytes
        entity.acse_timeout = settings.acse_timeout_seconds
        entity.dimse_timeout = settings.dimse_timeout_seconds
        entity.network_timeout = settings.network_timeout_seconds
        entity.add_supported_context(Verification)
        for sop_class in STORAGE_CLASSES:
            entity.add_supported_context(sop_class, list(TRANSFER_SYNTAXES))
        # As SCP for who sends to us, as SCU for the answer to what we asked, which comes on an association of its own.
        entity.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        if self._config.allowed_calling_ae:  # strangers may send where nobody is configured, but not read names
            entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind, list(TRANSFER_SYNTAXES[:2]))
        return entity

    def _begin(self, association: Any) -> Begin:
        """What `association` calls for each C-STORE request."""

        def begin(request: StoreRequest) -> Sink:
            calling_ae = str(association.requestor.ae_title).strip()
            opening = self._open(association, calling_ae)
            arrival = IncomingInstance(
                request,
                str(association.accepted_context(request.context_id).transfer_syntax[0]),
                calling_ae,
                self._files,
                self._commits,
                self._store.intake.forget_instance,
                lambda: self._association_id(association, opening),
                _now,
            )
            return _Logged(arrival, calling_ae, lambda header: self._tally(association, header), self._log)

        return begin

    def _tally(self, association: Any, header: Header) -> None:
        """The association brought one more instance of a study."""
        studies = self._received.setdefault(association, {})
        if header.study_instance_uid not in studies and len(studies) >= _MOST_STUDIES:
            self._record_received(association, "")
            studies = self._received.setdefault(association, {})
        study = Study(header.study_instance_uid, header.patient_id, header.accession_number)
        studies.setdefault(header.study_instance_uid, study).count(header.sop_class_uid)

    def _record_received(self, association: Any, error: str) -> None:
        """One message for each study that the association brought."""
        source = Party(str(association.requestor.ae_title).strip(), str(association.requestor.address_info.address))
        now = _now()
        for study in self._received.pop(association, {}).values():
            self._trail.record(partial(Reporter.received, study=study, source=source, at=now, error=error))

    def _open(self, association: Any, calling_ae: str) -> Offer:
        """The association is, or will soon be, known as open: while its first instance comes nobody waits for that."""
        with self._lock:
            if association not in self._associations:
                self._associations[association] = self._commits.offer(Opened(self._name, calling_ae, _now()))
            return self._associations[association]

    def _association_id(self, association: Any, opening: Offer) -> int:
        """The id, once it is durable.  Raises what went wrong; then the next instance tries again."""
        try:
            return int(opening.outcome())
        except Exception:
            with self._lock:
                self._associations.pop(association, None)
            raise

    def _on_end(self, event: Any, how: Closed) -> None:
        with self._lock:
            opening = self._associations.pop(event.assoc, None)
        if opening is None:
            return
        try:
            association_id = int(opening.outcome())
            self._commits.offer(Ended(association_id, how, _now())).outcome()
        finally:  # what came is told, and no longer held, whether or not the database takes the end
            self._record_received(event.assoc, "" if how is Closed.RELEASED else "the association was aborted")
        self._log.info("association_ended", association=association_id, reason=how)
        self._wake()

    def _on_event_report(self, event: Any) -> tuple[int, None]:
        answer = Settler(self._config, self._store, _now).on_event_report(event)
        self._wake()
        return answer

    def _on_rejected(self, event: Any) -> None:
        """What `node.scp.gatekeeper` let in and pynetdicom did not."""
        self._log.warning(
            "association_rejected", calling_ae=str(event.assoc.requestor.ae_title).strip(), reason="too many at once"
        )


def receive(config: Config) -> None:
    """The receiver process: accepts associations until SIGTERM, then lets the open ones end for a while."""
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda _signal, _frame: stopping.set())
    store, directory = Store.open(config.storage.url), config.storage.directory
    trail = open_trail(config)
    receiver = Receiver(config, store, Files(directory), lambda: wake(directory, NODE_PROCESS), trail)
    receiver.start()
    stopping.wait()
    receiver.stop(patience_seconds=config.node.stop_seconds / 2)
    trail.close()
    store.close()


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _now() -> datetime:
    return datetime.now(UTC)
