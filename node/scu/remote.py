"""A configured peer, whichever way it is reached: by DIMSE, or by DICOMweb."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from node.audit.recording import Clock, asking
from node.audit.trail import Trail
from node.config.peer import Peer
from node.config.sections import Config
from node.errors import Refused
from node.scu import dicomweb, dimse, query_scu, storage_scu, stow
from node.scu.audited import Asking, AuditedSource
from node.scu.dimse import Entity, Timeouts
from node.scu.outgoing import Outgoing
from node.scu.source import Listed, Source, count_query
from node.scu.storage_scu import Sent
from node.scu.wado import WebSource


@dataclass(frozen=True)
class Remote:
    """What can be had of a peer.  Everything raises Unavailable, Refused or ConfigError."""

    echo: Callable[[], None]
    """It answers us."""
    ask_count: Callable[[str, str], int | None]
    """How many instances it says that the series (Study and Series Instance UID) has; None when it does not say."""
    deliver: Callable[[Outgoing], str]
    """It has the object; a word for how it took it."""
    send: Callable[[Iterable[Path]], Iterator[Sent]]
    """What becomes of each file."""
    open_source: Callable[[float], Source]
    """It, to be asked for what it has and to give it, for so many seconds."""
    peer: Peer
    asking: Asking
    """Records what it is asked."""
    query_seconds: float
    """So long a query may take."""

    def count(self, study_instance_uid: str, series_instance_uid: str) -> int | None:
        """See `ask_count`."""
        with self.asking(count_query(study_instance_uid, series_instance_uid)):
            return self.ask_count(study_instance_uid, series_instance_uid)

    def instances(self, series: Listed) -> dict[str, str]:
        """The SOP class of each instance of the series that it has, by UID; "" where it does not say."""
        return AuditedSource(self.open_source(self.query_seconds), self.asking).instances(series)

    def source(self, limit_seconds: float) -> Source:
        """See `open_source`.  Raises Refused when the peer is not configured to give."""
        if not self.peer.retrieve:
            ways = "'wado'" if self.peer.url else "'move' or 'get'"
            raise Refused(f"{self.peer.ae_title} is not configured to give instances: set its retrieve to {ways}")
        return AuditedSource(self.open_source(limit_seconds), self.asking)


def remote(entity: Entity, peer: Peer, asking: Asking = lambda _query: nullcontext()) -> Remote:
    """The peer as `entity` reaches it; `asking` records what it is asked."""
    if not peer.url:
        return Remote(
            partial(dimse.echo, entity, peer),
            partial(query_scu.ask_count, entity, peer),
            partial(storage_scu.deliver, entity, peer),
            partial(storage_scu.send_files, entity, peer),
            partial(query_scu.DimseSource, entity, peer),
            peer,
            asking,
            entity.timeouts.dimse,
        )
    web = peer, entity.timeouts, entity.tls

    def served(ask: Callable[..., Any], *what: str) -> Any:
        with dicomweb.Service(*web) as service:
            return ask(service, *what)

    return Remote(
        partial(served, dicomweb.echo),
        partial(served, dicomweb.ask_count),
        partial(stow.deliver, *web, asking=asking),
        partial(stow.send_files, *web),
        partial(WebSource, *web),
        peer,
        asking,
        entity.timeouts.dimse,
    )


def remote_of(config: Config, peer: Peer, trail: Trail, clock: Clock, limits: Timeouts | None = None) -> Remote:
    """The peer as the node reaches it, with these timeouts or its own; `trail` records what it is asked."""
    return remote(dimse.our_entity(config.node, limits), peer, partial(asking, trail, clock, peer))
