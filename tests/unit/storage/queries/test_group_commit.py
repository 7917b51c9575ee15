"""What is offered is added in groups, and everybody is told what became of his own."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from sqlalchemy import event, text

from storage.database.schema import AssociationRow
from storage.queries.group_commit import GroupCommit, Offer
from storage.queries.intake import Intake
from storage.records import Added, AssociationEnd, Change, Ended, Header, Received
from storage.store import Store
from tests.support.builders import FakeClock, header, open_association, series_now, stored_file


@pytest.fixture
def commits(store: Store) -> Iterator[GroupCommit]:
    """A group commit that runs, on either database."""
    running = GroupCommit(store.intake)
    running.start()
    yield running
    running.stop()


def arrived(store: Store, clock: FakeClock, head: Header, content: str = "first") -> Received:
    association = open_association(store, "receiver", "PACS", clock())
    return Received(head, stored_file(head, content), association, "PACS", clock())


def test_an_offer_is_added_and_told(store: Store, clock: FakeClock, commits: GroupCommit) -> None:
    assert commits.offer(arrived(store, clock, header(1))).outcome() is Added.STORED
    assert commits.offer(arrived(store, clock, header(1))).outcome() is Added.SAME
    assert commits.offer(arrived(store, clock, header(1), "other")).outcome() is Added.DIFFERENT
    assert series_now(store).instance_count == 1


def test_what_is_offered_during_a_commit_goes_into_the_next_one(
    store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ones = [arrived(store, clock, header(number)) for number in range(1, 8)]
    groups: list[int] = []
    inside, release = threading.Event(), threading.Event()
    take = Intake.take

    def watched(self: Intake, group: list[Change]) -> list[Added | int]:
        groups.append(len(group))
        inside.set()
        assert release.wait(5)
        return take(self, group)

    monkeypatch.setattr(Intake, "take", watched)
    commits = GroupCommit(store.intake)
    commits.start()
    assert commits.busy_seconds() == 0
    offers = [commits.offer(ones[0])]
    assert inside.wait(5)
    assert commits.busy_seconds() > 0, "for health: what came waits for the database"
    offers += [commits.offer(one) for one in ones[1:]]
    release.set()
    assert {offer.outcome() for offer in offers} == {Added.STORED}
    commits.stop()
    assert groups == [1, 6]
    assert series_now(store).instance_count == 7


def test_one_that_cannot_be_added_does_not_harm_its_group(
    store: Store, clock: FakeClock, commits: GroupCommit, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = [arrived(store, clock, header(number)) for number in range(1, 6)]
    bad = Received(header(9), stored_file(header(9)), good[0].association_id, "PACS", clock().replace(tzinfo=None))
    offers = [commits.offer(one) for one in (*good[:2], bad, *good[2:])]
    with pytest.raises(ValueError, match="needs its zone"):
        offers.pop(2).outcome()
    assert {offer.outcome() for offer in offers} == {Added.STORED}
    assert series_now(store).instance_count == 5


@pytest.mark.postgresql
def test_one_that_is_too_large_for_the_database_does_not_harm_its_group(
    postgresql_store: Store, clock: FakeClock
) -> None:
    large = "".join(map(chr, Random(0).choices(range(0x4E00, 0x9000), k=6000)))  # more than fits into an index
    heads = (header(1), header(1, "2.25.9", study_date=large), header(2))
    offers = [Offer(arrived(postgresql_store, clock, head)) for head in heads]
    GroupCommit(postgresql_store.intake)._commit(offers)
    with pytest.raises(Exception, match="index row"):
        offers.pop(1).outcome()
    assert [offer.outcome() for offer in offers] == [Added.STORED, Added.STORED]


def test_a_locked_database_is_waited_for_once_and_not_for_each_of_a_group(
    sqlite_store: Store, clock: FakeClock
) -> None:
    engine = sqlite_store.transactions.engine
    changes = [arrived(sqlite_store, clock, header(number)) for number in range(1, 21)]
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA busy_timeout = 500"))
    engine.dispose()
    offers, commits = [Offer(change) for change in changes], GroupCommit(sqlite_store.intake)
    other = Store.open(str(engine.url))
    with other.transactions.writing() as session:
        session.execute(text("SELECT 1"))  # SQLite takes its lock with the first statement
        began = time.monotonic()
        commits._commit(offers)
        assert time.monotonic() - began < 4
    for offer in offers:
        with pytest.raises(Exception, match="locked"):
            offer.outcome()
    again = [Offer(change) for change in changes]
    commits._commit(again)
    assert {offer.outcome() for offer in again} == {Added.STORED}
    other.close()


def test_a_database_that_goes_away_while_each_is_tried_alone_is_not_waited_for_by_the_rest(
    store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = [arrived(store, clock, header(number)) for number in range(1, 6)]
    changes[4] = replace(changes[4], at=clock().replace(tzinfo=None))
    driver: Any = store.transactions.engine.dialect.loaded_dbapi
    groups: list[int] = []
    take = Intake.take

    def goes_away(self: Intake, group: list[Change]) -> list[Added | int]:
        groups.append(len(group))
        if len(groups) == 3:
            raise driver.OperationalError("away")
        return take(self, group)

    monkeypatch.setattr(Intake, "take", goes_away)
    offers = [Offer(change) for change in changes]
    GroupCommit(store.intake)._commit(offers)
    assert groups == [5, 1, 1]
    assert offers[0].outcome() is Added.STORED
    for offer in offers[1:]:
        with pytest.raises(driver.OperationalError, match="away"):
            offer.outcome()


def test_what_was_offered_before_the_stop_is_added_and_what_comes_later_is_refused(
    store: Store, clock: FakeClock
) -> None:
    commits = GroupCommit(store.intake)
    early, late = (arrived(store, clock, header(number)) for number in (1, 2))
    with pytest.raises(RuntimeError, match="stopping"):
        commits.offer(late).outcome()
    commits.start()
    offer = commits.offer(early)
    commits.stop()
    assert offer.outcome() is Added.STORED
    with pytest.raises(RuntimeError, match="stopping"):
        commits.offer(late).outcome()
    commits.stop()
    commits.start()
    assert commits.offer(late).outcome() is Added.STORED
    commits.stop()


def test_the_end_of_an_association_waits_for_company(
    store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.queries.group_commit.PATIENCE_SECONDS", 5.0)
    instance = arrived(store, clock, header(1))
    groups: list[int] = []
    take = Intake.take

    def watched(self: Intake, group: list[Change]) -> list[Added | int]:
        groups.append(len(group))
        return take(self, group)

    monkeypatch.setattr(Intake, "take", watched)
    commits = GroupCommit(store.intake)
    commits.start()
    end = commits.offer(Ended(instance.association_id, AssociationEnd.RELEASED, clock()))
    assert commits.offer(instance).outcome() is Added.STORED
    assert end.outcome() == instance.association_id
    commits.stop()
    assert groups == [2]


def test_the_end_of_an_association_does_not_wait_for_ever(store: Store, clock: FakeClock, commits: GroupCommit) -> None:
    association = open_association(store, "receiver", "PACS", clock())
    end = commits.offer(Ended(association, AssociationEnd.RELEASED, clock()))
    assert end.outcome() == association


def test_the_end_of_an_association_that_a_locked_database_refused_is_recorded_when_it_is_free(
    sqlite_store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.queries.group_commit.AGAIN_SECONDS", 0.05)
    engine, association = sqlite_store.transactions.engine, open_association(sqlite_store, "receiver", "PACS", clock())
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA busy_timeout = 50"))
    engine.dispose()
    commits, other = GroupCommit(sqlite_store.intake), Store.open(str(engine.url))
    commits.start()
    with other.transactions.writing() as session:
        session.execute(text("SELECT 1"))  # SQLite takes its lock with the first statement
        with pytest.raises(Exception, match="locked"):
            commits.offer(Ended(association, AssociationEnd.RELEASED, clock())).outcome()
    other.close()
    how: str | None = None
    until = time.monotonic() + 10
    while how is None and time.monotonic() < until:
        with sqlite_store.transactions.reading() as session:
            how = session.get_one(AssociationRow, association).closed
        time.sleep(0.02)
    commits.stop()
    assert how == "released"
