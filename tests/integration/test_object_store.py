"""Files go to an object store and come back from it whole, or not at all: real S3 requests, with faults on the way."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

import ai
from ai.bundle import Bundle, save_bundle
from ai.unet import UNet
from node.analysis.analysis import AnalysisContext, analyse
from node.analysis.worker import Worker
from node.config.sections import Ai
from node.dicom.header import file_meta
from node.results.document import Algorithm
from node.rules.health import Verdict
from node.workflow import retention, uploads
from node.workflow.health import health_of
from storage.backup import back_up, restore
from storage.errors import Damaged, NotStored, ObjectsAway
from storage.files.instances import FETCHED, FETCHED_KEPT_SECONDS, Files
from storage.fsck import Difference, Kind, check
from storage.records import Added, ReportObject, StoredFile
from storage.stages import DeliveryStage, Event
from storage.store import Store
from tests.corpus.network import network
from tests.support.builders import (
    LEASE,
    add_instance,
    conclusion,
    encoded,
    keep,
    open_association,
    read_header,
    series_now,
    write_instance,
)
from tests.support.dicom_factory import ct_series
from tests.support.object_store import Host, HostFactory, ObjectStore, Spoil, host, host_on_either, s3, s3_server
from tests.support.running import ROOT
from tests.unit.ai.test_bundle import TINY, manifest

__all__ = ["host", "host_on_either", "s3", "s3_server"]
A_DAY = 86_400.0


def kept(at: Host, count: int = 3) -> list[StoredFile]:
    """A series of so many slices came to the host; its files."""
    series = keep(at.store, at.files, at.clock, ct_series(count, rows=128, columns=128))
    return [file for _, file in at.store.settling.instances(series.id)]


def ready(at: Host) -> None:
    assert at.store.settling.leave(series_now(at.store), Event.SETTLED, "count", at.clock())


def ended(at: Host) -> None:
    """The series is analysed, and its report delivered."""
    ready(at)
    claim = at.store.queue.claim("worker:1", at.clock(), LEASE, 3)
    assert claim is not None
    assert at.store.queue.finish(claim, conclusion(), None, (), at.clock())


def in_store(s3: ObjectStore, at: Host, files: Sequence[StoredFile]) -> list[bool]:
    """Of each file whether the bucket has exactly what lies at the host."""
    return [s3.object(file.path) == at.files.path(file).read_bytes() for file in files]


def reasons(at: Host) -> list[str]:
    found = health_of(at.config, at.clock()).reasons
    return [reason.message for reason in found if reason.about == "objects" and reason.verdict is Verdict.DEGRADED]


def test_what_was_received_goes_to_the_store_byte_for_byte(host: HostFactory, s3: ObjectStore) -> None:
    a = host()
    files = kept(a, 20)
    assert a.upload() == 20
    assert all(in_store(s3, a, files))
    assert (a.upload(), reasons(a)) == (0, [])


def test_an_outage_delays_uploads_says_so_and_is_made_up_for_at_once(
    host_on_either: HostFactory, s3: ObjectStore
) -> None:
    host = host_on_either
    a = host()
    s3.stop()
    files = kept(a)
    assert a.upload() == 0
    a.clock.advance(31)
    [said] = reasons(a)
    assert said.startswith(f"3 files wait for the object store in {a.files.folder} since ")
    assert "it broke off: look at the store and the network" in said or "it does not run there" in said
    ready(a)
    assert a.store.queue.claim("worker:1", a.clock(), LEASE, 3), "what lies here is analysed without the store"
    s3.start()
    assert a.upload() == 3
    assert all(in_store(s3, a, files))
    assert reasons(a) == []


def test_of_many_files_one_a_round_is_tried_while_the_store_is_away(host: HostFactory, s3: ObjectStore) -> None:
    a = host()
    s3.stop()
    kept(a, 40)
    for _ in range(3):
        a.upload()
        a.clock.advance(1)
    with a.store.transactions.reading_plainly() as select:
        [row] = select("SELECT SUM(attempts) AS attempts FROM upload")
    assert row["attempts"] <= 16 + 2
    s3.start()
    a.clock.advance(600)
    assert a.upload() == 40


@pytest.mark.parametrize("cut", [Spoil(asked=20_000), Spoil(answered=0), Spoil(answered=40)])
def test_an_upload_that_was_cut_off_is_made_again(host: HostFactory, s3: ObjectStore, cut: Spoil) -> None:
    a = host()
    files = kept(a, 1)
    s3.proxy.spoil = cut
    assert a.upload() == 0
    assert s3.object(files[0].path) in (None, a.files.path(files[0]).read_bytes()), "half of it is never an object"
    assert a.store.uploads.stored(files[0].path) is None
    s3.proxy.spoil = None
    a.clock.advance(3)
    assert a.upload() == 1
    assert in_store(s3, a, files) == [True]


UPLOADER = """
import sys
from random import Random
from node.config.files import files_of
from node.config.sections import Config
from node.runtime.clock import utc_now
from node.workflow.context import Context
from node.workflow.uploads import Uploader
from storage.store import Store
config = Config.model_validate_json(sys.argv[1])
files = files_of(config)
Uploader(Context(config, Store.open(config.storage.url, files.folder), files, lambda: None, utc_now, Random(0))).run()
"""


@pytest.mark.parametrize(
    "point",
    [
        "before_commit_of_uploads", "after_commit_of_uploads", "after_upload", "before_commit_of_upload",
        "after_commit_of_upload",
    ],
)  # fmt: skip
def test_wherever_the_uploader_dies_the_next_one_brings_all_there(
    host: HostFactory, s3: ObjectStore, point: str
) -> None:
    a = host()
    files, storage = kept(a), a.config.storage
    given = {
        "directory": str(storage.directory),
        "database_url": storage.url,
        "objects": storage.objects,
        "objects_endpoint": storage.objects_endpoint,
    }
    died = subprocess.run(
        [sys.executable, "-c", UPLOADER, json.dumps({"storage": given})],
        env={**os.environ, "WILLIS_KILL_AT": point},
        cwd=ROOT,
    )
    assert died.returncode == -signal.SIGKILL
    again = host()
    again.upload()
    assert all(in_store(s3, again, files))
    assert (again.upload(), reasons(again)) == (0, [])


def test_half_an_object_that_lies_there_is_replaced_and_a_whole_one_of_another_sender_is_kept(
    host: HostFactory, s3: ObjectStore
) -> None:
    a = host()
    files = kept(a, 2)
    whole = a.files.path(files[1]).read_bytes()
    with_other_preamble = b"another preamble".ljust(128, b"\0") + whole[128:]
    s3.plant(files[0].path, a.files.path(files[0]).read_bytes()[:-1])
    s3.plant(files[1].path, with_other_preamble)
    assert a.upload() == 2
    assert in_store(s3, a, files) == [True, False]
    assert s3.object(files[1].path) == with_other_preamble


def test_a_file_that_is_damaged_here_is_not_uploaded_and_health_says_it(host: HostFactory, s3: ObjectStore) -> None:
    a = host()
    [file] = kept(a, 1)
    with a.files.path(file).open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"\1")
    assert a.upload() == 0
    assert s3.object(file.path) is None
    a.clock.advance(31)
    assert "is not what was written; have the study sent again" in reasons(a)[0]


def test_another_host_reads_what_it_did_not_receive_and_keeps_a_copy_for_a_day(
    host: HostFactory, s3: ObjectStore
) -> None:
    a, b = host("a"), host("b")
    files = kept(a)
    with pytest.raises(NotStored):
        b.files.here(files[0])
    a.upload()
    b.files.bring(files)
    copies = [b.files.here(file) for file in files]
    assert [copy.read_bytes() for copy in copies] == [a.files.path(file).read_bytes() for file in files]
    s3.stop()
    assert [b.files.here(file) for file in files] == copies, "what was fetched is not asked for again"
    old = copies[0].stat().st_mtime - FETCHED_KEPT_SECONDS
    os.utime(copies[0], (old, old))
    assert b.files.sweep_fetched() == 1
    assert [copy.exists() for copy in copies] == [False, True, True]


def test_what_comes_broken_off_or_altered_is_never_read(host: HostFactory, s3: ObjectStore) -> None:
    a, b = host("a"), host("b")
    cut, altered = kept(a, 2)
    a.upload()
    s3.proxy.spoil = Spoil(answered=10_000)
    with pytest.raises(ObjectsAway, match="it broke off"):
        b.files.here(cut)
    s3.proxy.spoil = None
    s3.plant(altered.path, a.files.path(altered).read_bytes()[:-2])
    with pytest.raises(Damaged, match="is not what was uploaded"):
        b.files.here(altered)
    assert list((b.files.root / "fetched").rglob("*.dcm")) == []
    assert list((b.files.root / "incoming").iterdir()) == []
    assert b.files.here(cut).read_bytes() == a.files.path(cut).read_bytes()


def analysed(at: Host) -> bool:
    """Whether a worker of this host had something to analyse, and did."""
    claim = at.store.queue.claim("worker:1", at.clock(), LEASE, 3)
    if claim is None:
        return False
    bundle: Bundle = None  # type: ignore[assignment]  # the network stands in for it
    algorithm = Algorithm("Willis", "0.1.0", "0.2.0", "2.25.5")
    return analyse(AnalysisContext(at.config, at.files, bundle, algorithm, at.clock, store=at.store), claim)


def test_a_host_analyses_what_another_received_once_the_store_has_it_all(
    host_on_either: HostFactory, s3: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ai, "analyse", network)
    host = host_on_either
    a, b = host("a", retention_days=0), host("b")
    kept(a, 6)
    assert b.store.settling.receiving() == [], "a host settles what it could read"
    ready(a)
    assert not analysed(b)
    a.upload()
    assert analysed(b)
    row = b.store.worklist.case("1")
    assert row is not None
    assert row["outcome"] == "positive"
    found = a.store.queue.predecessor(1)
    assert found is not None
    with pytest.raises(NotStored):
        a.files.here(found[1])
    assert b.upload() == 1
    a.files.verify(found[1])
    shutil.rmtree(a.files.root / FETCHED)
    s3.stop()
    assert b.store.queue.retry(1)
    b.store.queue.lies_here_only = True
    assert not analysed(b)
    assert analysed(a), "who has the files needs no store"


def test_a_worker_without_the_store_gives_back_what_it_would_have_to_fetch_and_says_why(
    host: HostFactory, s3: ObjectStore, tmp_path: Path
) -> None:
    save_bundle(tmp_path / "bundle", manifest(), (UNet(TINY),))
    a, b = host("a"), host("b")
    kept(a, 6)
    a.upload()
    ready(a)
    s3.stop()
    seconds = 1000.0
    config = b.config.model_copy(update={"ai": Ai(bundle=tmp_path / "bundle", attempts=1)})
    worker = Worker(config, lambda: seconds)
    worker._work()
    row = b.store.worklist.case("1")
    assert row is not None
    assert (row["stage"], row["attempts"]) == ("ready", 0)
    assert row["detail"].startswith("the object store s3://willis/site-a at http://127.0.0.1:")
    s3.start()
    worker._work()
    assert b.store.queue.claimants() == set(), "for a while it does not ask again"
    seconds += 3
    worker._work()
    row = b.store.worklist.case("1")
    assert row is not None
    assert row["stage"] == "reported"


def test_a_delivery_waits_for_who_has_its_report_and_for_nobody_else(host_on_either: HostFactory) -> None:
    host = host_on_either
    a, b = host("a"), host("b")
    kept(a, 3)
    a.upload()
    ready(a)
    claim = a.store.queue.claim("worker:1", a.clock(), LEASE, 3)
    assert claim is not None
    report = a.files.write_report("2.25.9", b"report")
    assert a.store.queue.finish(claim, conclusion(), ReportObject("2.25.9", report), ["PACS"], a.clock())
    assert b.store.outbox.due.claim(b.clock(), LEASE) is None
    a.upload()
    delivery = b.store.outbox.due.claim(b.clock(), LEASE)
    assert delivery is not None
    assert delivery.stage is DeliveryStage.PENDING
    b.files.verify(delivery.file)


def came_again(at: Host, slices: Sequence[Dataset]) -> None:
    """The slices came to this host, which answers that they are known."""
    association = open_association(at.store, "receiver", "PACS", at.clock())
    for ds in slices:
        content, uids = encoded(ds), (str(ds.SOPClassUID), str(ds.SOPInstanceUID))
        head = read_header(content, ExplicitVRLittleEndian, *uids)
        meta = file_meta(uids, ExplicitVRLittleEndian, "PACS")
        file = write_instance(at.files, head.series_instance_uid, head.sop_instance_uid, meta, content)
        assert add_instance(at.store, head, file, association, "PACS", at.clock()) is Added.SAME


def test_what_one_host_lost_before_it_was_uploaded_is_taken_over_by_who_gets_it_again(
    host_on_either: HostFactory, s3: ObjectStore
) -> None:
    host = host_on_either
    a, b = host("a"), host("b")
    slices = ct_series(3)
    keep(a.store, a.files, a.clock, slices)
    assert b.upload() == 0
    came_again(b, slices)
    assert b.upload() == 3
    ready(a)
    assert a.store.queue.claim("worker:1", a.clock(), LEASE, 3)


def test_what_lay_here_before_there_was_a_store_is_uploaded_too(
    host: HostFactory, s3: ObjectStore, tmp_path: Path
) -> None:
    a = host("a")
    before = Store.open(a.config.storage.url)
    series = keep(before, a.files, a.clock, ct_series(3))
    files = [file for _, file in before.settling.instances(series.id)]
    before.close()
    assert host("b").upload() == 0, "it is not there"
    assert a.upload() == 3
    assert all(in_store(s3, a, files))


def test_images_leave_the_host_when_the_store_has_them_and_their_case_has_ended_long_ago(
    host_on_either: HostFactory, s3: ObjectStore
) -> None:
    host = host_on_either
    a = host("a", objects_evict_hours=24)
    files = kept(a)
    contents = [a.files.path(file).read_bytes() for file in files]
    a.upload()
    a.clock.advance(2 * A_DAY)
    assert uploads.evict(a.context) == 0, "the case has not ended"
    ended(a)
    assert uploads.evict(a.context) == 0, "it has just ended"
    a.clock.advance(2 * A_DAY)
    s3.plant(files[0].path, contents[0][:-1])
    assert uploads.evict(a.context) == 2
    assert [a.files.path(file).exists() for file in files] == [True, False, False], "the last copy stays"
    assert a.upload() == 1
    assert [a.files.here(file).read_bytes() for file in files] == contents
    s3.stop()
    a.clock.advance(2 * A_DAY)
    assert uploads.evict(a.context) == 0, "without the store nothing leaves"


def test_a_case_that_is_removed_leaves_the_store_too_unless_it_comes_again(
    host_on_either: HostFactory, s3: ObjectStore
) -> None:
    host = host_on_either
    a = host("a", retention_days=1)
    files = kept(a)
    a.upload()
    ended(a)
    a.clock.advance(2 * A_DAY)
    assert host("b", retention_days=1).store.retention.candidates(a.clock(), 9) == [], "they lie at the other host"
    assert retention.retain(a.context) == 1
    again = ct_series(3, rows=128, columns=128)[:1]
    keep(a.store, a.files, a.clock, again)
    while a.upload():
        pass
    assert [s3.object(file.path) is not None for file in files] == [True, False, False]
    a.clock.advance(2 * uploads.LEASE / timedelta(seconds=1))
    a.upload()
    assert in_store(s3, a, files[:1]) == [True]


def differences(at: Host, repair: bool = False) -> list[tuple[Kind, bool]]:
    later = at.clock().timestamp()
    found = check(at.store, at.files, repair, later)
    return [(each.kind, each.mended) for each in found if isinstance(each, Difference)]


def test_fsck_compares_the_store_and_misses_nothing_that_lies_elsewhere(host: HostFactory, s3: ObjectStore) -> None:
    a, b = host("a"), host("b")
    files = kept(a)
    assert differences(b) == [], "what is not uploaded yet is for who has it"
    a.upload()
    assert (differences(a), differences(b)) == ([], [])
    altered = a.files.path(files[0]).read_bytes()
    s3.plant(files[0].path, altered[:-1] + b"\1")
    assert differences(b, repair=True) == [(Kind.NOT_STORED, False)]
    assert differences(a, repair=True) == [(Kind.NOT_STORED, True)]
    assert a.upload() == 1
    assert in_store(s3, a, files) == [True] * 3
    assert differences(a) == []


def test_a_backup_has_what_only_the_store_has_and_the_restored_folder_has_its_name(
    host: HostFactory, s3: ObjectStore, tmp_path: Path
) -> None:
    a = host("a")
    files = kept(a)
    a.upload()
    for file in files[:2]:
        a.files.discard(file)
    done = back_up(a.config.storage.url, a.files.root, tmp_path / "backup", a.clock(), a.files.here)
    assert (done.files, done.missing) == (4, ())
    restore(tmp_path / "backup", f"sqlite:///{tmp_path / 'again.db'}", tmp_path / "again")
    again = Files(tmp_path / "again", a.files.objects)
    assert again.folder == a.files.folder
    assert all(again.holds(file) for file in files)
