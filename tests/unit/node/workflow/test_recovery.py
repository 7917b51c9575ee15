"""What a clock that was set back looks like, and what only looks like it."""

import threading
import time
from datetime import timedelta
from pathlib import Path

from sqlalchemy import update

from node.config.sections import Config
from node.runtime.clock import utc_now
from node.workflow import recovery
from node.workflow.context import Context
from storage.database.schema import SeriesRow
from storage.files.instances import Files
from storage.queries import receiving
from storage.store import Store
from tests.support.builders import SERIES_UID, FakeClock, received, series_now


def context_of(store: Store, files: Files, folder: Path) -> Context:
    return Context(Config.model_validate({"storage": {"directory": folder}}), store, files, lambda: None, utc_now)


def test_slices_that_came_while_the_database_was_locked_do_not_look_like_a_clock_that_was_set_back(
    sqlite_store: Store,
) -> None:
    other, is_locked = Store.open(str(sqlite_store.transactions.engine.url)), threading.Event()
    received(sqlite_store, FakeClock(utc_now()))

    def hold() -> None:
        with other.transactions.writing() as session:
            session.connection()
            is_locked.set()
            time.sleep(1.0)
            late = utc_now() + receiving.CLOCKS_DIFFER  # as far ahead as a slice may be of whom we held up
            session.execute(update(SeriesRow).values(last_instance_at=late))

    holder = threading.Thread(target=hold)
    holder.start()
    assert is_locked.wait(30)
    stamped = sqlite_store.settling.stamp_anew(utc_now)
    holder.join()
    other.close()
    assert stamped == 0


def test_a_slice_of_the_future_is_one_and_is_stamped_anew(sqlite_store: Store, files: Files, tmp_path: Path) -> None:
    received(sqlite_store, FakeClock(utc_now() + timedelta(hours=1)))
    recovery.rescue(context_of(sqlite_store, files, tmp_path))
    assert series_now(sqlite_store, SERIES_UID).last_instance_at <= utc_now()
