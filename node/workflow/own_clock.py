"""A clock that is not the database server's: by it a host would take other hosts' claims for over, or hold its own too long."""

from collections.abc import Callable
from datetime import datetime

from node.rules.health import CLOCKS_DIFFER
from node.runtime.clock import utc_now
from storage.store import Store


class ClockDiffers(Exception):
    """This host's clock is not the database server's; the message says by how much, and what to do."""


def require_clock_of_server(store: Store, now: Callable[[], datetime] = utc_now) -> None:
    """This host's clock is within 5 s of a PostgreSQL server's.  Raises ClockDiffers."""
    if store.transactions.engine.dialect.name != "postgresql":
        return
    with store.transactions.reading_plainly() as select:
        [row] = select("SELECT clock_timestamp() AS there")
    ahead = now() - row["there"]
    if abs(ahead) > CLOCKS_DIFFER:
        seconds, side = abs(ahead).total_seconds(), "ahead of" if ahead.total_seconds() > 0 else "behind"
        raise ClockDiffers(
            f"this host's clock is {seconds:.0f} s {side} the database server's: it would take other hosts' analyses for over, or "
            "they its own; set both by NTP (`timedatectl`, `systemctl restart chrony`)"
        )
