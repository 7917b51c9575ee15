"""The Storage SCP: an instance is on disk and in the database before its sender reads "success"."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from pynetdicom.sop_class import (
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from node.audit.messages import Party
from node.audit.trail import Trail, open_trail
from node.config.files import files_of
from node.config.reloading import Reloading
from node.config.sections import Config, Node
from node.dicom.conformance import (
    IMAGE_CLASSES,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    OTHER_SYNTAXES,
    STORAGE_CLASSES,
    TRANSFER_SYNTAXES,
)
from node.errors import ConfigError
from node.net.acceptor import Acceptor
from node.net.association import Association, Services
from node.net.certificates import held_until
from node.net.dimse_messages import Begin, Sink, StoreRequest
from node.net.negotiation import Entity, offered
from node.net.ports import port_message, ports_of, require_ports
from node.net.services import Handlers
from node.net.tls import hold_anew, server_context
from node.rules.parts import classes_not_accepted
from node.runtime import log
from node.runtime.clock import utc_now as _now
from node.runtime.heartbeat import Heartbeat
from node.runtime.notify import NODE_PROCESS, wake
from node.runtime.processes import asked_to_stop, has_died
from node.scp.commitment_scp import CommitmentReports, CommitmentScp
from node.scp.gatekeeper import Gatekeeper
from node.scp.query_scp import QueryScp
from node.scp.refusals import Refusals
from node.scp.session import ReceivingSession, receiver_name
from storage.files.instances import Files
from storage.queries.group_commit import GroupCommit
from storage.records import AssociationEnd
from storage.store import Store

LOOK_SECONDS = 0.5
"""So often it is asked whether the receiver is to reload."""
INTAKE_LATE_AFTER_SECONDS = 90.0
"""A database that is locked or has vanished is given up after about 30 s."""


class Receiver:
    """The Storage and Verification SCP of one process."""

    def __init__(
        self, config: Config, store: Store, files: Files, wake: Callable[[], None], trail: Trail | None = None
    ) -> None:
        """`wake` is called when an association has ended, and so a series may be whole; `trail` records who came."""
        self._config = config
        self._store = store
        self._files = files
        self._group_commit = GroupCommit(store.intake)
        self._wake = wake
        self._name = receiver_name(config.node)
        self._sessions: dict[Association, ReceivingSession] = {}
        self._trail = trail = trail or Trail()
        self._is_running = False
        self._held = held_until(config.node.tls)
        self._refusals = Refusals(_now)
        self._log = log.get()
        handlers = Handlers(
            QueryScp(store, trail, _now).on_find, CommitmentScp(store, files, _now).on_action, self._on_event_report
        )
        services = Services(self._begin, self._on_end, self._on_rejected, handlers)
        self._acceptor = Acceptor(self._entity(), services, Gatekeeper(config, files.root, trail, _now))

    def start(self) -> None:
        """Associations are accepted from now on.  Raises ConfigError when a port cannot be had; then nothing was done."""
        settings = self._config.node
        context = server_context(settings.tls) if settings.tls else None
        require_ports(settings)  # before `_recover`: a living receiver's associations are not lost
        self._recover()
        self._files.sweep_incoming(has_died)
        self._group_commit.start()
        self._is_running = True
        for section, port in ports_of(settings).items():
            with self._naming_port(section, port):
                self._acceptor.listen(settings.host, port, context if section == "[node.tls]" else None)
            self._log.info("receiver_started", host=settings.host, port=port)

    def reload(self, config: Config) -> str:
        """What is accepted from now on by TLS shows the certificate that is in the files now.  Raises ConfigError, changing nothing."""
        if config.node.tls is None:
            return ""
        context, held = server_context(config.node.tls), held_until(config.node.tls)
        hold_anew(config.node.tls)  # for the audit trail of this process
        self._acceptor.renew(context)
        self._held = held
        return "certificates read again"

    @contextmanager
    def _naming_port(self, section: str, port: int) -> Iterator[None]:
        """An OSError inside stops the receiver and says which port cannot be had."""
        try:
            yield
        except (OSError, UnicodeError) as error:
            self.stop()
            raise ConfigError(port_message(section, self._config.node.host, port, error)) from None

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
        self._acceptor.stop_listening()
        deadline = time.monotonic() + patience_seconds
        while self._sessions and time.monotonic() < deadline:
            time.sleep(0.05)
        open_ones = self._acceptor.associations
        for association in open_ones:
            association.abort()
        for association in open_ones:
            association.join(max(1.0, deadline - time.monotonic()))
        if self._is_running:
            self._group_commit.stop()
        self._is_running = False

    def details(self) -> dict[str, Any]:
        """For its heartbeat: where it listens, since when what came waits for the database, and what it refused."""
        settings = self._config.node
        waits_since = _now() - timedelta(seconds=self._group_commit.busy_seconds())
        jobs = {"intake": {"at": waits_since.isoformat(), "late_after_seconds": INTAKE_LATE_AFTER_SECONDS}}
        address = f"{settings.host}:{settings.port}"
        return {"address": address, "jobs": jobs, **self._held, **self._refusals.summary()}

    def _entity(self) -> Entity:
        settings, contexts = self._config.node, [offered(Verification)]
        contexts += [
            offered(sop_class, TRANSFER_SYNTAXES if sop_class in IMAGE_CLASSES else OTHER_SYNTAXES)
            for sop_class in accepted_classes(settings)
        ]
        # As SCP for who sends to us, as SCU for the answer to what we asked, which comes on an association of its own.
        contexts.append(offered(StorageCommitmentPushModel, in_both_roles=True))
        if self._config.allowed_calling_ae:  # strangers may send where nobody is configured, but not read names
            contexts.append(offered(StudyRootQueryRetrieveInformationModelFind, TRANSFER_SYNTAXES[:2]))
        return Entity(
            IMPLEMENTATION_CLASS_UID,
            IMPLEMENTATION_VERSION_NAME,
            settings.maximum_pdu_bytes,
            settings.maximum_associations,
            settings.acse_timeout_seconds,
            settings.network_timeout_seconds,
            tuple(contexts),
        )

    def _begin(self, association: Association) -> Begin:
        """What `association` calls for each C-STORE request."""

        def begin(request: StoreRequest) -> Sink:
            syntax = str(association.accepted_context(request.context_id).transfer_syntax[0])
            return self._session(association).begin(request.sop_class_uid, request.sop_instance_uid, syntax)

        return begin

    def _session(self, association: Association) -> ReceivingSession:
        """Made with the association's first instance."""
        session = self._sessions.get(association)
        if session is None:
            session = self._sessions[association] = self._new_session(association)
        return session

    def _new_session(self, association: Association) -> ReceivingSession:
        source = Party(association.calling_ae, association.host)
        return ReceivingSession(
            self._name, source, self._files, self._group_commit, self._trail, _now, self._refusals.note
        )

    def _on_end(self, association: Association, is_released: bool) -> None:
        not_accepted = classes_not_accepted(association.proposed, association.refused)
        session = self._sessions.pop(association, None)
        if session is None and not not_accepted:
            return
        session = session or self._new_session(association)
        how = AssociationEnd.RELEASED if is_released else AssociationEnd.ABORTED
        association_id = session.end(how, "" if is_released else "the association was aborted", not_accepted)
        if association_id is not None:
            self._log.info("association_ended", association=association_id, reason=how)
            self._wake()

    def _on_event_report(self, event: Any) -> tuple[int, None]:
        answer = CommitmentReports(self._config, self._store, _now).on_event_report(event)
        self._wake()
        return answer

    def _on_rejected(self, association: Association) -> None:
        """What `node.scp.gatekeeper` let in and the limit did not."""
        self._log.warning("association_rejected", calling_ae=association.calling_ae, reason="too many at once")


def accepted_classes(settings: Node) -> tuple[str, ...]:
    """The storage SOP classes that are accepted."""
    standard = IMAGE_CLASSES if settings.storage_classes == "images" else STORAGE_CLASSES
    return tuple(dict.fromkeys((*standard, *settings.private_storage_classes)))


def receive(config: Config, reloading: Reloading) -> None:
    """The receiver process: accepts associations until SIGTERM, then lets the open ones end for a while."""
    is_to_stop = asked_to_stop(signal.SIGTERM)
    files, directory = files_of(config), config.storage.directory
    store = Store.open(config.storage.url, files.folder)
    trail = open_trail(config)
    receiver = Receiver(config, store, files, lambda: wake(directory, NODE_PROCESS), trail)
    receiver.start()
    heartbeat = Heartbeat(
        store.processes, "receive", directory, lambda: receiver.details() | reloading.as_details() | trail.as_details()
    )
    heartbeat.start()
    while not is_to_stop():
        time.sleep(LOOK_SECONDS)
        if reloading.asked.is_set():
            config = reloading(config, receiver.reload)
            heartbeat.beat()
    receiver.stop(patience_seconds=config.node.stop_seconds / 2)
    heartbeat.stop()
    trail.close()
    store.close()
