"""How long to wait before the next attempt."""


def backoff_seconds(attempts: int, first: float, maximum: float, jitter: float) -> float:
    """How long to wait after the nth attempt: doubling from `first` up to `maximum`, shortened by up to a quarter.

    `jitter` in 0..1 keeps many deliveries from knocking at once.
    """
    doubled = first * 2.0 ** min(attempts - 1, 32)
    return min(doubled, maximum) * (1.0 - 0.25 * jitter)
