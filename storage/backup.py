"""A copy of database and files that belongs together, taken beside a working node, and put back into an empty folder.

The database is copied first, as of one moment, and then every file that it names: files never change once they have a
name, so whatever the copy of the database names is there, or retention has removed it since.  The manifest names both and
is written last: until then the backup before it stands.  Another backup into the same folder copies only what is new, and
removes what the database has not named for `KEPT_DAYS`: it would fill the disk, and hold what retention was to end.
"""

import hashlib
import json
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from storage.database import revision
from storage.errors import Damaged, StorageError
from storage.files.content import content_sha256
from storage.files.folder_flushes import flush_folder
from storage.files.instances import FETCHED, FOLDER_NAME
from storage.messages import of_system
from storage.records import StoredFile

KEPT_DAYS = 30
MANIFEST, FILES = "manifest.json", "files"
_SCHEME = "sqlite:///"
_OF_SQLITE = ("", "-wal", "-shm", "-journal")
"""A log that a database before has left would be replayed over what is put back."""
_CHUNK_BYTES = 1 << 20
_NAMED = "SELECT path, sha256, size_bytes FROM {table}"
_TABLES = ("instance", "report", "report_object")


class NoBackup(StorageError):
    """It cannot be backed up, or put back; the message says why and what to do."""


@dataclass(frozen=True)
class BackedUp:
    """How many files the backup has, how many of them are new, how many went by retention meanwhile, and how many from it.

    `missing`: those that the node should have and has not, relative to its folder.
    """

    files: int
    copied: int
    removed_meanwhile: int
    removed: int
    missing: tuple[str, ...]


def back_up(
    url: str, root: Path, to: Path, now: datetime, find: Callable[[StoredFile], Path] | None = None
) -> BackedUp:
    """`to` holds all that the database at `url` and the files under `root` are now.  Raises NoBackup and OSError.

    `find`: where a file can be read, if that need not be under `root` (`Files.here`); what it raises is raised.
    """
    source = sqlite_path(url)
    if not source.exists():
        raise NoBackup(f"there is no database {source}: nothing to back up")
    to.mkdir(0o700, parents=True, exist_ok=True)
    before, identity = _before(to), _identity(source)
    if before.get("database_identity", identity) != identity:
        raise NoBackup(
            f"{to} has the backup of another database than {source}: after a loss `willis restore` puts that back; else name "
            "another folder"
        )
    known: Mapping[str, str] = before.get("files", {})
    digest = _copy_database(source, to)
    hashes: dict[str, str] = {}
    absent, copied = [], 0
    for file in _named(_database(to, digest)):
        path, there = file.path, to / FILES / file.path
        if path in known and there.exists() and there.stat().st_size == file.size_bytes:
            hashes[path] = known[path]
            continue
        try:
            fetched = root / FETCHED / path if find and not (root / FETCHED / path).exists() else None
            digest_of_copy = _copy(find(file) if find else root / path, there)
            if fetched is not None:  # for the backup alone: all at once they might fill the disk
                fetched.unlink(missing_ok=True)
            with there.open("rb") as stream:
                if content_sha256(path, stream) != file.sha256:
                    raise Damaged(path)
            hashes[path] = digest_of_copy
            copied += 1
        except (FileNotFoundError, Damaged):
            absent.append(path)
    if (root / FOLDER_NAME).exists():  # by which the database knows the folder, also the one that it is put back into
        hashes[FOLDER_NAME] = _copy(root / FOLDER_NAME, to / FILES / FOLDER_NAME)
    missing = [path for path in absent if _is_named(source, path)]
    unnamed = _unnamed_since(to, hashes.keys() | set(missing), before.get("unnamed_since", {}), now)
    old = [path for path, since in unnamed.items() if now - datetime.fromisoformat(since) > timedelta(days=KEPT_DAYS)]
    kept = {path: since for path, since in unnamed.items() if path not in old}
    manifest = {"made_at": now.isoformat(), "database": digest, "database_identity": identity}
    _write_manifest(to, manifest | {"files": hashes, "unnamed_since": kept})
    for older in set(to.glob("willis-*.db")) - {_database(to, digest)}:
        older.unlink()
    for path in old:
        (to / FILES / path).unlink()
    return BackedUp(len(hashes), copied, len(absent) - len(missing), len(old), tuple(missing))


def _unnamed_since(to: Path, named: Set[str], before: Mapping[str, str], now: datetime) -> dict[str, str]:
    """The files of a backup that its database does not name any longer, each with since when."""
    there = {str(path.relative_to(to / FILES)) for path in (to / FILES).rglob("*") if path.is_file()}
    return {path: before.get(path, now.isoformat()) for path in sorted(there - named)}


def _identity(source: Path) -> int:
    """The number that a database and its copies have had since its first backup."""
    with closing(sqlite3.connect(source, timeout=30, isolation_level=None)) as connection:
        [(number,)] = connection.execute("PRAGMA user_version")
        if not number:
            number = 1 + secrets.randbelow(2**31 - 1)
            connection.execute(f"PRAGMA user_version = {number}")
        return int(number)


def restore(backup: Path, url: str, root: Path) -> int:
    """Database and files are those of the backup; returns how many files.

    Every file of the backup is compared with its SHA-256 before the first is put back.  Raises NoBackup, which names each
    that is not as it was, and OSError; then no database was made.
    """
    target = sqlite_path(url)
    if there := [path for suffix in _OF_SQLITE if (path := target.with_name(target.name + suffix)).exists()]:
        raise NoBackup(f"{there[0]} is there already: move it and the folder away, or name another [storage] directory")
    manifest = _read_manifest(backup)
    database = _database(backup, manifest["database"])
    if _hash(database) != manifest["database"]:
        raise NoBackup(f"{database} is not what was backed up; take another backup")
    with closing(sqlite3.connect(database)) as connection:
        [(found,)] = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    if found not in revision.all_known():
        raise NoBackup(f"the backup was made by a later version of Willis (tables {found}); install that version")
    if wrong := [line for path, digest in manifest["files"].items() if (line := _what_is_wrong(backup, path, digest))]:
        raise NoBackup("\n".join((*wrong, "nothing was put back; take another backup")))
    for path in manifest["files"]:
        _copy(backup / FILES / path, root / path)
    _copy(database, target)
    return len(manifest["files"])


def _what_is_wrong(backup: Path, path: str, digest: str) -> str:
    """One line on a file of the backup, "" where it is as it was backed up."""
    copy = backup / FILES / path
    try:
        return "" if _hash(copy) == digest else f"{copy} is not what was backed up"
    except NoBackup:
        return f"{copy} is gone"
    except OSError as error:
        return f"{copy} cannot be read: {of_system(error)}"


def sqlite_path(url: str) -> Path:
    """Where the database lies.  Raises NoBackup for one that is no file."""
    if not url.startswith(_SCHEME) or "?" in url:
        raise NoBackup(
            "only an SQLite database is backed up by Willis: use pg_dump, and copy the folder of [storage] directory after it"
        )
    return Path(url.removeprefix(_SCHEME))


def _database(backup: Path, digest: str) -> Path:
    """Named by its SHA-256, so that the one before it stands until the manifest names another."""
    return backup / f"willis-{digest[:16]}.db"


def copy_sqlite(source: Path, to: Path) -> None:
    """`to` is the database as of one moment, also after power loss; writers go on meanwhile.  Raises sqlite3.Error.

    It has its name once it is whole: what a copy that was broken off has left is named otherwise, and written over.
    """
    new = to.with_name(f"{to.name}.new")
    for suffix in _OF_SQLITE:
        new.with_name(new.name + suffix).unlink(missing_ok=True)
    with closing(sqlite3.connect(source, timeout=30)) as live, closing(sqlite3.connect(new)) as copy:
        live.backup(copy)  # all pages in one step: one read transaction
        copy.execute("PRAGMA journal_mode = DELETE")
    flush_folder(new)
    new.replace(to)
    flush_folder(to.parent)


def _copy_database(source: Path, to: Path) -> str:
    """`to` has the database; returns its SHA-256."""
    taken = to / "willis.copy"
    copy_sqlite(source, taken)
    digest = _hash(taken)
    taken.replace(_database(to, digest))
    flush_folder(to)
    return digest


def _named(database: Path) -> Iterator[StoredFile]:
    with closing(sqlite3.connect(database)) as connection:
        for table in _TABLES:
            yield from (StoredFile(*row) for row in connection.execute(_NAMED.format(table=table)))


def _is_named(database: Path, path: str) -> bool:
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        return any(
            connection.execute(f"SELECT 1 FROM {table} WHERE path = ?", (path,)).fetchone()  # noqa: S608
            for table in _TABLES
        )


def _copy(source: Path, to: Path) -> str:
    """`to` has the bytes of `source`, also after power loss; returns their SHA-256."""
    digest = hashlib.sha256()
    with source.open("rb") as reading:
        to.parent.mkdir(parents=True, exist_ok=True)
        new = to.with_name(f"{to.name}.new")
        with new.open("wb") as writing:
            while chunk := reading.read(_CHUNK_BYTES):
                digest.update(chunk)
                writing.write(chunk)
            writing.flush()
            os.fsync(writing.fileno())
    new.replace(to)
    flush_folder(to.parent)
    return digest.hexdigest()


def _hash(path: Path) -> str:
    try:
        with path.open("rb") as reading:
            return hashlib.file_digest(reading, "sha256").hexdigest()
    except FileNotFoundError:
        raise NoBackup(f"{path} is not there: that is no backup, or part of one") from None


def _before(backup: Path) -> Mapping[str, Any]:
    """The manifest of the backup before, an empty one where it was not finished."""
    try:
        return _read_manifest(backup)
    except NoBackup:
        return {}


def _read_manifest(backup: Path) -> Mapping[str, Any]:
    path = backup / MANIFEST
    try:
        found: Mapping[str, Any] = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise NoBackup(f"{path} is not there: that is no backup, or one that was not finished") from None
    except ValueError:
        raise NoBackup(f"{path} is damaged; take another backup") from None
    return found


def _write_manifest(to: Path, values: Mapping[str, object]) -> None:
    new = to / f"{MANIFEST}.new"
    new.write_text(json.dumps(values, indent=0) + "\n", "utf-8")
    flush_folder(new)
    new.replace(to / MANIFEST)
    flush_folder(to)
