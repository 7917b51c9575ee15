"""A file's bytes are flushed before its name, and the name before it counts."""

import os
import shutil
from pathlib import Path

import pytest

from storage.files.instances import Files
from tests.support.builders import write_instance
from tests.unit.storage.files.writing import DATASET, PREAMBLE, SERIES, SOP, Recorder, write_in_pieces, write_report


def test_a_report_is_flushed_before_it_gets_its_name_and_the_name_before_it_counts(
    monkeypatch: pytest.MonkeyPatch, files: Files
) -> None:
    recorder = Recorder(monkeypatch, files.root)
    folder = str(Path(write_report(files).path).parent)
    calls = recorder.calls
    last_write = max(i for i, call in enumerate(calls) if call[0] == "write")
    flush, rename, flush_folder = (
        calls.index(("fsync", "file in incoming")), calls.index(("rename", folder)), calls.index(("fsync", folder)),
    )  # fmt: skip
    assert last_write < flush < rename < flush_folder
    parents = [str(parent) for parent in Path(folder).parents]
    assert all(("fsync", parent) in calls for parent in parents), "the folder's own entry must survive too"


def test_an_instance_in_pieces_is_flushed_with_its_folders_before_it_counts(
    monkeypatch: pytest.MonkeyPatch, files: Files
) -> None:
    recorder = Recorder(monkeypatch, files.root)
    folder = Path(write_in_pieces(files).path).parent
    calls = recorder.calls
    after_the_last_write = calls[max(i for i, call in enumerate(calls) if call[0] == "write") :]
    assert {("fsync", "file in incoming"), ("fsync", str(folder))} <= set(after_the_last_write)
    assert all(("fsync", str(parent)) in calls for parent in folder.parents)


def test_folders_that_are_durable_are_not_flushed_again(monkeypatch: pytest.MonkeyPatch, files: Files) -> None:
    write_instance(files, SERIES, SOP, PREAMBLE, DATASET)
    recorder = Recorder(monkeypatch, files.root)
    file = write_instance(files, SERIES, SOP + ".1", PREAMBLE, DATASET)
    flushed = [what for call, what in recorder.calls if call == "fsync"]
    assert sorted(flushed) == ["file in incoming", str(Path(file.path).parent)]


def test_of_a_new_folder_only_what_is_not_durable_yet_is_flushed(monkeypatch: pytest.MonkeyPatch, files: Files) -> None:
    first, second, other = (files.root / "instances" / name for name in ("ab/one", "ab/two", "cd/three"))
    files.make_durable(first)
    recorder = Recorder(monkeypatch, files.root)
    files.make_durable(second)
    assert recorder.calls == [("fsync", "instances/ab")]
    files.make_durable(other)
    assert recorder.calls[1:] == [("fsync", "instances/cd"), ("fsync", "instances")]
    shutil.rmtree(first.parent)
    files.make_durable(second)
    assert recorder.calls[3:] == [("fsync", "instances/ab"), ("fsync", "instances")], "somebody removed its parent"


def test_folders_that_could_not_be_flushed_are_not_taken_to_be_durable(
    monkeypatch: pytest.MonkeyPatch, files: Files
) -> None:
    folder = files.root / "instances" / "ab" / "one"
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", lambda _descriptor: (_ for _ in ()).throw(OSError(5, "I/O error")))
        with pytest.raises(OSError, match="I/O"):
            files.make_durable(folder)
    recorder = Recorder(monkeypatch, files.root)
    files.make_durable(folder)
    assert [what for _, what in recorder.calls] == ["instances/ab", "instances", "."]


def test_no_more_than_so_many_folders_are_remembered(monkeypatch: pytest.MonkeyPatch, files: Files) -> None:
    monkeypatch.setattr("storage.files.instances.MOST_FOLDERS_KNOWN", 5)
    for number in range(20):
        files.make_durable(files.root / "instances" / "ab" / str(number))
    assert len(files._durable) <= 8
