"""Who may associate: by AE title, host network and, over TLS, certificate; and who failed too often to be heard.

Nothing here does I/O; `node.scp.gatekeeper` asks, answers and logs.
"""

import hashlib
import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from node.config.peer import Peer
from node.config.sections import Config
from node.config.types import Network, fingerprint


@dataclass(frozen=True)
class Certificate:
    """What of a verified certificate is compared: the SHA-256 of its DER form, and its names in lower case."""

    sha256: str
    names: frozenset[str]

    @classmethod
    def of(cls, der: bytes | None, decoded: Mapping[str, Any] | None) -> "Certificate | None":
        """As `ssl.SSLSocket.getpeercert` gives it, encoded and decoded; None when there was none."""
        if not der:
            return None
        subject = [pair for relative in (decoded or {}).get("subject", ()) for pair in relative]
        names = [value for key, value in subject if key == "commonName"]
        names += [value for _, value in (decoded or {}).get("subjectAltName", ())]
        return cls(hashlib.sha256(der).hexdigest(), frozenset(str(name).lower() for name in names))


@dataclass(frozen=True)
class Caller:
    """Who asks for an association; `certificate` is None without TLS, and where none was asked for on it."""

    calling_ae: str
    called_ae: str
    host: str
    certificate: Certificate | None = None
    is_tls: bool = False


class Refusal(StrEnum):
    """Why a caller is rejected."""

    CALLING_AE = "calling AE title is not on the list"
    NETWORK = "host is in none of the networks"
    NO_TLS = "no TLS"
    NO_CERTIFICATE = "no certificate"
    CERTIFICATE = "another certificate than expected"
    CALLED_AE = "called AE title is not ours"

    @property
    def code(self) -> tuple[int, int, int]:
        """Result (permanent), source (service user) and reason of the A-ASSOCIATE-RJ (PS3.8 9.3.4)."""
        return 1, 1, 7 if self is Refusal.CALLED_AE else 3

    @property
    def remedy(self) -> str:
        """What an administrator does about it, if the caller is to get in."""
        return _REMEDIES[self]


_REMEDIES = {
    Refusal.CALLING_AE: "add the title to [node] allowed_calling_ae, or a [peers.NAME] with this ae_title",
    Refusal.NETWORK: "add the host to networks of its [peers.NAME], or to [node] allowed_networks",
    Refusal.NO_TLS: "let it call on the TLS port; if it cannot, a second [peers.NAME] with its ae_title and tls = false",
    Refusal.NO_CERTIFICATE: "let it call on the TLS port with its certificate; [node.tls] require_peer_certificate = true",
    Refusal.CERTIFICATE: "compare its certificate with tls_sha256 and tls_subject of its [peers.NAME]",
    Refusal.CALLED_AE: "let it call our ae_title, or set [node] require_called_ae = false",
}


def refusal(config: Config, caller: Caller) -> Refusal | None:
    """Why the caller is rejected, None when it may associate.

    A peer's own settings hold for its AE title, also where `allowed_calling_ae` lists it; of several peers with one AE
    title, one must fit.
    """
    if _is_canary(config, caller):
        return None
    peers = [peer for peer in config.peers.values() if peer.ae_title == caller.calling_ae]
    allowed = config.allowed_calling_ae
    why: Refusal | None = None
    if peers:
        refusals = [_of_peer(peer, config, caller) for peer in peers]
        why = None if None in refusals else refusals[0]
    elif allowed and caller.calling_ae not in allowed:
        why = Refusal.CALLING_AE
    elif not _is_within(caller.host, config.node.allowed_networks):
        why = Refusal.NETWORK
    if why is None and config.node.require_called_ae and caller.called_ae != config.node.ae_title:
        return Refusal.CALLED_AE
    return why


def _is_canary(config: Config, caller: Caller) -> bool:
    """Whether the node calls itself, from this host: what it sends is synthetic."""
    found = _address(caller.host)
    is_here = caller.host == config.node.host or (found is not None and found.is_loopback)
    return bool(config.canary.minutes) and caller.calling_ae == caller.called_ae == config.node.ae_title and is_here


def _of_peer(peer: Peer, config: Config, caller: Caller) -> Refusal | None:
    if not _is_within(caller.host, peer.networks or config.node.allowed_networks):
        return Refusal.NETWORK
    if peer.tls and not caller.is_tls:
        return Refusal.NO_TLS
    if not (peer.tls_sha256 or peer.tls_subject):
        return None
    shown = caller.certificate
    if shown is None:
        return Refusal.NO_CERTIFICATE
    differs = peer.tls_sha256 and shown.sha256 != fingerprint(peer.tls_sha256)
    is_other = peer.tls_subject and peer.tls_subject.lower() not in shown.names
    return Refusal.CERTIFICATE if differs or is_other else None


def _is_within(host: str, networks: Sequence[Network]) -> bool:
    """Whether one of the networks holds the host; without networks, any host."""
    if not networks:
        return True
    found = _address(host)
    return found is not None and any(found in network for network in networks)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address; an IPv4 one that came through an IPv6 socket as IPv4."""
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, ipaddress.IPv6Address) else found


@dataclass
class _Record:
    since: float
    failures: int = 0
    away_until: float = 0.0


class Turnstile:
    """Counts failed associations by host; IPv6 by /64.  Hosts are forgotten, the oldest first, beyond `most_hosts`."""

    def __init__(
        self,
        failures: int,
        within_seconds: float,
        away_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        most_hosts: int = 4096,
    ) -> None:
        """After so many `failures` in so many seconds a host is turned away; 0: none ever is."""
        self._failures, self._within_seconds, self._away_seconds = failures, within_seconds, away_seconds
        self._clock, self._most_hosts = clock, most_hosts
        self._records: OrderedDict[str, _Record] = OrderedDict()
        self._lock = threading.Lock()

    def turns_away(self, host: str) -> bool:
        """Whether this host's connections are closed unheard for now."""
        with self._lock:
            record = self._records.get(_of_host(host))
            return record is not None and self._clock() < record.away_until

    def failed(self, host: str) -> bool:
        """An association of the host failed; True when from now on it is turned away."""
        if not self._failures:
            return False
        now, key = self._clock(), _of_host(host)
        with self._lock:
            record = self._records.get(key)
            if record is None or now - record.since > self._within_seconds:
                record = self._records[key] = _Record(now)
            self._records.move_to_end(key)
            if len(self._records) > self._most_hosts:
                self._records.popitem(last=False)
            record.failures += 1
            if record.failures < self._failures:
                return False
            is_first = now >= record.away_until
            record.since, record.failures, record.away_until = now, 0, now + self._away_seconds
            return is_first

    def admitted(self, host: str) -> None:
        """An association of the host came about: what failed before is forgiven."""
        with self._lock:
            self._records.pop(_of_host(host), None)


def _of_host(host: str) -> str:
    """What a host is counted under."""
    found = _address(host)
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(found) >> 64 << 64, 64)))
    return str(found or host)
