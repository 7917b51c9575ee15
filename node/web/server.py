"""The process that serves the pages: `willis web`, and as a child of `willis serve`."""

import signal
import threading
from typing import Any

import uvicorn

from node.audit.trail import open_trail
from node.config.files import files_of
from node.config.reloading import Reloading, never
from node.config.sections import Config
from node.net.certificates import held_until
from node.net.tls import hold_anew
from node.runtime import log
from node.runtime.clock import utc_now
from node.runtime.heartbeat import Heartbeat
from node.runtime.listener import Listener
from node.web.app import make_app
from node.web.board import Board
from node.web.context import Context
from node.web.images import Images
from node.web.listening import listen
from node.web.passwords import Passwords
from node.web.sign_in import FirstStart, Tries, new_token
from storage.store import Store

_LAST_SECONDS = 2


def serve_pages(config: Config, reloading: Reloading | None = None) -> None:
    """Serves until SIGTERM or SIGINT.  Raises Unavailable when the port is taken, and what opening the store raises."""
    listening, held = listen(config), _Held(config, reloading or never())
    files = files_of(config)
    store = Store.open(config.storage.url, files.folder)
    board = Board(store.triage, store.changes, lambda: listener.hears)
    listener = Listener(store.listening, lambda _heard: board.look(), lambda: board.is_watched)
    context = Context(
        config,
        store,
        files,
        open_trail(config),
        utc_now,
        Passwords(),
        Tries(),
        FirstStart("" if store.accounts.have_begun() else new_token()),
        board,
        Images(store.settling, files),
    )
    server = uvicorn.Server(
        uvicorn.Config(
            make_app(context, lambda: server.should_exit),
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="on",
            timeout_graceful_shutdown=_LAST_SECONDS,
        )
    )
    log.get().info("pages_served", host=config.web.host, port=config.web.port, remedy=config.web.address)
    if context.first_start.token:
        link = f"{config.web.address}/first?token={context.first_start.token}"
        log.get().warning("no_account_yet", remedy=f"open {link} once, or run `willis user add`")
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn has its own while it runs, and raises them again after
        signal.signal(number, lambda *_: setattr(server, "should_exit", True))
    heartbeat = Heartbeat(
        store.processes,
        "web",
        config.storage.directory,
        lambda: {"address": config.web.address, **held.as_details(), **context.trail.as_details()},
    )
    heartbeat.start()
    threading.Thread(target=held.reload_when_asked, args=(heartbeat,), name="reload", daemon=True).start()
    listener.start()
    try:
        server.run(sockets=[listening])
    finally:
        listener.stop()
        heartbeat.stop()
        context.trail.close()
        store.close()


class _Held:
    """The certificates with which this process calls others: its syslog server, by TLS."""

    def __init__(self, config: Config, reloading: Reloading) -> None:
        """Those that are in the files now."""
        self._config, self._reloading = config, reloading
        self._until = self._held_until(config)

    def as_details(self) -> dict[str, Any]:
        """For the heartbeat."""
        return {**self._until, **self._reloading.as_details()}

    def reload_when_asked(self, heartbeat: Heartbeat) -> None:
        """Never returns."""
        while self._reloading.asked.wait():
            self._config = self._reloading(self._config, self._take)
            heartbeat.beat()

    def _take(self, config: Config) -> str:
        """Raises ConfigError, changing nothing."""
        if config.node.tls is None:
            return ""
        until = self._held_until(config)
        hold_anew(config.node.tls)
        self._until = until
        return "certificates read again"

    @staticmethod
    def _held_until(config: Config) -> dict[str, str]:
        return held_until(config.node.tls if config.audit.syslog_host else None)
