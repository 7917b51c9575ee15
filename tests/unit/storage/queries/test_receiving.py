from datetime import timedelta

import pytest

from storage.errors import IllegalTransition
from storage.records import AssociationEnd, Contribution
from storage.stages import Event, Outcome, Stage
from storage.store import Store
from tests.support.builders import (
    FakeClock,
    add,
    header,
    open_association,
    ready,
    received,
    reported,
    series_now,
    stored_file,
)


def test_receiving_lists_the_longest_quiet_first_and_nothing_else(store: Store, clock: FakeClock) -> None:
    ready(store, clock, series="2.25.1")
    received(store, clock, series="2.25.2")
    clock.advance(1)
    received(store, clock, series="2.25.3")
    clock.advance(1)
    add(store, clock, header(9, "2.25.2"))
    assert [series.series_instance_uid for series in store.settling.receiving()] == ["2.25.3", "2.25.2"]


def test_leave_makes_a_series_ready_and_keeps_its_evidence(store: Store, clock: FakeClock) -> None:
    series = received(store, clock)
    clock.advance(3)
    assert store.settling.leave(series, Event.SETTLED, "anatomy", clock())
    row = store.worklist.case(series.series_instance_uid)
    assert row is not None
    assert (row["stage"], row["evidence"], row["ready_at"]) == ("ready", "anatomy", clock())
    assert (row["outcome"], row["reported_at"]) == (None, None)


def test_leave_can_end_a_series_without_analysis(store: Store, clock: FakeClock) -> None:
    series = received(store, clock)
    assert store.settling.leave(
        series, Event.SET_ASIDE, "quiet", clock(), Outcome.NOT_ELIGIBLE, "too_few_slices", "3 slices"
    )
    row = store.worklist.case(series.series_instance_uid)
    assert row is not None
    assert (row["stage"], row["outcome"], row["reason"], row["detail"]) == (
        "set_aside", "not_eligible", "too_few_slices", "3 slices",
    )  # fmt: skip
    assert row["reported_at"] == clock()


def test_leave_does_nothing_when_a_slice_came_meanwhile(store: Store, clock: FakeClock) -> None:
    series = received(store, clock)
    add(store, clock, header(4))
    before = series_now(store)
    assert not store.settling.leave(series, Event.SETTLED, "quiet", clock())
    assert series_now(store) == before


def test_leave_does_nothing_when_the_series_was_reopened_meanwhile(store: Store, clock: FakeClock) -> None:
    series = ready(store, clock)
    add(store, clock, header(4))
    stale = received(store, clock, count=0)
    assert stale.revision == series.revision + 1
    assert not store.settling.leave(series, Event.SETTLED, "quiet", clock())
    assert series_now(store).stage is Stage.RECEIVING


def test_leave_does_nothing_for_another_revision_with_as_many_slices(store: Store, clock: FakeClock) -> None:
    stale = received(store, clock)
    ready(store, clock, count=0)
    store.intake.forget_instance(header(3).sop_instance_uid, stored_file(header(3)))
    again = received(store, clock, count=1, first=3)
    assert (again.revision, again.instance_count, again.stage) == (2, stale.instance_count, stale.stage)
    assert not store.settling.leave(stale, Event.SETTLED, "quiet", clock())
    assert series_now(store) == again


def test_leave_happens_once(store: Store, clock: FakeClock) -> None:
    series = received(store, clock)
    assert store.settling.leave(series, Event.SETTLED, "quiet", clock())
    before = series_now(store)
    assert not store.settling.leave(series, Event.SET_ASIDE, "quiet", clock(), Outcome.NOT_ELIGIBLE)
    assert series_now(store) == before


@pytest.mark.parametrize(
    "event", [event for event in Event if event not in (Event.RECEIVED, Event.SETTLED, Event.SET_ASIDE)]
)
def test_leave_by_an_illegal_event_raises_and_changes_nothing(store: Store, clock: FakeClock, event: Event) -> None:
    series = received(store, clock)
    with pytest.raises(IllegalTransition):
        store.settling.leave(series, event, "quiet", clock())
    assert series_now(store) == series


def test_contributions_tell_who_brought_how_much_and_how_it_ended(store: Store, clock: FakeClock) -> None:
    series = received(store, clock, count=3, closed=AssociationEnd.RELEASED)
    received(store, clock, count=2, first=4, closed=AssociationEnd.ABORTED)
    received(store, clock, count=1, first=6, closed=None)
    contributions = store.settling.contributions(series.id)
    assert [(part.instances, part.closed) for part in contributions] == [
        (3, AssociationEnd.RELEASED), (2, AssociationEnd.ABORTED), (1, None),
    ]  # fmt: skip


def test_an_association_contributes_to_each_series_what_it_brought_of_it(store: Store, clock: FakeClock) -> None:
    association = open_association(store, "receiver", "PACS", clock())
    for number, series in ((1, "2.25.1"), (1, "2.25.2"), (2, "2.25.1")):
        add(store, clock, header(number, series), association)
    first, second = series_now(store, "2.25.1"), series_now(store, "2.25.2")
    assert store.settling.contributions(first.id) == [Contribution(association, 2, None)]
    assert store.settling.contributions(second.id) == [Contribution(association, 1, None)]


def test_instances_come_in_order_of_arrival(store: Store, clock: FakeClock) -> None:
    for number in (3, 1, 2):
        add(store, clock, header(number))
    kept = store.settling.instances(series_now(store).id)
    assert [head for head, _ in kept] == [header(3), header(1), header(2)]


def test_siblings_share_study_and_acquisition_and_have_headers(store: Store, clock: FakeClock) -> None:
    mine = received(store, clock, series="2.25.1")
    received(store, clock, series="2.25.2", convolution_kernel="H60f", first=5)
    received(store, clock, series="2.25.3", acquisition_key="another")
    received(store, clock, series="2.25.4", study_instance_uid="2.25.999")
    [sibling] = store.settling.siblings(mine)
    head = store.settling.headers(sibling.id)[0]
    assert sibling == series_now(store, "2.25.2")
    assert (head.sop_instance_uid, head.convolution_kernel) == ("2.25.2.5", "H60f")


def test_an_empty_series_is_nobodys_sibling(store: Store, clock: FakeClock) -> None:
    reported(store, clock, series="2.25.1", count=1)
    mine = received(store, clock, series="2.25.2")
    assert len(store.settling.siblings(mine)) == 1
    first = header(1, "2.25.1")
    store.intake.forget_instance(first.sop_instance_uid, stored_file(first))
    assert store.settling.siblings(mine) == []


def test_series_that_do_not_tell_their_acquisition_are_nobodys_siblings(store: Store, clock: FakeClock) -> None:
    mine = received(store, clock, series="2.25.1", acquisition_key="")
    received(store, clock, series="2.25.2", acquisition_key="")
    assert store.settling.siblings(mine) == []


def test_the_last_arrival_in_a_study_is_that_of_any_of_its_series(store: Store, clock: FakeClock) -> None:
    received(store, clock, series="2.25.1")
    latest = clock.advance(7)
    received(store, clock, series="2.25.2")
    clock.advance(7)
    received(store, clock, series="2.25.3", study_instance_uid="2.25.999")
    assert store.settling.last_instance_in_study("2.25.1001") == latest


def test_habits_tell_revision_and_associations_of_a_peers_last_settled_series(store: Store, clock: FakeClock) -> None:
    ready(store, clock, series="2.25.1")
    received(store, clock, series="2.25.2", count=2)
    ready(store, clock, series="2.25.2", count=1, first=3)
    ready(store, clock, series="2.25.3")
    received(store, clock, series="2.25.3", count=1, first=4)
    ready(store, clock, series="2.25.3", count=0)
    ready(store, clock, series="2.25.4", count=1)  # one slice shows nothing
    received(store, clock, series="2.25.5")  # not settled
    ready(store, clock, series="2.25.6", calling_ae="OTHER")
    assert store.settling.habits("PACS", 5) == [(2, 2), (1, 2), (1, 1)]
    assert store.settling.habits("PACS", 2) == [(2, 2), (1, 2)]
    assert store.settling.habits("OTHER", 5) == [(1, 1)]
    assert store.settling.habits("NOBODY", 5) == []


def test_retrievals_of_a_node_that_has_ended_need_not_be_waited_for(store: Store, clock: FakeClock) -> None:
    for number, until_seconds in ((1, 90), (2, -1)):
        series = received(store, clock, series=f"2.25.{number}")
        assert store.settling.begin_retrieval(series, clock() + timedelta(seconds=until_seconds))
    earlier = clock() - timedelta(seconds=1)
    assert store.settling.resume_retrievals(clock()) == 1
    noted = [series_now(store, f"2.25.{number}") for number in (1, 2)]
    assert [(each.retrievals, each.retrieve_until) for each in noted] == [(1, clock()), (1, earlier)]


def test_of_two_who_read_the_same_series_one_begins_its_retrieval(store: Store, clock: FakeClock) -> None:
    series = received(store, clock)
    assert store.settling.begin_retrieval(series, clock())
    assert not store.settling.begin_retrieval(series, clock())
    again = series_now(store)
    assert (again.retrievals, store.settling.begin_retrieval(again, clock())) == (1, True)
    assert series_now(store).retrievals == 2


def test_a_retrieval_that_outlasts_its_series_does_not_count_for_the_next_revision(
    store: Store, clock: FakeClock
) -> None:
    assert store.settling.begin_retrieval(received(store, clock), clock())
    begun = series_now(store)
    assert store.settling.leave(begun, Event.SETTLED, "count", clock())
    store.settling.end_retrieval(begun, 3, clock())  # what it brought settled the series before it ended
    assert not store.settling.begin_retrieval(begun, clock())
    add(store, clock, header(4))
    store.settling.end_retrieval(begun, 3, clock())
    late = series_now(store)
    assert (late.revision, late.retrievals, late.retrieve_until) == (2, 0, None)


@pytest.mark.parametrize("expected", [400, None])
def test_an_expected_count_is_kept_with_the_time_of_asking(
    store: Store, clock: FakeClock, expected: int | None
) -> None:
    series = received(store, clock)
    asked_at = clock() + timedelta(seconds=2)
    store.settling.note_expected_count(series.id, expected, asked_at)
    noted = series_now(store)
    assert (noted.expected_count, noted.count_asked_at) == (expected, asked_at)
