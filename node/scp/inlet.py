"""What a peer gives us on our own association goes the way of everything that is received."""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from types import TracebackType

from node.audit.messages import Party, Reporter, Study
from node.audit.trail import Trail
from node.config.peer import Peer
from node.config.sections import Config
from node.net.dimse_messages import StoreRequest
from node.runtime import log
from node.scp.instance import IncomingInstance
from node.scp.session import receiver_name
from storage.files.instances import Files
from storage.queries.group_commit import GroupCommit
from storage.records import Closed
from storage.store import Store


class Inlet:
    """Takes the instances that a peer gives us on our own association; each is durable before it is answered."""

    def __init__(
        self, config: Config, store: Store, files: Files, peer: Peer, trail: Trail, now: Callable[[], datetime]
    ) -> None:
        """They count as sent by the peer's AE title; `trail` records that they came."""
        self._name, self._store, self._files, self._now = receiver_name(config.node), store, files, now
        self._peer, self._trail = peer, trail
        self._commits = GroupCommit(store.intake)
        self._association_id: int | None = None
        self._studies: dict[str, Study] = {}
        self.fell_short = False
        """Not everything that was asked for came."""

    def __enter__(self) -> "Inlet":
        self._commits.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        """Release is evidence that a series is whole, so what failed in part was not released."""
        self._commits.stop()
        if self._association_id is not None:
            how = Closed.ABORTED if kind or self.fell_short else Closed.RELEASED
            self._store.intake.close_association(self._association_id, how, self._now())
        source, error = Party(self._peer.ae_title, self._peer.host), "it ended early" if kind else ""
        for study in self._studies.values():
            self._trail.record(partial(Reporter.received, study=study, source=source, at=self._now(), error=error))

    def keep(self, sop_class_uid: str, sop_instance_uid: str, syntax: str, dataset: memoryview) -> int:
        """See `query_scu.Keep`."""
        arrival = IncomingInstance(
            StoreRequest(0, 0, sop_class_uid, sop_instance_uid, has_dataset=True),
            syntax,
            self._peer.ae_title,
            self._files,
            self._commits,
            self._store.intake.forget_instance,
            self._association,
            self._now,
        )
        arrival.write(dataset)
        answer = arrival.finish()
        if answer.status:
            self.fell_short = True
            log.get().warning(
                "instance_refused", calling_ae=self._peer.ae_title, status=answer.status, error=answer.comment
            )
        elif header := arrival.header:
            study = Study(header.study_instance_uid, header.patient_id, header.accession_number)
            self._studies.setdefault(header.study_instance_uid, study).count(header.sop_class_uid)
        return answer.status

    def _association(self) -> int:
        if self._association_id is None:
            self._association_id = self._store.intake.open_association(self._name, self._peer.ae_title, self._now())
        return self._association_id
