"""What the jobs of the node's own process work with; nothing in it matters after a crash."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random

from node.audit.trail import Trail
from node.config.sections import Config
from node.rules.acquisitions import Acquisition
from node.runtime.backoff import Backoff
from node.runtime.clock import utc_now
from node.workflow.series_view import Slices
from storage.files.instances import Files
from storage.records import Series
from storage.store import Store


@dataclass(frozen=True, eq=False)
class Held:
    """Something leased: how to give it back, and how to renew its lease, where that is needed, each at this time."""

    give_back: Callable[[datetime], None]
    renew: Callable[[datetime], None] = lambda _now: None


@dataclass
class Context:
    """What the jobs work with.  `wake_worker` is called when a series has become ready."""

    config: Config
    store: Store
    files: Files
    wake_worker: Callable[[], None]
    clock: Callable[[], datetime] = utc_now
    random: Random = field(default_factory=Random)
    slices: dict[tuple[int, int, int], "Slices"] = field(default_factory=dict)
    """What was worked out of a series as it stood: (id, revision, instances)."""
    reconstructions: dict[tuple[int, int, int], tuple[bool, Acquisition]] = field(default_factory=dict)
    """Likewise of a series beside which another one waits: whether it is sharp, and the acquisition that it shows."""
    stopping: threading.Event = field(default_factory=threading.Event)
    """Set: nothing more is begun."""
    lacking: dict[int, Series] = field(default_factory=dict)
    """The series, by id, whose sender is to be asked for what they may lack."""
    held: list[Held] = field(default_factory=list)
    """What is leased to this process now."""
    trail: Trail = field(default_factory=Trail)
    """The audit trail of what is sent and asked."""

    @property
    def lease(self) -> timedelta:
        """How long an attempt at a peer may take, before another process may make it."""
        return timedelta(seconds=3 * self.config.node.network_timeout_seconds)

    def retry_after(self, attempts: int) -> timedelta:
        """How long what failed so often waits for its next attempt."""
        settings = self.config.delivery
        backoff = Backoff(settings.first_retry_seconds, settings.maximum_retry_seconds)
        return timedelta(seconds=backoff.after(attempts, self.random.random()))

    @contextmanager
    def holding(self, held: Held) -> Iterator[None]:
        """Should the node stop within, what is held is due at once, and as long as it does not, its lease is renewed."""
        self.held.append(held)
        try:
            yield
        finally:
            self.held.remove(held)

    def give_back(self) -> None:
        """What this process had begun and not ended is due at once."""
        for held in tuple(self.held):
            held.give_back(self.clock())

    def renew(self) -> None:
        """What this process has begun and not ended is still nobody else's."""
        for held in tuple(self.held):
            held.renew(self.clock())
