"""Durable files.  What this module has returned from survives power loss.

Layout under the root: `instances/<2 hex of the series>/<series hash>/<instance hash>-<content hash>.dcm` and
`reports/<2 hex>/<report hash>-<content hash>.dcm`.  Names are hashes of UIDs, never UIDs from the wire; the content
hash in them means that no write can ever replace other bytes.  With an object store, `fetched/` holds copies of what was
received elsewhere or is no longer here: a cache, which loses what nobody has read for a day.
"""

import contextlib
import errno
import hashlib
import itertools
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from storage.errors import Damaged, StorageError, StorageFull
from storage.files.content import content_sha256
from storage.files.folder_flushes import FolderFlushes, flush_folder
from storage.files.objects import Objects
from storage.records import StoredFile

FETCHED, FOLDER_NAME = "fetched", "folder-name"
FETCHED_KEPT_SECONDS = 86_400.0
"""A copy that was fetched goes so long after it was last asked for."""
_FETCHED_AT_ONCE = 8
_LONGEST_WRITE_SECONDS = 86_400.0
MOST_FOLDERS_KNOWN = 4096
"""So many are remembered as durable; then all are forgotten, and flushed once more."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class InstanceWriter:
    """An instance on its way to disk, in a temporary of its own: made by `Files.begin_instance`.

    Its bytes are hashed as they are written, so that memory does not grow with them.  The order is `write`, `seal`,
    `publish`, `flush`; `abort` at any time.  `sweep_incoming` removes the temporary of a process that died.
    """

    def __init__(self, files: "Files", preamble: bytes) -> None:
        """The temporary exists and begins with `preamble`.  Raises StorageFull."""
        self._files = files
        self._temporary = files.new_temporary()
        self._digest = hashlib.sha256()
        self._folder = self._final = ""
        self._replaces = False
        self._size_bytes = len(preamble)
        self._descriptor = -1
        with _UndoneByAnError(self.abort):
            self._descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            _write_all(self._descriptor, preamble)

    def write(self, chunk: bytes | memoryview) -> None:
        """`chunk` follows what was written before.  Raises StorageFull; then nothing is left."""
        with _UndoneByAnError(self.abort):
            _write_all(self._descriptor, chunk)
        self._digest.update(chunk)
        self._size_bytes += len(chunk)

    def seal(self, series_uid: str, sop_uid: str) -> StoredFile:
        """The name and content that will be published: all that was written, which is all there will be."""
        digest = self._digest.hexdigest()
        folder = series_folder(series_uid)
        name = f"{folder}/{_hash(sop_uid)}-{digest[:16]}.dcm"
        # No `Path` here: to make one takes longer than the system call that it is for.
        self._folder, self._final = f"{self._files.root}/{folder}", f"{self._files.root}/{name}"
        return StoredFile(name, digest, self._size_bytes)

    def publish(self) -> None:
        """The sealed instance lies under its name, but power loss may still take it: `flush` comes next.

        A file that is there already is as durable as before, so it is replaced only by one that is durable.
        """
        if not self._final:
            raise StorageError("an instance is sealed before it is published")
        with _UndoneByAnError(self.abort):
            self._files.make_durable(self._folder)
            try:
                os.link(self._temporary, self._final)
            except OSError:  # the name is taken, or this file system has no links
                os.fsync(self._descriptor)
                self._replaces = Path(self._final).exists()
                self._temporary.rename(self._final)

    def flush(self) -> None:
        """The published instance survives power loss under its name.  Raises OSError; then it is not published."""
        if not self._final:
            raise StorageError("an instance is published before it is flushed")
        try:
            flushed = self._files.folders.flush(self._folder)
            os.fsync(self._descriptor)
            flushed()
        except BaseException:
            if not self._replaces and self._is_still_ours():
                Path(self._final).unlink(missing_ok=True)
            raise
        finally:
            self.abort()

    def _is_still_ours(self) -> bool:
        """Else it may be acknowledged: to whoever was there before, or sent the same bytes meanwhile."""
        try:
            return os.path.samestat(Path(self._final).stat(), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def abort(self) -> None:
        """The temporary is gone, and with it an instance that was not published.  Again: nothing happens."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._temporary.unlink(missing_ok=True)


class _UndoneByAnError:
    """An error inside is followed by `undo`; one that says that there is no space becomes StorageFull."""

    def __init__(self, undo: Callable[[], None]) -> None:
        self._undo = undo

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is not None:
            self._undo()
        if isinstance(error, OSError) and error.errno in _FULL:
            raise StorageFull("no space left for a file; free some or move [storage] directory") from None


@lru_cache(maxsize=256)
def series_folder(series_uid: str) -> str:
    """The folder of a series' instances, relative to the root."""
    series = _hash(series_uid)
    return f"instances/{series[:2]}/{series}"


class Files:
    """The files of one installation, under one root folder."""

    def __init__(self, root: Path, objects: Objects | None = None) -> None:
        """`root` is created.  `objects`: what else has files.  Raises StorageError when the folder cannot be written to."""
        self.root, self.objects = root, objects
        self.folders = FolderFlushes()
        self._durable: set[str] = set()
        self._lock = threading.Lock()
        self._writer = (socket.gethostname(), str(os.getpid()))
        self._incoming = root / "incoming"
        self._token, self._temporaries = secrets.token_hex(16), itertools.count()
        try:
            new = [folder for folder in (root, *root.parents) if not folder.exists()]
            root.mkdir(0o700, parents=True, exist_ok=True)  # patients' images: nobody else's, whatever the umask
            for name in ("instances", "reports", "incoming"):
                (root / name).mkdir(parents=True, exist_ok=True)
            for folder in (root, *(folder.parent for folder in new)):
                flush_folder(folder)
            probe = self.new_temporary()
            probe.touch()
            probe.unlink()
            self.folder = self._named() if objects else ""
            """What the database calls this folder, whichever host it is mounted on; "" without an object store."""
        except OSError as error:
            raise StorageError(
                f"cannot write to {root}: {error.strerror}; create it or set [storage] directory"
            ) from None

    def _named(self) -> str:
        """The folder's name, given to it once."""
        name, new = self.root / FOLDER_NAME, self.new_temporary()
        if not name.exists():
            new.write_text(f"{socket.gethostname()[:48]}-{secrets.token_hex(8)}", "ascii")
            flush_folder(new)
            try:
                os.link(new, name)
            except OSError:  # another process was faster, or this file system has no links
                if not name.exists():
                    new.rename(name)
            new.unlink(missing_ok=True)
            flush_folder(self.root)
        return name.read_text("ascii").strip()

    def new_temporary(self) -> Path:
        """A name for a temporary that nobody uses; it says which process of which host writes it."""
        return self._incoming / "-".join((*self._writer, f"{self._token}{next(self._temporaries)}"))

    def begin_instance(self, preamble: bytes) -> InstanceWriter:
        """A writer for an instance that comes in pieces and whose name is known at its end.  Raises StorageFull."""
        return InstanceWriter(self, preamble)

    def write_report(self, sop_uid: str, content: bytes) -> StoredFile:
        """The report's bytes lie on disk, flushed, and no later report can replace them.  Raises StorageFull."""
        digest = hashlib.sha256(content).hexdigest()
        report = _hash(sop_uid)
        name = f"reports/{report[:2]}/{report}-{digest[:16]}.dcm"
        final, temporary = self.root / name, self.new_temporary()
        with _UndoneByAnError(lambda: temporary.unlink(missing_ok=True)):
            self.make_durable(final.parent)
            with temporary.open("xb", buffering=0) as file:
                _write_all(file.fileno(), content)
                os.fsync(file.fileno())
            if final.exists():  # it holds the same
                temporary.unlink()
            else:
                temporary.rename(final)
            flush_folder(final.parent)
        return StoredFile(name, digest, len(content))

    def make_durable(self, folder: Path | str) -> None:
        """The folder exists and so do its entries in its parents after power loss, whoever made them."""
        with self._lock:
            name = str(folder)
            if name in self._durable and os.path.exists(name):  # noqa: PTH110  for every instance: see `seal`
                return
            folder = Path(name)
            known = {parent for parent in folder.parents if str(parent) in self._durable and parent.exists()}
            folder.mkdir(parents=True, exist_ok=True)
            flushed = {name}
            for parent in folder.parents:
                flush_folder(parent)
                if parent == self.root or parent in known:
                    break
                flushed.add(str(parent))
            if len(self._durable) >= MOST_FOLDERS_KNOWN:
                self._durable.clear()
            self._durable |= flushed

    def path(self, file: StoredFile) -> Path:
        """Where the bytes lie that were written here; with an object store they need not be there, see `here`."""
        return self.root / file.path

    def is_elsewhere(self, file: StoredFile) -> bool:
        """Whether the bytes do not lie where they are written, and need not: there is an object store."""
        return self.objects is not None and not self.path(file).exists()

    def here(self, file: StoredFile) -> Path:
        """Where the bytes can be read: where they were written, else in a copy, which is fetched if need be.

        Without an object store the same as `path`.  Raises NotStored, ObjectsAway, StorageFull; Damaged where the object is
        not what was uploaded.
        """
        written = self.path(file)
        if self.objects is None or written.exists():
            return written
        copy = self.root / FETCHED / file.path
        try:
            os.utime(copy)
        except FileNotFoundError:
            self._fetch(self.objects, file, copy)
        return copy

    def bring(self, files: Iterable[StoredFile]) -> None:
        """All of them can be read here, several having been fetched at once.  Raises as `here` does."""
        lacking = [file for file in files if self.is_elsewhere(file)]
        if lacking:
            with ThreadPoolExecutor(_FETCHED_AT_ONCE) as threads:
                list(threads.map(self.here, lacking))

    def _fetch(self, objects: Objects, file: StoredFile, copy: Path) -> None:
        """`copy` has the bytes, also after power loss, and they are those that the database and the uploader knew."""
        temporary = self.new_temporary()
        with _UndoneByAnError(lambda: temporary.unlink(missing_ok=True)):
            copy.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb+") as stream:
                _, kept_beside = objects.fetch(file.path, stream, file.size_bytes)
                stream.seek(0)
                is_whole = content_sha256(file.path, stream) == file.sha256
                stream.seek(0)
                if not is_whole or kept_beside not in ("", hashlib.file_digest(stream, "sha256").hexdigest()):
                    raise Damaged(f"the object {file.path} is not what was uploaded; `willis fsck` says more")
                os.fsync(stream.fileno())
            temporary.rename(copy)

    def sweep_fetched(self) -> int:
        """Copies that nobody has asked for lately are gone; returns how many."""
        old = [
            path for path in (self.root / FETCHED).rglob("*.dcm") if is_older(path, time.time() - FETCHED_KEPT_SECONDS)
        ]
        for path in old:
            path.unlink(missing_ok=True)
        return len(old)

    def read(self, file: StoredFile) -> bytes:
        """The whole file.  Raises Damaged when it is missing or has another length."""
        try:
            content = self.here(file).read_bytes()
        except FileNotFoundError:
            raise Damaged(f"{file.path} is missing") from None
        if len(content) != file.size_bytes:
            raise Damaged(f"{file.path} has {len(content)} bytes, the database says {file.size_bytes}")
        return content

    def verify(self, file: StoredFile) -> None:
        """The file is whole: for one whose sha256 is that of all its bytes, a report.  Raises Damaged."""
        if hashlib.sha256(self.read(file)).hexdigest() != file.sha256:
            raise Damaged(f"{file.path} differs from what was written")

    def holds(self, file: StoredFile) -> bool:
        """Whether the instance is there and its dataset is what `sha256` says.  Reads the whole file, in pieces.

        Its length says nothing: another sender of the same bytes may have left its own file meta before them.
        """
        return self._is_whole(self.path(file), file)

    def keeps(self, file: StoredFile) -> bool:
        """The same of what may lie in the object store alone, which is fetched.  Raises ObjectsAway, StorageFull."""
        try:
            return self.holds(file) or (self.objects is not None and self._is_whole(self.here(file), file))
        except Damaged:
            return False

    @staticmethod
    def _is_whole(path: Path, file: StoredFile) -> bool:
        try:
            with path.open("rb") as stream:
                return content_sha256(file.path, stream) == file.sha256
        except FileNotFoundError:
            return False

    def discard(self, file: StoredFile) -> None:
        """The file is gone.  For bytes that were never acknowledged as kept."""
        self.path(file).unlink(missing_ok=True)

    def sweep_incoming(self, has_died: Callable[[str], bool]) -> int:
        """Half-written files of processes that died are gone; returns how many.  Call before receiving begins.

        `has_died` is asked of "host:process id".  One with our own process id died too, before we began.  Another
        host's are gone after a day.  What cannot be removed, such as a folder that somebody made there, stays.
        """
        ours, oldest = ":".join(self._writer), time.time() - _LONGEST_WRITE_SECONDS
        return self._sweep(lambda left, writer: writer == ours or has_died(writer) or is_older(left, oldest))

    def sweep_of(self, process_id: int) -> int:
        """Half-written files of this process of our host, which has ended, are gone; returns how many."""
        ended = f"{self._writer[0]}:{process_id}"
        return self._sweep(lambda _leftover, writer: writer == ended)

    def _sweep(self, is_left: Callable[[Path, str], bool]) -> int:
        count = 0
        for leftover in self._incoming.iterdir():
            host, _, process_id = leftover.name.rpartition("-")[0].rpartition("-")
            with contextlib.suppress(OSError):  # a leftover is no reason not to receive
                if is_left(leftover, f"{host}:{process_id}"):
                    leftover.unlink()
                    count += 1
        return count

    def move(self, pairs: Iterable[tuple[str, str]]) -> int:
        """Of each pair, what lay at the first lies at the second, both relative to the root, also after power loss.

        Nothing happens to what is not there, or whose target is taken.  Folders are made for the targets.  Returns how
        many bytes were moved.
        """
        folders, size_bytes = set[Path](), 0
        for source, target in pairs:
            old, new = self.root / source, self.root / target
            if old.exists() and not new.exists():
                self.make_durable(new.parent)
                size_bytes += old.stat().st_size
                old.rename(new)
                folders |= {new.parent, old.parent}
        for folder in sorted(folders):
            flush_folder(folder)
        return size_bytes

    def free_bytes(self) -> int:
        """Bytes that this process may still write on the files' disk."""
        stat = os.statvfs(self.root)
        return stat.f_bavail * stat.f_frsize

    def excess_bytes(self, percent: float) -> int:
        """How many bytes more than `percent` of the files' disk are in use, as `df` counts; 0 for none."""
        stat = os.statvfs(self.root)
        used = stat.f_blocks - stat.f_bfree
        return max(0, int((used - percent / 100 * (used + stat.f_bavail)) * stat.f_frsize))


def is_older(path: Path, than_seconds: float) -> bool:
    """Whether the file is there and was last changed before this time (seconds since 1970)."""
    try:
        return path.stat().st_mtime < than_seconds
    except FileNotFoundError:
        return False


def _write_all(descriptor: int, chunk: bytes | memoryview) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(descriptor, view) :]
