"""How long to wait before the next attempt."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Waits that double from `first_seconds` up to `longest_seconds`."""

    first_seconds: float
    longest_seconds: float

    def after(self, attempts: int, jitter: float = 0.0) -> float:
        """Seconds to wait after so many failed attempts, one at least, shortened by up to a quarter.

        `jitter` in 0..1 keeps many deliveries from being tried at once.
        """
        doubled = self.first_seconds * 2.0 ** min(max(attempts, 1) - 1, 32)
        return min(doubled, self.longest_seconds) * (1.0 - 0.25 * jitter)
