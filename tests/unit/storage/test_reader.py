"""The worklist read without SQLAlchemy is the worklist."""

from pathlib import Path

import pytest
from sqlalchemy import text

from storage.errors import DatabaseUnusable
from storage.reader import open_worklist
from storage.store import Store
from tests.support.builders import LEASE, FakeClock, received, reported


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The URL of a database that is not there yet, in a folder whose name needs quoting."""
    (tmp_path / "a 100% #1 folder").mkdir()
    return f"sqlite:///{tmp_path / 'a 100% #1 folder' / 'willis.db'}"


def test_both_ways_of_reading_say_the_same(url: str, clock: FakeClock) -> None:
    store = Store.open(url)
    reported(store, clock)
    delivery = store.outbox.due.claim(clock(), LEASE)
    assert delivery is not None
    store.outbox.accepted(delivery, clock.advance(3))
    received(store, clock, series="2.25.5", patient_name="Yamada^Tarou=山田^太郎")
    plain = open_worklist(url)
    assert plain.rows() == store.worklist.rows()
    assert len(plain.rows()) == 2
    assert plain.case("2.25.5") == store.worklist.case("2.25.5")
    assert plain.case("nothing") is None
    assert plain.reports(1) == store.worklist.reports(1)
    assert plain.deliveries(1) == store.worklist.deliveries(1)
    assert plain.status() == store.worklist.status()
    received(store, clock, series="2.25.6")
    assert len(plain.rows()) == 3, "what comes later is seen"
    store.close()


def test_a_database_that_is_not_there_is_made(url: str) -> None:
    assert open_worklist(url).rows() == []
    assert Path(url.removeprefix("sqlite:///")).exists()


def test_a_database_of_an_earlier_version_is_refused_and_not_migrated(url: str, clock: FakeClock) -> None:
    from tests.unit.storage.database.test_engine import migrate

    store = Store.open(url)
    reported(store, clock)
    with store.transactions.engine.begin() as connection:
        migrate(connection, "0005")
    with pytest.raises(DatabaseUnusable, match="run `willis migrate`"):
        open_worklist(url)
    with store.transactions.engine.begin() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == "0005"
    store.close()
