"""Who is notified: a real SMTP server, a real MLLP listener, and a node that notifies them."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from hl7.mllp import start_hl7_server

from node.config.sections import Config
from node.workflow import notifications
from node.workflow.context import Context
from storage.database.running import NotificationRow
from storage.files.instances import Files
from storage.store import Store
from tests.support.builders import FakeClock, claimed, finish
from tests.support.running import free_port

PATIENT = ("Doe", "P-0001", "A-77", "20261123", "2.25")
"""What would name the patient of `positive`'s case."""
Make = Callable[..., Context]


@pytest.fixture
def made(sqlite_store: Store, files: Files, tmp_path: Path, clock: FakeClock) -> Make:
    """A node with these targets."""

    def make(*targets: dict[str, Any], store: Store = sqlite_store) -> Context:
        values = {"storage": {"directory": tmp_path}, "notifications": targets, "report": {"timezone": "UTC"}}
        return Context(Config.model_validate(values), store, files, lambda: None, clock)

    return make


class Mailbox:
    """An SMTP server on loopback that keeps what comes."""

    def __init__(self) -> None:
        self.mails: list[Any] = []
        self.refuses = False
        self._port = free_port()
        self._controller: Controller | None = None

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        if self.refuses:
            return "451 try again later"
        self.mails.append(message_from_bytes(envelope.content))
        return "250 OK"

    def start(self) -> str:
        self._controller = Controller(self, hostname="127.0.0.1", port=self._port)
        self._controller.start()
        return f"mailto://127.0.0.1:{self._port}/?from=willis@example.org&to=dr.a@example.org&mode=insecure"

    def stop(self) -> None:
        if self._controller is not None:
            self._controller.stop()
        self._controller = None

    def texts(self) -> list[str]:
        return [f"{mail['Subject']}\n" + "".join(_text(part) for part in mail.walk()) for mail in self.mails]


def _text(part: Any) -> str:
    return (part.get_payload(decode=True) or b"").decode()


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    made = Mailbox()
    yield made
    made.stop()


class Listener:
    """An MLLP listener in a thread; `code` is how it acknowledges."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.code, self.port = "AA", free_port()
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        threading.Thread(target=self._run, args=(started,), daemon=True).start()
        assert started.wait(10)

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(start_hl7_server(self._answer, "127.0.0.1", self.port, encoding="utf-8"))
        started.set()
        self._loop.run_forever()

    async def _answer(self, reader: Any, writer: Any) -> None:
        message = await reader.readmessage()
        self.messages.append(message)
        writer.writemessage(message.create_ack(self.code))
        await writer.drain()
        writer.close()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.stop()


def a_round(context: Context) -> int:
    """What the node's job does; returns how many were taken."""
    return notifications.tell(context)


def rows(context: Context) -> list[tuple[str, str, int]]:
    """(target, stage, attempts) of each notification."""
    with context.store.transactions.reading() as session:
        found = session.query(NotificationRow).order_by(NotificationRow.id)
        return [(row.target, row.stage, row.attempts) for row in found]


def error_of(context: Context) -> str:
    with context.store.transactions.reading() as session:
        return str(session.query(NotificationRow).one().last_error)


def positive(context: Context, clock: FakeClock, notify: bool = True, **options: Any) -> None:
    """A positive case with a report."""
    assert finish(context.store, clock, claimed(context.store, clock, **options), notify=notify)
