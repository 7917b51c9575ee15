"""What of the configuration a running node takes anew: the model and the certificates.  All else needs a restart."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel

from node.config.sections import Config
from node.errors import ConfigError, safe_message
from node.runtime import log
from node.runtime.clock import utc_now

_OF_AI = ("bundle", "shadow", "flip", "precision")
_OF_TLS = ("certificate", "key", "ca")


def reloaded(old: Config, new: Config) -> tuple[Config, tuple[str, ...]]:
    """`old` with what a reload takes from `new`, and the keys of what else differs, which needs a restart."""
    ai = old.ai.model_copy(update={key: getattr(new.ai, key) for key in _OF_AI})
    node = old.node
    if node.tls is not None and new.node.tls is not None:
        certificates = {key: getattr(new.node.tls, key) for key in _OF_TLS}
        node = node.model_copy(update={"tls": node.tls.model_copy(update=certificates)})
    merged = old.model_copy(update={"ai": ai, "node": node})
    return merged, tuple(_different(merged, new))


def _different(one: BaseModel, other: BaseModel, section: str = "") -> Iterator[str]:
    for name in type(one).model_fields:
        a, b = getattr(one, name), getattr(other, name)
        if a == b:
            continue
        if isinstance(a, BaseModel) and isinstance(b, BaseModel):
            yield from _different(a, b, f"{section}.{name}".strip("."))
        elif name == "peers":
            yield from (f"[peers.{peer}]" for peer in sorted({*a, *b}) if a.get(peer) != b.get(peer))
        elif section:
            is_table = isinstance(a, BaseModel) or isinstance(b, BaseModel)
            yield f"[{section}.{name}]" if is_table else f"[{section}] {name}"
        else:
            yield f"[[{name}]]"


class Reloading:
    """When a process is to reload, from where, and what came of it."""

    def __init__(self, asked: threading.Event, read: Callable[[], Config]) -> None:
        """`read` gives the configuration as its file says it now, and raises ConfigError."""
        self.asked, self._read = asked, read
        self._details: dict[str, Any] = {}

    def __call__(self, old: Config, take: Callable[[Config], str]) -> Config:
        """The configuration from now on: with what `take` made use of, and says in words; else `old`.

        Whatever `take` raises, nothing may have changed.
        """
        self.asked.clear()
        new, taken, error = old, "", ""
        needs_restart: tuple[str, ...] = ()
        try:
            new, needs_restart = reloaded(old, self._read())
            taken = take(new)
        except Exception as failure:  # noqa: BLE001  the edge: what is in service stays, whatever the new one is
            new, error = old, safe_message(failure)
            log.get().error("reload_failed", error=error)
        else:
            log.get().info("reloaded", reason=taken)
        if needs_restart:
            log.get().warning("needs_a_restart", where=", ".join(needs_restart))
        details = {"at": utc_now().isoformat(), "error": error, "taken": taken, "needs_restart": list(needs_restart)}
        self._details = {"reload": details}
        return new

    def as_details(self) -> dict[str, Any]:
        """For the heartbeat: of the last reload, nothing before the first."""
        return self._details


def never() -> Reloading:
    """Of a process that nobody asks."""

    def read() -> Config:
        raise ConfigError("this process has no configuration to read again")

    return Reloading(threading.Event(), read)
