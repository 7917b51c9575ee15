"""The list that all open pages share is what the database has, though only what changed is read."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

import node.web.board as board_module
from node.web.board import RANKED, Board, _rank
from storage.queries.accounts import Role
from storage.queries.retention import Why
from storage.queries.reviews import Action, Wanted
from storage.queries.worklist import Row
from storage.records import Conclusion
from storage.stages import Event, Outcome
from storage.store import Store
from tests.support.builders import LEASE, FakeClock, add, claimed, finish, header, ready, received, reported


@pytest.fixture
def board(store: Store) -> Board:
    return Board(store.triage, store.changes)


def everything(row: Row) -> bool:
    return bool(row)


def case(board: Board, number: int) -> Row:
    return board.current().cases[number]


def refuse(*_: Any) -> Any:
    raise AssertionError("all cases were read again")


def life_of_a_case(store: Store, clock: FakeClock) -> list[Callable[[], object]]:
    """All that becomes of a case, step by step, beside another one that ends later."""

    def removed() -> None:
        clock.advance(3600)
        removal = store.retention.begin(1, Why.AGE, clock(), clock())
        assert removal is not None
        assert store.retention.forget(removal, clock())

    def reviewed(action: Action, version: int, **values: Any) -> Callable[[], object]:
        return lambda: store.reviews.change(Wanted(1, version, action, "dr.a", **values), clock())

    def ended() -> None:
        claim = claimed(store, clock, first=4, count=1)
        assert finish(store, clock, claim, Outcome.NEGATIVE, destinations=())

    return [
        lambda: received(store, clock, series="2.25.2"),
        lambda: add(store, clock, header(4, "2.25.2")),
        lambda: assert_finished(store, clock),
        reviewed(Action.ACCEPTED, 0, finding=1),
        reviewed(Action.ACKNOWLEDGED, 1),
        reviewed(Action.UNDONE, 2),
        reviewed(Action.ASSIGNED, 3, assigned_to="dr.b"),
        ended,
        removed,
        lambda: ready(store, clock, series="2.25.5", closed=None),
    ]


def assert_finished(store: Store, clock: FakeClock) -> None:
    claim = store.queue.claim("worker:1", clock(), timedelta(seconds=60), 3)
    assert claim is not None
    assert finish(store, clock, claim, destinations=())


def test_whatever_becomes_of_a_case_is_found_without_reading_all_again(
    store: Store, board: Board, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(store, clock)
    cases = store.triage.cases
    before = board.current()
    monkeypatch.setattr(store.triage, "cases", refuse)
    for number, step in enumerate(life_of_a_case(store, clock)):
        clock.advance(30)
        step()
        now = board.current()
        assert dict(now.cases) == {row["case_id"]: row for row in cases()}, number
        assert now.number > before.number, number
        by_rank = sorted(now.cases.values(), key=lambda row: (_rank(row, clock()), -row["case_id"]))
        assert now.ranked(clock(), everything) == by_rank, number
        before = now
    assert [row["series_instance_uid"] for row in before.ranked(clock(), everything)] == ["2.25.2", "2.25.5"]


def test_what_is_not_a_change_of_a_case_makes_no_new_list(store: Store, board: Board, clock: FakeClock) -> None:
    reported(store, clock)
    before = board.current()
    store.accounts.add("dr.a", Role.READER, "hashed", clock())
    assert board.current() is before
    assert board.deliveries([1]) == {1: "pending"}


def test_a_case_declined_before_its_analysis_is_followed_to_its_end_without_a_report(
    store: Store, board: Board, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = received(store, clock)
    assert store.settling.leave(series, Event.SETTLED, "count", clock(), Outcome.NOT_ANALYSED, "incomplete", "2 of 3")
    for number in range(20):  # so that it is not among the newest, which are looked at each time
        received(store, clock, series=f"2.25.9{number}")
    assert case(board, 1)["stage"] == "ready"
    monkeypatch.setattr(store.triage, "cases", refuse)
    claim = store.queue.claim("worker:1", clock(), LEASE, 3)
    assert claim is not None
    assert store.queue.finish(claim, Conclusion(Outcome.NOT_ANALYSED, "incomplete"), None, (), clock())
    assert case(board, 1)["stage"] == "reported"


def test_what_changes_of_a_case_while_it_waits_is_found_and_those_that_wait_unchanged_are_not_read_again(
    store: Store, board: Board, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        ready(store, clock, series=f"2.25.9{number}")
    board.current()
    mark, in_work = board._mark, dict(board.current().cases)
    monkeypatch.setattr(store.triage, "cases", refuse)
    assert store.queue.claim("worker:1", clock(), LEASE, 3)
    store.queue.give_back("worker:1", refund=False, why="no GPU")  # between two looks
    assert case(board, 1)["detail"] == "no GPU"
    add(store, clock, header(1, "2.25.91"), content="other")
    assert case(board, 2)["conflicts"] == ["instances_differ"]
    assert 3 not in store.triage.changed(mark, in_work)[1]
    claim = store.queue.claim("worker:1", clock(), LEASE, 3)
    assert claim and finish(store, clock, claim)
    assert store.queue.retry(claim.series.id)
    assert case(board, claim.series.id)["revision"] == 2


def test_more_slices_of_a_case_in_work_are_no_news(store: Store, board: Board, clock: FakeClock) -> None:
    received(store, clock, closed=None)
    first = board.current()
    add(store, clock, header(4))
    grown = board.current()
    assert (grown.number, grown.news) == (first.number + 1, first.news)
    assert case(board, 1)["instance_count"] == 4
    received(store, clock, series="2.25.2")
    assert board.current().news == first.news + 1


def test_that_a_case_in_work_gets_on_is_no_news_and_its_report_is(store: Store, board: Board, clock: FakeClock) -> None:
    ready(store, clock)
    first = board.current()
    claim = store.queue.claim("worker:1", clock(), timedelta(seconds=60), 3)
    assert claim is not None
    assert (case(board, 1)["stage"], board.current().news) == ("analysing", first.news)
    assert finish(store, clock, claim, destinations=())
    assert board.current().news == first.news + 1


def test_the_order_follows_the_time_of_waiting(store: Store, board: Board, clock: FakeClock) -> None:
    reported(store, clock)
    clock.advance(600)
    claim = claimed(store, clock, series="2.25.2")
    assert finish(store, clock, claim)
    calls = []

    def counted(row: Row) -> bool:
        calls.append(row["case_id"])
        return True

    snapshot = board.current()
    for _ in range(2):
        assert [row["case_id"] for row in snapshot.ranked(clock(), counted, "all")] == [1, 2]
    assert len(calls) == 2, "the list is made once for all who ask for the same"
    clock.advance(RANKED.total_seconds() + 1)
    snapshot.ranked(clock(), counted, "all")
    assert len(calls) == 4


def test_all_cases_are_read_again_after_a_while(
    store: Store, board: Board, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A net for what is found by no number, as when somebody changes a table by hand."""
    reported(store, clock)
    board.current()
    with store.transactions.writing_plainly() as connection:
        connection.exec_driver_sql("UPDATE series SET detail = 'by hand'")
    board._mark = type(board._mark)(100, 100, 100, 100)  # nothing new is looked at again
    monkeypatch.setattr("node.web.board.READ_SECONDS", -1.0)
    assert case(board, 1)["detail"] == "by hand"


def test_pages_hear_which_cases_in_work_got_on_and_of_anything_else_that_all_changed(
    store: Store, board: Board, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board_module, "GROWTH_SECONDS", 0.0)
    received(store, clock, closed=None)
    received(store, clock, series="2.25.2", closed=None)

    async def heard() -> list[str]:
        mine = board.subscribe()
        watching = asyncio.create_task(board.watch(lambda: False))
        events = [await asyncio.wait_for(mine.get(), 10)]
        add(store, clock, header(4))
        events.append(await asyncio.wait_for(mine.get(), 10))
        received(store, clock, series="2.25.3")
        events.append(await asyncio.wait_for(mine.get(), 10))
        watching.cancel()
        return events

    with ThreadPoolExecutor(1) as thread:  # this one may have a loop already: that of a browser
        assert thread.submit(asyncio.run, heard()).result() == ["changed", "grown 1", "changed"]


def test_where_every_host_says_what_it_changes_the_database_is_looked_at_when_that_is_heard_and_rarely_else(
    store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board_module, "NET_SECONDS", 60.0)
    board = Board(store.triage, store.changes, lambda: True)
    received(store, clock)

    async def heard() -> None:
        mine = board.subscribe()
        watching = asyncio.create_task(board.watch(lambda: False))
        await asyncio.wait_for(mine.get(), 10)
        received(store, clock, series="2.25.2")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(mine.get(), 5 * board_module.LOOK_SECONDS)
        board.look()
        assert await asyncio.wait_for(mine.get(), 10) == "changed"
        monkeypatch.setattr(board_module, "NET_SECONDS", 0.0)
        received(store, clock, series="2.25.3")
        assert await asyncio.wait_for(mine.get(), 10) == "changed"
        watching.cancel()

    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, heard()).result()


def test_it_is_watched_from_the_first_page_on_until_a_while_after_the_last(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = [1000.0]
    monkeypatch.setattr("node.web.board.time.monotonic", lambda: seconds[0])
    board = Board(store.triage, store.changes)
    assert not board.is_watched
    one, other = board.subscribe(), board.subscribe()
    board.unsubscribe(one)
    seconds[0] += 2 * board_module.WATCHED_SECONDS
    assert board.is_watched
    board.unsubscribe(other)
    assert board.is_watched
    seconds[0] += board_module.WATCHED_SECONDS
    assert not board.is_watched
