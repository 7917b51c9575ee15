"""A worker that no wakeup reaches claims what is ready at its next look: by its scheduler, or by its pause while it reads ahead."""

import threading
from contextlib import suppress
from pathlib import Path

import pytest

from ai.bundle import save_bundle
from ai.unet import UNet
from node.analysis import worker as worker_module
from node.analysis.worker import Worker
from node.config.sections import Config
from node.runtime.job import scheduler_of
from storage.records import Claim
from storage.store import Store
from tests.support.builders import FakeClock, ready
from tests.support.running import wait_until
from tests.unit.ai.test_bundle import TINY, manifest

PERIOD_SECONDS = 0.5


@pytest.mark.parametrize("scheduled", [True, False])
def test_a_series_of_which_no_worker_heard_is_claimed_at_the_next_look(
    tmp_path: Path, database_url: str, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, scheduled: bool
) -> None:
    monkeypatch.setattr(worker_module, "PERIOD_SECONDS", PERIOD_SECONDS)
    save_bundle(tmp_path / "bundle", manifest(), (UNet(TINY),))
    storage = {"directory": tmp_path / "files", "database_url": database_url}
    worker = Worker(Config.model_validate({"storage": storage, "ai": {"bundle": tmp_path / "bundle"}}))
    has_looked, claims, store = threading.Event(), list[Claim](), Store.open(database_url)
    claim_next = worker._store.queue.claim_next

    def looked(*arguments: object) -> Claim | None:
        found = claim_next(*arguments)  # type: ignore[arg-type]
        has_looked.set()
        return found

    monkeypatch.setattr(worker._store.queue, "claim_next", looked)
    monkeypatch.setattr(worker, "_place_or_analyse", claims.append)
    scheduler = scheduler_of([worker._job] if scheduled else [])
    scheduler.start()
    worker._job.wake()

    def comes() -> None:
        try:
            assert has_looked.wait(60)
            ready(store, clock)
            with suppress(AssertionError):
                wait_until(lambda: claims, 40 * PERIOD_SECONDS)
        finally:
            worker._job.stop()

    threading.Thread(target=comes).start()
    worker._job.run()
    scheduler.shutdown()
    assert [claim.series.attempts for claim in claims] == [1]
    store.close()
    worker._store.close()
