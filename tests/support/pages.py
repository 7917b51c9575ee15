"""The pages, served over a real socket from a thread, and people who sign in."""

import re
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from argon2 import PasswordHasher

from node.audit.trail import open_trail
from node.config.sections import Config
from node.runtime.clock import utc_now
from node.web.app import make_app
from node.web.board import Board
from node.web.context import Context
from node.web.images import Images
from node.web.passwords import Passwords
from node.web.sign_in import FirstStart, Tries
from storage.files.instances import Files
from storage.queries.accounts import Role
from storage.store import Store
from tests.support.running import free_port, wait_until

PASSWORD = "correct horse"
_QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
_USER_ID, _CHANGED = re.compile(r'UserID="([^"]*)"'), re.compile(r'ParticipantObjectID="([^"]*)"')
_DONE = re.compile(r'type="Alert Description" value="([^"]*)"')
_KEY = re.compile(r'name="form_key" value="([0-9a-f]{64})"')


def web_context(store: Store, files: Files, folder: Path, clock: Any = utc_now, **settings: Any) -> Context:
    """All that the pages work with, passwords hashed quickly; `settings` are those of [web]."""
    config = Config.model_validate({"storage": {"directory": folder}, "web": {"port": free_port(), **settings}})
    board, images = Board(store.triage, store.changes), Images(store.settling, files)
    passwords = Passwords(_QUICK)
    return Context(config, store, files, open_trail(config), clock, passwords, Tries(1000), FirstStart(), board, images)


@dataclass
class Served:
    """The pages on a socket."""

    context: Context
    _server: uvicorn.Server | None = None
    _thread: threading.Thread | None = None
    clients: list[httpx.Client] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.context.config.web.address

    def start(self) -> None:
        """They can be asked for."""
        server = uvicorn.Server(
            uvicorn.Config(
                make_app(self.context, lambda: server.should_exit),
                host="127.0.0.1",
                port=self.context.config.web.port,
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=1,
            )
        )
        self._server, self._thread = server, threading.Thread(target=server.run, daemon=True)
        self._thread.start()
        wait_until(lambda: server.started, 20, "the pages are served")

    def stop(self) -> None:
        """Nobody listens."""
        assert self._server is not None and self._thread is not None
        self._server.should_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive()

    def account(self, name: str, role: Role = Role.READER) -> str:
        """An account of this name is there, with `PASSWORD`."""
        hashed = self.context.passwords.hashed(PASSWORD)
        self.context.store.accounts.add(name, role, hashed, self.context.clock())
        return name

    def client(self) -> httpx.Client:
        """A browser without scripts that nobody has signed in with."""
        without_tls = httpx.Client(base_url=self.url, follow_redirects=True, timeout=20, verify=False)  # no CAs to load
        self.clients.append(without_tls)
        return self.clients[-1]

    def signed_in(self, name: str, role: Role = Role.READER) -> httpx.Client:
        """The same, with the new account signed in."""
        client = self.client()
        answer = post(client, "/sign-in", "/sign-in", name=self.account(name, role), password=PASSWORD)
        assert answer.status_code == 200, answer.text
        assert "Sign out" in answer.text
        return client


@contextmanager
def serving(context: Context) -> Iterator[Served]:
    """The pages are served within."""
    served = Served(context)
    served.start()
    try:
        yield served
    finally:
        for client in served.clients:
            client.close()
        served.stop()
        context.trail.close()


def form_key_of(page: httpx.Response) -> str:
    """What the page's forms carry."""
    found = _KEY.search(page.text)
    assert found is not None, page.text
    return found[1]


def post(client: httpx.Client, page: str, address: str, **values: Any) -> httpx.Response:
    """The answer to a form of the page."""
    return client.post(address, data={"form_key": form_key_of(client.get(page)), **values})


def account_changes(served: Served) -> list[tuple[str, str, str]]:
    """By whom, which account and what was done to it, as the audit trail has it, which is closed."""
    served.context.trail.close()
    trail = (served.context.config.storage.directory / "audit.log").read_text("utf-8")
    lines = [line for line in trail.splitlines() if "110137" in line]
    return [
        (_USER_ID.findall(line)[0], _CHANGED.findall(line)[0], b64decode(_DONE.findall(line)[0]).decode())
        for line in lines
    ]
