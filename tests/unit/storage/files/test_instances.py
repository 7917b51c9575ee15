import errno
import hashlib
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from node.dicom.header import file_meta
from node.runtime.processes import has_died
from storage.errors import Damaged, StorageError, StorageFull
from storage.files.instances import Files
from tests.support.builders import write_instance
from tests.unit.storage.files.writing import (
    DATASET,
    PREAMBLE,
    SERIES,
    SOP,
    Recorder,
    Write,
    write_in_pieces,
    write_report,
    write_whole,
)

FILE_META, OTHER_FILE_META = (
    file_meta(("1.2.840.10008.5.1.4.1.1.2", SOP), "1.2.840.10008.1.2.1", sender) for sender in ("PACS", "ANOTHER_PACS")
)


EVERY_WAY = pytest.mark.parametrize("write", [write_whole, write_in_pieces, write_report])


def everything(files: Files) -> list[Path]:
    """Every file under the root, relative to it."""
    return sorted(path.relative_to(files.root) for path in files.root.rglob("*") if path.is_file())


def test_a_folder_that_somebody_removed_is_made_again(files: Files) -> None:
    first = write_instance(files, SERIES, SOP, PREAMBLE, DATASET)
    shutil.rmtree(files.path(first).parent)
    again = write_instance(files, SERIES, SOP, PREAMBLE, DATASET)
    assert files.read(again) == PREAMBLE + DATASET


@EVERY_WAY
def test_what_was_written_is_what_is_read(files: Files, write: Write) -> None:
    file = write(files)
    assert files.read(file) == PREAMBLE + DATASET
    assert file.size_bytes == len(PREAMBLE + DATASET)
    assert everything(files) == [Path(file.path)]


@pytest.mark.parametrize("write", [write_whole, write_in_pieces])
def test_the_digest_of_an_instance_is_that_of_the_senders_bytes(files: Files, write: Write) -> None:
    assert write(files).sha256 == hashlib.sha256(DATASET).hexdigest()


def test_an_instance_is_the_same_file_in_however_many_pieces_it_came(files: Files) -> None:
    assert write_whole(files) == write_in_pieces(files)
    assert len(everything(files)) == 1


@EVERY_WAY
def test_names_hold_nothing_from_the_wire(files: Files, write: Write) -> None:
    path = write(files).path
    assert SERIES not in path
    assert SOP not in path
    assert "2.25.77" not in path
    assert set(path) <= set("abcdefghijklmnopqrstuvwxyz0123456789/-.")


@pytest.mark.parametrize("uid", ["../../etc/passwd", "/etc/passwd", "a/b", "x" * 5000, "", "\0", "é"])
def test_whatever_a_uid_holds_its_file_lies_under_the_root(files: Files, uid: str) -> None:
    for file in (write_instance(files, uid, uid, b"", b"x"), files.write_report(uid, b"x")):
        assert files.root.resolve() in files.path(file).resolve().parents
        assert files.read(file) == b"x"


def test_other_bytes_under_the_same_uid_never_replace_the_first(files: Files) -> None:
    first = write_instance(files, SERIES, SOP, PREAMBLE, DATASET)
    second = write_instance(files, SERIES, SOP, PREAMBLE, b"other")
    assert first.path != second.path
    assert files.read(first) == PREAMBLE + DATASET
    assert files.write_report("2.25.77", b"a").path != files.write_report("2.25.77", b"b").path


def test_the_same_bytes_from_another_sender_leave_the_instance_whole(files: Files) -> None:
    first = write_instance(files, SERIES, SOP, FILE_META, DATASET)
    write_instance(files, SERIES, SOP, OTHER_FILE_META, DATASET)
    assert files.holds(first)
    assert everything(files) == [Path(first.path)]


def test_a_flush_that_fails_takes_back_a_new_instance_but_no_earlier_one(
    monkeypatch: pytest.MonkeyPatch, files: Files
) -> None:
    for earlier in (False, True):
        if earlier:
            file = write_instance(files, SERIES, SOP, FILE_META, DATASET)
        writer = files.begin_instance(OTHER_FILE_META)
        writer.write(DATASET)
        file = writer.seal(SERIES, SOP)
        writer.publish()
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", fail_with(errno.EIO))
            with pytest.raises(OSError, match="Input/output error"):
                writer.flush()
        assert files.holds(file) is earlier
        assert len(everything(files)) == int(earlier)


def test_a_flush_that_fails_leaves_the_same_bytes_that_another_sender_brought_meanwhile(
    monkeypatch: pytest.MonkeyPatch, files: Files
) -> None:
    unlucky, lucky = (files.begin_instance(meta) for meta in (FILE_META, OTHER_FILE_META))
    for writer in (unlucky, lucky):
        writer.write(DATASET)
        file = writer.seal(SERIES, SOP)
        writer.publish()
    lucky.flush()
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail_with(errno.EIO))
        with pytest.raises(OSError, match="Input/output error"):
            unlucky.flush()
    assert files.holds(file)


def test_an_instance_that_was_damaged_is_not_held(files: Files) -> None:
    file = write_instance(files, SERIES, SOP, FILE_META, DATASET)
    assert files.holds(file)
    whole = files.path(file).read_bytes()
    for damaged in (whole[:-1], whole[:-1] + b"x", whole + b"x", b""):
        files.path(file).write_bytes(damaged)
        assert not files.holds(file)
    files.discard(file)
    assert not files.holds(file)


def fail_with(code: int, after_calls: int = 0) -> Callable[..., Any]:
    """A system call that fails with `code`, after so many that did nothing."""
    calls = iter(range(10**6))

    def fail(_descriptor: int, data: bytes = b"") -> int:
        if next(calls) < after_calls:
            return len(data)
        raise OSError(code, os.strerror(code))

    return fail


@EVERY_WAY
@pytest.mark.parametrize("call", ["write", "fsync"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_or_quota_leaves_nothing_and_writing_works_again_later(
    monkeypatch: pytest.MonkeyPatch, files: Files, write: Write, call: str, code: int
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail_with(code))
        with pytest.raises(StorageFull, match=r"\[storage\] directory"):
            write(files)
    assert everything(files) == []
    assert files.read(write(files)) == PREAMBLE + DATASET


@EVERY_WAY
def test_a_disk_that_fills_up_half_way_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, files: Files, write: Write
) -> None:
    original, calls = os.write, iter(range(100))

    def half(descriptor: int, data: bytes) -> int:
        if next(calls) >= 1:
            raise OSError(errno.ENOSPC, "full")
        return original(descriptor, bytes(data)[: len(data) // 2])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", half)
        with pytest.raises(StorageFull):
            write(files)
    assert everything(files) == []


@EVERY_WAY
def test_another_error_of_the_disk_is_told_as_it_is_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, files: Files, write: Write
) -> None:
    monkeypatch.setattr(os, "write", fail_with(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        write(files)
    assert everything(files) == []


@EVERY_WAY
def test_short_writes_are_continued(monkeypatch: pytest.MonkeyPatch, files: Files, write: Write) -> None:
    original = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: original(descriptor, bytes(data)[:97]))
    assert files.read(write(files)) == PREAMBLE + DATASET


def test_an_aborted_instance_leaves_nothing(files: Files) -> None:
    writer = files.begin_instance(PREAMBLE)
    writer.write(DATASET)
    writer.abort()
    writer.abort()
    assert everything(files) == []


def test_an_instance_is_sealed_before_it_is_published_and_published_before_it_is_flushed(files: Files) -> None:
    writer = files.begin_instance(PREAMBLE)
    with pytest.raises(StorageError, match="sealed"):
        writer.publish()
    with pytest.raises(StorageError, match="published"):
        writer.flush()
    writer.abort()


def test_a_missing_file_is_damaged(files: Files) -> None:
    file = write_report(files)
    files.discard(file)
    files.discard(file)
    with pytest.raises(Damaged, match="missing"):
        files.read(file)
    with pytest.raises(Damaged, match="missing"):
        files.verify(file)


def test_a_file_of_another_length_is_damaged(files: Files) -> None:
    file = write_report(files)
    with files.path(file).open("ab") as handle:
        handle.write(b"x")
    with pytest.raises(Damaged, match=f"{file.size_bytes + 1} bytes"):
        files.read(file)


def test_a_report_in_which_one_bit_turned_is_damaged(files: Files) -> None:
    file = write_report(files)
    files.verify(file)
    content = bytearray(files.path(file).read_bytes())
    content[200] ^= 1
    files.path(file).write_bytes(content)
    assert len(files.read(file)) == file.size_bytes
    with pytest.raises(Damaged, match="differs"):
        files.verify(file)


def test_half_written_files_of_a_dead_receiver_are_swept(files: Files) -> None:
    kept = write_whole(files)
    files.begin_instance(PREAMBLE)
    files.begin_instance(PREAMBLE)
    assert files.sweep_incoming(has_died) == 2
    assert files.sweep_incoming(has_died) == 0
    assert everything(files) == [Path(kept.path)]


def test_what_others_are_writing_in_the_same_folder_is_not_swept(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(["sleep", "60"]) as alive, subprocess.Popen(["true"]) as dead:
        dead.wait()
        for host, pid in (("elsewhere", dead.pid), (socket.gethostname(), alive.pid), (socket.gethostname(), dead.pid)):
            with monkeypatch.context() as patched:
                patched.setattr(socket, "gethostname", lambda host=host: host)
                patched.setattr(os, "getpid", lambda pid=pid: pid)
                Files(files.root).begin_instance(PREAMBLE)
        assert files.sweep_incoming(has_died) == 1
        for path in (files.root / "incoming").iterdir():
            os.utime(path, (0, 0))
        assert files.sweep_incoming(has_died) == 2, "after a day nobody writes it any longer"
        alive.kill()


def test_what_a_process_of_ours_left_half_written_is_swept_when_it_was_ended(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.begin_instance(PREAMBLE)
    with monkeypatch.context() as patched:
        patched.setattr(os, "getpid", lambda: 4_000_000)
        Files(files.root).begin_instance(PREAMBLE)
    assert (files.sweep_of(4_000_001), files.sweep_of(4_000_000)) == (0, 1)
    assert len(list((files.root / "incoming").iterdir())) == 1, "ours is written still"


def test_what_cannot_be_removed_stays_and_the_rest_is_swept(files: Files) -> None:
    folder = files.new_temporary()
    (folder / "of somebody").mkdir(parents=True)
    files.begin_instance(PREAMBLE)
    assert files.sweep_incoming(has_died) == 1
    assert list((files.root / "incoming").iterdir()) == [folder]


def test_a_root_that_cannot_be_written_to_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=rf"{tmp_path}/file.*\[storage\] directory") as caught:
        Files(tmp_path / "file")
    assert "\n" not in str(caught.value)


def test_a_root_and_the_folders_above_it_survive_power_loss(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recorder = Recorder(monkeypatch, tmp_path)
    Files(tmp_path / "a" / "b")
    flushed = {what for call, what in recorder.calls if call == "fsync"}
    assert {".", "a", "a/b"} <= flushed


def test_opening_a_root_again_changes_nothing(files: Files) -> None:
    file = write_whole(files)
    assert Files(files.root).read(file) == PREAMBLE + DATASET


def test_free_bytes_are_those_of_the_disk(files: Files) -> None:
    import shutil

    assert files.free_bytes() == pytest.approx(shutil.disk_usage(files.root).free, rel=0.2)
