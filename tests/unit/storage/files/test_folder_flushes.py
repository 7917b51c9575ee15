import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.files import folder_flushes
from storage.files.folder_flushes import FolderFlushes


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


def test_an_error_that_is_not_the_disks_is_told_too_and_the_next_flush_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(_: Path) -> None:
        raise MemoryError

    safe_message: list[str] = []

    def wait(flushed: Callable[[], None]) -> None:
        try:
            flushed()
            safe_message.append("flushed")
        except MemoryError:
            safe_message.append("no memory")

    folders = FolderFlushes()
    for flush in (no_memory, folder_flushes.flush_folder):
        with monkeypatch.context() as patched:
            patched.setattr(folder_flushes, "flush_folder", flush)
            waiter = threading.Thread(target=wait, args=(folders.flush(tmp_path),), daemon=True)
            waiter.start()
            waiter.join(5)
    assert safe_message == ["no memory", "flushed"]


def test_a_host_without_a_thread_to_spare_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    folders = FolderFlushes()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none_left)
        with pytest.raises(RuntimeError):
            folders.flush(tmp_path)
    waiter = threading.Thread(target=folders.flush(tmp_path), daemon=True)
    waiter.start()
    waiter.join(5)
    assert not waiter.is_alive()


def test_one_flush_serves_all_who_wait_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, release, flushed = threading.Event(), threading.Event(), []

    def slow(folder: Path) -> None:
        flushed.append(folder.name)
        inside.set()
        assert release.wait(5)

    monkeypatch.setattr(folder_flushes, "flush_folder", slow)
    folders = FolderFlushes()
    first = folders.flush(tmp_path / "a")
    assert inside.wait(5)
    waiting = [folders.flush(tmp_path / name) for name in ("a", "b", "a", "b", "a")]
    release.set()
    for wait in (first, *waiting):
        wait()
    assert (flushed[0], sorted(flushed[1:])) == ("a", ["a", "b"])
