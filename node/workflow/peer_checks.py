"""Whether the peers that the node needs answer: asked by C-ECHO, or where there is a `url` by a query for one study."""

import socket

from node.config.sections import Config
from node.errors import NodeError, safe_message
from node.runtime.job import still_working
from node.scu.dimse import Timeouts
from node.scu.remote import remote_of
from node.workflow.context import Context

ECHO_TIMEOUTS = Timeouts(acse=3, dimse=4, network=4)


def needed(config: Config) -> list[str]:
    """The peers that results go to, or that are asked for counts or instances.

    Not a scanner that only sends: it may be switched off at night.
    """
    wanted = [config.delivery.default_destination]
    for name, peer in config.peers.items():
        wanted += config.destinations(peer.ae_title)
        if peer.answers_queries or peer.retrieve:
            wanted.append(name)
    return list(dict.fromkeys(name for name in wanted if name))


def ask(context: Context) -> int:
    """Each needed peer was asked once, and what came of it is in the database; returns how many answered."""
    answered, host = 0, socket.gethostname()[:64]
    for name in needed(context.config):
        if context.stopping.is_set():
            break
        still_working()
        error = ""
        try:
            remote_of(context.config, context.config.peers[name], context.trail, context.clock, ECHO_TIMEOUTS).echo()
        except (NodeError, OSError) as failure:
            error = safe_message(failure)
        context.store.processes.peer_answered(name, host, context.clock(), error)
        answered += not error
    return answered
