"""Which uploads of one host wake another at the same PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from node.runtime.listener import wake_process
from node.runtime.notify import NODE_PROCESS, Wakeup
from storage.queries.retention import Why
from storage.stages import Event, Outcome
from tests.support.builders import FakeClock, keep
from tests.support.dicom_factory import ct_series
from tests.support.object_store import HostFactory, ObjectStore, hosts_over, s3, s3_server

__all__ = ["s3", "s3_server"]


@pytest.fixture
def host(tmp_path: Path, postgresql_url: str, s3: ObjectStore, clock: FakeClock) -> Iterator[HostFactory]:
    yield from hosts_over(tmp_path, postgresql_url, s3, clock)


@pytest.mark.postgresql
def test_images_that_one_host_uploads_wake_the_node_of_another_and_their_removal_does_not(
    host: HostFactory, tmp_path: Path
) -> None:
    a, b = host("a"), host("b")
    connected = a.store.listening()
    assert connected is not None
    with connected, Wakeup(tmp_path / "a", NODE_PROCESS) as node:

        def is_woken() -> bool:
            while some := connected.wait(0.2):
                for heard in some:
                    wake_process(tmp_path / "a", heard, Random(1))
            return node.wait(0)

        assert not a.store.settling.receiving()
        series = keep(b.store, b.files, b.clock, ct_series(2, rows=16, columns=16))
        assert b.upload() == 2
        assert is_woken()
        assert [each.id for each in a.store.settling.receiving()] == [series.id], "its settling is due"
        b.store.settling.leave(series, Event.SET_ASIDE, "quiet", b.clock(), Outcome.NOT_ELIGIBLE, "few")
        removal = b.store.retention.begin(series.id, Why.AGE, b.clock(), b.clock())
        assert removal is not None
        assert b.store.retention.forget(removal, b.clock())
        while connected.wait(0.2):
            pass
        assert b.upload() == 2
        assert not is_woken()
