"""An instance in every way of writing it, and a record of what that asks of the disk."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage.files.instances import Files
from storage.records import StoredFile
from tests.support.builders import write_instance

SERIES, SOP = "1.2.840.113619.2.1", "1.2.840.113619.2.1.77"
PREAMBLE, DATASET = b"\0" * 128 + b"DICM", bytes(range(256)) * 40
Write = Callable[[Files], StoredFile]


def write_whole(files: Files) -> StoredFile:
    return write_instance(files, SERIES, SOP, PREAMBLE, DATASET)


def write_in_pieces(files: Files) -> StoredFile:
    writer = files.begin_instance(PREAMBLE)
    for start in range(0, len(DATASET), 1000):
        writer.write(memoryview(DATASET)[start : start + 1000])
    file = writer.seal(SERIES, SOP)
    writer.publish()
    writer.flush()
    return file


def write_report(files: Files) -> StoredFile:
    return files.write_report("2.25.77", PREAMBLE + DATASET)


class Recorder:
    """Records what is flushed, renamed and written, in order, by name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
        self.calls: list[tuple[str, str]] = []
        self._root = root
        fsync, rename, write = os.fsync, os.rename, os.write

        def name(descriptor: int) -> str:
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            kind = "" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file in "
            return kind + str((path if not kind else path.parent).relative_to(root))

        def recorded_fsync(descriptor: int) -> None:
            self.calls.append(("fsync", name(descriptor)))
            fsync(descriptor)

        def recorded_write(descriptor: int, data: Any) -> int:
            self.calls.append(("write", name(descriptor)))
            return write(descriptor, data)

        def recorded_rename(source: Any, target: Any, **options: Any) -> None:
            self.calls.append(("rename", str(Path(target).parent.relative_to(root))))
            rename(source, target, **options)

        monkeypatch.setattr(os, "fsync", recorded_fsync)
        monkeypatch.setattr(os, "write", recorded_write)
        monkeypatch.setattr(os, "rename", recorded_rename)
