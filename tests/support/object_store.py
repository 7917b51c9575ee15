"""An S3 server on loopback (moto) with a bucket, a TCP proxy before it that spoils what passes, and hosts that use both."""

import logging
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

import obstore
import pytest
from moto import settings
from moto.server import ThreadedMotoServer
from obstore.store import S3Store

from node.config.files import files_of
from node.config.sections import Config
from node.workflow.context import Context
from node.workflow.uploads import Uploader
from storage.files.instances import Files
from storage.store import Store
from tests.support.builders import FakeClock
from tests.support.running import free_port

BUCKET = "willis"


class ObjectStore:
    """The server; what it has outlives `stop`.  `proxy` is the way to it that can be spoiled."""

    def __init__(self) -> None:
        self.port = free_port()
        self._server: ThreadedMotoServer | None = None
        self.start()
        self.proxy = FaultyProxy(self.port)

    def start(self) -> None:
        """It answers."""
        self._server = ThreadedMotoServer("127.0.0.1", self.port, verbose=False)
        self._server.start()

    def stop(self) -> None:
        """Nothing answers there."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def begin_anew(self) -> None:
        """It runs, its bucket is empty, and nothing is spoiled on the way."""
        if self._server is None:
            self.start()
        self._ask("POST", "moto-api/reset")
        self._ask("PUT", BUCKET)
        self.proxy.spoil = None

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """It knows no access key."""
        checked_from = settings.INITIAL_NO_AUTH_ACTION_COUNT
        settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
        try:
            yield
        finally:
            settings.INITIAL_NO_AUTH_ACTION_COUNT = checked_from

    def remove_bucket(self) -> None:
        """The bucket is gone with all that it held."""
        self._ask("POST", "moto-api/reset")

    def _ask(self, method: str, path: str) -> None:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{path}", method=method)
        urllib.request.urlopen(request, timeout=30).close()

    def object(self, path: str) -> bytes | None:
        """What it has of the file; None where it has nothing."""
        try:
            return bytes(obstore.get(self._client(), path).bytes())
        except FileNotFoundError:
            return None

    def plant(self, path: str, content: bytes) -> None:
        """It has this as the file, whatever that should be."""
        obstore.put(self._client(), path, content)

    def _client(self) -> S3Store:
        endpoint = f"http://127.0.0.1:{self.port}"
        return S3Store(BUCKET, prefix="site-a", endpoint=endpoint, client_options={"allow_http": True})


@dataclass(frozen=True)
class Spoil:
    """So many bytes pass of what is asked and of what is answered (None: all), then the connection is cut."""

    asked: int | None = None
    answered: int | None = None


class FaultyProxy:
    """Passes bytes to a port of loopback, as far as `spoil` lets it."""

    def __init__(self, port: int) -> None:
        self.spoil: Spoil | None = None
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
                except OSError:
                    caller.close()
                    continue
                spoil = self.spoil or Spoil()
                for source, sink, most in ((caller, server, spoil.asked), (server, caller, spoil.answered)):
                    threading.Thread(target=_pass_on, args=(source, sink, most), daemon=True).start()

    def close(self) -> None:
        """Nobody listens there any longer."""
        self._listener.close()


def _pass_on(source: socket.socket, sink: socket.socket, most: int | None) -> None:
    passed = 0
    with suppress(OSError):
        while data := source.recv(65_536):
            if most is not None:
                data = data[: most - passed]
            sink.sendall(data)
            passed += len(data)
            if passed == most:
                break
    for each in (source, sink):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()


@dataclass
class Host:
    """A node's storage folder, and its view of the database that hosts share."""

    config: Config
    files: Files
    store: Store
    clock: FakeClock

    def __post_init__(self) -> None:
        self.context = Context(self.config, self.store, self.files, lambda: None, self.clock, Random(0))
        self.uploader = Uploader(self.context)

    def upload(self) -> int:
        """How many files one round brought to the object store."""
        return self.uploader.run()


HostFactory = Callable[..., Host]


@contextmanager
def running_object_store() -> Iterator[ObjectStore]:
    """One with an empty bucket, which is gone afterwards.  It writes no line for each request."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ObjectStore()
    try:
        server.begin_anew()
        yield server
    finally:
        server.proxy.close()
        server.stop()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[ObjectStore]:
    """One for all tests: it takes a second to start."""
    with running_object_store() as server:
        yield server


@pytest.fixture
def s3(s3_server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """An empty bucket, and credentials in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "willis")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    s3_server.begin_anew()
    return s3_server


@pytest.fixture
def host(tmp_path: Path, sqlite_url: str, s3: ObjectStore, clock: FakeClock) -> Iterator[HostFactory]:
    """Makes hosts, each with a folder of its own, over the test's one SQLite database and one bucket."""
    yield from hosts_over(tmp_path, sqlite_url, s3, clock)


@pytest.fixture
def host_on_either(tmp_path: Path, database_url: str, s3: ObjectStore, clock: FakeClock) -> Iterator[HostFactory]:
    """The same; the test runs once on each kind of database."""
    yield from hosts_over(tmp_path, database_url, s3, clock)


def hosts_over(tmp_path: Path, database_url: str, s3: ObjectStore, clock: FakeClock) -> Iterator[HostFactory]:
    stores: list[Store] = []

    def make(name: str = "a", **storage: object) -> Host:
        config = Config.model_validate(
            {
                "node": {"network_timeout_seconds": 3},
                "storage": {
                    "directory": tmp_path / name,
                    "database_url": database_url,
                    "objects": f"s3://{BUCKET}/site-a",
                    "objects_endpoint": f"http://127.0.0.1:{s3.proxy.port}",
                    **storage,
                },
            }
        )
        files = files_of(config)
        stores.append(Store.open(database_url, files.folder))
        return Host(config, files, stores[-1], clock)

    yield make
    for store in stores:
        store.close()
