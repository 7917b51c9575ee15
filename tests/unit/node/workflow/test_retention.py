"""What is removed to make room, and what never is, on either database with real files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import CTImageStorage, KeyObjectSelectionDocumentStorage
from sqlalchemy import func, select

from node.config.sections import Config
from node.dicom.commitment import Result
from node.scp.commitment_scp import result_of
from node.workflow.context import Context
from node.workflow.retention import retain
from storage.database.schema import AssociationRow, RemovalRow
from storage.files.instances import Files
from storage.queries.retention import Removal, Retention
from storage.records import Added, AssociationEnd, Conclusion, ReportObject, Series
from storage.stages import Event, Outcome, Stage
from storage.store import Store
from tests.support.builders import (
    LEASE,
    FakeClock,
    add_instance,
    close_association,
    conclusion,
    keep,
    open_association,
    series_now,
)
from tests.support.dicom_factory import ct_series

DAY = 86_400.0
DeskFactory = Callable[..., Context]


@pytest.fixture
def context(store: Store, files: Files, clock: FakeClock) -> DeskFactory:
    """A context with these settings of [storage]."""

    def make(**storage: Any) -> Context:
        return Context(Config.model_validate({"storage": storage}), store, files, lambda: None, clock)

    return make


def arrived(context: Context, clock: FakeClock, number: int = 1, **changes: Any) -> Series:
    """A series of two slices that is RECEIVING."""
    uid = f"2.25.88{number}"
    slices = ct_series(2, SeriesInstanceUID=uid, StudyInstanceUID=f"{uid}.1", **changes)
    for index, ds in enumerate(slices):
        ds.SOPInstanceUID = f"{uid}.2.{index}"
    return keep(context.store, context.files, clock, slices)


def reported(
    context: Context,
    clock: FakeClock,
    number: int = 1,
    delivered: bool = True,
    report: bool = True,
    destinations: Sequence[str] = ("PACS",),
) -> Series:
    """As `arrived`, and reported."""
    series = arrived(context, clock, number)
    assert context.store.settling.leave(series, Event.SETTLED, "count", clock())
    claim = context.store.queue.claim("worker", clock(), LEASE, 3)
    assert claim is not None
    made: Conclusion = conclusion(Outcome.NEGATIVE)
    uid = f"2.25.99{number}.{series.revision}"
    written = ReportObject(uid, context.files.write_report(uid, b"report")) if report else None
    assert context.store.queue.finish(claim, made, written, destinations, clock())
    if delivered and (delivery := context.store.outbox.due.claim(clock(), LEASE)):
        context.store.outbox.accepted(delivery, clock())
    return series_now(context.store, series.series_instance_uid)


def cases(context: Context) -> list[int]:
    return sorted(row["case_id"] for row in context.store.worklist.rows())


def on_disk(context: Context) -> list[Path]:
    return sorted(path for path in context.files.root.rglob("*") if path.is_file())


def removals(context: Context) -> list[RemovalRow]:
    with context.store.transactions.reading() as session:
        return list(session.scalars(select(RemovalRow).order_by(RemovalRow.id)))


def test_nothing_is_removed_unless_it_is_configured(context: DeskFactory, clock: FakeClock) -> None:
    node = context()
    reported(node, clock)
    clock.advance(10_000 * DAY)
    assert retain(node) == 0
    assert cases(node) == [1]


def test_a_case_that_is_old_and_delivered_goes_with_its_files_and_leaves_a_record(
    context: DeskFactory, clock: FakeClock
) -> None:
    node = context(retention_days=30)
    reported(node, clock, 1)
    clock.advance(29 * DAY)
    reported(node, clock, 2)
    assert retain(node) == 0
    clock.advance(1.1 * DAY)
    assert retain(node) == 1
    assert cases(node) == [2]
    clock.advance(60)
    assert retain(node) == 0
    assert len(on_disk(node)) == 3
    (record,) = removals(node)
    assert (record.case_id, record.series_instance_uid, record.reason) == (1, "2.25.881", "age")
    assert (record.outcome, record.report_uid, record.instance_count) == ("negative", "2.25.991.1", 2)
    assert record.size_bytes > 500
    assert None not in (record.forgotten_at, record.ended_at)
    assert not list((node.files.root / "removed").iterdir())


def test_what_is_in_work_or_not_delivered_is_never_removed(context: DeskFactory, clock: FakeClock) -> None:
    node = context(retention_days=1, high_water_percent=0.001)
    reported(node, clock, 1, delivered=False)
    reported(node, clock, 2, delivered=False)
    refused = node.store.outbox.due.claim(clock(), LEASE)
    assert refused is not None
    node.store.outbox.refused(refused, "0xC000")
    arrived(node, clock, 3)
    assert node.store.settling.leave(arrived(node, clock, 4), Event.SETTLED, "count", clock())
    assert node.store.settling.leave(arrived(node, clock, 5), Event.SETTLED, "count", clock())
    assert node.store.queue.claim("worker", clock(), LEASE, 3)
    before = on_disk(node)
    clock.advance(1000 * DAY)
    assert retain(node) == 0
    assert (cases(node), on_disk(node)) == ([1, 2, 3, 4, 5], before)


def test_an_earlier_revision_that_was_not_delivered_keeps_the_case(context: DeskFactory, clock: FakeClock) -> None:
    node = context(retention_days=1)
    reported(node, clock, delivered=False)
    held = node.store.outbox.due.claim(clock(), LEASE)
    assert node.store.queue.retry(1)
    claim = node.store.queue.claim("worker", clock(), LEASE, 3)
    assert claim is not None
    written = ReportObject("2.25.9", node.files.write_report("2.25.9", b"again"))
    assert node.store.queue.finish(claim, conclusion(Outcome.NEGATIVE), written, ["PACS"], clock())
    second = node.store.outbox.due.claim(clock(), LEASE)
    assert held is not None
    assert second is not None
    node.store.outbox.accepted(second, clock())
    clock.advance(2 * DAY)
    assert retain(node) == 0
    node.store.outbox.accepted(held, clock())
    assert retain(node) == 1


def test_a_series_of_which_no_report_was_wanted_is_removed_too(context: DeskFactory, clock: FakeClock) -> None:
    node = context(retention_days=1)
    aside = arrived(node, clock, 1)
    assert node.store.settling.leave(aside, Event.SET_ASIDE, "quiet", clock(), Outcome.NOT_ELIGIBLE, "few", "")
    reported(node, clock, 2, report=False)
    clock.advance(2 * DAY)
    assert retain(node) == 2
    assert cases(node) == []


def test_a_failed_case_of_which_no_report_could_be_made_goes_by_age_and_never_for_space(
    context: DeskFactory, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Files, "excess_bytes", lambda _self, _percent: 10**9)
    full, node = context(high_water_percent=90), context(retention_days=30)
    assert node.store.settling.leave(arrived(node, clock), Event.SETTLED, "count", clock())
    assert node.store.queue.claim("worker", clock(), LEASE, 1)
    node.store.queue.give_back("worker", refund=False)
    last = node.store.queue.claim_exhausted("worker", clock(), LEASE, 1)
    assert last is not None
    assert node.store.queue.finish(last, conclusion(Outcome.NOT_ANALYSED), None, [], clock())
    assert series_now(node.store, "2.25.881").stage is Stage.FAILED
    clock.advance(29 * DAY)
    assert (retain(full), retain(node)) == (0, 0)
    clock.advance(1.1 * DAY)
    assert (retain(full), retain(node)) == (0, 1)
    (record,) = removals(node)
    assert (record.reason, record.outcome, record.report_uid) == ("age", "not_analysed", None)


def test_a_report_without_a_destination_goes_by_age_and_never_for_space(
    context: DeskFactory, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Files, "excess_bytes", lambda _self, _percent: 10**9)
    full, node = context(high_water_percent=90), context(retention_days=30)
    reported(node, clock, 1, destinations=())
    reported(node, clock, 2)
    clock.advance(29 * DAY)
    assert (retain(full), cases(node)) == (1, [1]), "the other one is in the PACS"
    clock.advance(1.1 * DAY)
    assert (retain(full), retain(node)) == (0, 1)
    assert [removal.reason for removal in removals(node)] == ["space", "age"]


def associations(context: Context) -> int:
    with context.store.transactions.reading() as session:
        return session.scalar(select(func.count()).select_from(AssociationRow)) or 0


def test_associations_go_with_the_last_of_what_they_brought(context: DeskFactory, clock: FakeClock) -> None:
    node = context(retention_days=30)
    reported(node, clock, 1)
    clock.advance(DAY)
    reported(node, clock, 2)
    empty = open_association(node.store, "receiver", "PACS", clock())
    close_association(node.store, empty, AssociationEnd.ABORTED, clock())
    open_association(node.store, "receiver", "PACS", clock())
    assert (retain(context()), associations(node)) == (0, 4)
    clock.advance(29.5 * DAY)
    assert (retain(node), associations(node)) == (1, 3)
    clock.advance(DAY)
    assert (retain(node), associations(node)) == (1, 1), "the one that is open may still bring something"


def test_a_full_disk_removes_the_oldest_first_and_no_more_than_needed(
    context: DeskFactory, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = context(high_water_percent=90)
    for number in (1, 2, 3):
        reported(node, clock, number)
        clock.advance(DAY)
    monkeypatch.setattr(Files, "excess_bytes", lambda _self, percent: {90: 1}[percent])
    assert retain(node) == 1
    assert cases(node) == [2, 3]
    assert [record.reason for record in removals(node)] == ["space"]
    monkeypatch.setattr(Files, "excess_bytes", lambda _self, _percent: 10**9)
    clock.advance(-0.5 * DAY)
    assert retain(node) == 1, "the youngest is not a day old"
    assert cases(node) == [3]


def test_the_excess_is_what_df_would_call_too_much(files: Files) -> None:
    assert files.excess_bytes(100) == 0
    assert files.excess_bytes(0.0) > files.excess_bytes(1.0) >= 0


def test_a_slice_that_comes_while_its_case_is_removed_keeps_the_case_and_its_files(
    context: DeskFactory, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = context(retention_days=1)
    series = reported(node, clock)
    before = on_disk(node)
    clock.advance(2 * DAY)
    forget = Retention.forget

    def late(self: Retention, removal: Removal, now: Any) -> bool:
        late_slice = ct_series(1, SeriesInstanceUID=series.series_instance_uid, StudyInstanceUID="2.25.881.1")
        late_slice[0].SOPInstanceUID = "2.25.881.2.7"
        keep(node.store, node.files, clock, late_slice)
        return forget(self, removal, now)

    monkeypatch.setattr(Retention, "forget", late)
    assert retain(node) == 0
    assert series_now(node.store, series.series_instance_uid).revision == 2
    assert set(before) < set(on_disk(node))
    assert len(on_disk(node)) == len(before) + 1
    assert removals(node) == []


@pytest.mark.parametrize("moment", ["begun", "moved", "forgotten"])
def test_a_crash_in_mid_removal_is_ended_at_the_next_beat(
    context: DeskFactory, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    node = context(retention_days=1)
    reported(node, clock)
    before = on_disk(node)
    clock.advance(2 * DAY)

    def crash(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(
            *{"begun": (Files, "move"), "moved": (Retention, "forget"), "forgotten": (Retention, "end")}[moment], crash
        )
        if moment == "forgotten":
            assert retain(node) == 1
        with pytest.raises(KeyboardInterrupt):
            retain(node)
    assert len(removals(node)) == 1
    idle = context()
    retain(idle)
    if moment == "forgotten":
        assert (cases(node), on_disk(node)) == ([], [])
        assert removals(node)[0].ended_at is not None
    else:
        assert (cases(node), on_disk(node), removals(node)) == ([1], before, [])


def test_the_same_series_sent_again_while_its_files_wait_to_be_deleted_is_whole(
    context: DeskFactory, clock: FakeClock
) -> None:
    node = context(retention_days=1)
    reported(node, clock)
    clock.advance(2 * DAY)
    assert retain(node) == 1
    series = arrived(node, clock)
    instances = [file for _, file in node.store.settling.instances(series.id)]
    (aside,) = (node.files.root / "removed").iterdir()
    node.files.path(instances[0]).unlink()  # as if it had been published just before the folder was moved away
    assert sum(1 for _ in aside.iterdir()) == 3
    retain(node)
    assert all(node.files.holds(file) for file in instances)
    assert not aside.exists()


def promise(context: Context, clock: FakeClock, series: Series) -> Result:
    """A sender was told that the first instance of the series is kept; returns what it was told."""
    [(head, _), *_] = context.store.settling.instances(series.id)
    asked = ((head.sop_class_uid, head.sop_instance_uid),)
    request = context.store.commitment_requests.add("2.25.5", "CT1", asked, clock(), clock())
    assert request is not None
    return result_of(request, context.store, context.files, clock())


def test_what_a_sender_was_promised_is_not_removed_for_space_but_by_age_counted_from_the_promise(
    context: DeskFactory, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Files, "excess_bytes", lambda _self, _percent: 10**9)
    full, node = context(high_water_percent=90), context(retention_days=30)
    series = reported(full, clock, 1)
    clock.advance(29 * DAY)
    assert len(promise(full, clock, series).committed) == 1
    reported(full, clock, 2)
    clock.advance(2 * DAY)
    assert retain(full) == 1
    assert cases(full) == [1]
    clock.advance(27.9 * DAY)
    assert retain(node) == 0
    clock.advance(0.2 * DAY)
    assert retain(node) == 1


@pytest.mark.parametrize("moment", ["begin", "move", "forget"])
def test_a_promise_given_while_its_case_is_removed_is_kept_or_not_given(
    context: DeskFactory, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    node = context(retention_days=1)
    series = reported(node, clock)
    clock.advance(2 * DAY)
    owner = Files if moment == "move" else Retention
    step, safe_message = getattr(owner, moment), []

    def meanwhile(self: Any, *arguments: Any) -> Any:
        safe_message.append(promise(node, clock, series))
        return step(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(owner, moment, meanwhile)
        removed = retain(node)
    assert (len(safe_message[0].committed), removed) in {(1, 0), (0, 1)}


def test_the_number_of_a_case_that_was_removed_is_never_given_to_another(
    context: DeskFactory, clock: FakeClock
) -> None:
    node = context(retention_days=1)
    reported(node, clock, 1)
    reported(node, clock, 2)
    clock.advance(2 * DAY)
    assert retain(node) == 2
    arrived(node, clock, 3)
    reported(node, clock, 4)
    assert cases(node) == [3, 4]
    clock.advance(2 * DAY)
    assert retain(node) == 1
    arrived(node, clock, 5)
    assert cases(node) == [3, 5]


def send_again(context: Context, clock: FakeClock, case: int) -> None:
    """The first slice of the case came again, the others are on their way."""
    [(head, file), *_] = context.store.settling.instances(case)
    association = open_association(context.store, "receiver", "PACS", clock())
    assert add_instance(context.store, head, file, association, "PACS", clock()) is Added.SAME


def test_a_case_that_is_being_sent_again_is_not_old(context: DeskFactory, clock: FakeClock) -> None:
    node = context(retention_days=1)
    before = reported(node, clock)
    clock.advance(2 * DAY)
    send_again(node, clock, 1)
    assert series_now(node.store, before.series_instance_uid) == before, "its clock is still that of the first time"
    assert retain(node) == 0
    clock.advance(1.1 * DAY)
    assert retain(node) == 1


@pytest.mark.parametrize("moment", ["begin", "move", "forget"])
def test_a_case_whose_first_slice_comes_again_while_it_is_removed_stays(
    context: DeskFactory, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    node = context(retention_days=1)
    reported(node, clock)
    before = on_disk(node)
    clock.advance(2 * DAY)
    owner = Files if moment == "move" else Retention
    step = getattr(owner, moment)

    def meanwhile(self: Any, *arguments: Any) -> Any:
        monkeypatch.setattr(owner, moment, step)
        send_again(node, clock, 1)
        return step(self, *arguments)

    monkeypatch.setattr(owner, moment, meanwhile)
    assert retain(node) == 0
    assert (cases(node), on_disk(node)) == ([1], before)


def set_aside(node: Context, clock: FakeClock, number: int, sop_class: str) -> Series:
    """A series of two instances of this class that is not eligible."""
    series = arrived(node, clock, number, SOPClassUID=sop_class)
    store = node.store.settling
    assert store.leave(series, Event.SET_ASIDE, "quiet", clock(), Outcome.NOT_ELIGIBLE, "no_image")
    return series_now(node.store, series.series_instance_uid)


def test_other_objects_go_after_their_hours_and_images_stay(context: DeskFactory, clock: FakeClock) -> None:
    node = context(other_objects_hours=2)
    set_aside(node, clock, 1, KeyObjectSelectionDocumentStorage)
    set_aside(node, clock, 2, CTImageStorage)
    reported(node, clock, 3)
    clock.advance(2 * 3600 - 1)
    assert retain(node) == 0
    clock.advance(2)
    assert retain(node) == 1
    assert cases(node) == [2, 3]
    assert [record.reason for record in removals(node)] == ["other_objects"]


@pytest.mark.parametrize("kept", ["promised", "never"])
def test_other_objects_stay_where_that_was_promised_or_is_configured(
    context: DeskFactory, clock: FakeClock, kept: str
) -> None:
    node = context(other_objects_hours=0 if kept == "never" else 2)
    series = set_aside(node, clock, 1, KeyObjectSelectionDocumentStorage)
    if kept == "promised":
        uids = node.store.settling.held(series.series_instance_uid)
        assert node.store.commitment_requests.promise(sorted(uids), clock())
    clock.advance(1000 * DAY)
    assert retain(node) == 0
    assert cases(node) == [1]
