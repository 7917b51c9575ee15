"""What a peer gives us on our own association goes the way of everything that is received."""

from collections.abc import Callable
from datetime import datetime

from node.audit.messages import Party
from node.audit.trail import Trail
from node.config.peer import Peer
from node.config.sections import Config
from node.scp.session import ReceivingSession, receiver_name
from storage.files.instances import Files
from storage.queries.group_commit import GroupCommit
from storage.records import AssociationEnd
from storage.store import Store


class Inlet:
    """Takes the instances that a peer gives us on our own association; each is durable before it is answered."""

    def __init__(
        self, config: Config, store: Store, files: Files, peer: Peer, trail: Trail, now: Callable[[], datetime]
    ) -> None:
        """They count as sent by the peer's AE title; `trail` records that they came."""
        self._group_commit = GroupCommit(store.intake)
        source = Party(peer.ae_title, peer.host)
        self._session = ReceivingSession(receiver_name(config.node), source, files, self._group_commit, trail, now)
        self.fell_short = False
        """Not everything that was asked for came."""

    def __enter__(self) -> "Inlet":
        self._group_commit.start()
        return self

    def __exit__(self, kind: object, *_error: object) -> None:
        """Release is evidence that a series is whole, so what failed in part was not released."""
        how = AssociationEnd.ABORTED if kind or self.fell_short else AssociationEnd.RELEASED
        try:
            self._session.end(how, "it ended early" if kind else "")
        finally:
            self._group_commit.stop()

    def keep(self, sop_class_uid: str, sop_instance_uid: str, syntax: str, dataset: memoryview) -> int:
        """See `query_scu.Keep`."""
        instance = self._session.begin(sop_class_uid, sop_instance_uid, syntax)
        instance.write(dataset)
        status = instance.finish().status
        self.fell_short |= bool(status)
        return status
