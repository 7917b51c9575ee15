"""Hosts that share an object store lose nothing by each other, by power loss, or by a disk or a store that fails midway."""

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

import ai
from node.config.sections import Config
from node.scp.commitment_scp import result_of
from node.scp.receiver import Receiver
from node.web.case_pages import _report
from node.workflow import uploads
from node.workflow.context import Context
from node.workflow.delivery import deliver
from storage.backup import back_up
from storage.errors import ObjectsAway, StorageFull
from storage.files.instances import Files
from storage.files.objects import Object, Objects
from storage.files.uploading import secured
from storage.records import ReportObject, StoredFile
from storage.stages import DeliveryStage
from tests.corpus.network import network
from tests.integration.test_object_store import A_DAY, analysed, came_again, ended, in_store, kept, ready
from tests.support.builders import LEASE, conclusion, keep
from tests.support.dicom_factory import ct_series
from tests.support.object_store import Host, HostFactory, ObjectStore, host, host_on_either, s3, s3_server
from tests.support.running import free_port
from tests.support.site import peers

__all__ = ["host", "host_on_either", "s3", "s3_server"]


def test_what_only_this_host_has_is_uploaded_from_here_although_another_was_to(
    host: HostFactory, s3: ObjectStore
) -> None:
    a, b = host("a"), host("b")
    slices = ct_series(3)
    keep(a.store, a.files, a.clock, slices)
    files = [file for _, file in a.store.settling.instances(1)]
    came_again(b, slices)
    for file in files:
        b.files.discard(file)  # it could not be flushed there, and was not acknowledged
    with a.files.path(files[0]).open("r+b") as stream:
        stream.write(b"\1" * 200)
    assert (a.upload(), b.upload()) == (0, 0)
    a.clock.advance(601)
    assert a.upload() == 2, "not what is damaged here"
    assert in_store(s3, a, files) == [False, True, True]


def test_what_power_loss_took_from_one_host_stays_known_where_another_has_acknowledged_it(
    host: HostFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = host("a"), host("b")
    slices = ct_series(2)
    keep(a.store, a.files, a.clock, slices, closed=None)
    known = a.store.settling.instances(1)
    came_again(b, slices[1:])
    doubtful = known[1][1]
    a.files.path(doubtful).write_bytes(b"")
    monkeypatch.setattr("node.scp.receiver.receiver_name", lambda _settings: "receiver")
    Receiver(a.config, a.store, a.files, lambda: None)._recover()
    assert a.store.settling.instances(1) == known
    assert (a.upload(), b.upload()) == (1, 1)
    assert a.files.here(doubtful).read_bytes() == b.files.path(doubtful).read_bytes()


def test_a_folder_under_another_name_uploads_what_it_had_under_the_one_before(
    host: HostFactory, s3: ObjectStore
) -> None:
    a = host("a")
    files = kept(a)
    (a.files.root / "folder-name").unlink()
    a.clock.advance(601)
    again = host("a")
    assert again.files.folder != a.files.folder
    assert again.upload() == 3
    assert all(in_store(s3, a, files))


def test_a_file_is_secured_where_it_is_whole(host: HostFactory) -> None:
    a, b = host("a"), host("b")
    [file] = kept(a, 1)
    assert (secured(a.files, file), secured(b.files, file)) == (True, False)


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """This process can write no larger file: what a full disk says to whoever writes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_while_an_object_comes_is_no_store_that_is_away(host: HostFactory) -> None:
    a, b = host("a"), host("b")
    [file] = kept(a, 1)
    a.upload()
    with largest_file(10_000), pytest.raises(StorageFull):
        b.files.here(file)
    assert list((b.files.root / "incoming").iterdir()) == []
    assert b.files.here(file).read_bytes() == a.files.path(file).read_bytes()


def test_what_was_claimed_when_the_database_failed_is_uploaded_at_the_next_run(
    host: HostFactory, s3: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = host("a")
    files = kept(a)
    with monkeypatch.context() as patch:
        patch.setattr(a.store.uploads, "uploaded", raising(OperationalError("UPDATE", None, Exception("locked"))))
        with pytest.raises(OperationalError):
            a.upload()
    assert a.upload() == 3
    assert all(in_store(s3, a, files))


def raising(error: Exception) -> Callable[..., bool]:
    def fail(*_: object) -> bool:
        raise error

    return fail


def test_an_image_stays_whose_case_is_taken_up_again_while_its_object_is_looked_at(
    host_on_either: HostFactory, s3: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = host_on_either("a", objects_evict_hours=24)
    files = kept(a)
    a.upload()
    ended(a)
    a.clock.advance(2 * A_DAY)
    look = Objects.look

    def slow_look(objects: Objects, key: str) -> Object | None:
        found = look(objects, key)
        a.store.queue.retry(1)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Objects, "look", slow_look)
        assert uploads.evict(a.context) == 0
    assert all(in_store(s3, a, files))


def with_report(at: Host) -> StoredFile:
    """The host has a report for PACS."""
    kept(at)
    ready(at)
    claim = at.store.queue.claim("worker:1", at.clock(), LEASE, 3)
    assert claim is not None
    file = at.files.write_report("2.25.9", b"report")
    assert at.store.queue.finish(claim, conclusion(), ReportObject("2.25.9", file), ["PACS"], at.clock())
    return file


def with_peer(at: Host) -> Context:
    """The host's context, with a PACS that does not answer."""
    config = at.config.model_copy(update={"peers": Config.model_validate({"peers": peers(free_port())}).peers})
    return Context(config, at.store, at.files, lambda: None, at.clock)


def test_an_object_that_was_altered_makes_no_dead_letter_but_a_report_that_is_damaged_where_it_lies_does(
    host: HostFactory, s3: ObjectStore
) -> None:
    a, b = host("a"), host("b")
    file = with_report(a)
    a.upload()
    s3.plant(file.path, b"altered")
    assert deliver(with_peer(b)) == 0
    [delivery] = b.store.worklist.deliveries(1)
    assert (delivery.stage, delivery.attempts) == (DeliveryStage.PENDING, 1)
    assert "is not what was uploaded" in delivery.last_error
    a.clock.advance(600)
    a.files.path(file).write_bytes(b"damage")
    deliver(with_peer(a))
    assert a.store.worklist.deliveries(1)[0].stage is DeliveryStage.DEAD


def test_a_commitment_asked_of_us_is_not_refused_while_the_store_is_away(host: HostFactory, s3: ObjectStore) -> None:
    a = host("a")
    [file] = kept(a, 1)
    a.upload()
    [(header, _)] = a.store.settling.instances(1)
    asked = [(header.sop_class_uid, header.sop_instance_uid)]
    request = a.store.commitment_requests.add("2.25.1", "PACS", asked, a.clock(), a.clock())
    assert request is not None
    a.files.discard(file)
    s3.stop()
    with pytest.raises(ObjectsAway):
        result_of(request, a.store, a.files, a.clock())
    s3.start()
    assert result_of(request, a.store, a.files, a.clock()).failed == {}


def test_a_backup_keeps_no_copy_of_what_it_fetched(host: HostFactory, tmp_path: Path) -> None:
    a = host("a")
    read, unread, _ = kept(a)
    a.upload()
    for file in (read, unread):
        a.files.discard(file)
    copy = a.files.here(read)
    done = back_up(a.config.storage.url, a.files.root, tmp_path / "backup", a.clock(), a.files.here)
    assert (done.files, done.missing) == (4, ())
    assert list((a.files.root / "fetched").rglob("*.dcm")) == [copy]


def test_a_folder_has_its_name_also_where_there_are_no_hard_links(
    host: HostFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = host("a").files.objects
    monkeypatch.setattr("os.link", raising(PermissionError(1, "no links")))
    made = Files(tmp_path / "new", objects)
    assert made.folder
    assert Files(tmp_path / "new", objects).folder == made.folder
    assert list((made.root / "incoming").iterdir()) == []


def test_a_report_that_another_host_made_is_shown(host: HostFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ai, "analyse", network)
    a, b = host("a"), host("b")
    kept(a, 6)
    ready(a)
    assert analysed(a)
    row = b.store.worklist.case("1")
    assert row is not None
    asked: Any = SimpleNamespace(context=b)
    assert _report(asked, row) == []
    a.upload()
    asked_there: Any = SimpleNamespace(context=a)
    assert _report(asked, row) == _report(asked_there, row) != []
