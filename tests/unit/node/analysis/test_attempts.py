"""What a damaged file, a kill, a limit or a full disk makes of an attempt, and of the last one."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from ai.errors import Reason
from node.analysis.analysis import _read, analyse
from node.analysis.read_ahead import Ahead
from storage.errors import Damaged, StorageFull
from storage.files.instances import Files
from tests.support.builders import LEASE, keep
from tests.support.dicom_factory import ct_series, enhanced_ct
from tests.unit.node.analysis.conftest import Workshop, words

DAMAGES: dict[str, Callable[[Any], object]] = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "not DICOM": lambda path: path.write_bytes(b"x" * 1000),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_costs_the_attempt(workshop: Callable[..., Workshop], damage: str) -> None:
    shop = workshop()
    claim = shop.claim()
    (_, file), *_ = shop.context.store.settling.instances(1)
    DAMAGES[damage](shop.context.files.path(file))
    with pytest.raises(Damaged):
        analyse(shop.context, claim)
    assert shop.row()["stage"] == "analysing"


@pytest.mark.parametrize("damage", DAMAGES)
def test_after_the_last_attempt_a_damaged_series_ends_as_failed_with_a_report(
    workshop: Callable[..., Workshop], damage: str
) -> None:
    shop = workshop()
    claim = shop.claim()
    (_, file), *_ = shop.context.store.settling.instances(1)
    DAMAGES[damage](shop.context.files.path(file))
    assert analyse(shop.context, shop.exhausted(claim))
    row = shop.row()
    assert (row["stage"], row["outcome"], row["reason"], row["detail"]) == (
        "failed", "not_analysed", "attempts_exhausted", "1 attempt",
    )  # fmt: skip
    assert row["delivery"] == "pending"
    assert shop.seen == []


def test_a_series_none_of_whose_files_is_left_ends_as_failed_without_a_report(
    workshop: Callable[..., Workshop],
) -> None:
    shop = workshop()
    claim = shop.claim()
    for _, file in shop.context.store.settling.instances(1):
        shop.context.files.discard(file)
    assert analyse(shop.context, shop.exhausted(claim))
    assert (shop.row()["stage"], shop.row()["reason"], shop.row()["report_uid"]) == (
        "failed", "attempts_exhausted", None,
    )  # fmt: skip


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For every file that the analysis reads, whether its pixels were to be read too."""
    seen: list[bool] = []

    def read(path: Any, *, stop_before_pixels: bool = False, **options: Any) -> Dataset:
        seen.append(not stop_before_pixels)
        return dcmread(path, stop_before_pixels=stop_before_pixels, **options)

    monkeypatch.setattr("node.analysis.analysis.dcmread", read)
    return seen


def test_a_series_that_kills_whoever_reads_its_pixels_ends_with_a_report(
    workshop: Callable[..., Workshop], reads: list[bool]
) -> None:
    shop = workshop()
    assert analyse(shop.context, shop.exhausted(shop.claim()))
    assert reads == [False] * 6
    assert (shop.row()["stage"], shop.row()["delivery"]) == ("failed", "pending")


def test_what_the_database_already_says_is_reported_without_reading_pixels(
    workshop: Callable[..., Workshop], reads: list[bool]
) -> None:
    shop = workshop(report={"results": ["sr", "sc"]})
    series = keep(shop.context.store, shop.context.files, shop.clock, ct_series(6))
    shop.context.store.settling.note_expected_count(series.id, 400, shop.clock())
    assert analyse(shop.context, shop.claim_again())
    assert reads == [False] * 6
    assert shop.row()["reason"] == "incomplete"


@pytest.mark.parametrize(
    "series",
    [
        ct_series(6, Rows=65535, Columns=65535),
        [enhanced_ct(ct_series(3), Rows=1000, Columns=1000, NumberOfFrames=2049)],
        [enhanced_ct(ct_series(6), NumberOfFrames=2_000_000_000)],
    ],
    ids=["giant slices", "many large slices", "many frames"],
)
def test_a_series_that_claims_more_than_can_be_analysed_is_reported_as_too_large(
    workshop: Callable[..., Workshop], series: list[Dataset]
) -> None:
    shop = workshop()
    assert analyse(shop.context, shop.claim(series))
    row = shop.row()
    assert (row["stage"], row["outcome"], row["reason"], row["delivery"]) == (
        "reported", "not_analysed", "too_large", "pending",
    )  # fmt: skip
    assert shop.seen == []
    assert Reason.TOO_LARGE.explained in words(shop.report())


@pytest.mark.parametrize(
    ("syntax", "most_bytes"), [(ExplicitVRLittleEndian, 4096), (DeflatedExplicitVRLittleEndian, 1 << 20)]
)
def test_files_that_together_are_too_large_are_reported_without_reading_pixels(
    workshop: Callable[..., Workshop], reads: list[bool], monkeypatch: pytest.MonkeyPatch, syntax: str, most_bytes: int
) -> None:
    monkeypatch.setattr("ai.limits.MOST_FILE_BYTES", most_bytes)
    shop = workshop()
    rows = 8 if syntax == ExplicitVRLittleEndian else 512
    series = ct_series(6, rows=rows, columns=512, hu=lambda _: np.zeros((rows, 512), np.int16))
    keep(shop.context.store, shop.context.files, shop.clock, series, syntax=syntax)
    assert analyse(shop.context, shop.claim_again())
    assert reads == [False] * 6
    assert (shop.row()["reason"], shop.row()["delivery"]) == ("too_large", "pending")


def test_a_deflated_instance_that_is_too_large_is_not_inflated_even_for_its_header(
    workshop: Callable[..., Workshop], reads: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    for where in ("ai.limits", "node.analysis.analysis"):
        monkeypatch.setattr(f"{where}.MOST_FILE_BYTES", 100_000)
    shop = workshop()
    series = ct_series(2) + ct_series(1, rows=512, columns=512, origin_mm=(0.0, 0.0, 9.0), SOPInstanceUID="2.25.99")
    keep(shop.context.store, shop.context.files, shop.clock, series, syntax=DeflatedExplicitVRLittleEndian)
    assert analyse(shop.context, shop.claim_again())
    assert reads == [False] * 2
    assert (shop.row()["reason"], shop.row()["delivery"]) == ("too_large", "pending")


@pytest.mark.parametrize("headers_only", [True, False])
def test_of_a_deflated_instance_only_the_dataset_is_kept(workshop: Callable[..., Workshop], headers_only: bool) -> None:
    shop = workshop()
    series = ct_series(4, rows=512, columns=512, hu=lambda _: np.zeros((512, 512), np.int16))
    keep(shop.context.store, shop.context.files, shop.clock, series, syntax=DeflatedExplicitVRLittleEndian)
    claim, instances = shop.claim_again(), shop.context.store.settling.instances(1)
    tracemalloc.start()
    slices = _read(shop.context, claim, instances, Ahead(1), headers_only=headers_only)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(slices) == 4
    assert held < (1 if headers_only else 5) * (512 * 512 * 2)


def test_a_series_that_kills_even_whoever_reports_it_ends_as_failed_without_a_report(
    workshop: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any, **__: Any) -> Dataset:
        raise KeyboardInterrupt

    shop = workshop(ai={"attempts": 2})
    shop.claim()
    monkeypatch.setattr("node.analysis.analysis.dcmread", killed)
    queue = shop.context.store.queue
    queue.give_back("worker:1", refund=False)
    assert queue.claim("worker:1", shop.clock(), LEASE, 2) is not None
    for _ in range(2):
        queue.give_back("worker:1", refund=False)
        claim = queue.claim_exhausted("worker:1", shop.clock(), LEASE, 2)
        assert claim is not None
        with pytest.raises(KeyboardInterrupt):
            analyse(shop.context, claim)
    queue.give_back("worker:1", refund=False)
    claim = queue.claim_exhausted("worker:1", shop.clock(), LEASE, 2)
    assert claim is not None
    assert analyse(shop.context, claim)
    row = shop.row()
    assert (row["stage"], row["reason"], row["report_uid"]) == ("failed", "attempts_exhausted", None)


def test_a_report_that_cannot_be_made_costs_the_attempt_and_in_the_end_only_the_report(
    workshop: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = workshop()
    claim = shop.claim()

    def broken(*_arguments: Any, **_options: Any) -> Dataset:
        raise ValueError("Doe^Jane")

    monkeypatch.setattr("node.results.objects.build_report", broken)
    with pytest.raises(ValueError, match="Doe"):
        analyse(shop.context, claim)
    assert shop.row()["stage"] == "analysing"
    assert analyse(shop.context, shop.exhausted(claim))
    assert (shop.row()["stage"], shop.row()["report_uid"]) == ("failed", None)
    said = "".join(capsys.readouterr())
    assert "report_failed" in said
    assert "Doe" not in said


def test_a_full_disk_does_not_end_a_series_without_its_report(
    workshop: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = workshop()
    last = shop.exhausted(shop.claim())

    def full(*_arguments: Any) -> None:
        raise StorageFull("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(Files, "write_report", full)
        with pytest.raises(StorageFull):
            analyse(shop.context, last)
    assert shop.row()["stage"] == "analysing"
    assert analyse(shop.context, last)
    assert (shop.row()["stage"], shop.row()["delivery"]) == ("failed", "pending")
