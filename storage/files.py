"""Durable files.  What this module has returned from survives power loss.

Layout under the root: `instances/<2 hex of the series>/<series hash>/<instance hash>-<content hash>.dcm` and
`reports/<2 hex>/<report hash>-<content hash>.dcm`.  Names are hashes of UIDs, never UIDs from the wire; the content
hash in them means that no write can ever replace other bytes.
"""

import errno
import hashlib
import os
import secrets
import threading
from collections.abc import Iterable
from pathlib import Path

from storage.errors import Damaged, StorageError, StorageFull
from storage.records import StoredFile

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Files:
    """The files of one installation, under one root folder."""

    def __init__(self, root: Path) -> None:
        """`root` is created.  Raises StorageError, naming the folder, when it cannot be written to."""
        self.root = root
        self._durable: set[Path] = set()
        self._lock = threading.Lock()
        try:
            for folder in ("instances", "reports", "incoming"):
                (root / folder).mkdir(parents=True, exist_ok=True)
            probe = root / "incoming" / f"probe-{secrets.token_hex(4)}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise StorageError(
                f"cannot write to {root}: {error.strerror}; create it or set [storage] directory"
            ) from None

    def write_instance(self, series_uid: str, sop_uid: str, preamble: bytes, dataset: bytes | memoryview) -> StoredFile:
        """`preamble` (file meta) and `dataset` lie on disk together, flushed, under a name of ours.

        The sha256 is that of `dataset`: the sender's bytes as they came.  Raises StorageFull.
        """
        digest = hashlib.sha256(dataset).hexdigest()
        series = _hash(series_uid)
        name = f"instances/{series[:2]}/{series}/{_hash(sop_uid)}-{digest[:16]}.dcm"
        self._write(name, (preamble, dataset))
        return StoredFile(name, digest, len(preamble) + len(dataset))

    def write_report(self, sop_uid: str, content: bytes) -> StoredFile:
        """The report's bytes lie on disk, flushed, and no later report can replace them.  Raises StorageFull."""
        digest = hashlib.sha256(content).hexdigest()
        report = _hash(sop_uid)
        name = f"reports/{report[:2]}/{report}-{digest[:16]}.dcm"
        self._write(name, (content,))
        return StoredFile(name, digest, len(content))

    def _write(self, name: str, chunks: Iterable[bytes | memoryview]) -> None:
        final = self.root / name
        temporary = self.root / "incoming" / secrets.token_hex(16)
        try:
            self._make_durable(final.parent)
            with temporary.open("xb", buffering=0) as file:
                for chunk in chunks:
                    _write_all(file.fileno(), chunk)
                os.fsync(file.fileno())
            temporary.rename(final)
            _flush_folder(final.parent)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            if error.errno in _FULL:
                raise StorageFull("no space left for a file; free some or move [storage] directory") from None
            raise

    def _make_durable(self, folder: Path) -> None:
        """`folder` exists and so do its entries in its parents after power loss, whoever made them."""
        with self._lock:
            if folder in self._durable and folder.exists():
                return
            folder.mkdir(parents=True, exist_ok=True)
            for parent in folder.parents:
                _flush_folder(parent)
                if parent == self.root:
                    break
            self._durable.add(folder)

    def path(self, file: StoredFile) -> Path:
        """Where the bytes lie."""
        return self.root / file.path

    def read(self, file: StoredFile) -> bytes:
        """The whole file.  Raises Damaged when it is missing or has another length."""
        try:
            content = self.path(file).read_bytes()
        except FileNotFoundError:
            raise Damaged(f"{file.path} is missing") from None
        if len(content) != file.size_bytes:
            raise Damaged(f"{file.path} has {len(content)} bytes, the database says {file.size_bytes}")
        return content

    def verify(self, file: StoredFile) -> None:
        """The file is whole: for one whose sha256 is that of all its bytes, a report.  Raises Damaged."""
        if hashlib.sha256(self.read(file)).hexdigest() != file.sha256:
            raise Damaged(f"{file.path} differs from what was written")

    def discard(self, file: StoredFile) -> None:
        """The file is gone.  For bytes that were never acknowledged as kept."""
        self.path(file).unlink(missing_ok=True)

    def sweep_incoming(self) -> int:
        """Half-written files of a receiver that died are gone; returns how many.  Call before receiving begins."""
        count = 0
        for leftover in (self.root / "incoming").iterdir():
            leftover.unlink(missing_ok=True)
            count += 1
        return count

    def free_bytes(self) -> int:
        """Bytes that this process may still write on the files' disk."""
        stat = os.statvfs(self.root)
        return stat.f_bavail * stat.f_frsize


def _write_all(descriptor: int, chunk: bytes | memoryview) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(descriptor, view) :]


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
