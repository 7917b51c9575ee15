"""What version 0.1.0 left is served by this one after `willis migrate`.

`version_0_1_0/` was written by that version: `willis.toml` is its config.toml with every key and two more peers;
`folder` and `willis.sql` (the database, dumped) hold a case that is reported and on its way, one that is ready for
analysis and one that has just been received, of three slices of 16 x 16 pixels each.
"""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from node.cli.main import app
from node.config.loading import load
from node.config.sections import Config
from node.scp.commitment_scp import result_of
from node.workflow import settling
from node.workflow.context import Context
from storage import fsck
from storage.errors import DatabaseUnusable
from storage.files.instances import Files
from storage.fsck import Checked
from storage.stages import DeliveryStage, Stage
from storage.store import Store
from tests.support.builders import LEASE, FakeClock, series_now

LEFT = Path(__file__).parent / "version_0_1_0"
SCHEMA = "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    folder = tmp_path / "folder"
    shutil.copytree(LEFT / "folder", folder)
    with sqlite3.connect(folder / "willis.db") as database:
        database.executescript((LEFT / "willis.sql").read_text("utf-8"))
    database.close()
    return load(LEFT / "willis.toml", {"WILLIS_STORAGE__DIRECTORY": str(folder)})


@pytest.fixture
def left(config: Config, monkeypatch: pytest.MonkeyPatch, logging_restored: None) -> Iterator[Store]:
    """The store after the command."""
    monkeypatch.setenv("WILLIS_STORAGE__DIRECTORY", str(config.storage.directory))
    ended = CliRunner().invoke(app, ["migrate", "--config", str(LEFT / "willis.toml")])
    assert ended.exit_code == 0, ended.output
    opened = Store.open(config.storage.url)
    yield opened
    opened.close()


@pytest.fixture
def clock() -> FakeClock:
    """It shows when that version was stopped, and a little more."""
    clock = FakeClock()
    clock.advance(24 * 3600)
    return clock


def test_what_was_not_migrated_is_refused_and_stays_as_it_is(config: Config) -> None:
    def dumped() -> list[str]:
        with closing(sqlite3.connect(config.storage.directory / "willis.db")) as database:
            return list(database.iterdump())

    before = dumped()
    with pytest.raises(DatabaseUnusable, match="run `willis migrate`"):
        Store.open(config.storage.url)
    assert dumped() == before


def test_the_database_is_at_this_versions_revision_after_it_was_migrated(
    left: Store, config: Config, tmp_path: Path
) -> None:
    new = tmp_path / "new.db"
    Store.open(f"sqlite:///{new}").close()
    with sqlite3.connect(config.storage.directory / "willis.db") as served, sqlite3.connect(new) as made:
        revision = "SELECT version_num FROM alembic_version"
        assert served.execute(revision).fetchall() == made.execute(revision).fetchall()
        assert served.execute(SCHEMA).fetchall() == made.execute(SCHEMA).fetchall()


def test_every_file_of_the_folder_is_where_the_database_says(left: Store, config: Config) -> None:
    assert list(fsck.check(left, Files(config.storage.directory))) == [Checked(3, 11)]


def test_the_worklist_reads_as_before(left: Store) -> None:
    rows = left.worklist.rows()
    assert [(row["case_id"], row["stage"], row["outcome"], row["delivery"]) for row in rows] == [
        (1, "reported", "positive", "pending"), (2, "receiving", None, None), (3, "ready", None, None),
    ]  # fmt: skip
    assert (rows[0]["patient_name"], rows[0]["p_present"], rows[0]["diameter_mm"]) == ("Doe^Jane", 0.9, 6.5)


def test_what_was_being_received_settles_and_what_was_ready_is_claimed(
    left: Store, config: Config, clock: FakeClock
) -> None:
    context = Context(config, left, Files(config.storage.directory), lambda: None, clock)
    assert settling.settle(context) == 1
    assert series_now(left, "2.25.12").stage is Stage.SET_ASIDE
    claim = left.queue.claim("worker:1", clock(), LEASE, 3)
    assert claim is not None
    assert claim.series.series_instance_uid == "2.25.13"
    assert len(left.settling.instances(claim.series.id)) == 3


def test_what_was_owed_to_others_is_due(left: Store, config: Config, clock: FakeClock) -> None:
    files = Files(config.storage.directory)
    owed = [left.outbox.due.claim(clock(), LEASE) for _ in range(3)]
    assert [each and (each.destination, each.kind) for each in owed] == [
        ("ARCHIVE", "report"), ("PACS", "summary_image"), None,
    ]  # fmt: skip
    for each in owed[:2]:
        assert each is not None
        files.verify(each.file)
        left.outbox.accepted(each, clock())
    asked = left.commitments.due.claim(clock(), LEASE)
    assert asked is not None
    assert (asked.transaction_uid, asked.delivery.stage) == ("2.25.5", DeliveryStage.DELIVERED)
    request = left.commitment_requests.due.claim(clock(), LEASE)
    assert request is not None
    assert result_of(request, left, files, clock()).failed == {}
