"""What an association that brings instances is, to the database and the audit trail."""

import socket
from collections.abc import Callable
from typing import Any

from node.config.sections import Node
from node.net.dimse_messages import Answer
from node.scp.instance import SUCCESS, IncomingInstance
from storage.records import Header

_MOST_STUDIES = 256
"""So many on one association are remembered for the audit trail before their messages are written."""


def receiver_name(settings: Node) -> str:
    """What the receiver, and what brings instances for it, signs associations with; as long as its column."""
    return f"{settings.host}:{settings.port}@{socket.gethostname()}"[:80]


class _Logged:
    """An arrival whose refusal is logged, and of whose success `on_kept` hears."""

    def __init__(
        self, arrival: IncomingInstance, calling_ae: str, on_kept: Callable[[Header], None], logger: Any
    ) -> None:
        self._arrival, self._calling_ae, self._on_kept, self._log = arrival, calling_ae, on_kept, logger
        self.write, self.abandon = arrival.write, arrival.abandon

    def finish(self) -> Answer:
        answer = self._arrival.finish()
        if answer.status == SUCCESS and self._arrival.header is not None:
            self._on_kept(self._arrival.header)
        if answer.status:
            self._log.warning(
                "instance_refused", calling_ae=self._calling_ae, status=answer.status, error=answer.comment
            )
        return answer
