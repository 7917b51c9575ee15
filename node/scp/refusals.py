"""The instances that were refused since the receiver started: how many, when the last, and why."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass
class Refusals:
    """Counts; several associations may refuse at once, and a count that is one too low would do no harm."""

    now: Callable[[], datetime]
    count: int = 0
    at: datetime | None = None
    error: str = ""

    def note(self, error: str) -> None:
        """One more was refused, with this comment to its sender."""
        self.count, self.at, self.error = self.count + 1, self.now(), error

    def summary(self) -> dict[str, Any]:
        """As a heartbeat carries it; nothing where nothing was refused."""
        if self.at is None:
            return {}
        return {"refused": self.count, "refused_at": self.at.isoformat(), "refused_error": self.error}
