"""A configured peer, whichever way it is reached."""

from collections.abc import Callable
from datetime import datetime

from node.audit.trail import Trail
from node.config.peer import Peer
from node.config.sections import Config
from node.errors import Refused
from node.scu import dimse, query_scu
from node.scu.audited import AuditedSource
from node.scu.source import Source
from node.scu.wado import WebSource


def source_of(config: Config, peer: Peer, limit_seconds: float, trail: Trail, now: Callable[[], datetime]) -> Source:
    """The peer, to be asked for so long; `trail` records each query.  Raises Refused when it is not configured to give."""
    if not peer.retrieve:
        ways = "'wado'" if peer.url else "'move' or 'get'"
        raise Refused(f"{peer.ae_title} is not configured to give instances: set its retrieve to {ways}")
    if peer.url:
        source: Source = WebSource(peer, dimse.timeouts(config.node), config.node.tls, limit_seconds)
        return AuditedSource(source, peer, trail, now)
    ae = dimse.entity(config.node.ae_title, dimse.timeouts(config.node), config.node.tls)
    return AuditedSource(query_scu.DimseSource(ae, peer, limit_seconds), peer, trail, now)
