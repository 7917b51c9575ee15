"""Fixtures that many tests share: a clock, a files' root, and a store on either database."""

import itertools
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import structlog
from sqlalchemy import text

from storage.database.schema import Base
from storage.files.instances import Files
from storage.store import Store
from tests.support.builders import FakeClock
from tests.support.postgresql import Programs

BOTH_DATABASES = ("sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take a minute come first, so that two processes end with short ones, and together."""
    items.sort(key=lambda item: "unit" in item.path.parts and "training" not in item.path.parts)


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still until the test moves it."""
    return FakeClock()


@pytest.fixture
def logging_restored() -> Iterator[None]:
    """For a test that configures logging: the tests after it find it as it was."""
    names = (None, "pynetdicom", "pydicom", "apscheduler", "alembic", "sqlalchemy", "highdicom")
    levels = {name: logging.getLogger(name).level for name in names}
    handlers = list(logging.getLogger().handlers)
    yield
    structlog.reset_defaults()
    logging.captureWarnings(False)
    logging.getLogger().handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """The files of an installation in a folder of the test's own."""
    return Files(tmp_path / "files")


@pytest.fixture(params=BOTH_DATABASES)
def store(request: pytest.FixtureRequest) -> Store:
    """An empty store; the test runs once on SQLite and once on PostgreSQL."""
    opened: Store = request.getfixturevalue(f"{request.param}_store")
    return opened


@pytest.fixture
def sqlite_store(sqlite_url: str) -> Iterator[Store]:
    """An empty store on SQLite, for tests in which the database makes no difference."""
    opened = Store.open(sqlite_url)
    yield opened
    opened.close()


@pytest.fixture(params=BOTH_DATABASES)
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty, migrated database of the test's own; the test runs once on each kind."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def sqlite_url(tmp_path: Path, sqlite_template: Path) -> str:
    """The URL of an empty, migrated SQLite database of the test's own."""
    shutil.copy(sqlite_template, tmp_path / "willis.db")
    return f"sqlite:///{tmp_path / 'willis.db'}"


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite database to copy."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    Store.open(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def postgresql_store(postgresql_kept_store: Store) -> Store:
    """An empty store on PostgreSQL: always the same one, emptied, because a new database takes long."""
    tables = ", ".join(Base.metadata.tables)
    with postgresql_kept_store.transactions.writing() as session:
        session.execute(text(f"TRUNCATE {tables} RESTART IDENTITY"))
    return postgresql_kept_store


@pytest.fixture(scope="session")
def postgresql_kept_store(postgresql_server: "PostgreSQL") -> Iterator[Store]:
    """The store behind `postgresql_store`."""
    with postgresql_server.database(template="migrated") as url:
        opened = Store.open(url)
        yield opened
        opened.close()


@dataclass
class PostgreSQL:
    """A PostgreSQL server of the tests' own, which answers a commit before it has written it unless a database says otherwise."""

    programs: Programs
    settings: str = ""
    numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def folder(self) -> Path:
        """Of its socket."""
        return self.programs.folder

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def make(self) -> None:
        """It runs, and has nothing."""
        self.programs.make(self._data)
        self.start()

    def start(self) -> None:
        """It answers."""
        self.programs.start(self._data, f"-c synchronous_commit=off {self.settings}")

    def kill(self) -> None:
        """All that it ran was killed at once; after `start`, what was committed is there where the database commits synchronously."""
        self.programs.kill(self._data)

    def stop(self) -> None:
        """It does not run."""
        self.programs.stop(self._data)

    def url(self, database: str) -> str:
        """The SQLAlchemy URL of a database."""
        return f"postgresql+psycopg://postgres@/{database}?host={self.folder}"

    def run(self, statement: str) -> None:
        """The statement was executed, outside any transaction."""
        import psycopg

        with psycopg.connect(host=str(self.folder), user="postgres", dbname="postgres", autocommit=True) as connection:
            connection.execute(statement.encode())

    @contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """The URL of a new database, which is gone afterwards."""
        name = f"test_{next(self.numbers)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield self.url(name)
        finally:
            self.run(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgreSQL]:
    """A running server with a migrated template database; skips where its programs are absent (in CI: fails)."""
    with running_postgresql() as server:
        yield server


@contextmanager
def running_postgresql(settings: str = "") -> Iterator[PostgreSQL]:
    """The same for whoever is no test, with these settings too."""
    server = PostgreSQL(Programs(), settings)
    server.make()
    try:
        server.run("CREATE DATABASE migrated")
        Store.open(server.url("migrated")).close()
        yield server
    finally:
        server.stop()
        shutil.rmtree(server.folder, ignore_errors=True)


@pytest.fixture
def postgresql_url(postgresql_server: PostgreSQL) -> Iterator[str]:
    """The URL of an empty, migrated PostgreSQL database of the test's own.  Mark the test `postgresql`."""
    with postgresql_server.database(template="migrated") as url:
        yield url


@pytest.fixture
def postgresql_password_url(postgresql_server: PostgreSQL) -> Iterator[str]:
    """The URL of an empty database of a user `guarded`, whose password "right" the server asks for."""
    rules = postgresql_server.folder / "data" / "pg_hba.conf"
    before = rules.read_text()
    postgresql_server.run("CREATE ROLE guarded LOGIN PASSWORD 'right'")
    rules.write_text("local all guarded scram-sha-256\n" + before)
    postgresql_server.run("SELECT pg_reload_conf()")
    try:
        with postgresql_server.database() as url:
            name = url.split("@/")[1].split("?")[0]
            postgresql_server.run(f"ALTER DATABASE {name} OWNER TO guarded")
            yield url.replace("postgres@", "guarded:right@")
    finally:
        rules.write_text(before)
        postgresql_server.run("SELECT pg_reload_conf()")
        postgresql_server.run("DROP ROLE guarded")
