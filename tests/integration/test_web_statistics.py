"""The page of statistics over a real socket, on both databases."""

import csv
import re
from datetime import timedelta

import httpx

from storage.queries.retention import Why
from storage.queries.reviews import Action, Wanted
from storage.queries.worklist import Row
from storage.stages import Outcome
from storage.store import Store
from tests.support.builders import LEASE, FakeClock, finish, reported
from tests.support.pages import Served


def judge(store: Store, clock: FakeClock, case: int, action: Action, reason: str = "") -> None:
    found = store.reviews.of(case)
    assert found is not None
    finding = None if action is Action.UNDONE else 1
    store.reviews.change(Wanted(case, found.version, action, "dr.a", finding, reason), clock())


def deliver(store: Store, clock: FakeClock, case: int) -> None:
    [delivery] = store.worklist.deliveries(case)
    store.outbox.accepted(delivery, clock())


def text_of(page: httpx.Response) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", page.text).split())


def test_only_the_last_verdict_that_was_not_undone_counts(pages: Served, clock: FakeClock) -> None:
    store = pages.context.store
    for number in range(1, 5):
        reported(store, clock, series=f"2.25.{number}")
    judge(store, clock, 1, Action.ACCEPTED)
    judge(store, clock, 2, Action.ACCEPTED)
    judge(store, clock, 2, Action.REJECTED, "vein")
    judge(store, clock, 3, Action.ACCEPTED)
    judge(store, clock, 3, Action.REJECTED, "artefact")
    judge(store, clock, 3, Action.UNDONE)
    client = pages.signed_in("lead")
    words = text_of(client.get("/statistics"))
    assert "0.1.0 67 % (21–94) 2 / 3 / 4" in words
    assert "L MCA – – 2 / 3 – – 67 % (21–94)" in words
    assert "Vein 1" in words and "Artefact" not in words
    assert "Sensitivity cannot be known here." in words
    lines = list(csv.DictReader(client.get("/statistics.csv").text.splitlines()))
    assert [(line["case_id"], line["verdict"], line["reason"]) for line in lines] == [
        ("1", "accepted", ""), ("2", "rejected", "vein"), ("3", "accepted", ""),
    ]  # fmt: skip
    assert "Doe" not in client.get("/statistics.csv").text


def test_turnaround_is_held_against_the_target_and_what_is_not_delivered_is_said(
    pages: Served, clock: FakeClock
) -> None:
    store = pages.context.store
    for number, seconds in enumerate((30, 60, 600), start=1):
        reported(store, clock, series=f"2.25.{number}")
        clock.advance(seconds)
        deliver(store, clock, number)
    reported(store, clock, Outcome.NEGATIVE, series="2.25.4")
    reported(store, clock, Outcome.NOT_ANALYSED, series="2.25.5")
    reported(store, clock, series="2.25.6")
    [refused] = store.worklist.deliveries(6)
    store.outbox.refused(refused, "status 0xA900")
    clock.advance(21 * 24 * 3600)
    assert store.outbox.requeue(store.worklist.reports(6)[0]["id"], clock()) == 1
    deliver(store, clock, 6)  # again, by a person: no time of the node's
    words = text_of(pages.signed_in("lead").get("/statistics"))
    assert "67 % (21–94) of 3 within the target of 5 min" in words
    assert "60.0 s 10 min 10 min 10 min" in words
    assert "1 answered case is not wholly in the PACS yet" in words


def test_a_place_that_was_judged_on_two_revisions_counts_as_on_the_newest(store: Store, clock: FakeClock) -> None:
    claim = reported(store, clock)
    judge(store, clock, 1, Action.ACCEPTED)
    assert store.queue.retry(claim.series.id)
    again = store.queue.claim("worker:1", clock.advance(60), LEASE, 3)
    assert again is not None and finish(store, clock, again)
    since = clock.now - timedelta(days=1)
    assert [each.accepted for each in store.statistics.since(since).judged] == [True], "not judged anew yet"
    judge(store, clock, 1, Action.REJECTED, "vein")
    assert [each.accepted for each in store.statistics.since(since).judged] == [False]
    decided = store.reviews.of(1)
    assert decided is not None
    store.reviews.change(Wanted(1, decided.version, Action.UNDONE, "dr.a"), clock())
    assert [each.accepted for each in store.statistics.since(since).judged] == [True]


def test_what_is_older_than_the_period_is_not_counted(pages: Served, clock: FakeClock) -> None:
    store = pages.context.store
    reported(store, clock)
    judge(store, clock, 1, Action.ACCEPTED)
    clock.advance(timedelta(days=40).total_seconds())
    client = pages.signed_in("lead")
    assert "No finding was reported in this time." in text_of(client.get("/statistics?days=30"))
    for days in ("90", "x", "-1"):
        assert "1 / 1 / 1" in text_of(client.get(f"/statistics?days={days}")), days


def test_verdicts_count_when_retention_has_removed_the_case(quick: Served, clock: FakeClock) -> None:
    store = quick.context.store
    reported(store, clock)
    deliver(store, clock, 1)
    judge(store, clock, 1, Action.REJECTED, "vein")
    forget(store, clock, store.worklist.rows()[0])
    words = text_of(quick.signed_in("lead").get("/statistics"))
    assert "0.1.0 0 % (0–79) 0 / 1 / 0" in words


def forget(store: Store, clock: FakeClock, row: Row) -> None:
    before = clock.advance(10)
    removal = store.retention.begin(row["case_id"], Why.AGE, before, clock())
    assert removal is not None and store.retention.forget(removal, clock())
