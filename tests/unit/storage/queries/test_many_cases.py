"""What the node asks again and again costs as much with five times as many cases held, on either database."""

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select, update

from node.dicom.conformance import IMAGE_CLASSES
from storage.database.schema import SeriesRow
from storage.store import Store
from tests.benchmarks.bench_database import RARE, asked
from tests.benchmarks.filled_database import fill, is_filled
from tests.conftest import BOTH_DATABASES, PostgreSQL
from tests.support.plans import effort, plans

FEW, MANY, WAITING, UNSEEN = 3_000, 15_000, 40, 100
SLACK = {"sqlite": 5_000, "postgresql": 300}
"""Steps, or rows, that say nothing: a scan of what `MANY` have more is several times as much."""

Asked = dict[str, Callable[[], Any]]


@pytest.fixture(scope="module", params=BOTH_DATABASES)
def stores(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Store]]:
    """One that holds few cases, and one that holds many."""
    opened = list[Store]()
    if request.param == "sqlite":
        template: Path = request.getfixturevalue("sqlite_template")
        for held in (FEW, MANY):
            path = tmp_path_factory.mktemp("many") / f"{held}.db"
            shutil.copy(template, path)
            opened.append(Store.open(f"sqlite:///{path}"))
        yield _filled(opened)
    else:
        server: PostgreSQL = request.getfixturevalue("postgresql_server")
        with server.database(template="migrated") as few, server.database(template="migrated") as many:
            opened += [Store.open(few), Store.open(many)]
            yield _filled(opened)
            for store in opened:
                store.close()
    for store in opened:
        store.close()


def _as_with_millions(connection: Any, _record: Any) -> None:
    """Where there are so few rows PostgreSQL reads a whole table sooner than it goes by an index."""
    for way in ("seqscan", "bitmapscan", "hashjoin", "mergejoin"):
        connection.execute(f"SET enable_{way} = off")
    connection.commit()


def _filled(stores: list[Store]) -> list[Store]:
    for store, held in zip(stores, (FEW, MANY), strict=True):
        if store.transactions.engine.dialect.name == "postgresql":
            event.listen(store.transactions.engine, "connect", _as_with_millions)
            store.transactions.engine.dispose()
        fill(store, held, WAITING)
        _note_images(store)
    return stores


def _note_images(store: Store) -> None:
    """As some time after an update: all but `UNSEEN` old ones, in either, have been looked at."""
    now = datetime.now(UTC)
    while store.retention.note_images(now, 5000, IMAGE_CLASSES):
        pass
    old = now - timedelta(days=2)
    oldest = select(SeriesRow.id).where(SeriesRow.holds_images).order_by(SeriesRow.id).limit(UNSEEN)
    unseen = update(SeriesRow).where(SeriesRow.id.in_(oldest))
    assert store.transactions.change(unseen.values(holds_images=False, ended_at=old, last_instance_at=old)) == UNSEEN


def test_what_is_asked_again_and_again_costs_no_more_with_many_cases(stores: list[Store]) -> None:
    few, many = (asked(store, held) for store, held in zip(stores, (FEW, MANY), strict=True))
    slack = SLACK[stores[0].transactions.engine.dialect.name]
    grown = {}
    for name in few:
        if not name.startswith(RARE):
            before, after = effort(stores[0], few[name]), effort(stores[1], many[name])
            if after > 2 * before + slack:
                grown[name] = f"from {before} to {after}"
                print(name, *plans(stores[1], asked(stores[1], MANY)[name]), sep="\n")
    assert grown == {}


def test_a_database_that_holds_anything_is_not_filled(stores: list[Store]) -> None:
    assert is_filled(stores[0])
    with pytest.raises(ValueError, match="is not empty"):
        fill(stores[0], 10, 1)
    assert is_filled(stores[0])
