"""What errors of the system and of databases say to an administrator."""

import errno
import socket
import sqlite3
from pathlib import Path

import pytest

from storage import messages
from storage.database.engine import open_database
from storage.errors import DatabaseAway, DatabaseUnusable
from tests.support.running import free_port

SECRET = "hunter2"


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


def test_no_server_and_an_unresolvable_server_are_away_and_told_apart() -> None:
    pytest.importorskip("psycopg")
    kind, said = said_of(f"postgresql+psycopg://u:{SECRET}@127.0.0.1:{free_port()}/x")
    assert (kind, "no server listens there; start the server" in said) == (DatabaseAway, True)
    kind, said = said_of(f"postgresql+psycopg://u:{SECRET}@no.such.host.invalid/x")
    assert (kind, "the host name cannot be resolved" in said) == (DatabaseAway, True)


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
