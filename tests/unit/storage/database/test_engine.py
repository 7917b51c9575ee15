import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine, event, inspect, text
from sqlalchemy.exc import DBAPIError, OperationalError

import storage
from storage import messages
from storage.conditions import Level
from storage.database.engine import LOST_SERVER, make_safe, open_database
from storage.database.schema import Base
from storage.errors import DatabaseUnusable, StorageFull
from storage.records import Added
from storage.store import Store
from tests.conftest import BOTH_DATABASES
from tests.support.builders import (
    LEASE,
    FakeClock,
    add,
    header,
    open_association,
    ready,
    received,
    reported,
    series_now,
)


@pytest.fixture(params=BOTH_DATABASES)
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without any table."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'new.db'}"
    else:
        with request.getfixturevalue("postgresql_server").database() as url:
            yield url


def unusable(url: str) -> str:
    """The one line that says why the database cannot be used."""
    with pytest.raises(DatabaseUnusable) as caught:
        open_database(url)
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__
    return str(caught.value)


def test_the_migrations_make_exactly_what_the_tables_say(new_url: str) -> None:
    engine = open_database(new_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
        assert inspect(connection).get_view_names() == ["worklist"]
    engine.dispose()


def migrate(connection: Connection, revision: str, by: Callable[[Config, str], None] = command.downgrade) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(str(storage.__file__)).parent / "database" / "migrations"))
    config.attributes["connection"] = connection
    by(config, revision)


def test_names_that_are_there_already_can_be_asked_for(database_url: str, clock: FakeClock) -> None:
    store = Store.open(database_url)
    received(store, clock, patient_name="Müller^Jörg")
    with store.transactions.engine.begin() as connection:
        migrate(connection, "0005")
        migrate(connection, "head", command.upgrade)
    assert [row["patient_name"] for row in store.cfind.find(Level.STUDY, {"name_key": ["müller^jörg"]}, 10)] == [
        "Müller^Jörg"
    ]
    store.close()


def test_what_waits_when_turns_come_in_takes_turns_from_then_on(database_url: str, clock: FakeClock) -> None:
    store = Store.open(database_url)
    for number, site in enumerate(("PACS", "PACS", "PACS", "ED_CT")):
        ready(store, clock, count=1, series=f"2.25.{number}", calling_ae=site)
        clock.advance(1)
    with store.transactions.engine.begin() as connection:
        migrate(connection, "0023")
        migrate(connection, "head", command.upgrade)
    claims = [store.queue.claim("worker:1", clock(), LEASE, 3) for _ in range(4)]
    assert [claim and claim.series.calling_ae for claim in claims] == ["PACS", "ED_CT", "PACS", "PACS"]
    store.close()


def test_the_migrations_can_be_undone(new_url: str) -> None:
    engine = open_database(new_url)
    with engine.begin() as connection:
        migrate(connection, "base")
        assert inspect(connection).get_table_names() == ["alembic_version"]
        assert inspect(connection).get_view_names() == []
    engine.dispose()
    open_database(new_url).dispose()


def test_reopening_keeps_what_is_there(database_url: str, clock: FakeClock) -> None:
    store = Store.open(database_url)
    reported(store, clock)
    before = store.worklist.rows()
    store.close()
    again = Store.open(database_url)
    assert again.worklist.rows() == before
    received(again, clock, series="2.25.1")
    again.close()


def test_two_processes_may_have_the_database_open(database_url: str, clock: FakeClock) -> None:
    one, other = Store.open(database_url), Store.open(database_url)
    received(one, clock, series="2.25.1")
    received(other, clock, series="2.25.2")
    assert len(one.settling.receiving()) == len(other.settling.receiving()) == 2
    one.close()
    other.close()


def test_a_database_of_an_earlier_version_is_refused_with_the_command_to_type(database_url: str) -> None:
    engine = open_database(database_url)
    with engine.begin() as connection:
        migrate(connection, "0012")
    assert "tables of an earlier version (0012; this one needs" in (said := unusable(database_url))
    assert "stop the node and run `willis migrate`" in said
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "0012"
    engine.dispose()
    open_database(database_url, may_migrate=True).dispose()
    open_database(database_url).dispose()


def test_a_database_of_a_newer_version_is_refused_with_the_remedy(database_url: str) -> None:
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    said = unusable(database_url)
    assert "a later version of Willis" in said
    assert "a downgrade would lose" in said
    assert "9999" in said
    assert "restore the backup" in said
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "9999"
    engine.dispose()


def test_a_server_that_does_not_run_is_one_line_without_the_password() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening
        said = unusable(f"postgresql+psycopg://willis:secret@127.0.0.1:{taken.getsockname()[1]}/willis")
    assert "secret" not in said
    assert "willis:***@127.0.0.1" in said
    assert "no server listens there; start the server" in said


def driver_of(connection: Connection) -> Any:
    return connection.connection.driver_connection


@pytest.mark.postgresql
def test_a_server_that_vanished_is_not_waited_for_for_hours(postgresql_url: str) -> None:
    for said in ({}, {"connect_timeout": "3", "keepalives_idle": "60", "tcp_user_timeout": "0"}):
        engine = open_database(postgresql_url + "".join(f"&{key}={value}" for key, value in said.items()))
        with engine.connect() as connection:
            safe_message = driver_of(connection).info.get_parameters()
        assert {key: safe_message.get(key) for key in LOST_SERVER} == LOST_SERVER | said
        engine.dispose()


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    assert "folder exists" in unusable(f"sqlite:///{tmp_path}/missing/willis.db")


def test_a_file_that_is_no_database_is_one_line_and_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database, and long enough to be read as a header " * 20)
    before = (tmp_path / "notes.txt").read_bytes()
    assert "cannot be opened" in unusable(f"sqlite:///{tmp_path}/notes.txt")
    assert (tmp_path / "notes.txt").read_bytes() == before


@pytest.mark.parametrize(
    "url",
    [
        "willis:secret@somewhere",
        "nosuchkind://willis:secret@somewhere/willis",
        "postgresql+nosuchdriver://willis:secret@somewhere/willis",
        "postgresql+psycopg://willis:secret@somewhere:port/willis",
        "mysql+mysqldb://willis:secret@somewhere/willis",
    ],
)
def test_a_url_that_is_none_is_one_line_without_the_password(url: str) -> None:
    said = unusable(url)
    assert "[storage] database_url" in said
    assert "secret" not in said


def test_a_url_is_shown_without_its_password() -> None:
    assert make_safe("postgresql+psycopg://u:secret@h/d") == "postgresql+psycopg://u:***@h/d"
    assert make_safe("u:secret@nowhere") == "nowhere"
    shown = make_safe("postgresql+psycopg://u@/d?host=a&password=secret&sslpassword=secret&sslmode=require")
    assert shown == "postgresql+psycopg://u@/d?host=a&password=***&sslmode=require&sslpassword=***"
    assert make_safe("d?password=secret") == "d?password=***"


def test_sqlite_flushes_every_commit(sqlite_store: Store) -> None:
    with sqlite_store.transactions.writing() as session:
        pragmas = {
            name: session.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30000}


def test_a_lock_that_is_not_had_is_an_error_like_any_other(sqlite_store: Store) -> None:
    engine = sqlite_store.transactions.engine
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA busy_timeout = 50"))
    engine.dispose()
    other = Store.open(str(engine.url))
    with other.transactions.writing() as session:
        session.execute(text("SELECT 1"))  # SQLite takes its lock with the first statement
        with pytest.raises(OperationalError, match="locked") as raised:
            sqlite_store.settling.resume_retrievals(FakeClock()())
    other.close()
    assert sqlite_store.transactions.concerns_everybody(raised.value)
    assert sqlite_store.settling.resume_retrievals(FakeClock()()) == 0


@pytest.mark.postgresql
def test_a_server_that_takes_no_changes_now_is_away_for_everybody(postgresql_store: Store) -> None:
    with postgresql_store.transactions.writing() as session:
        session.execute(text("SET TRANSACTION READ ONLY"))
        with pytest.raises(DBAPIError) as raised:
            session.execute(text("DELETE FROM tally"))
    assert postgresql_store.transactions.concerns_everybody(raised.value)
    assert messages.is_away(raised.value)
    assert "name the primary" in str(messages.of_database(raised.value))


def test_an_error_inside_a_transaction_undoes_it(store: Store, clock: FakeClock) -> None:
    received(store, clock)

    def fail() -> None:
        with store.transactions.writing() as session:
            session.execute(text("UPDATE series SET stage = 'failed'"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert len(store.settling.receiving()) == 1
    received(store, clock, series="2.25.1")  # and the next one can write


def test_a_database_that_another_program_uses_is_left_alone(new_url: str) -> None:
    engine = create_engine(new_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE series (name TEXT)"))
    assert "cannot be opened" in unusable(new_url)
    with engine.connect() as connection:
        assert inspect(connection).get_table_names() == ["series"]
    engine.dispose()


def test_a_database_that_has_no_space_says_so_and_goes_on_when_it_has(sqlite_store: Store, clock: FakeClock) -> None:
    engine, limit = sqlite_store.transactions.engine, [1_000_000]
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(f"PRAGMA max_page_count = {limit[0]}"))
    association = open_association(sqlite_store, "receiver", "PACS", clock())
    with sqlite_store.transactions.reading() as session:
        limit[0] = session.scalar(text("PRAGMA page_count")) + 10
    slices = [header(number, image_type=("X" * 1000,)) for number in range(1, 40)]

    def fill() -> None:
        for each in slices:
            add(sqlite_store, clock, each, association)

    with pytest.raises(StorageFull, match="no space left for the database; free some where"):
        fill()
    kept = series_now(sqlite_store).instance_count
    with pytest.raises(StorageFull), sqlite_store.transactions.writing() as session:
        session.execute(text("CREATE TABLE t AS SELECT zeroblob(1000000)"))
    limit[0] = 1_000_000
    assert add(sqlite_store, clock, slices[kept], association) is Added.STORED
    assert series_now(sqlite_store).instance_count == kept + 1
