import os
import threading
from pathlib import Path

import pytest

from storage import flushes
from storage.flushes import FolderFlushes


def test_a_flush_waits_for_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    fsync = os.fsync

    def recorded(descriptor: int) -> None:
        flushed.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    FolderFlushes().flush(tmp_path)()
    assert flushed == [str(tmp_path)]


def test_an_error_reaches_those_who_wait_for_that_folder_and_nobody_else(tmp_path: Path) -> None:
    folders = FolderFlushes()
    good, bad, again = folders.flush(tmp_path), folders.flush(tmp_path / "gone"), folders.flush(tmp_path / "gone")
    good()
    for waiting in (bad, again):
        with pytest.raises(FileNotFoundError):
            waiting()
    folders.flush(tmp_path)()


def test_one_flush_serves_all_who_wait_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, release, flushed = threading.Event(), threading.Event(), []

    def slow(folder: Path) -> None:
        flushed.append(folder.name)
        inside.set()
        assert release.wait(5)

    monkeypatch.setattr(flushes, "flush_folder", slow)
    folders = FolderFlushes()
    first = folders.flush(tmp_path / "a")
    assert inside.wait(5)
    waiting = [folders.flush(tmp_path / name) for name in ("a", "b", "a", "b", "a")]
    release.set()
    for wait in (first, *waiting):
        wait()
    assert (flushed[0], sorted(flushed[1:])) == ("a", ["a", "b"])
