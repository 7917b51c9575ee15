"""What two hosts with a folder each, one database and an object store are given, and what neither loses by the other."""

from datetime import timedelta

import pytest
from sqlalchemy import update

from storage.database.running import UploadRow
from storage.files.objects import Object
from storage.queries.retention import Why
from storage.records import Added, StoredFile
from storage.stages import Event, Outcome
from storage.store import Store
from tests.support.builders import (
    LEASE,
    FakeClock,
    add,
    claimed,
    finish,
    header,
    ready,
    received,
    reported,
    series_now,
    stored_file,
)

Hosts = tuple[Store, Store]
HOUR = timedelta(hours=1)


@pytest.fixture
def hosts(store: Store) -> Hosts:
    return Store(store.transactions, "folder-a"), Store(store.transactions, "folder-b")


def uploaded(at: Store, clock: FakeClock, below: str = "") -> None:
    """The object store has what waited in the host's folder below this path."""
    for each in at.uploads.claim(clock(), LEASE, 99):
        if each.path.startswith(below):
            assert at.uploads.uploaded(each, Object(each.size_bytes, "etag"), clock())
        else:
            at.uploads.give_back(each, clock())


def waiting(at: Store, clock: FakeClock) -> list[str]:
    """What the host is to upload now."""
    claimed_ones = at.uploads.claim(clock(), LEASE, 99)
    for each in claimed_ones:
        at.uploads.give_back(each, clock())
    return [each.path for each in claimed_ones]


def delivered(at: Store, clock: FakeClock) -> list[str]:
    """The reports of which this host was given the deliveries, each to be committed."""
    given = []
    while delivery := at.outbox.due.claim(clock(), LEASE):
        at.outbox.accepted(delivery, clock(), f"2.25.{delivery.id}")
        given.append(delivery.sop_instance_uid)
    return given


def asked_to_commit(at: Store, clock: FakeClock) -> list[str]:
    given = []
    while commitment := at.commitments.due.claim(clock(), LEASE):
        given.append(commitment.delivery.sop_instance_uid)
    return given


def test_each_host_delivers_its_own_reports_and_asks_for_their_commitment(hosts: Hosts, clock: FakeClock) -> None:
    a, b = hosts
    for series, at in (("2.25.1", a), ("2.25.2", b), ("2.25.3", a)):
        assert finish(at, clock, claimed(at, clock, series=series), destinations=("PACS", "ARCHIVE"))
        uploaded(at, clock, "instances/")
    assert delivered(b, clock) == ["2.25.77.2.1"] * 2
    assert asked_to_commit(b, clock) == ["2.25.77.2.1"] * 2
    assert delivered(a, clock) == ["2.25.77.1.1"] * 2 + ["2.25.77.3.1"] * 2
    assert asked_to_commit(b, clock) == []
    uploaded(a, clock)
    assert asked_to_commit(b, clock) == ["2.25.77.1.1"] * 2 + ["2.25.77.3.1"] * 2


def test_deliveries_of_several_hosts_are_due_again_after_the_clock_was_set_back(hosts: Hosts, clock: FakeClock) -> None:
    for series, at in zip(("2.25.1", "2.25.2"), hosts, strict=True):
        assert finish(at, clock, claimed(at, clock, series=series), destinations=("PACS", "ARCHIVE"))
        uploaded(at, clock, "instances/")
    set_back = clock() - 3 * HOUR
    assert [at.outbox.due.hasten(set_back, HOUR) for at in hosts] == [4, 0]
    assert [len(delivered(at, clock)) for at in hosts] == [2, 2]
    assert [at.commitments.due.hasten(set_back, HOUR) for at in hosts] == [4, 0]


def test_an_instance_that_another_host_acknowledged_is_not_forgotten(hosts: Hosts, clock: FakeClock) -> None:
    a, b = hosts
    uid, file = header(1).sop_instance_uid, stored_file(header(1))
    assert add(a, clock, header(1)) is Added.STORED
    assert add(b, clock, header(1)) is Added.SAME
    a.intake.forget_instance(uid, file)
    assert series_now(a).instance_count == 1
    assert (waiting(a, clock), waiting(b, clock)) == ([], [file.path])


def test_an_instance_that_the_store_has_is_not_forgotten_and_need_not_lie_here(hosts: Hosts, clock: FakeClock) -> None:
    a, _ = hosts
    uid, file = header(1).sop_instance_uid, stored_file(header(1))
    add(a, clock, header(1))
    uploaded(a, clock)
    a.intake.forget_instance(uid, file)
    assert series_now(a).instance_count == 1
    assert [place.folder for place in a.uploads.of_series(1).values()] == [""]


def test_an_instance_that_nobody_else_has_is_forgotten(hosts: Hosts, clock: FakeClock) -> None:
    a, _ = hosts
    add(a, clock, header(1))
    a.intake.forget_instance(header(1).sop_instance_uid, stored_file(header(1)))
    assert a.worklist.rows() == []
    [removal] = a.uploads.claim(clock(), LEASE, 99)
    assert removal.is_removal


def test_a_report_that_only_a_lost_host_has_keeps_nobody_from_its_series(hosts: Hosts, clock: FakeClock) -> None:
    a, b = hosts
    case = reported(a, clock).series.id
    uploaded(a, clock, "instances/")
    assert b.queue.retry(case)
    assert b.queue.claim("worker:1", clock(), LEASE, 3)
    received(b, clock, count=1, first=9)
    assert [series.id for series in b.settling.receiving()] == [case]


def test_what_only_another_host_can_read_is_waited_for_by_nobody_here(hosts: Hosts, clock: FakeClock) -> None:
    a, b = hosts
    ready(a, clock)
    assert [at.queue.other_waits(None) for at in hosts] == [True, False]
    assert [at.shadows.somebody_waits() for at in hosts] == [True, False]
    uploaded(a, clock)
    assert [at.queue.other_waits(None) for at in hosts] == [True, True]
    assert [at.shadows.somebody_waits() for at in hosts] == [True, True]
    b.queue.lies_here_only = True
    assert not b.queue.other_waits(None)


@pytest.mark.parametrize("meanwhile", ["nothing", "retried", "uploaded again", "removed"])
def test_an_image_may_go_only_while_it_is_as_it_was_found(hosts: Hosts, clock: FakeClock, meanwhile: str) -> None:
    a, _ = hosts
    case = reported(a, clock, count=1).series.id
    uploaded(a, clock)
    clock.advance(1)
    [found] = a.uploads.evictable(clock(), 9)
    clock.advance(1)
    if meanwhile == "retried":
        assert a.queue.retry(case)
    if meanwhile == "uploaded again":
        a.uploads.lost(found, clock())
        uploaded(a, clock)
        clock.advance(1)
    if meanwhile == "removed":
        forgotten(a, clock, case)
    assert a.uploads.evicted(found, clock()) is (meanwhile == "nothing")


def accepted(at: Store, clock: FakeClock) -> None:
    """The destinations have what was due for them."""
    while delivery := at.outbox.due.claim(clock(), LEASE):
        at.outbox.accepted(delivery, clock())


def forgotten(at: Store, clock: FakeClock, case: int) -> None:
    """Retention has removed the case."""
    accepted(at, clock)
    removal = at.retention.begin(case, Why.AGE, clock(), clock())
    assert removal is not None
    assert at.retention.forget(removal, clock())


def test_a_full_disk_removes_no_case_that_lies_in_the_store_alone(hosts: Hosts, clock: FakeClock) -> None:
    a, b = hosts
    case = reported(a, clock).series.id
    accepted(a, clock)
    uploaded(a, clock)
    clock.advance(1)
    assert [at.retention.candidates(clock(), 9, Why.SPACE) for at in hosts] == [[case], []]
    for found in a.uploads.evictable(clock(), 9):
        assert a.uploads.evicted(found, clock())
    assert [at.retention.candidates(clock(), 9, Why.SPACE) for at in hosts] == [[], []]
    assert [at.retention.candidates(clock(), 9, Why.AGE) for at in hosts] == [[case], []], "its report lies there"
    assert b.retention.begin(case, Why.SPACE, clock(), clock()) is None


def set_aside(at: Store, clock: FakeClock) -> int:
    """A series of one instance has ended; its case."""
    series = received(at, clock, count=1)
    assert at.settling.leave(series, Event.SET_ASIDE, "quiet", clock(), Outcome.NOT_ELIGIBLE, "few")
    return series.id


def test_what_comes_again_while_its_object_goes_is_uploaded_at_once(hosts: Hosts, clock: FakeClock) -> None:
    a, _ = hosts
    case = set_aside(a, clock)
    uploaded(a, clock)
    forgotten(a, clock, case)
    [removal] = a.uploads.claim(clock(), HOUR, 9)
    received(a, clock, count=1)
    a.uploads.removed(removal, clock())
    assert waiting(a, clock) == [stored_file(header(1)).path]


def test_a_case_that_is_removed_meanwhile_is_not_to_be_uploaded(store: Store, hosts: Hosts, clock: FakeClock) -> None:
    a, _ = hosts
    case = set_aside(store, clock)
    found = a.uploads.lacking((0, 0, 0), 9)
    forgotten(store, clock, case)
    files: list[tuple[StoredFile, int]] = [(file, series) for _, _, file, series in found]
    a.uploads.adopt(files, clock())
    assert waiting(a, clock) == []


def test_what_another_folder_has_long_had_to_upload_can_be_taken_over_but_not_what_is_uploaded(
    hosts: Hosts, clock: FakeClock
) -> None:
    a, b = hosts
    ready(a, clock, count=2)
    assert b.uploads.elsewhere(clock(), 0, 9) == []
    clock.advance(1)
    found = b.uploads.elsewhere(clock(), 0, 9)
    assert [each.path for each in found] == [stored_file(header(number)).path for number in (1, 2)]
    assert b.uploads.elsewhere(clock(), found[0].id, 9) == found[1:]
    [first, _] = a.uploads.claim(clock(), LEASE, 9)
    assert a.uploads.uploaded(first, Object(first.size_bytes, "etag"), clock())
    b.uploads.take_over(found, clock())
    assert (waiting(a, clock), waiting(b, clock)) == ([], [found[1].path])
    assert b.queue.claim("worker:1", clock(), LEASE, 3)


def test_a_case_goes_by_the_host_that_has_its_images_and_not_by_that_which_analysed_it(
    hosts: Hosts, clock: FakeClock
) -> None:
    a, b = hosts
    case = reported(a, clock).series.id
    accepted(a, clock)
    uploaded(a, clock)
    report = b.transactions.change(update(UploadRow).where(UploadRow.path.like("reports/%")).values(folder="folder-b"))
    assert report == 1
    clock.advance(90_000)
    for why in (Why.AGE, Why.CANARY):
        assert b.retention.begin(case, why, clock(), clock()) is None
    assert [at.retention.candidates(clock(), 9) for at in hosts] == [[case], []]
    removal = a.retention.begin(case, Why.AGE, clock(), clock())
    assert removal is not None and a.retention.forget(removal, clock())
    assert b.retention.unended(clock()) == [], "its files lie in the other's folder"
    assert [each.case_id for each, _ in a.retention.unended(clock())] == [case]


def test_the_longest_name_of_a_folder_is_kept_with_a_removal(store: Store, clock: FakeClock) -> None:
    """A host's name of 48 characters and a token: SQLite would take any, PostgreSQL does not."""
    at = Store(store.transactions, "h" * 63 + "-0123456789abcdef")
    case = reported(at, clock).series.id
    accepted(at, clock)
    clock.advance(90_000)
    assert at.retention.begin(case, Why.AGE, clock(), clock()) is not None
