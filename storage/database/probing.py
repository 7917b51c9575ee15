"""Whether an SQLite database can be used now, found out without changing it: is its file one, and who holds its lock?

Those that have it open already notice neither: what they need of the file's beginning is in their memory, and whoever
waits for the lock says nothing meanwhile.
"""

import os
import sqlite3
from contextlib import suppress
from math import inf
from pathlib import Path

from storage import messages
from storage.errors import DatabaseLocked, DatabaseUnusable

PATIENCE_SECONDS = 2.0
"""A change of ours holds the lock for some milliseconds, the longest for less than a second."""
_SCHEME = "sqlite:///"
_WRITE_LOCK = 120
"""The byte of NAME-shm that whoever writes has locked (sqlite.org/walformat.html, 2.3.1)."""
_LOCKS = Path("/proc/locks")


def require_sqlite_file(url: str) -> None:
    """Raises DatabaseUnusable where the file at `url` is no SQLite database; says nothing of one that is not there.

    Looks at its first page alone, past what is still in the log beside it, and takes no lock.
    """
    path = _file_of(url)
    if path is None:
        return
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            connection.execute("PRAGMA schema_version")
        finally:
            connection.close()
    except sqlite3.Error as error:
        if _code(error) == sqlite3.SQLITE_NOTADB:  # any other may be what is written just now
            raise DatabaseUnusable(f"the database {url} cannot be opened: {messages.of_database(error)}") from None


def require_no_lock(url: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Raises DatabaseLocked where another holds the right to write the SQLite database at `url` for so long.

    Holds it for a moment itself: for when nobody seems to write.
    """
    path = _file_of(url)
    if path is None:
        return
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=seconds
        )
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        finally:
            connection.close()
    except sqlite3.Error as error:
        if _code(error) == sqlite3.SQLITE_BUSY:
            pid = _writer_of(path)
            who = _called(pid) if pid else "another program (`fuser` on the file finds it)"
            message = f"the database {url} takes no changes: it is locked by {who}; see what that does, and end it"
            raise DatabaseLocked(message, pid) from None


def _code(error: sqlite3.Error) -> int:
    """SQLite's result code, without what an extended code adds."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _file_of(url: str) -> Path | None:
    path = Path(url.removeprefix(_SCHEME))
    return path if url.startswith(_SCHEME) and "?" not in url and path.is_file() else None


def _writer_of(database: Path) -> int:
    """The process that has locked it for writing; 0 where that cannot be told, as from within another container."""
    try:
        inode = database.with_name(f"{database.name}-shm").stat().st_ino
        for words in (line.split() for line in _LOCKS.read_text(encoding="ascii").splitlines()):
            if words[1] == "POSIX" and words[3] == "WRITE" and int(words[5].rpartition(":")[2]) == inode:
                first, last = int(words[6]), inf if words[7] == "EOF" else int(words[7])
                if first <= _WRITE_LOCK <= last:
                    return max(0, int(words[4]))
    except (OSError, ValueError, IndexError):
        pass
    return 0


def _called(pid: int) -> str:
    """Without its name where that is hidden from us, as by systemd's ProtectProc of programs of other users."""
    with suppress(OSError):
        return (
            f"the program {Path(f'/proc/{pid}/comm').read_text(encoding='utf-8', errors='replace').strip()} (pid {pid})"
        )
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return f"a program that has just ended (pid {pid})"
    except PermissionError:
        pass
    return f"pid {pid}"
