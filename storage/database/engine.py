"""Opens the database: SQLite (WAL, flushed at every commit) or PostgreSQL, with the tables of this version."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError

from storage import messages
from storage.database import revision
from storage.errors import DatabaseAway, DatabaseUnusable

LOST_SERVER = {
    "connect_timeout": "10",
    "keepalives": "1",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
"""What libpq gets, unless the URL says otherwise (all in s, the last in ms).

A server that vanished without a word (its host lost power, a firewall forgot the connection) is given up after about
half a minute; the kernel alone would wait for hours.
"""
RECYCLED_SECONDS = 600
"""A connection is made anew after so long, and the one that was used last is used first: each of SQLite's keeps up to 2 MiB of
pages, and many that are used in turn would fill theirs over hours as the database grows.
"""
MIGRATION_LOCK_SECONDS = 30
"""So long a migration waits on PostgreSQL for a table that another program holds; everybody would wait behind it."""
_PASSWORD_OF_QUERY = re.compile(r"(?<=password=)[^&]*", re.IGNORECASE)
_LOCK_KEY = 0x57494C4C4953  # "WILLIS": one migration at a time on PostgreSQL


def open_database(url: str, may_migrate: bool = False) -> Engine:
    """An engine whose tables are those of this version: an empty database gets them, and with `may_migrate` an older one.

    `url` is an SQLAlchemy URL (`sqlite:////var/lib/willis/willis.db`, `postgresql+psycopg://user@host/name`).  Raises
    DatabaseUnusable, saying what to do.
    """
    engine = engine_of(url)
    with named(url):
        _with_tables(engine, make_safe(url), may_migrate)
    return engine


def engine_of(url: str) -> Engine:
    """An engine, not yet connected.  Raises DatabaseUnusable when there can be none for such a URL."""
    try:
        is_sqlite = url.startswith("sqlite")
        engine = create_engine(
            _with_timeouts(url), pool_pre_ping=not is_sqlite, pool_use_lifo=True, pool_recycle=RECYCLED_SECONDS
        )
    except (ArgumentError, ImportError, ValueError):
        raise DatabaseUnusable(f"[storage] database_url = {make_safe(url)!r}: {_no_url(url)}") from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    elif engine.dialect.name == "postgresql":
        event.listen(engine, "connect", _prepare_postgresql)
    return engine


@contextmanager
def named(url: str) -> Iterator[None]:
    """An error inside, of the database at `url`, becomes DatabaseUnusable with cause and remedy, or DatabaseAway where it may come
    back by itself.
    """
    try:
        yield
    except DatabaseError as error:
        kind = DatabaseAway if messages.is_away(error) else DatabaseUnusable
        raise kind(f"the database {make_safe(url)} cannot be opened: {messages.of_database(error)}") from None


def _no_url(url: str) -> str:
    """What is wrong with a URL of which no engine can be made, and what to write."""
    scheme = url.partition(":")[0]
    if scheme in ("postgres", "postgresql"):
        return f"write postgresql+psycopg:// in place of {scheme}:// (and pip install 'willis[postgresql]')"
    if scheme.startswith("postgresql+"):
        return f"{scheme} has no driver here; write postgresql+psycopg:// and pip install 'willis[postgresql]'"
    known = "sqlite:////var/lib/willis/willis.db or postgresql+psycopg://USER@HOST/NAME"
    return f"no database of that kind is known; write for example {known}"


def _with_timeouts(url: str) -> URL:
    """`url` with `LOST_SERVER` where it is PostgreSQL's and does not name them.  Raises ArgumentError or ValueError."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "postgresql":
        return parsed
    return parsed.update_query_dict({key: value for key, value in LOST_SERVER.items() if key not in parsed.query})


def make_safe(url: str) -> str:
    """`url` without its passwords, those of its query (`password=`, `sslpassword=`) among them, for messages."""
    try:
        shown = make_url(url).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):
        shown = url.split("@")[-1]
    return _PASSWORD_OF_QUERY.sub("***", shown)


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves, below
    connection.execute("PRAGMA busy_timeout = 30000")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _prepare_postgresql(connection: Any, _record: Any) -> None:
    """No statement of ours runs for so long that compiling it pays; with millions of rows PostgreSQL thinks so, for seconds."""
    connection.execute("SET jit = off")
    connection.commit()


def _begin_sqlite(connection: Connection) -> None:
    """A writer takes the write lock at once, so that it never fails half-way for having read first.

    The driver itself is told: SQLAlchemy takes ten times as long for it, in every transaction.
    """
    driver: Any = connection.connection.driver_connection
    begin = "BEGIN" if connection.get_execution_options().get("reads_only", False) else "BEGIN IMMEDIATE"
    try:
        driver.execute(begin)
    except sqlite3.Error as error:
        raise DBAPIError.instance(begin, None, error, sqlite3.Error, dialect=connection.dialect) from error


def _with_tables(engine: Engine, name: str, may_migrate: bool) -> None:
    """The tables are those of this version.  Raises DatabaseUnusable when another version made them."""
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK_KEY})")
        found = _found(connection)
        if found == revision.newest():
            return
        if found is not None and (wrong := revision.why_not(found, may_migrate)):
            raise DatabaseUnusable(f"the database {name} {wrong}") from None
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{MIGRATION_LOCK_SECONDS * 1000:.0f}ms'")
        _upgrade(connection)


def _found(connection: Connection) -> str | None:
    """The revision of the tables; None where there are none of ours."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.exec_driver_sql("SELECT MAX(version_num) FROM alembic_version").scalar()
    return found


def _upgrade(connection: Connection) -> None:
    from alembic import command  # only now: most starts find the tables as they should be
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(revision.MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
