"""What comes or happens while a case is removed, on either database with real files."""

import errno
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from node.dicom.commitment import Result
from node.scp.commitment_scp import result_of
from node.workflow import retention
from node.workflow.context import Context
from node.workflow.retention import retain
from storage.database.schema import CommitmentRequestRow
from storage.files.instances import Files
from storage.queries.notifications import Notification
from storage.queries.retention import Removal, Retention, Why
from storage.records import Added, Series
from tests.support.builders import (
    LEASE,
    FakeClock,
    add_instance,
    keep,
    open_association,
    series_now,
)
from tests.support.dicom_factory import ct_series
from tests.unit.node.workflow.ended_cases import DAY, DeskFactory, arrived, cases, on_disk, removals, reported


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
    clock.advance(60)
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


def kept(context: Context) -> int:
    """How many requests for storage commitment are known."""
    with context.store.transactions.reading() as session:
        return session.scalar(select(func.count()).select_from(CommitmentRequestRow)) or 0


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


def test_a_promise_and_an_answer_count_by_what_they_change_and_not_by_the_time_that_they_bear(
    context: DeskFactory, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A promise bears the time at which its files began to be read; and clocks of hosts differ."""
    node = context(retention_days=1)
    series = reported(node, clock)
    clock.advance(2 * DAY)
    before, move = on_disk(node), Files.move
    [(head, _), *_] = node.store.settling.instances(series.id)

    def meanwhile(self: Files, pairs: Any) -> int:
        node.store.commitment_requests.promise([head.sop_instance_uid], clock() - timedelta(seconds=9))
        return move(self, pairs)

    with monkeypatch.context() as patched:
        patched.setattr(Files, "move", meanwhile)
        assert retain(node) == 0
    assert (cases(node), on_disk(node), removals(node)) == ([1], before, [])


def test_what_another_host_has_ended_meanwhile_is_not_forgotten(
    context: DeskFactory, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = context(retention_days=1)
    reported(node, clock)
    clock.advance(2 * DAY)
    before, forget = on_disk(node), Retention.forget

    def ended(self: Retention, removal: Removal, now: Any) -> bool:
        retention._end(node, removal, removal.paths)
        return forget(self, removal, now)

    with monkeypatch.context() as patched:
        patched.setattr(Retention, "forget", ended)
        assert retain(node) == 0
    assert (cases(node), on_disk(node), removals(node)) == ([1], before, [])


def test_a_removal_that_was_just_begun_is_left_to_who_is_at_it(context: DeskFactory, clock: FakeClock) -> None:
    node = context(retention_days=1)
    reported(node, clock)
    clock.advance(2 * DAY)
    removal = node.store.retention.begin(1, Why.AGE, clock(), clock())
    assert removal is not None
    assert node.store.retention.unended(clock()) == []
    clock.advance(60)
    assert [each.case_id for each, _ in node.store.retention.unended(clock())] == [1]


def test_a_case_whose_files_cannot_be_moved_holds_up_no_other(
    context: DeskFactory, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = context(retention_days=1)
    for number in (1, 2):
        reported(node, clock, number)
    clock.advance(2 * DAY)
    move = Files.move

    def refused(self: Files, pairs: Any) -> int:
        wanted = list(pairs)
        if any(path.startswith("removed/1-") for pair in wanted for path in pair):
            raise PermissionError(errno.EACCES, "Permission denied")
        return move(self, wanted)

    monkeypatch.setattr(Files, "move", refused)
    assert retain(node) == 1
    assert cases(node) == [1]
    clock.advance(60)
    assert retain(node) == 0
    assert (cases(node), [each.case_id for each in removals(node) if each.ended_at is None]) == ([1], [1])


def test_a_case_that_somebody_is_still_to_be_notified_of_stays(context: DeskFactory, clock: FakeClock) -> None:
    node = context(retention_days=1)
    reported(node, clock)
    at = clock()
    node.store.notifications.add([Notification("mail", "positive", "1.1", at, at, 1, 1)])
    clock.advance(2 * DAY)
    assert retain(node) == 0
    told = node.store.notifications.due.claim(clock(), LEASE)
    assert told is not None
    node.store.notifications.delivered(told, clock())
    assert retain(node) == 1


def test_nothing_is_kept_of_a_storage_commitment_of_which_nothing_is_owed(
    context: DeskFactory, clock: FakeClock
) -> None:
    node = context()
    requests = node.store.commitment_requests
    for uid in ("2.25.5", "2.25.6"):
        requests.add(uid, "CT1", (("1.2", "2.25.1"),), clock(), clock())
    claimed = requests.due.claim(clock(), LEASE)
    assert claimed is not None
    requests.answered(claimed, clock())
    clock.advance(9 * DAY)
    retain(node)
    assert kept(node) == 2
    clock.advance(2 * DAY)
    retain(node)
    assert kept(node) == 1, "the other result is still owed"


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
