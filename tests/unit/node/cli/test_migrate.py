"""`willis migrate`: what it says, what it copies, when it refuses; and a node that does it by itself."""

import shutil
import socket
import sqlite3
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config as AlembicConfig
from sqlalchemy import create_engine

from node.config.loading import load
from node.errors import ConfigError
from node.runtime.clock import utc_now
from node.runtime.heartbeat import Heartbeat
from node.workflow import migration, supervisor
from storage.backup import NoBackup, copy_sqlite
from storage.database import engine, revision
from storage.database.engine import open_database
from storage.errors import DatabaseAway, DatabaseUnusable
from storage.store import Store
from tests.support.absent import absent
from tests.support.builders import FakeClock, reported
from tests.support.command_line import Run, config, one_line, run

__all__ = ["config", "run"]


def made_older(url: str, to: str = "0012") -> None:
    opened = create_engine(url)
    with opened.begin() as connection:
        settings = AlembicConfig()
        settings.set_main_option("script_location", str(revision.MIGRATIONS))
        settings.attributes["connection"] = connection
        command.downgrade(settings, to)
    opened.dispose()


def revision_of(url: str) -> str:
    opened = create_engine(url)
    with opened.connect() as connection:
        found = str(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar())
    opened.dispose()
    return found


@pytest.fixture
def url(config: Path, clock: FakeClock) -> str:
    """The database of a node, with a reported case, as version 0012 left it."""
    database = f"sqlite:///{config.parent / 'var' / 'willis.db'}"
    store = Store.open(database)
    reported(store, clock)
    store.close()
    made_older(database)
    return database


def test_a_dry_run_says_what_it_would_do_and_changes_nothing(run: Run, config: Path, url: str) -> None:
    database = config.parent / "var" / "willis.db"
    before = database.read_bytes()
    said = run("migrate", "--dry-run", "--config", config)
    assert said.exit_code == 0
    first, *steps = said.stdout.splitlines()
    assert first.startswith(f"would copy the database to {database}.0012-")
    assert steps[0] == (
        "would make revision 0013: What people and other systems are to be told of, on its way to each target."
    )
    assert len(steps) == len(revision.what_comes_after("0012"))
    assert database.read_bytes() == before
    assert [path.name for path in database.parent.iterdir()] == ["willis.db"]


def test_a_database_that_is_not_there_is_not_made_but_said(run: Run, config: Path) -> None:
    for option in ([], ["--dry-run"]):
        said = one_line(run("migrate", *option, "--config", config), 2)
        assert "there is no database" in said and "name the node's configuration with --config" in said
    assert not (config.parent / "var" / "willis.db").exists()


def test_the_database_is_copied_and_then_migrated_with_what_is_in_it(run: Run, config: Path, url: str) -> None:
    said = run("migrate", "--config", config)
    assert said.exit_code == 0, said.output
    copy = Path(said.stdout.splitlines()[-1].removeprefix("as it was before: "))
    assert (revision_of(url), revision_of(f"sqlite:///{copy}")) == (revision.newest(), "0012")
    store = Store.open(url)
    assert len(store.worklist.rows()) == 1
    store.close()
    with sqlite3.connect(copy) as connection:
        assert connection.execute("SELECT COUNT(*) FROM series").fetchone() == (1,)
    again = run("migrate", "--config", config)
    assert (again.exit_code, "nothing to do" in again.stdout) == (0, True)


def test_a_node_that_runs_is_to_be_stopped_first(run: Run, config: Path, url: str) -> None:
    database = config.parent / "var" / "willis.db"
    with sqlite3.connect(database) as connection:
        now = utc_now().replace(tzinfo=None).isoformat(" ")
        connection.execute(
            "INSERT INTO process VALUES ('serve:elsewhere:1', 'serve', 'elsewhere', 1, '/', ?, ?, '{}')", (now, now)
        )
    connection.close()
    assert "`willis serve`, pid 1 on elsewhere): stop it first" in one_line(run("migrate", "--config", config), 1)
    assert revision_of(url) == "0012"


def test_a_copy_that_fails_leaves_the_database_as_it_is(
    run: Run, config: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_source: Path, _to: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("storage.migration.copy_sqlite", full)
    assert "no space left" in one_line(run("migrate", "--config", config), 1)
    assert revision_of(url) == "0012"
    assert run("migrate", "--no-backup", "--config", config).exit_code == 0
    assert revision_of(url) == revision.newest()


def test_a_downgrade_is_refused(run: Run, config: Path, url: str) -> None:
    with sqlite3.connect(config.parent / "var" / "willis.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    for arguments in (("migrate",), ("migrate", "--dry-run"), ("worklist",)):
        said = one_line(run(*arguments, "--config", config), 2)
        assert "made by a later version of Willis (tables 9999" in said
        assert "downgrade" in said


def test_a_node_does_not_start_on_an_older_database_unless_it_may_migrate_it(
    config: Path, url: str, monkeypatch: pytest.MonkeyPatch, logging_restored: None
) -> None:
    monkeypatch.setattr(supervisor.Supervisor, "run", lambda self: self._store.close() or 0)
    with pytest.raises(DatabaseUnusable, match="run `willis migrate`"):
        supervisor.serve(load(config), [])
    assert revision_of(url) == "0012"
    assert supervisor.serve(load(config, {"WILLIS_STORAGE__MIGRATE": "by_itself"}), []) == 0
    assert revision_of(url) == revision.newest()
    assert len(list((config.parent / "var").glob("willis.db.0012-*"))) == 1
    assert supervisor.serve(load(config, {"WILLIS_STORAGE__MIGRATE": "by_itself"}), []) == 0, "nothing is to be done"
    assert len(list((config.parent / "var").glob("willis.db.0012-*"))) == 1


def test_a_node_that_fails_to_migrate_again_and_again_keeps_one_copy_and_makes_another_only_of_what_is_new(
    config: Path, url: str, monkeypatch: pytest.MonkeyPatch, logging_restored: None
) -> None:
    database, copied = config.parent / "var" / "willis.db", []
    checked = load(config, {"WILLIS_STORAGE__MIGRATE": "by_itself"})

    def copy(source: Path, to: Path) -> None:
        copied.append(to)
        copy_sqlite(source, to)

    def fail(*_: object, **__: object) -> None:
        raise DatabaseUnusable("it cannot be migrated")

    monkeypatch.setattr("storage.migration.copy_sqlite", copy)
    with monkeypatch.context() as failing:
        failing.setattr("storage.migration.open_database", fail)
        for _ in range(3):
            with pytest.raises(DatabaseUnusable):
                migration.migrate_by_itself(checked, utc_now)
        assert len(copied) == 1
        with sqlite3.connect(database) as connection:
            connection.execute("UPDATE series SET detail = 'later'")
        connection.close()
        with pytest.raises(DatabaseUnusable):
            migration.migrate_by_itself(checked, utc_now)
    assert len(copied) == 2
    migration.migrate_by_itself(checked, utc_now)
    [left] = database.parent.glob("willis.db.*")
    with sqlite3.connect(left) as connection:
        assert connection.execute("SELECT detail FROM series").fetchall() == [("later",)]
    connection.close()
    assert revision_of(url) == revision.newest()


@pytest.mark.postgresql
def test_a_table_that_another_session_holds_ends_the_migration_in_time_and_changes_nothing(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_older(postgresql_url)
    monkeypatch.setattr(engine, "MIGRATION_LOCK_SECONDS", 0.2)
    other = create_engine(postgresql_url)
    with other.connect() as holding:
        holding.exec_driver_sql("LOCK TABLE delivery, series, instance, process IN ACCESS SHARE MODE")
        with pytest.raises(DatabaseAway, match="another session holds a table for too long"):
            open_database(postgresql_url, may_migrate=True)
    other.dispose()
    assert revision_of(postgresql_url) == "0012"
    open_database(postgresql_url, may_migrate=True).dispose()
    assert revision_of(postgresql_url) == revision.newest()


def test_a_process_that_died_does_not_keep_the_database_from_being_migrated(config: Path, url: str) -> None:
    import subprocess
    import sys

    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    store = Store.open  # the process table is there since 0011
    migration.migrate(load(config), migration.plan(load(config), utc_now()), utc_now)
    opened = store(url)
    Heartbeat(opened.processes, "serve", config.parent)._beat()
    with opened.transactions.writing_plainly() as connection:
        connection.exec_driver_sql(f"UPDATE process SET pid = {ended.pid}")
    opened.close()
    made_older(url)
    migration.migrate(load(config), migration.plan(load(config), utc_now()), utc_now)
    assert revision_of(url) == revision.newest()


@pytest.mark.postgresql
def test_postgresql_is_dumped_first_or_says_that_it_cannot_be(
    run: Run, tmp_path: Path, config: Path, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("pg_dump") is None:
        absent("no pg_dump: apt-get install postgresql-client")
    made_older(postgresql_url)
    monkeypatch.setenv("WILLIS_STORAGE__DATABASE_URL", postgresql_url)
    with monkeypatch.context() as without:
        without.setenv("PATH", str(tmp_path))
        assert "run `willis migrate --no-backup`" in one_line(run("migrate", "--config", config), 2)
    assert revision_of(postgresql_url) == "0012"
    said = run("migrate", "--config", config)
    assert said.exit_code == 0, said.output
    assert revision_of(postgresql_url) == revision.newest()
    [dump] = (config.parent / "var").glob("postgresql.dump.0012-*")  # and nothing that is half made
    assert dump.read_bytes().startswith(b"PGDMP")


def test_a_dump_that_fails_changes_nothing(config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from storage.migration import _copy

    (tmp_path / "pg_dump").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "pg_dump").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoBackup, match="pg_dump ended with status 3, and nothing was changed"):
        _copy("postgresql+psycopg://willis:secret@127.0.0.1:1/willis", tmp_path / "dump")


@pytest.mark.parametrize("url", ["willis:secret@h/willis?port=1", "willis@h/willis?port=1&password=secret"])
def test_a_password_is_not_on_the_command_line_of_the_dump(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str
) -> None:
    from storage.migration import _copy

    (tmp_path / "pg_dump").write_text('#!/bin/sh\necho "$@" "knows $PGPASSWORD" >"$0.said"\nexit 3\n')
    (tmp_path / "pg_dump").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoBackup):
        _copy(f"postgresql+psycopg://{url}", tmp_path / "dump")
    said = (tmp_path / "pg_dump.said").read_text()
    assert said.endswith("--dbname=postgresql://willis@h/willis?port=1 knows secret\n"), said
    with pytest.raises(NoBackup, match="pg_dump can be told sslpassword only where everybody on this machine sees it"):
        _copy(f"postgresql+psycopg://{url}&sslpassword=x", tmp_path / "dump")


@pytest.mark.postgresql
def test_a_host_of_our_name_that_works_on_the_older_database_keeps_it_from_being_migrated(
    config: Path, postgresql_url: str
) -> None:
    opened = Store.open(postgresql_url)
    Heartbeat(opened.processes, "serve", config.parent)._beat()
    gone, host = 2**22 + 1, socket.gethostname()[:64]  # no process has such an id

    def beats(_seconds: float) -> None:
        with opened.transactions.writing_plainly() as connection:
            now, name = f"beat_at = beat_at + interval '{_seconds} s'", f"name = 'serve:{host}:{gone}'"
            connection.exec_driver_sql(f"UPDATE process SET pid = {gone}, {name}, {now}")

    beats(0)
    made_older(postgresql_url)
    checked = load(config, {"WILLIS_STORAGE__DATABASE_URL": postgresql_url})
    with pytest.raises(ConfigError, match=f"another host is called '{socket.gethostname()}' too"):
        migration.migrate(checked, migration.plan(checked, utc_now()), utc_now, wait=beats)
    opened.close()
    assert revision_of(postgresql_url) == "0012"
