"""The pages before a store of the test's own, and a case with images."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.files.instances import Files
from storage.stages import Event
from storage.store import Store
from tests.support.builders import LEASE, FakeClock, finish, keep
from tests.support.dicom_factory import ct_series
from tests.support.pages import Served, serving, web_context

HOSTILE = "<script>alert(1)</script>^\"'><img src=x onerror=alert(1)>"


@pytest.fixture
def pages(store: Store, files: Files, tmp_path: Path, clock: FakeClock) -> Iterator[Served]:
    with serving(web_context(store, files, tmp_path, clock, failed_passwords=3)) as served:
        yield served


@pytest.fixture
def quick(sqlite_store: Store, files: Files, tmp_path: Path, clock: FakeClock) -> Iterator[Served]:
    """The same on SQLite alone, where the database makes no difference."""
    with serving(web_context(sqlite_store, files, tmp_path, clock, failed_passwords=3)) as served:
        yield served


def with_images(served: Served, files: Files, clock: FakeClock, **changes: object) -> None:
    """Case 1 has eight slices, and a finding."""
    store = served.context.store
    series = keep(store, files, clock, ct_series(8, **changes))  # type: ignore[arg-type]
    store.settling.leave(series, Event.SETTLED, "count", clock())
    claim = store.queue.claim("worker:1", clock(), LEASE, 3)
    assert claim is not None
    assert finish(store, clock, claim)
