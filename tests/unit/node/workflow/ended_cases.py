"""Cases that have ended, and what is left of them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from node.config.sections import Config
from node.workflow.context import Context
from storage.database.schema import RemovalRow
from storage.files.instances import Files
from storage.records import Conclusion, ReportObject, Series
from storage.stages import Event, Outcome
from storage.store import Store
from tests.support.builders import (
    LEASE,
    FakeClock,
    conclusion,
    keep,
    series_now,
)
from tests.support.dicom_factory import ct_series

DAY = 86_400.0
DeskFactory = Callable[..., Context]


@pytest.fixture
def context(store: Store, files: Files, clock: FakeClock) -> DeskFactory:
    """A context with these settings of [storage]."""

    def make(**storage: Any) -> Context:
        return Context(Config.model_validate({"storage": storage}), store, files, lambda: None, clock)

    return make


def arrived(context: Context, clock: FakeClock, number: int = 1, **changes: Any) -> Series:
    """A series of two slices that is RECEIVING."""
    uid = f"2.25.88{number}"
    slices = ct_series(2, SeriesInstanceUID=uid, StudyInstanceUID=f"{uid}.1", **changes)
    for index, ds in enumerate(slices):
        ds.SOPInstanceUID = f"{uid}.2.{index}"
    return keep(context.store, context.files, clock, slices)


def reported(
    context: Context,
    clock: FakeClock,
    number: int = 1,
    delivered: bool = True,
    report: bool = True,
    destinations: Sequence[str] = ("PACS",),
) -> Series:
    """As `arrived`, and reported."""
    series = arrived(context, clock, number)
    assert context.store.settling.leave(series, Event.SETTLED, "count", clock())
    claim = context.store.queue.claim("worker", clock(), LEASE, 3)
    assert claim is not None
    made: Conclusion = conclusion(Outcome.NEGATIVE)
    uid = f"2.25.99{number}.{series.revision}"
    written = ReportObject(uid, context.files.write_report(uid, b"report")) if report else None
    assert context.store.queue.finish(claim, made, written, destinations, clock())
    if delivered and (delivery := context.store.outbox.due.claim(clock(), LEASE)):
        context.store.outbox.accepted(delivery, clock())
    return series_now(context.store, series.series_instance_uid)


def cases(context: Context) -> list[int]:
    return sorted(row["case_id"] for row in context.store.worklist.rows())


def on_disk(context: Context) -> list[Path]:
    return sorted(path for path in context.files.root.rglob("*") if path.is_file())


def removals(context: Context) -> list[RemovalRow]:
    with context.store.transactions.reading() as session:
        return list(session.scalars(select(RemovalRow).order_by(RemovalRow.id)))
