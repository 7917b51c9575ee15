"""The counts of what stands at an end are those that counting would give, whatever happens."""

import itertools
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest
from alembic import command
from sqlalchemy import delete, func, select, text, update

from storage.database.at_end import ENDS
from storage.database.running import AtEndRow
from storage.database.schema import DeliveryRow, SeriesRow
from storage.queries import at_end
from storage.queries.retention import Why
from storage.stages import DeliveryStage, Event, Outcome, Stage
from storage.store import Store
from tests.support.builders import LEASE, FakeClock, add, finish, header, ready, received, reported, series_now
from tests.unit.storage.database.test_engine import migrate

DAY = 86_400


def counted(store: Store) -> tuple[dict[str, int], dict[str, int]]:
    with store.transactions.reading() as session:
        series = select(SeriesRow.stage, func.count()).where(~SeriesRow.canary).group_by(SeriesRow.stage)
        deliveries = select(DeliveryRow.stage, func.count()).group_by(DeliveryRow.stage)
        return dict(session.execute(series).all()), dict(session.execute(deliveries).all())


def kept(store: Store) -> tuple[dict[str, int], dict[str, int]]:
    found = store.worklist.counts()
    return tuple({stage.value: n for stage, n in each.items()} for each in (found.stages, found.deliveries))  # type: ignore[return-value]


def rows(store: Store) -> int:
    with store.transactions.reading() as session:
        return session.scalar(select(func.count()).select_from(AtEndRow)) or 0


def test_each_stage_is_counted_as_an_end_or_when_it_is_asked_for() -> None:
    assert sorted((*ENDS["series"], "receiving", "ready", "analysing")) == sorted(Stage)
    assert sorted((*ENDS["delivery"], "pending")) == sorted(DeliveryStage)


class Life:
    """What may happen to series and deliveries, one thing at a time."""

    def __init__(self, store: Store, clock: FakeClock, lot: random.Random) -> None:
        self.store, self.clock, self.lot, self.number = store, clock, lot, 0
        self.uids = itertools.count(1)

    def new(self) -> None:
        self.number += 1
        received(self.store, self.clock, 2, f"2.25.7{self.number}")

    def late_slice(self) -> None:
        if self.number:
            uid = f"2.25.7{self.lot.randint(1, self.number)}"
            add(self.store, self.clock, header(10 + self.lot.randint(1, 1000), uid))

    def settle(self) -> None:
        for series in self.store.settling.receiving()[:1]:
            event = self.lot.choice((Event.SETTLED, Event.SET_ASIDE))
            outcome = Outcome.NOT_ELIGIBLE if event is Event.SET_ASIDE else None
            self.store.settling.leave(series, event, "count", self.clock(), outcome)

    def analyse(self) -> None:
        claim = self.store.queue.claim("worker", self.clock(), LEASE, 3)
        if claim and self.lot.random() < 0.8:
            finish(self.store, self.clock, claim)
        elif claim:
            self.store.queue.give_back("worker", refund=False)

    def exhaust(self) -> None:
        if claim := self.store.queue.claim_exhausted("worker", self.clock(), LEASE, 1):
            finish(self.store, self.clock, claim, Outcome.NOT_ANALYSED)

    def retry(self) -> None:
        if self.number:
            with self.store.transactions.reading() as session:
                cases = list(session.scalars(select(SeriesRow.id)))
            if cases:
                self.store.queue.retry(self.lot.choice(cases))

    def deliver(self) -> None:
        if delivery := self.store.outbox.due.claim(self.clock(), LEASE):
            if self.lot.random() < 0.8:
                self.store.outbox.accepted(delivery, self.clock(), f"2.25.6.{next(self.uids)}")
            else:
                self.store.outbox.refused(delivery, "0xC000")

    def commit(self) -> None:
        if commitment := self.store.commitments.due.claim(self.clock(), LEASE):
            error = self.lot.choice(("", "", "lost"))
            self.store.commitments.reported(commitment.transaction_uid, error, self.clock(), lambda _: self.clock())

    def requeue(self) -> None:
        with self.store.transactions.reading() as session:
            report = session.scalar(select(DeliveryRow.report_id).where(DeliveryRow.stage == "dead").limit(1))
        if report is not None:
            self.store.outbox.requeue(report, self.clock())

    def remove(self) -> None:
        now = self.clock.advance(DAY)
        for case in self.store.retention.candidates(now, 1):
            removal = self.store.retention.begin(case, Why.AGE, now, now)
            assert removal and self.store.retention.forget(removal, now)


def test_whatever_happens_the_counts_are_those_that_counting_would_give(
    store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(at_end, "FEW", 6)
    lot = random.Random(11)
    life = Life(store, clock, lot)
    actions: list[Callable[[], Any]] = [
        life.new, life.late_slice, life.settle, life.settle, life.analyse, life.analyse, life.exhaust, life.retry,
        life.deliver, life.deliver, life.commit, life.requeue, life.remove, store.at_end.fold,
    ]  # fmt: skip
    stages = set[str]()
    for _ in range(200):
        clock.advance(1)
        lot.choice(actions)()
        assert kept(store) == counted(store)
        stages |= {name for each in counted(store) for name in each}
    ends = {"reported", "set_aside", "failed", "delivered", "committed", "dead"}
    assert ends <= stages, "all of them were there at some time"
    while store.at_end.fold():
        pass
    assert rows(store) <= len(ends)
    assert kept(store) == counted(store)


def test_what_is_written_past_the_store_counts_too_and_a_canary_never_does(store: Store, clock: FakeClock) -> None:
    for number in range(3):
        reported(store, clock, series=f"2.25.{number}")
    with store.transactions.writing() as session:
        session.execute(update(SeriesRow).where(SeriesRow.id < 3).values(stage="failed"))
        session.execute(delete(DeliveryRow).where(DeliveryRow.id == 1))
        session.execute(update(DeliveryRow).values(stage="dead"))
    assert kept(store) == counted(store) == ({"failed": 2, "reported": 1}, {"dead": 2})
    store.canaries.begin("2.25.9", clock())
    series = received(store, clock, series="2.25.9")
    store.settling.leave(series, Event.SET_ASIDE, "count", clock(), Outcome.NOT_ELIGIBLE)
    assert series_now(store, "2.25.9").stage == "set_aside"
    assert kept(store)[0] == {"failed": 2, "reported": 1}


def test_what_a_transaction_did_that_was_rolled_back_is_not_counted(store: Store, clock: FakeClock) -> None:
    reported(store, clock)

    def fail() -> None:
        with store.transactions.writing() as session:
            session.execute(update(SeriesRow).values(stage="failed"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert kept(store)[0] == {"reported": 1}


def test_hosts_that_fold_at_once_while_others_write_lose_nothing(
    database_url: str, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(at_end, "FEW", 0)
    store, hosts = Store.open(database_url), [Store.open(database_url) for _ in range(3)]
    reported(store, clock)
    stop, errors = threading.Event(), list[BaseException]()

    def fold(host: Store) -> None:
        try:
            while not stop.is_set():
                host.at_end.fold()
                stop.wait(0.005)
        except BaseException as error:  # noqa: BLE001  told below
            errors.append(error)

    threads = [threading.Thread(target=fold, args=(host,)) for host in hosts]
    for thread in threads:
        thread.start()
    try:
        for number in range(150):
            with store.transactions.writing() as session:
                session.execute(update(SeriesRow).values(stage="failed" if number % 2 else "reported"))
            assert sum(kept(store)[0].values()) == 1
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert kept(store) == counted(store)
    for each in (store, *hosts):
        each.close()


def test_what_was_there_before_it_was_kept_is_counted(database_url: str, clock: FakeClock) -> None:
    store = Store.open(database_url)
    reported(store, clock)
    ready(store, clock, series="2.25.8")
    with store.transactions.engine.begin() as connection:
        migrate(connection, "0024")
        migrate(connection, "head", command.upgrade)
    assert kept(store) == counted(store) == ({"reported": 1, "ready": 1}, {"pending": 1})
    reported(store, clock, series="2.25.9")
    assert kept(store) == counted(store)
    with store.transactions.reading() as session:
        assert session.scalar(text("SELECT SUM(number) FROM at_end")) == 2
    store.close()
