"""The gate of the receiver: answers who may associate, and tells the log and the administrator who may not."""

import ssl
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from node.audit.messages import Party
from node.audit.trail import Trail
from node.config.sections import Config
from node.net.association import Association, Gate
from node.rules.access import Caller, Certificate, Turnstile, refusal
from node.runtime import log
from node.scp.rejections import Rejections

_TLS_REMEDY = "see Certificates in docs/operations.md"


class Gatekeeper(Gate):
    """Who may associate by the configuration; `node.rules.access` has the rules."""

    def __init__(self, config: Config, directory: Path, trail: Trail, clock: Callable[[], datetime]) -> None:
        """`directory` keeps the rejections, which `clock` dates."""
        self._config, self._trail, self._clock = config, trail, clock
        self._rejections = Rejections(directory)
        settings = config.node
        self._turnstile = Turnstile(
            settings.failed_associations, settings.failed_associations_seconds, settings.turned_away_seconds
        )
        self._log = log.get()

    def turns_away(self, host: str) -> bool:
        """Whether the host has failed too often."""
        return self._turnstile.turns_away(host)

    def refusal(self, association: Association) -> tuple[int, int, int] | None:
        """Result, source and reason of the rejection of a caller that is not on the list."""
        caller = Caller(
            association.calling_ae,
            association.called_ae,
            association.host,
            _certificate(association),
            _is_tls(association),
        )
        why = refusal(self._config, caller)
        if why is None:
            return None
        self._log.warning(
            "association_rejected", calling_ae=caller.calling_ae, called_ae=caller.called_ae, host=caller.host,
            reason=why, remedy=why.remedy,
        )  # fmt: skip
        self._note(Party(caller.calling_ae, caller.host), why.value, why.remedy)
        self._count(caller.host)
        return why.code

    def admitted(self, association: Association) -> None:
        """The host's failures are forgiven."""
        self._turnstile.admitted(association.host)

    def failed(self, association: Association, reason: str) -> None:
        """A connection that became no association is logged, and counts."""
        host = association.host
        self._log.warning("connection_failed", host=host, reason=reason)
        if _is_tls(association):
            self._note(Party("", host), f"no TLS: {reason}", _TLS_REMEDY)
        self._count(host)

    def _note(self, who: Party, reason: str, remedy: str) -> None:
        now = self._clock()
        self._rejections.note(who.ae_title, who.host, reason, remedy, now)
        self._trail.record(lambda reporter: reporter.node_refused(who, reason, now))

    def _count(self, host: str) -> None:
        if self._turnstile.failed(host):
            seconds = self._config.node.turned_away_seconds
            self._log.warning("host_turned_away", host=host, seconds=seconds)


def _is_tls(association: Association) -> bool:
    return isinstance(association.connection, ssl.SSLSocket)


def _certificate(association: Association) -> Certificate | None:
    connection = association.connection
    if not isinstance(connection, ssl.SSLSocket):
        return None
    return Certificate.of(connection.getpeercert(binary_form=True), connection.getpeercert())
