"""A small HTTP server on loopback that answers what a test wants: for what no real PACS does on demand."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from node.config.peer import Peer


@dataclass(frozen=True)
class Asked:
    """A request that came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Said:
    """An answer; `length` is what Content-Length claims, if that is not so."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None

    @classmethod
    def of(cls, value: Any, status: int = 200) -> "Said":
        """DICOM JSON."""
        return cls(status, json.dumps(value).encode(), {"Content-Type": "application/dicom+json"})


class WebServer:
    """Answers each request with what `answer` makes of it."""

    def __init__(self, answer: Callable[[Asked], Said], context: ssl.SSLContext | None = None) -> None:
        """With a `context` over TLS."""
        self.asked: list[Asked] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked = Asked(self.command, self.path, dict(self.headers), body)
                outer.asked.append(asked)
                reply = answer(asked)
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body) if reply.length is None else reply.length))
                self.end_headers()
                self.wfile.write(reply.body)
                self.close_connection = reply.length is not None

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *_: Any) -> None:
                """A client that went away is no news."""

        self._server = Server(("127.0.0.1", 0), Handler)
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        scheme = "https" if context else "http"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_address[1]}/dicom-web"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def peer(self, **changes: Any) -> Peer:
        """[peers.PACS] that is reached here."""
        return Peer.model_validate({"ae_title": "PACS", "url": self.url} | changes)

    def close(self) -> None:
        """Nothing listens any longer."""
        self._server.shutdown()
        self._server.server_close()


ServerFactory = Callable[..., WebServer]


@pytest.fixture
def web() -> Iterator[ServerFactory]:
    """Starts servers; they are gone after the test."""
    started: list[WebServer] = []

    def start(answer: Callable[[Asked], Said] | Said, context: ssl.SSLContext | None = None) -> WebServer:
        started.append(WebServer(answer if callable(answer) else lambda _: answer, context))
        return started[-1]

    yield start
    for server in started:
        server.close()
