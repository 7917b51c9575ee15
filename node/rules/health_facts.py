"""What is known of a node when it is judged; `node.rules.health` says what follows from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from storage.running import CanaryEnd, ResultsGivenUp, UploadsWaiting

OWN_CERTIFICATE = "[node.tls] certificate"


@dataclass(frozen=True)
class ProcessFact:
    """A process as it last said of itself.  `is_gone`: it ran on this host and is there no longer."""

    role: str
    host: str
    pid: int
    beat_at: datetime
    is_gone: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PeerFact:
    """A peer that is needed: why it did not answer when this host last asked it ("": it did), and when it last did."""

    name: str
    asked_at: datetime
    answered_at: datetime | None
    error: str


@dataclass(frozen=True)
class CertificateFact:
    """A certificate of ours or of a CA: the key of the configuration that names it, and until when it holds."""

    key: str
    path: str
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True)
class Facts:
    """What is known of a node at one moment; what could not be found out is None or a `..._error`."""

    now: datetime
    folder: str
    free_bytes: int | None
    disk_error: str = ""
    host: str = ""
    """Where `free_bytes` are; those of other hosts are in what their processes say."""
    database_error: str = ""
    locked_by: int = 0
    """The process id of who has locked the database, where that is the error and is known."""
    processes: Sequence[ProcessFact] = ()
    peers: Sequence[PeerFact] = ()
    certificates: Sequence[CertificateFact] = ()
    certificate_errors: Sequence[str] = ()
    oldest_pending_at: datetime | None = None
    oldest_ready_at: datetime | None = None
    oldest_refused_at: datetime | None = None
    """Since when a notification has been tried without success."""
    dead_deliveries: int = 0
    dead_notifications: int = 0
    results_given_up: Sequence[ResultsGivenUp] = ()
    held_up: str = ""
    drifted: Sequence[str] = ()
    """What of which scanner is not as it was."""
    uploads: Sequence[UploadsWaiting] = ()
    """What waits for the object store, where there is one."""
    canary: CanaryEnd | None = None
    """What came of the last one, where any are sent."""
    canary_overdue: str = ""
    """Why none has had its turn for too long, where any are sent."""
    serves_pages: bool = False
    """Whether the configuration wants them."""
