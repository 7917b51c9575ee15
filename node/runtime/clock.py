"""The clock of a running node."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """The clock of a running node; tests pass their own."""
    return datetime.now(UTC)
