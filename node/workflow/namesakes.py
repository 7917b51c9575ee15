"""Two hosts of one name at one database: whose process has died, each would judge by its own process ids."""

import socket
import time
from collections.abc import Callable, Iterable
from datetime import datetime

from node.errors import ConfigError
from node.runtime.heartbeat import PERIOD_SECONDS
from node.runtime.processes import has_died
from storage.running import Process

_BEATS_WITHIN_SECONDS = PERIOD_SECONDS + 2.0


Look = Callable[[], Iterable[Process]]
"""Asks for the processes that say that they work at the database."""


def require_own_name(look: Look, wait: Callable[[float], object] = time.sleep) -> None:
    """No other host that runs is called like ours.  Raises ConfigError, and what `look` raises.

    It takes seconds only after a crash: then processes are known that are not here, and one sees whether they beat on.  Twice:
    one of ours may beat for the last time and end between two looks.
    """
    before, lively = _beats(look), []
    if not any(_is_gone(name) for name in before):
        return
    for _ in range(2):
        wait(_BEATS_WITHIN_SECONDS)
        after = _beats(look)
        lively = sorted(name for name, at in after.items() if _is_gone(name) and at > before.get(name, at))
        if not lively:
            return
        before = after
    raise ConfigError(
        f"another host is called {socket.gethostname()!r} too and works at this database ({', '.join(lively)}): each "
        "would take away what the other analyses; give each a name of its own (`hostnamectl set-hostname`) and start again"
    )


def _beats(look: Look) -> dict[str, datetime]:
    """When the processes last beat that say they are of this host, by their names; not what never began."""
    host = socket.gethostname()[:64]
    return {each.name: each.beat_at for each in look() if each.host == host and "trouble" not in each.details}


def _is_gone(name: str) -> bool:
    """Whether no process of this host has the id that is last in the name."""
    return has_died(f"{socket.gethostname()}:{name.rpartition(':')[2]}")
