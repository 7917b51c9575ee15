"""A configured peer, whichever way it is reached: by DIMSE, or by DICOMweb."""

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from node.audit.recording import Clock, asking
from node.audit.trail import Trail
from node.config.peer import Peer
from node.config.sections import Config
from node.errors import Refused
from node.scu import dicomweb, dimse, query_scu, storage_scu, stow
from node.scu.audited import Asking, AuditedSource
from node.scu.dimse import Entity, Timeouts
from node.scu.outgoing import Outgoing
from node.scu.source import Listed, Source
from node.scu.storage_scu import Sent
from node.scu.wado import WebSource


class Remote(Protocol):
    """What can be had of a peer.  Every method raises Unavailable, Refused or ConfigError."""

    def echo(self) -> None:
        """It answers us."""

    def count(self, study_instance_uid: str, series_instance_uid: str) -> int | None:
        """How many instances it says the series has; None when it does not say."""

    def instances(self, series: Listed) -> dict[str, str]:
        """The SOP class of each instance of the series that it has, by UID; "" where it does not say."""

    def deliver(self, outgoing: Outgoing) -> str:
        """It has the object; a word for how it took it."""

    def send(self, paths: Iterable[Path]) -> Iterator[Sent]:
        """What becomes of each file."""

    def source(self, limit_seconds: float) -> Source:
        """It, to be asked for what it has and to give it, for so long."""


@dataclass(frozen=True)
class DimseRemote:
    """A peer with host and port.  `asking` records what it is asked."""

    entity: Entity
    peer: Peer
    asking: Asking

    def echo(self) -> None:
        """See Remote."""
        dimse.echo(self.entity, self.peer)

    def count(self, study_instance_uid: str, series_instance_uid: str) -> int | None:
        """See Remote."""
        with self.asking(query_scu.count_query(study_instance_uid, series_instance_uid)):
            return query_scu.ask_count(self.entity, self.peer, study_instance_uid, series_instance_uid)

    def instances(self, series: Listed) -> dict[str, str]:
        """See Remote."""
        source = query_scu.DimseSource(self.entity, self.peer, self.entity.timeouts.dimse)
        return AuditedSource(source, self.asking).instances(series)

    def deliver(self, outgoing: Outgoing) -> str:
        """See Remote."""
        return storage_scu.deliver(self.entity, self.peer, outgoing)

    def send(self, paths: Iterable[Path]) -> Iterator[Sent]:
        """See Remote."""
        return storage_scu.send_files(self.entity, self.peer, paths)

    def source(self, limit_seconds: float) -> Source:
        """See Remote."""
        _check_gives(self.peer, "'move' or 'get'")
        return AuditedSource(query_scu.DimseSource(self.entity, self.peer, limit_seconds), self.asking)


@dataclass(frozen=True)
class WebRemote:
    """A peer with a url.  `asking` records what it is asked."""

    entity: Entity
    peer: Peer
    asking: Asking

    def echo(self) -> None:
        """See Remote."""
        with self._service() as service:
            dicomweb.echo(service)

    def count(self, study_instance_uid: str, series_instance_uid: str) -> int | None:
        """See Remote."""
        with (
            self.asking(query_scu.count_query(study_instance_uid, series_instance_uid)),
            self._service() as service,
        ):
            return dicomweb.ask_count(service, study_instance_uid, series_instance_uid)

    def instances(self, series: Listed) -> dict[str, str]:
        """See Remote."""
        source = WebSource(self.peer, self.entity.timeouts, self.entity.tls, self.entity.timeouts.dimse)
        return AuditedSource(source, self.asking).instances(series)

    def deliver(self, outgoing: Outgoing) -> str:
        """See Remote."""
        return stow.deliver(self.peer, self.entity.timeouts, self.entity.tls, outgoing, self.asking)

    def send(self, paths: Iterable[Path]) -> Iterator[Sent]:
        """See Remote."""
        return stow.send_files(self.peer, self.entity.timeouts, self.entity.tls, paths)

    def source(self, limit_seconds: float) -> Source:
        """See Remote."""
        _check_gives(self.peer, "'wado'")
        source = WebSource(self.peer, self.entity.timeouts, self.entity.tls, limit_seconds)
        return AuditedSource(source, self.asking)

    def _service(self) -> dicomweb.Service:
        return dicomweb.Service(self.peer, self.entity.timeouts, self.entity.tls)


def remote(entity: Entity, peer: Peer, asking: Asking = lambda _query: nullcontext()) -> Remote:
    """The peer as `entity` reaches it; `asking` records what it is asked."""
    return WebRemote(entity, peer, asking) if peer.url else DimseRemote(entity, peer, asking)


def remote_of(config: Config, peer: Peer, trail: Trail, clock: Clock, limits: Timeouts | None = None) -> Remote:
    """The peer as the node reaches it, with these timeouts or its own; `trail` records what it is asked."""
    return remote(dimse.our_entity(config.node, limits), peer, partial(asking, trail, clock, peer))


def _check_gives(peer: Peer, ways: str) -> None:
    """Raises Refused when the peer is not configured to give."""
    if not peer.retrieve:
        raise Refused(f"{peer.ae_title} is not configured to give instances: set its retrieve to {ways}")
