import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import StatementError

from storage.database.schema import AssociationRow, InstanceRow, SeriesRow
from storage.records import Added, AssociationEnd, Claim, Header, Received
from storage.stages import Event, Outcome, Stage
from storage.store import Store
from tests.support.builders import (
    LEASE,
    SERIES_UID,
    FakeClock,
    add,
    add_instance,
    claimed,
    close_association,
    finish,
    header,
    known_file,
    open_association,
    ready,
    received,
    reported,
    series_now,
    stored_file,
)


def count(store: Store, table: type) -> int:
    with store.transactions.reading() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def closed_as(store: Store) -> list[tuple[str | None, datetime | None]]:
    with store.transactions.reading() as session:
        rows = session.scalars(select(AssociationRow).order_by(AssociationRow.id))
        return [(row.closed, row.closed_at) for row in rows]


def test_the_first_slice_makes_the_series(store: Store, clock: FakeClock) -> None:
    assert add(store, clock, header()) is Added.STORED
    series = series_now(store)
    assert (series.stage, series.revision, series.instance_count, series.attempts) == (Stage.RECEIVING, 1, 1, 0)
    assert (series.study_instance_uid, series.calling_ae, series.conflicts) == ("2.25.1001", "PACS", ())
    assert series.first_instance_at == series.last_instance_at == clock()
    [(kept, file)] = store.settling.instances(series.id)
    assert (kept, file) == (header(), stored_file(header()))


def test_further_slices_count_and_move_the_last_arrival_only(store: Store, clock: FakeClock) -> None:
    start = clock()
    add(store, clock, header(1))
    clock.advance(2)
    add(store, clock, header(2))
    series = series_now(store)
    assert (series.instance_count, series.revision) == (2, 1)
    assert (series.first_instance_at, series.last_instance_at) == (start, clock())


def test_the_same_bytes_again_change_nothing(store: Store, clock: FakeClock) -> None:
    reported(store, clock)
    before = series_now(store)
    clock.advance(5)
    assert add(store, clock, header(2)) is Added.SAME
    assert series_now(store) == before
    assert count(store, InstanceRow) == 3


def test_the_same_uid_with_other_bytes_keeps_the_first_and_is_noted_once(store: Store, clock: FakeClock) -> None:
    add(store, clock, header())
    before = series_now(store)
    clock.advance(5)
    for content in ("second", "third"):
        assert add(store, clock, header(), content=content) is Added.DIFFERENT
    series = series_now(store)
    assert series.conflicts == ("instances_differ",)
    assert (series.instance_count, series.last_instance_at, series.stage) == (1, before.last_instance_at, before.stage)
    assert known_file(store, header().sop_instance_uid) == stored_file(header())


def test_a_known_uid_in_another_series_is_noted_on_its_series_and_makes_no_new_one(
    store: Store, clock: FakeClock
) -> None:
    add(store, clock, header())
    stray = header(series="2.25.9", sop_instance_uid=header().sop_instance_uid)
    assert add(store, clock, stray, content="other") is Added.DIFFERENT
    assert series_now(store).conflicts == ("instances_differ",)
    assert count(store, SeriesRow) == 1
    assert add(store, clock, header(series="2.25.9")) is Added.STORED
    assert series_now(store, "2.25.9").instance_count == 1


@pytest.mark.parametrize(
    ("changes", "conflicts"),
    [
        ({"patient_id": "P-0002"}, ("mixed_patients",)),
        ({"issuer_of_patient_id": "ELSEWHERE"}, ("mixed_patients",)),
        ({"study_instance_uid": "2.25.2"}, ("mixed_studies",)),
        ({"patient_id": "P-0002", "study_instance_uid": "2.25.2"}, ("mixed_patients", "mixed_studies")),
        ({"patient_name": "Doe^Jane^^Dr"}, ()),
        ({"accession_number": ""}, ()),
    ],
)
def test_a_slice_of_another_patient_or_study_is_noted_on_the_series(
    store: Store, clock: FakeClock, changes: dict[str, str], conflicts: tuple[str, ...]
) -> None:
    add(store, clock, header(1))
    assert add(store, clock, header(2, **changes)) is Added.STORED
    assert add(store, clock, header(3, **changes)) is Added.STORED
    assert series_now(store).conflicts == conflicts


def test_conflicts_of_different_kinds_add_up(store: Store, clock: FakeClock) -> None:
    add(store, clock, header(1))
    add(store, clock, header(1), content="second")
    add(store, clock, header(2, patient_id="P-0002"))
    assert series_now(store).conflicts == ("instances_differ", "mixed_patients")


def set_aside(store: Store, clock: FakeClock) -> None:
    series = received(store, clock)
    assert store.settling.leave(series, Event.SET_ASIDE, "quiet", clock(), Outcome.NOT_ELIGIBLE, "localizer", "x")


def failed(store: Store, clock: FakeClock) -> None:
    claim = claimed(store, clock, attempts=1)
    store.queue.give_back("worker:1", refund=False)
    exhausted = store.queue.claim_exhausted("worker:1", clock(), LEASE, 1)
    assert exhausted is not None
    assert exhausted.series.id == claim.series.id
    assert finish(store, clock, exhausted, Outcome.NOT_ANALYSED)


@pytest.mark.parametrize(
    ("stage", "reach"),
    [
        (Stage.READY, ready),
        (Stage.ANALYSING, claimed),
        (Stage.REPORTED, reported),
        (Stage.SET_ASIDE, set_aside),
        (Stage.FAILED, failed),
    ],
)
def test_a_late_slice_raises_the_revision_and_undoes_what_was_decided(
    store: Store, clock: FakeClock, stage: Stage, reach: Callable[[Store, FakeClock], object]
) -> None:
    reach(store, clock)
    assert series_now(store).stage is stage
    clock.advance(30)
    assert add(store, clock, header(4)) is Added.STORED
    series = series_now(store)
    assert (series.stage, series.revision, series.instance_count) == (Stage.RECEIVING, 2, 4)
    assert (series.attempts, series.outcome, series.reason, series.detail) == (0, None, "", "")
    assert series.last_instance_at == clock()
    row = store.worklist.case(SERIES_UID)
    assert row is not None
    for key in ("ready_at", "claimed_at", "reported_at", "report_uid", "delivery", "p_present"):
        assert row[key] is None, key
    assert row["evidence"] == ""


def test_a_late_slice_voids_the_claim(store: Store, clock: FakeClock) -> None:
    claim = claimed(store, clock)
    add(store, clock, header(4))
    assert not finish(store, clock, claim)
    assert series_now(store).stage is Stage.RECEIVING
    assert store.worklist.reports(claim.series.id) == []


def test_a_claim_of_an_earlier_revision_cannot_finish_a_later_one(store: Store, clock: FakeClock) -> None:
    claim = claimed(store, clock)
    add(store, clock, header(4))
    store.settling.leave(series_now(store), Event.SETTLED, "quiet", clock())
    again = store.queue.claim("worker:1", clock(), LEASE, 3)
    assert again is not None
    assert not finish(store, clock, claim)
    forged = Claim(claim.series, again.token, again.lease_until)
    assert not finish(store, clock, forged)
    assert finish(store, clock, again)


def test_a_series_keeps_the_reports_of_its_earlier_revisions(store: Store, clock: FakeClock) -> None:
    claim = reported(store, clock)
    add(store, clock, header(4))
    assert [report["revision"] for report in store.worklist.reports(claim.series.id)] == [1]
    assert len(store.worklist.deliveries(claim.series.id)) == 1


def test_associations_close_once_and_as_first_said(store: Store, clock: FakeClock) -> None:
    association = open_association(store, "receiver", "PACS", clock())
    assert closed_as(store) == [(None, None)]
    closed_at = clock.advance(1)
    close_association(store, association, AssociationEnd.RELEASED, clock())
    clock.advance(1)
    close_association(store, association, AssociationEnd.ABORTED, clock())
    assert closed_as(store) == [("released", closed_at)]


def test_what_a_dead_receiver_had_open_is_lost_and_nothing_else(store: Store, clock: FakeClock) -> None:
    mine, done, other = (open_association(store, name, "PACS", clock()) for name in ("receiver", "receiver", "other"))
    close_association(store, done, AssociationEnd.ABORTED, clock())
    assert store.intake.lose_associations("receiver", clock()) == 1
    assert store.intake.lose_associations("receiver", clock()) == 0
    assert [how for how, _ in closed_as(store)] == ["lost", "aborted", None]
    assert mine < done < other


def test_a_time_without_its_zone_is_refused(store: Store, clock: FakeClock) -> None:
    with pytest.raises(ValueError, match="needs its zone"):
        open_association(store, "receiver", "PACS", clock().replace(tzinfo=None))
    assert count(store, AssociationRow) == 0


def test_times_come_back_in_utc(store: Store, clock: FakeClock) -> None:
    from datetime import timezone

    local = clock().astimezone(timezone(timedelta(hours=9)))
    association = open_association(store, "receiver", "PACS", local)
    add_instance(store, header(), stored_file(header()), association, "PACS", local)
    at = series_now(store).last_instance_at
    assert (at, at.utcoffset()) == (local, timedelta(0))


def test_names_of_every_script_survive(store: Store, clock: FakeClock) -> None:
    name = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    add(store, clock, header(patient_name=name, patient_id="É-ß-Ж"))
    row = store.worklist.case(SERIES_UID)
    assert row is not None
    assert (row["patient_name"], row["patient_id"]) == (name, "É-ß-Ж")


def at_once(tasks: list[Callable[[], Added]]) -> list[Added]:
    """The results of all tasks, begun at the same moment in a thread each."""
    barrier = threading.Barrier(len(tasks))

    def run(task: Callable[[], Added]) -> Added:
        barrier.wait()
        return task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        return list(pool.map(run, tasks))


def offers(store: Store, clock: FakeClock, offered: list[tuple[Header, str]]) -> list[Callable[[], Added]]:
    associations = [open_association(store, "receiver", "PACS", clock()) for _ in offered]
    return [
        partial(add, store, clock, head, association, content)
        for (head, content), association in zip(offered, associations, strict=True)
    ]


def test_threads_that_bring_the_same_instance_store_it_once(store: Store, clock: FakeClock) -> None:
    results = at_once(offers(store, clock, [(header(), "first")] * 8))
    assert sorted(results) == [Added.SAME] * 7 + [Added.STORED]
    assert series_now(store).instance_count == count(store, InstanceRow) == 1


def test_threads_that_bring_different_slices_of_one_series_lose_none(store: Store, clock: FakeClock) -> None:
    results = at_once(offers(store, clock, [(header(number), "first") for number in range(1, 9)]))
    assert set(results) == {Added.STORED}
    assert (count(store, SeriesRow), series_now(store).instance_count) == (1, 8)


def test_threads_that_bring_other_bytes_under_one_uid_keep_exactly_one(store: Store, clock: FakeClock) -> None:
    results = at_once(offers(store, clock, [(header(), f"content{n}") for n in range(8)]))
    assert sorted(results) == [Added.DIFFERENT] * 7 + [Added.STORED]
    assert series_now(store).conflicts == ("instances_differ",)


def test_threads_that_bring_one_uid_in_many_series_leave_no_empty_series(store: Store, clock: FakeClock) -> None:
    strays = [(header(series=f"2.25.{n}", sop_instance_uid="2.25.5.5"), f"content{n}") for n in range(1, 7)]
    results = at_once(offers(store, clock, strays))
    assert sorted(results) == [Added.DIFFERENT] * 5 + [Added.STORED]
    assert count(store, SeriesRow) == 1


def arrived(store: Store, clock: FakeClock, *offered: tuple[Header, str]) -> list[Received]:
    association = open_association(store, "receiver", "PACS", clock())
    return [Received(head, stored_file(head, content), association, "PACS", clock()) for head, content in offered]


def test_a_group_is_answered_in_the_order_in_which_it_was_offered(store: Store, clock: FakeClock) -> None:
    add(store, clock, header(1))
    group = arrived(
        store, clock, (header(3), "first"), (header(1), "first"), (header(1), "second"), (header(2), "first"),
        (header(3), "first"), (header(1, "2.25.1"), "first"),
    )  # fmt: skip
    assert store.intake.take(group) == [
        Added.STORED, Added.SAME, Added.DIFFERENT, Added.STORED, Added.SAME, Added.STORED,
    ]  # fmt: skip
    assert (series_now(store).instance_count, series_now(store, "2.25.1").instance_count) == (3, 1)


def test_a_group_notes_every_conflict_of_a_series(store: Store, clock: FakeClock) -> None:
    add(store, clock, header(1))
    group = arrived(
        store, clock, (header(1), "second"), (header(2, patient_id="P-2"), "first"), (header(3), "first"),
        (header(4, study_instance_uid="2.25.2"), "first"),
    )  # fmt: skip
    store.intake.take(group)
    assert series_now(store).conflicts == ("instances_differ", "mixed_patients", "mixed_studies")
    assert series_now(store).instance_count == 4


def test_a_group_of_late_slices_raises_the_revision_once(store: Store, clock: FakeClock) -> None:
    claimed(store, clock)
    store.intake.take(arrived(store, clock, *((header(number), "first") for number in (4, 5, 6))))
    series = series_now(store)
    assert (series.revision, series.instance_count, series.stage) == (2, 6, Stage.RECEIVING)


def test_nothing_of_a_group_is_added_when_one_of_it_cannot_be(store: Store, clock: FakeClock) -> None:
    add(store, clock, header(1))
    before = series_now(store)
    group = arrived(store, clock, (header(2), "first"), (header(1), "second"), (header(1, "2.25.1"), "first"))
    naive = replace(group[0], header=header(9, "2.25.9"), at=clock().replace(tzinfo=None))
    with pytest.raises(StatementError, match="needs its zone"):
        store.intake.take([*group, naive])
    assert series_now(store) == before
    assert (count(store, SeriesRow), count(store, InstanceRow)) == (1, 1)


def test_what_a_dead_receiver_may_not_have_flushed_is_the_last_of_each_open_association(
    store: Store, clock: FakeClock
) -> None:
    received(store, clock, series="2.25.1", count=2)
    received(store, clock, series="2.25.2", count=2, closed=None)
    received(store, clock, series="2.25.3", count=1, closed=None)
    assert store.intake.doubtful_instances("receiver") == {
        head.sop_instance_uid: stored_file(head) for head in (header(2, "2.25.2"), header(1, "2.25.3"))
    }
    assert store.intake.doubtful_instances("other") == {}


def test_an_instance_that_no_file_holds_is_forgotten_and_can_come_again(store: Store, clock: FakeClock) -> None:
    received(store, clock, count=3)
    store.intake.forget_instance(header(3).sop_instance_uid, stored_file(header(3)))
    assert (series_now(store).instance_count, series_now(store).stage) == (2, Stage.RECEIVING)
    assert known_file(store, header(3).sop_instance_uid) is None
    assert add(store, clock, header(3)) is Added.STORED
    assert series_now(store).instance_count == 3


def test_a_series_of_nothing_but_a_forgotten_instance_is_gone(store: Store, clock: FakeClock) -> None:
    received(store, clock, count=1)
    store.intake.forget_instance(header(1).sop_instance_uid, stored_file(header(1)))
    assert count(store, SeriesRow) == count(store, InstanceRow) == 0


def test_forgetting_an_instance_undoes_what_was_decided_of_its_series(store: Store, clock: FakeClock) -> None:
    reported(store, clock)
    store.intake.forget_instance(header(3).sop_instance_uid, stored_file(header(3)))
    series = series_now(store)
    assert (series.stage, series.revision, series.instance_count) == (Stage.RECEIVING, 2, 2)


def test_a_reported_series_of_nothing_but_a_forgotten_instance_stays_and_waits_empty(
    store: Store, clock: FakeClock
) -> None:
    case = reported(store, clock, count=1).series.id
    store.intake.forget_instance(header(1).sop_instance_uid, stored_file(header(1)))
    series = series_now(store)
    assert (series.stage, series.revision, series.instance_count) == (Stage.RECEIVING, 2, 0)
    assert store.settling.receiving() == []
    assert [report["revision"] for report in store.worklist.reports(case)] == [1]
    add(store, clock, header(1, "2.25.9"))
    stray = header(1, sop_instance_uid=header(1, "2.25.9").sop_instance_uid)
    assert add(store, clock, stray, content="other") is Added.DIFFERENT, "an instance of another series comes to it"
    assert series_now(store).instance_count == 0
    assert add(store, clock, header(1)) is Added.STORED
    store.intake.forget_instance(header(1).sop_instance_uid, stored_file(header(1)))
    clock.advance(1)
    assert add(store, clock, header(1)) is Added.STORED
    assert [each.series_instance_uid for each in store.settling.receiving()] == ["2.25.9", SERIES_UID]


def test_a_series_of_a_later_revision_without_report_is_gone_with_its_last_instance(
    store: Store, clock: FakeClock
) -> None:
    series = received(store, clock, count=1)
    store.settling.leave(series, Event.SET_ASIDE, "quiet", clock(), Outcome.NOT_ELIGIBLE, "no_image")
    assert store.queue.retry(series.id)
    store.intake.forget_instance(header(1).sop_instance_uid, stored_file(header(1)))
    assert count(store, SeriesRow) == count(store, InstanceRow) == 0


def test_an_instance_is_not_forgotten_for_another_file(store: Store, clock: FakeClock) -> None:
    received(store, clock, count=2)
    before = series_now(store)
    store.intake.forget_instance(header(2).sop_instance_uid, stored_file(header(2), "second"))
    store.intake.forget_instance("2.25.404", stored_file(header(2)))
    assert series_now(store) == before
