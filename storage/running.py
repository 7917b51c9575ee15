"""What a node says of itself while it runs, and what waits in its database: what its health is judged by."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Process:
    """A process of a node, as it last said of itself.

    `role`: "serve", "receive", "work" or "web"; `folder`: its [storage] directory.  `details`: of "receive" its address
    and what it refused, of "web" its address, of "work" its model and device, of each the `trouble` that ended it, if it
    could say so.
    """

    name: str
    role: str
    host: str
    pid: int
    folder: str
    started_at: datetime
    beat_at: datetime
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PeerAnswer:
    """A peer, when a host last asked it and had its answer, and what went wrong the last time; "" where nothing did."""

    peer: str
    host: str
    asked_at: datetime
    answered_at: datetime | None
    error: str


@dataclass(frozen=True)
class ResultsGivenUp:
    """Results of storage commitments that a peer asked for and never got: how many, when it last asked, and why."""

    peer: str
    number: int
    asked_at: datetime
    error: str


@dataclass(frozen=True)
class CanaryEnd:
    """What came of a synthetic series.  `seconds`: until its answer, where there was one; `trouble`: "" where it was right."""

    sent_at: datetime
    ended_at: datetime
    seconds: float | None
    trouble: str


@dataclass(frozen=True)
class UploadsWaiting:
    """Files of one storage folder that the object store has not: how many, since when the first, and why it last failed."""

    folder: str
    number: int
    oldest_at: datetime
    error: str


@dataclass(frozen=True)
class Waiting:
    """The oldest that waits, and how many need a person.  `held_up`: why an analysis cannot be made now."""

    oldest_pending_at: datetime | None = None
    oldest_ready_at: datetime | None = None
    oldest_refused_at: datetime | None = None
    dead: int = 0
    dead_notifications: int = 0
    held_up: str = ""
