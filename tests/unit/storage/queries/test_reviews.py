"""What people decide on cases."""

import threading
from dataclasses import replace

import pytest

from storage.queries.reviews import Action, ChangedMeanwhile, NotChanged, Rejection, Review, Verdict, Wanted
from storage.stages import Event, Outcome
from storage.store import Store
from tests.support.builders import SERIES_UID, FakeClock, add, header, received, reported, series_now

ACKNOWLEDGE = Wanted(1, 0, Action.ACKNOWLEDGED, "dr.a")


def change(store: Store, clock: FakeClock, action: Action, account: str = "dr.a", **values: object) -> Review:
    """The change, asked for by who sees the review as it is."""
    now = store.reviews.of(1)
    assert now is not None
    return store.reviews.change(replace(Wanted(1, now.version, action, account), **values), clock())  # type: ignore[arg-type]


def test_nobody_has_decided_on_a_new_case(store: Store, clock: FakeClock) -> None:
    reported(store, clock)
    assert store.reviews.of(1) == Review(1, 1)
    assert store.reviews.entries(1) == []
    assert store.reviews.of(2) is None


def test_an_acknowledged_case_says_by_whom_and_when_also_in_the_view(store: Store, clock: FakeClock) -> None:
    reported(store, clock)
    clock.advance(60)
    done = change(store, clock, Action.ACKNOWLEDGED)
    assert done == store.reviews.of(1) == Review(1, 1, 1, clock(), "dr.a")
    [row] = store.worklist.rows()
    assert (row["acknowledged_at"], row["acknowledged_by"], row["assigned_to"]) == (clock(), "dr.a", "")
    [entry] = store.reviews.entries(1)
    assert (entry.account, entry.action, entry.at, entry.version) == ("dr.a", Action.ACKNOWLEDGED, clock(), 1)


def test_who_saw_an_older_version_hears_what_was_done_and_changes_nothing(store: Store, clock: FakeClock) -> None:
    reported(store, clock)
    store.reviews.change(ACKNOWLEDGE, clock())
    with pytest.raises(ChangedMeanwhile) as caught:
        store.reviews.change(replace(ACKNOWLEDGE, account="dr.b"), clock())
    assert caught.value.last is not None
    assert (caught.value.last.account, caught.value.last.action) == ("dr.a", Action.ACKNOWLEDGED)
    assert len(store.reviews.entries(1)) == 1


def test_of_many_at_once_exactly_one_is_the_first(store: Store, clock: FakeClock) -> None:
    reported(store, clock)
    ends: list[object] = []

    def try_it(name: str) -> None:
        try:
            ends.append(store.reviews.change(replace(ACKNOWLEDGE, account=name), clock()))
        except ChangedMeanwhile as error:
            ends.append(error)

    threads = [threading.Thread(target=try_it, args=(f"dr.{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(type(end).__name__ for end in ends) == ["ChangedMeanwhile"] * 7 + ["Review"]


def test_a_finding_is_rejected_with_a_reason_and_what_the_model_had_said_is_kept(
    store: Store, clock: FakeClock
) -> None:
    reported(store, clock)
    rejected = change(store, clock, Action.REJECTED, finding=1, reason=Rejection.INFUNDIBULUM)
    assert rejected.of(1) == Verdict(1, False, "infundibulum", "dr.a", clock())
    accepted = change(store, clock, Action.ACCEPTED, "dr.b", finding=1)
    assert accepted.verdicts == (Verdict(1, True, "", "dr.b", clock()),)
    with store.transactions.reading_plainly() as select:
        [row] = select("SELECT * FROM review_entry WHERE version = 1")
    assert (row["location"], row["diameter_mm"], row["probability"], row["model"], row["report_uid"]) == (
        "Left Middle Cerebral Artery", 6.5, 0.9, "0.1.0", "2.25.77.1.1",
    )  # fmt: skip


@pytest.mark.parametrize(
    "values",
    [
        {"action": Action.REJECTED, "finding": 1, "reason": ""},
        {"action": Action.REJECTED, "finding": 1, "reason": "because"},
        {"action": Action.REJECTED, "finding": 2, "reason": "vein"},
        {"action": Action.ACCEPTED, "finding": 0},
        {"action": Action.ACCEPTED, "finding": None},
        {"action": Action.ACCEPTED, "finding": 1, "reason": "vein"},
        {"action": Action.ACCEPTED, "finding": 1, "reason": "because"},
        {"action": Action.ACCEPTED, "finding": 10**20},
        {"action": Action.ACKNOWLEDGED, "finding": 1},
        {"action": Action.ACKNOWLEDGED, "finding": 10**20},
        {"action": Action.ASSIGNED, "reason": "x" * 1000},
        {"action": Action.UNDONE},
    ],
)
def test_what_makes_no_sense_changes_nothing(store: Store, clock: FakeClock, values: dict[str, object]) -> None:
    reported(store, clock)
    with pytest.raises(NotChanged):
        change(store, clock, **values)  # type: ignore[arg-type]
    assert store.reviews.of(1) == Review(1, 1)
    assert store.reviews.entries(1) == []


def test_a_case_in_work_is_not_acknowledged_but_may_be_assigned(store: Store, clock: FakeClock) -> None:
    received(store, clock)
    with pytest.raises(NotChanged, match="in work"):
        change(store, clock, Action.ACKNOWLEDGED)
    assert change(store, clock, Action.ASSIGNED, assigned_to="dr.b").assigned_to == "dr.b"


def test_undo_goes_back_step_by_step_and_is_itself_on_record(store: Store, clock: FakeClock) -> None:
    reported(store, clock)
    first = change(store, clock, Action.ACCEPTED, finding=1)
    change(store, clock, Action.ACKNOWLEDGED)
    undone = change(store, clock, Action.UNDONE)
    assert undone == replace(first, version=3)
    assert change(store, clock, Action.UNDONE) == Review(1, 1, 4)
    assert [(entry.action.value, entry.undone) for entry in store.reviews.entries(1)] == [
        ("accepted", True), ("acknowledged", True), ("undone", False), ("undone", False),
    ]  # fmt: skip
    with pytest.raises(NotChanged, match="nothing to undo"):
        change(store, clock, Action.UNDONE)


def test_only_who_may_undoes_what_another_did(store: Store, clock: FakeClock) -> None:
    reported(store, clock)
    change(store, clock, Action.ACKNOWLEDGED)
    with pytest.raises(NotChanged, match=r"dr\.a"):
        change(store, clock, Action.UNDONE, "dr.b")
    assert change(store, clock, Action.UNDONE, "lead", of_others=True).acknowledged_at is None


def test_a_late_slice_opens_the_case_again_and_leaves_the_record(store: Store, clock: FakeClock) -> None:
    reported(store, clock)
    change(store, clock, Action.ASSIGNED, assigned_to="dr.b")
    change(store, clock, Action.ACKNOWLEDGED)
    add(store, clock, header(9, SERIES_UID))
    assert series_now(store).revision == 2
    assert store.reviews.of(1) == Review(1, 2, 2, assigned_to="dr.b")
    assert store.worklist.rows()[0]["acknowledged_by"] is None
    assert store.triage.cases()[0]["acknowledged_at"] is None
    with pytest.raises(ChangedMeanwhile):
        store.reviews.change(ACKNOWLEDGE, clock())
    assert len(store.reviews.entries(1)) == 2


def test_a_case_that_was_removed_cannot_be_changed(store: Store, clock: FakeClock) -> None:
    with pytest.raises(NotChanged, match="no case 1"):
        store.reviews.change(ACKNOWLEDGE, clock())


def test_the_triage_list_has_every_case_once_with_its_review(store: Store, clock: FakeClock) -> None:
    for number in range(4):
        reported(store, clock, Outcome.POSITIVE if number == 0 else Outcome.NEGATIVE, series=f"2.25.{number}")
    change(store, clock, Action.REJECTED, finding=1, reason="vein")
    assert sorted(row["case_id"] for row in store.triage.cases()) == [1, 2, 3, 4]
    found = {row["case_id"]: row for row in store.triage.cases(most=2)}
    assert sorted(found) == [1, 2, 3, 4], "the newest, and the most urgent of the older"
    assert sorted(row["case_id"] for row in store.triage.cases(most=1)) == [1, 4]
    assert (found[1]["version"], found[1]["verdicts"][0]["reason"], found[2]["verdicts"]) == (1, "vein", [])
    assert found[1]["diameter_mm"] == 6.5
    assert store.triage.deliveries([1, 2]) == {1: "pending", 2: "pending"}
    assert store.triage.deliveries([]) == {}


def test_every_commit_changes_the_stamp_and_nothing_else_does(store: Store, clock: FakeClock) -> None:
    received(store, clock)
    before = store.changes.stamp()
    store.worklist.rows()
    assert store.changes.stamp() == before
    series = series_now(store)
    store.settling.leave(series, Event.SETTLED, "quiet", clock())
    after = store.changes.stamp()
    assert after != before
    assert store.changes.stamp() == after


def test_the_number_of_a_case_that_somebody_decided_on_is_never_given_again(store: Store, clock: FakeClock) -> None:
    """Also where nothing else is left of it, no record of its removal either."""
    reported(store, clock)
    change(store, clock, Action.ACKNOWLEDGED)
    with store.transactions.writing_plainly() as connection:
        for table in ("delivery", "report_object", "report", "instance", "series", "removal"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
    received(store, clock, series="2.25.5")
    following = series_now(store, "2.25.5").id
    assert following > 1
    assert (store.reviews.of(following), store.reviews.entries(following)) == (Review(following, 1), [])
    assert len(store.reviews.entries(1)) == 1, "what was decided of the first stays on record"
