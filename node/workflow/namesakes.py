"""Two hosts of one name at one database: whose process has died, each would judge by its own process ids."""

import socket
import time
from collections.abc import Callable
from datetime import datetime

from node.errors import ConfigError
from node.runtime.heartbeat import PERIOD_SECONDS
from node.runtime.processes import has_died
from storage.queries.health import processes
from storage.store import Store

_BEATS_WITHIN_SECONDS = PERIOD_SECONDS + 2.0


def require_own_name(store: Store, wait: Callable[[float], object] = time.sleep) -> None:
    """No other host that runs is called like ours.  Raises ConfigError.

    It takes seconds only after a crash: then processes are known that are not here, and one sees whether they beat on.
    """
    if not (before := _not_here(store)):
        return
    wait(_BEATS_WITHIN_SECONDS)
    after = _not_here(store)
    if lively := sorted(name for name, beat_at in after.items() if beat_at != before.get(name)):
        raise ConfigError(
            f"another host is called {socket.gethostname()!r} too and works at this database ({', '.join(lively)}): each "
            "would take away what the other analyses; give each a name of its own (`hostnamectl set-hostname`) and start again"
        )


def _not_here(store: Store) -> dict[str, datetime]:
    """When the processes last beat that say they are of this host and are not, by their names."""
    host = socket.gethostname()[:64]
    known = processes(store.transactions.reading_plainly)
    return {
        each.name: each.beat_at
        for each in known
        if each.host == host and has_died(f"{socket.gethostname()}:{each.pid}")
    }
