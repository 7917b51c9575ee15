"""What is wrong with an SQLite database that those who have it open do not notice: its file, and who has locked it."""

import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from storage.database import probing
from storage.database.probing import require_no_lock, require_sqlite_file
from storage.errors import DatabaseLocked, DatabaseUnusable
from storage.store import Store


def test_a_file_that_was_overwritten_is_named_while_it_can_still_be_read(sqlite_store: Store, sqlite_url: str) -> None:
    require_sqlite_file(sqlite_url)
    path = Path(sqlite_url.removeprefix("sqlite:///"))
    with path.open("r+b") as file:
        file.write(os.urandom(4096))
    with pytest.raises(
        DatabaseUnusable, match=r"cannot be opened: the file is no SQLite database; correct \[storage\]"
    ):
        require_sqlite_file(sqlite_url)


@pytest.mark.parametrize("url", ["sqlite:////nowhere/x.db", "postgresql+psycopg://a@127.0.0.1/x"])
def test_nothing_is_said_of_a_database_that_is_not_there_or_is_no_file(url: str) -> None:
    require_sqlite_file(url)
    require_no_lock(url)


def test_who_has_locked_a_database_is_named_after_some_patience(sqlite_store: Store, sqlite_url: str) -> None:
    path = sqlite_url.removeprefix("sqlite:///")
    program = f"""
import sqlite3
database = sqlite3.connect({path!r}, isolation_level=None)
database.execute("BEGIN IMMEDIATE")
input()
"""
    require_no_lock(sqlite_url)
    with subprocess.Popen([sys.executable, "-c", f"{program}"], stdin=subprocess.PIPE) as other:
        while not _is_locked(path):
            time.sleep(0.02)
        begun = time.monotonic()
        with pytest.raises(DatabaseLocked, match=rf"is locked by the program \S+ \(pid {other.pid}\); see") as raised:
            require_no_lock(sqlite_url, 0.3)
        assert raised.value.pid == other.pid
        assert time.monotonic() - begun > 0.2
        other.communicate(b"\n")
    require_no_lock(sqlite_url)


def test_a_program_whose_name_is_hidden_is_called_by_its_number_and_only_one_that_is_gone_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    assert probing._called(gone.pid) == f"a program that has just ended (pid {gone.pid})"
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError))  # ProtectProc
    assert probing._called(os.getpid()) == f"pid {os.getpid()}"


def test_a_change_that_takes_a_moment_is_waited_for(sqlite_store: Store, sqlite_url: str) -> None:
    with sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False) as ours:
        ours.execute("BEGIN IMMEDIATE")
        threading.Timer(0.3, lambda: ours.execute("ROLLBACK")).start()
        require_no_lock(sqlite_url)


def _is_locked(path: str) -> bool:
    with sqlite3.connect(path, isolation_level=None, timeout=0) as asking:
        try:
            asking.execute("BEGIN IMMEDIATE")
            asking.execute("ROLLBACK")
        except sqlite3.OperationalError:
            return True
    return False
