"""What errors of the system and of databases say to an administrator."""

import errno
import importlib
import importlib.util
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

import pytest

from storage import messages
from storage.database.engine import open_database
from storage.errors import DatabaseAway, DatabaseUnusable
from tests.support.absent import absent
from tests.support.running import free_port

SECRET = "hunter2"


@pytest.fixture
def psycopg() -> ModuleType:
    """The driver of PostgreSQL."""
    if importlib.util.find_spec("psycopg") is None:
        absent("psycopg is not installed: pip install --constraint constraints.txt '.[postgresql]'")
    return importlib.import_module("psycopg")


def said_of(url: str) -> tuple[type[Exception], str]:
    """What opening the database says."""
    with pytest.raises(DatabaseUnusable) as raised:
        open_database(url)
    assert SECRET not in str(raised.value)
    return raised.type, str(raised.value)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EMFILE, errno.ECONNREFUSED])
def test_an_error_of_the_system_says_cause_and_remedy(number: int) -> None:
    said = messages.of_system(OSError(number, "text of the library", "/path/from/the/wire"))
    assert ";" in said or ":" in said
    assert "wire" not in said


def test_an_unknown_error_of_the_system_keeps_the_systems_own_words() -> None:
    assert messages.of_system(OSError(errno.EXDEV, "Invalid cross-device link")) == "Invalid cross-device link"
    assert messages.of_system(OSError()) == "OSError"


def test_a_name_that_cannot_be_resolved_says_so() -> None:
    with pytest.raises(OSError) as raised:
        socket.getaddrinfo("no.such.host.invalid", 104)
    assert "cannot be resolved" in messages.of_system(raised.value)


def test_what_is_no_database_error_is_none() -> None:
    assert messages.of_database(ValueError("x")) is None
    assert not messages.is_away(ValueError("x"))


@pytest.mark.usefixtures("psycopg")
def test_no_server_and_an_unresolvable_server_are_away_and_told_apart() -> None:
    kind, said = said_of(f"postgresql+psycopg://u:{SECRET}@127.0.0.1:{free_port()}/x")
    assert (kind, "no server listens there; start the server" in said) == (DatabaseAway, True)
    kind, said = said_of(f"postgresql+psycopg://u:{SECRET}@no.such.host.invalid/x")
    assert (kind, "the host name cannot be resolved" in said) == (DatabaseAway, True)


@contextmanager
def server_that_answers(answer: bytes) -> Iterator[str]:
    """Its address; it closes each connection after its answer to what comes first."""

    def run() -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                with connection, suppress(OSError):
                    connection.recv(1024)
                    connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=run)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)  # else it goes on to accept
    thread.join()


def fatal(code: bytes, text: str) -> bytes:
    """PostgreSQL's ErrorResponse to who wants a session."""
    fields = b"SFATAL\0VFATAL\0C" + code + b"\0M" + text.encode() + b"\0\0"
    return b"E" + (len(fields) + 4).to_bytes(4, "big") + fields


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (b"", "the server closed the connection, as when it crashes"),
        (fatal(b"57P03", "the database system is in recovery mode"), "the server is not ready yet"),
        (fatal(b"57P03", "the database system is not yet accepting connections"), "the server is not ready yet"),
        (
            fatal(b"57P03", "das Datenbanksystem startet"),
            "it says something that is not known here; try `psql` with the same URL, or look at the server's log",
        ),
    ],
    ids=["it closes", "it recovers", "not yet", "in German"],
)
@pytest.mark.usefixtures("psycopg")
def test_a_server_that_has_crashed_and_one_that_speaks_another_language_are_away(answer: bytes, cause: str) -> None:

    with server_that_answers(answer) as address:
        kind, said = said_of(f"postgresql+psycopg://u:{SECRET}@{address}/x?sslmode=disable")
    assert (kind, cause in said) == (DatabaseAway, True)


@pytest.mark.parametrize(
    ("option", "cause"),
    [
        ("sslmode=require", "what listens there is no PostgreSQL server"),
        ("sslmode=bogus", "an option of [storage] database_url cannot be used"),
        ("service=nowhere", "an option of [storage] database_url cannot be used"),
        ("hostaddr=here", "an option of [storage] database_url cannot be used"),
        ("connect_timeout=soon", "an option of [storage] database_url cannot be used"),
        ("sslmode=require&sslrootcert=system", "an option of [storage] database_url cannot be used"),
        ("sslmode=require&sslcert=/dev/null", "the certificate or key that we show cannot be used"),
        ("sslmode=verify-full&sslrootcert=/nowhere", "the server cannot prove who it is; correct sslrootcert"),
        ("sslmode=verify-full&sslrootcert=/dev/null", "the server cannot prove who it is; correct sslrootcert"),
    ],
)
@pytest.mark.usefixtures("psycopg")
def test_what_is_wrong_with_the_url_is_not_taken_for_a_server_that_is_away(option: str, cause: str) -> None:
    with server_that_answers(b"X" if option == "sslmode=require" else b"S") as address:
        kind, said = said_of(f"postgresql+psycopg://u:{SECRET}@{address}/x?{option}")
    assert (kind, cause in said) == (DatabaseUnusable, True)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ('FATAL:  certificate authentication failed for user "u"', "the server does not let this user in"),
        ('FATAL:  role "u" is not permitted to log in', "the server does not let this user in"),
        ('FATAL:  permission denied for database "d"', "the server does not let this user in"),
        ('FATAL:  pg_hba.conf rejects connection for host "h", user "u"', "the server lets nobody in from here"),
        ('FATAL:  database "d" is not currently accepting connections', "the server lets nobody into that database"),
        ("SSL error: tlsv1 alert unknown ca", "the certificate or key that we show cannot be used"),
        ('private key file "k" has group or world access', "the certificate or key that we show cannot be used"),
        ("SSL error: certificate verify failed", "the server cannot prove who it is"),
        ('server certificate for "a" does not match host name "b"', "the server cannot prove who it is"),
        ("server does not support SSL, but SSL was required", "the server speaks no TLS"),
    ],
)
def test_what_a_person_has_to_mend_is_away_where_one_of_several_servers_is(
    psycopg: ModuleType, text: str, cause: str
) -> None:
    here = f'connection failed: connection to server at "10.0.0.2", port 5432 failed: {text}'
    for_good = psycopg.OperationalError(here)
    assert (messages.is_away(for_good), cause in str(messages.of_database(for_good))) == (False, True)
    there = 'connection to server at "10.0.0.1", port 5432 failed: Connection refused'
    one_is_away = psycopg.OperationalError(f"connection failed: {there}\n{here}")
    assert messages.is_away(one_is_away)
    assert "no server listens there" in str(messages.of_database(one_is_away))


@pytest.mark.parametrize(
    "text",
    [
        "Connection timed out",
        "could not connect: No route to host",
        "SSL SYSCALL error: EOF detected",
        "Connection reset by peer",
    ],
)
def test_what_happens_to_a_connection_may_come_back(psycopg: ModuleType, text: str) -> None:
    assert messages.is_away(psycopg.OperationalError(f'connection to server at "10.0.0.2", port 5432 failed: {text}'))


def test_an_error_of_sqlite_without_a_code_is_none_of_a_server_that_is_away() -> None:
    connection = sqlite3.connect(":memory:")
    with pytest.raises(sqlite3.OperationalError) as raised:
        connection.execute("SELECT CAST(x'ff' AS TEXT)").fetchone()
    connection.close()
    assert not messages.is_away(raised.value)


@pytest.mark.postgresql
def test_no_database_and_no_user_and_a_wrong_password_are_told_apart(postgresql_server: object) -> None:
    url = postgresql_server.url("nowhere")  # type: ignore[attr-defined]
    kind, said = said_of(url)
    assert (kind, "no database of that name; make it (`createdb NAME`)" in said) == (DatabaseUnusable, True)
    kind, said = said_of(url.replace("postgres@", "nobody@"))
    assert (kind, "no user of that name; make it (`createuser NAME`)" in said) == (DatabaseUnusable, True)


@pytest.mark.postgresql
def test_a_wrong_password_says_so(postgresql_password_url: str) -> None:
    kind, said = said_of(postgresql_password_url.replace(":right@", f":{SECRET}@"))
    assert (kind, "wrong user or password; correct them" in said) == (DatabaseUnusable, True)
    open_database(postgresql_password_url).dispose()


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        (f"postgres://u:{SECRET}@h/d", "write postgresql+psycopg:// in place of postgres://"),
        (f"postgresql+nothing://u:{SECRET}@h/d", "write postgresql+psycopg:// and pip install 'willis[postgresql]'"),
        (f"oracel://u:{SECRET}@h/d", "write for example sqlite:////var/lib/willis/willis.db or postgresql+psycopg://"),
        ("nonsense", "write for example sqlite:///"),
    ],
)
def test_a_url_that_cannot_be_used_says_what_to_write(url: str, remedy: str) -> None:
    _, said = said_of(url)
    assert said.startswith("[storage] database_url = ")
    assert remedy in said


def test_a_locked_sqlite_database_is_away_and_a_damaged_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "locked.db"
    with sqlite3.connect(path) as holder:
        holder.execute("CREATE TABLE t (x)")
        holder.execute("BEGIN EXCLUSIVE")
        other = sqlite3.connect(path, timeout=0)
        with pytest.raises(sqlite3.OperationalError) as raised:
            other.execute("SELECT * FROM t")
        other.close()
    assert messages.is_away(raised.value)
    assert "another program has locked the database" in str(messages.of_database(raised.value))
    (tmp_path / "notes.txt").write_text("these are notes and no database " * 100)
    kind, said = said_of(f"sqlite:///{tmp_path / 'notes.txt'}")
    assert (kind, "the file is no SQLite database" in said) == (DatabaseUnusable, True)
    kind, said = said_of(f"sqlite:///{tmp_path / 'nowhere' / 'x.db'}")
    assert (kind, "check that the folder exists" in said) == (DatabaseUnusable, True)
