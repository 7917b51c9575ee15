"""Backup beside writers, the original destroyed, and put back: nothing differs; what is no backup is refused."""

import errno
import shutil
import sqlite3
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from node.cli.main import app
from storage import backup
from storage.backup import FILES, MANIFEST, NoBackup, back_up, copy_sqlite, restore
from storage.files.instances import Files
from storage.fsck import Checked, check
from storage.store import Store
from tests.support.builders import START, FakeClock, keep
from tests.support.dicom_factory import ct_series
from tests.support.running import wait_until


class Node:
    """Database and files of a node in a folder of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = f"sqlite:///{root / 'willis.db'}"
        self.files = Files(root)
        self.store = Store.open(self.url)

    def take(self, clock: FakeClock, number: int) -> None:
        """One more series of three slices."""
        slices = ct_series(3, SeriesInstanceUID=f"2.25.{number}")
        for at, ds in enumerate(slices):
            ds.SOPInstanceUID = f"2.25.{number}.{at}"
        keep(self.store, self.files, clock, slices)

    def destroy(self) -> None:
        self.store.close()
        shutil.rmtree(self.root)


@pytest.fixture
def node(tmp_path: Path, clock: FakeClock) -> Node:
    made = Node(tmp_path / "var")
    made.take(clock, 1)
    return made


def differences(node: Node) -> list[object]:
    return [each for each in check(node.store, node.files, now_seconds=4e9) if not isinstance(each, Checked)]


def test_a_backup_taken_under_load_is_whole_after_the_original_was_destroyed(
    node: Node, tmp_path: Path, clock: FakeClock
) -> None:
    stopping, number = threading.Event(), 1

    def receive() -> None:
        nonlocal number
        while not stopping.is_set():
            number += 1
            node.take(clock, number)

    receiving = threading.Thread(target=receive)
    receiving.start()
    try:
        wait_until(lambda: number > 2, what="slices come")
        first = back_up(node.url, node.root, tmp_path / "backup", START)
        before = number
        second = back_up(node.url, node.root, tmp_path / "backup", START)
    finally:
        stopping.set()
        receiving.join()
    assert first.missing == second.missing == ()
    assert first.copied == first.files >= 3
    assert second.copied == second.files - first.files
    node.destroy()
    assert restore(tmp_path / "backup", node.url, node.root) == second.files
    again = Node(node.root)
    assert differences(again) == []
    assert before - 1 <= len(again.store.worklist.rows()) <= number
    again.store.close()


def test_a_file_that_is_missing_is_named_and_one_that_went_with_its_case_is_not(
    node: Node, tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.take(clock, 2)
    gone = next(node.root.glob("instances/*/*/*.dcm"))
    gone.unlink()
    done = back_up(node.url, node.root, tmp_path / "backup", START)
    assert done.missing == (str(gone.relative_to(node.root)),)
    monkeypatch.setattr("storage.backup._is_named", lambda _database, _path: False)
    assert back_up(node.url, node.root, tmp_path / "other", START).removed_meanwhile == 1


def test_what_is_no_backup_or_was_damaged_is_refused_and_makes_no_database(node: Node, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    back_up(node.url, node.root, backup, START)
    with pytest.raises(NoBackup, match="is there already: move it"):
        restore(backup, node.url, node.root)
    node.destroy()
    with pytest.raises(NoBackup, match="not finished"):
        restore(tmp_path / "empty", node.url, node.root)
    copied = next(path for path in (backup / FILES).rglob("*.dcm"))
    content = copied.read_bytes()
    copied.write_bytes(content[:-1] + b"?")
    with pytest.raises(NoBackup, match="is not what was backed up"):
        restore(backup, node.url, node.root)
    copied.unlink()
    with pytest.raises(NoBackup, match="is gone"):
        restore(backup, node.url, node.root)
    other = next(path for path in (backup / FILES).rglob("*.dcm") if path != copied)
    whole = other.read_bytes()
    other.write_bytes(b"")
    with pytest.raises(NoBackup) as caught:
        restore(backup, node.url, node.root)
    assert {line for line in str(caught.value).splitlines() if line.startswith(str(backup))} == {
        f"{copied} is gone", f"{other} is not what was backed up",
    }  # fmt: skip
    assert not node.root.exists(), "nothing is put back unless all is good"
    other.write_bytes(whole)
    copied.write_bytes(content)
    manifest = (backup / MANIFEST).read_text()
    (backup / MANIFEST).write_text("{")
    with pytest.raises(NoBackup, match="damaged"):
        restore(backup, node.url, node.root)
    (backup / MANIFEST).write_text(manifest)
    assert not (node.root / "willis.db").exists()
    assert restore(backup, node.url, node.root) == 3


def test_nothing_that_a_database_has_left_is_replayed_over_what_is_put_back(node: Node, tmp_path: Path) -> None:
    back_up(node.url, node.root, tmp_path / "backup", START)
    node.destroy()
    node.root.mkdir()
    (node.root / "willis.db-wal").write_bytes(b"of another database")
    with pytest.raises(NoBackup, match=r"willis\.db-wal is there already: move it"):
        restore(tmp_path / "backup", node.url, node.root)


def test_a_backup_that_breaks_off_leaves_the_one_before_whole(
    node: Node, tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(node.url, node.root, tmp_path / "backup", START)
    node.take(clock, 2)

    def full(_source: Path, _to: Path) -> str:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("storage.backup._copy", full)
        with pytest.raises(OSError, match="No space left"):
            back_up(node.url, node.root, tmp_path / "backup", START)
    node.destroy()
    assert restore(tmp_path / "backup", node.url, node.root) == 3


def test_what_no_case_has_any_longer_goes_from_the_backup_too_after_a_month(
    node: Node, tmp_path: Path, clock: FakeClock
) -> None:
    to = tmp_path / "backup"
    back_up(node.url, node.root, to, START)
    of_first = {path for path in (to / FILES).rglob("*") if path.is_file()}
    node.take(clock, 2)
    with sqlite3.connect(node.root / "willis.db") as connection:
        connection.execute("DELETE FROM instance WHERE series_id = 1")
    for days, removed in ((1, 0), (31, 0), (32, 3), (33, 0)):
        done = back_up(node.url, node.root, to, START + timedelta(days=days))
        assert (done.files, done.removed) == (3, removed), days
        assert {path for path in of_first if path.exists()} == (of_first if days < 32 else set())
    node.destroy()
    assert restore(to, node.url, node.root) == 3


def test_a_file_that_is_missing_here_stays_in_the_backup(node: Node, tmp_path: Path) -> None:
    to = tmp_path / "backup"
    back_up(node.url, node.root, to, START)
    for path in node.root.glob("instances/*/*/*.dcm"):
        path.unlink()
    for days in (1, 40, 80):
        assert back_up(node.url, node.root, to, START + timedelta(days=days)).removed == 0
    assert len(list((to / FILES).rglob("*.dcm"))) == 3


def test_a_new_database_does_not_take_the_place_of_the_lost_one_s_backup(
    node: Node, tmp_path: Path, clock: FakeClock
) -> None:
    to = tmp_path / "backup"
    back_up(node.url, node.root, to, START)
    node.destroy()
    new = Node(node.root)
    new.take(clock, 2)
    with pytest.raises(NoBackup, match=r"has the backup of another database than .*`willis restore` puts that back"):
        back_up(new.url, new.root, to, START)
    new.destroy()
    assert restore(to, node.url, node.root) == 3
    assert back_up(node.url, node.root, to, START).copied == 0, "what was put back is the same database"


def test_a_backup_of_a_later_version_is_refused(node: Node, tmp_path: Path) -> None:
    node.store.close()
    with sqlite3.connect(node.root / "willis.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    back_up(node.url, node.root, tmp_path / "backup", START)
    shutil.rmtree(node.root)
    with pytest.raises(NoBackup, match=r"a later version of Willis \(tables 9999\)"):
        restore(tmp_path / "backup", node.url, node.root)


@pytest.mark.usefixtures("logging_restored")
def test_the_commands_say_what_they_did_and_what_they_cannot(node: Node, tmp_path: Path) -> None:
    config = tmp_path / "willis.toml"
    config.write_text(f"[storage]\ndirectory = {str(node.root)!r}\n")

    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, [*arguments, "--config", str(config)])
        return result.exit_code, result.output

    backup = str(tmp_path / "backup")
    said = f"warning: {backup} is on the disk of [storage] directory: whatever takes the one takes the other"
    assert run("backup", backup) == (0, f"3 files and the database in {backup}, 3 new\n{said}\n")
    assert "is there already" in run("restore", backup)[1]
    node.destroy()
    assert run("restore", backup) == (0, f"3 files and the database in {node.root}\n")
    config.write_text('[storage]\ndatabase_url = "postgresql+psycopg://a@127.0.0.1/x"\n')
    code, said = run("backup", backup)
    assert (code, "use pg_dump" in said) == (2, True)


def test_a_copy_of_the_database_that_breaks_off_does_not_have_the_name_of_a_whole_one(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    source, to = node.root / "willis.db", tmp_path / "copy.db"
    with monkeypatch.context() as failing:
        failing.setattr(backup, "flush_folder", full)
        with pytest.raises(OSError, match="space"):
            copy_sqlite(source, to)
    assert not to.exists()
    copy_sqlite(source, to)
    assert [path.name for path in tmp_path.glob("copy.db*")] == ["copy.db"]


def test_a_damaged_file_is_named_and_copied_again_once_it_was_mended(node: Node, tmp_path: Path) -> None:
    [path, *_] = sorted((node.root / "instances").rglob("*.dcm"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    done = back_up(node.url, node.root, tmp_path / "backup", START)
    assert done.missing == (str(path.relative_to(node.root)),)
    path.write_bytes(whole)
    again = back_up(node.url, node.root, tmp_path / "backup", START)
    assert (again.missing, again.copied) == ((), 1)
    assert (tmp_path / "backup" / FILES / path.relative_to(node.root)).read_bytes() == whole
