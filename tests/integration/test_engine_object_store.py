"""A worker of the engine whose only way to the images is the object store: it joins once it can read, and says why not."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from node.analysis import engine_worker
from node.analysis.engine_worker import CannotRead, bring
from node.runtime import log
from node.runtime.backoff import Backoff
from storage.files.instances import Files
from tests.support.builders import keep
from tests.support.dicom_factory import ct_series
from tests.support.object_store import HostFactory, ObjectStore, host, s3, s3_server
from tests.support.running import wait_until

__all__ = ["host", "s3", "s3_server"]


@contextmanager
def _stopped(server: ObjectStore) -> Iterator[None]:
    server.stop()
    yield
    server.start()


@contextmanager
def _without_bucket(server: ObjectStore) -> Iterator[None]:
    server.remove_bucket()
    yield
    server.begin_anew()


TROUBLES = {
    "wrong credentials": (
        ObjectStore.guarded,
        "it does not know the access key: correct [storage] objects_credentials or the environment (InvalidAccessKeyId)",
    ),
    "no bucket": (
        _without_bucket,
        "there is no bucket willis: create it, or correct [storage] objects (NoSuchBucket)",
    ),
    "store away": (_stopped, "it does not run there: start it, or correct objects_endpoint"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_worker_joins_once_the_store_lets_it_in_and_says_until_then_why_not(
    trouble: str,
    host: HostFactory,
    s3: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    logging_restored: None,
) -> None:
    monkeypatch.setattr(engine_worker, "_AWAY", Backoff(0.1, 0.2))
    brought_about, words = TROUBLES[trouble]
    files = host(objects_endpoint=f"http://127.0.0.1:{s3.port}").files
    log.configure("json")
    joins = threading.Thread(target=engine_worker._wait_for_objects, args=(files,))
    said: list[str] = []

    def has_said() -> list[str]:
        said.extend(capsys.readouterr().err.splitlines())
        return [line for line in said if "objects_away" in line]

    with brought_about(s3):
        joins.start()
        [first, *_] = wait_until(has_said, 20, "it says why it does not join")
        assert joins.is_alive()
    joins.join(10)
    assert not joins.is_alive()
    assert json.loads(first)["error"] == f"the object store s3://willis/site-a at http://127.0.0.1:{s3.port}: {words}"


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_task_whose_images_cannot_be_had_is_refused_with_cause_and_remedy(
    trouble: str, host: HostFactory, s3: ObjectStore, tmp_path: Path
) -> None:
    node = host(objects_endpoint=f"http://127.0.0.1:{s3.port}")
    series = keep(node.store, node.files, node.clock, ct_series(3))
    wanted = [file for _, file in node.store.settling.instances(series.id)]
    assert node.upload() == 3
    files = Files(tmp_path / "worker", node.files.objects)
    brought_about, words = TROUBLES[trouble]
    with brought_about(s3), pytest.raises(CannotRead, match=r"the object store s3://willis/site-a at .*") as refused:
        bring(files, wanted, within_seconds=0)
    assert words in str(refused.value)
    assert not list((tmp_path / "worker" / "fetched").rglob("*.dcm"))


def test_a_file_that_is_still_on_its_way_is_waited_for(host: HostFactory, s3: ObjectStore, tmp_path: Path) -> None:
    node = host()
    series = keep(node.store, node.files, node.clock, ct_series(3))
    wanted = [file for _, file in node.store.settling.instances(series.id)]
    files = Files(tmp_path / "worker", node.files.objects)
    with pytest.raises(CannotRead, match="is not in the object store"):
        bring(files, wanted, within_seconds=0)
    brings = threading.Thread(target=bring, args=(files, wanted, 20))
    brings.start()
    time.sleep(0.3)
    assert node.upload() == 3
    brings.join(20)
    for file in wanted:
        assert (tmp_path / "worker" / "fetched" / file.path).read_bytes() == node.files.path(file).read_bytes()
