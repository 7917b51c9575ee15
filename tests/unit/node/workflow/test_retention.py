"""What is removed to make room, and what never is, on either database with real files."""

import pytest
from pydicom.uid import CTImageStorage, KeyObjectSelectionDocumentStorage
from sqlalchemy import func, select

from node.dicom.conformance import IMAGE_CLASSES
from node.workflow import retention
from node.workflow.context import Context
from node.workflow.retention import retain
from storage.database.running import AtEndRow
from storage.database.schema import AssociationRow, SeriesRow
from storage.files.instances import Files
from storage.queries import at_end
from storage.records import AssociationEnd, ReportObject, Series
from storage.stages import Event, Outcome, Stage
from tests.support.builders import (
    LEASE,
    FakeClock,
    add,
    close_association,
    conclusion,
    header,
    open_association,
    series_now,
)
from tests.unit.node.workflow.ended_cases import DAY, DeskFactory, arrived, cases, on_disk, removals, reported


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


def test_what_holds_an_image_is_looked_at_once_as_another_object_and_again_when_something_comes(
    context: DeskFactory, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = context(other_objects_hours=2)
    monkeypatch.setattr(retention, "NOTED_AT_ONCE", 1)
    for number in (1, 2):
        set_aside(node, clock, number, CTImageStorage)
    set_aside(node, clock, 3, KeyObjectSelectionDocumentStorage)
    clock.advance(2 * 3600 + 1)
    assert retain(node) == 1
    assert noted(node) == [1, 2]
    before = clock.advance(60)
    assert node.store.retention.note_images(before, 10, IMAGE_CLASSES) == 0
    add(node.store, clock, header(9, "2.25.882"))
    assert noted(node) == [1]


def test_what_fails_beside_it_keeps_nothing_from_going_and_the_counts_are_folded(
    context: DeskFactory, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = context(retention_days=30, other_objects_hours=2)
    monkeypatch.setattr(at_end, "FEW", 0)
    for number in (1, 2):
        reported(node, clock, number)
    clock.advance(31 * DAY)
    with node.store.transactions.reading() as session:
        before = session.scalar(select(func.count()).select_from(AtEndRow))

    def fail(*_: object) -> int:
        raise RuntimeError

    monkeypatch.setattr(node.store.retention, "note_images", fail)
    with pytest.raises(RuntimeError):
        retain(node)
    assert cases(node) == []
    with node.store.transactions.reading() as session:
        assert (session.scalar(select(func.count()).select_from(AtEndRow)) or 0) < (before or 0)


def noted(node: Context) -> list[int]:
    with node.store.transactions.reading() as session:
        return list(session.scalars(select(SeriesRow.id).where(SeriesRow.holds_images).order_by(SeriesRow.id)))


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
