"""The worker's verb with a real store and real files; the network's findings are made up."""

import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from types import SimpleNamespace
from typing import Any, cast
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

import ai
from ai.bundle import Bundle
from ai.errors import NotAnalysable, Reason
from ai.findings import Findings, Lesion
from ai.lesion_mask import LesionMask
from ai.locations import Location
from ai.quality import Quality
from ai.volume import ReadSlice
from node.analysis.analysis import AnalysisContext, Stopwatch, _read, analyse
from node.config.sections import Config
from node.results.document import Algorithm
from node.results.identity import derive_uid
from storage.errors import Damaged, StorageFull
from storage.files.instances import Files
from storage.queries.retention import Why
from storage.records import Claim
from storage.stages import Event, Outcome, Stage
from storage.store import Store
from tests.support.builders import LEASE, PROBABILITIES, FakeClock, add, header, keep, series_now
from tests.support.dicom_factory import ct_series, enhanced_ct
from tests.support.made_up_head import affine

NEGATIVE = Findings((0.02,) * 14, (), 0.5)
POSITIVE = Findings(PROBABILITIES, (Lesion(Location.LEFT_MCA, 0.9, (-18.4, -28.5, 103.0), 4.2),), 0.5)


@pytest.fixture
def store(sqlite_store: Store) -> Store:
    """The queue's SQL is tested on both databases elsewhere."""
    return sqlite_store


@dataclass
class Workshop:
    """A context, and the findings that the network will have."""

    context: AnalysisContext
    clock: FakeClock
    seen: list[Any]

    def claim(self, series: Sequence[Dataset] | None = None, **changes: Any) -> Claim:
        """A claimed series of these slices."""
        kept = keep(self.context.store, self.context.files, self.clock, series or ct_series(6, **changes))
        return self.claim_again(str(kept.series_instance_uid))

    def claim_again(self, uid: str = "2.25.1002", **options: Any) -> Claim:
        store, series = self.context.store, series_now(self.context.store, uid)
        assert store.settling.leave(series, Event.SETTLED, "count", self.clock(), **options)
        claim = store.queue.claim("worker:1", self.clock(), LEASE, 3)
        assert claim is not None
        return claim

    def exhausted(self, claim: Claim) -> Claim:
        """The claim on the same series after its last attempt failed."""
        self.context.store.queue.give_back("worker:1", refund=False)
        last = self.context.store.queue.claim_exhausted("worker:1", self.clock(), LEASE, claim.series.attempts)
        assert last is not None
        return last

    def row(self, case: int = 1) -> dict[str, Any]:
        row = self.context.store.worklist.case(str(case))
        assert row is not None
        return dict(row)

    def report(self, case: int = 1) -> Dataset:
        """The latest report of the case."""
        found = self.context.store.queue.predecessor(case)
        assert found is not None
        self.context.files.verify(found[1])
        return dcmread(BytesIO(self.context.files.read(found[1])))


@pytest.fixture
def workshop(store: Store, files: Files, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Workshop]:
    """Makes a workshop whose network finds `findings` or raises it, with these sections of the configuration."""

    def make(findings: Findings | Exception = NEGATIVE, **sections: Any) -> Workshop:
        seen: list[Any] = []

        def network(volume: Any, _bundle: Any, device: str, *, require_contrast: bool, progress: Any) -> Findings:
            seen.append((volume.hu_DHW.shape, device, require_contrast))
            progress(0.5)
            if isinstance(findings, Exception):
                raise findings
            return findings

        monkeypatch.setattr(ai, "analyse", network, raising=False)
        peers = {"PACS": {"ae_title": "PACS", "host": "127.0.0.1", "port": 104}}
        config = Config.model_validate({"peers": peers} | sections)
        algorithm = Algorithm("Willis", "0.1.0+weights", "0.1.0", "2.25.5")
        context = AnalysisContext(config, store, files, cast(Bundle, SimpleNamespace()), algorithm, clock)
        return Workshop(context, clock, seen)

    return make


def words(ds: Dataset) -> str:
    """All text of a report."""
    return "\n".join(str(element.value) for element in ds.iterall() if element.VR in ("UT", "LO", "SH", "ST"))


def test_a_negative_series_is_reported_and_the_report_waits_for_delivery(workshop: Callable[..., Workshop]) -> None:
    shop = workshop(NEGATIVE)
    claim = shop.claim()
    shop.clock.advance(3)
    assert analyse(shop.context, claim)
    row = shop.row()
    assert (row["stage"], row["outcome"], row["reason"], row["delivery"]) == ("reported", "negative", "", "pending")
    assert (row["model"], row["p_present"], row["lesions"]) == ("0.1.0+weights", 0.02, [])
    assert shop.seen == [((6, 8, 9), "auto", True)]
    assert "No intracranial aneurysm was detected" in words(shop.report())
    [delivery] = shop.context.store.worklist.deliveries(1)
    assert delivery.destination == "PACS"


def test_what_limits_a_negative_is_kept_with_it_and_in_its_report(workshop: Callable[..., Workshop]) -> None:
    shop = workshop(replace(NEGATIVE, quality=Quality(noise_hu=50.0, arterial_hu=350.0)))
    assert analyse(shop.context, shop.claim())
    row = shop.row()
    assert (row["outcome"], row["limits"], row["notify"]) == ("negative", "noise", False)
    assert "No intracranial aneurysm was detected; limited: noise." in words(shop.report())


@pytest.mark.parametrize(("notify_threshold", "notify"), [(None, True), (0.8, True), (0.95, False)])
def test_a_positive_is_worth_an_alert_above_the_second_operating_point(
    workshop: Callable[..., Workshop], notify_threshold: float | None, notify: bool
) -> None:
    shop = workshop(replace(POSITIVE, notify_threshold=notify_threshold))
    assert analyse(shop.context, shop.claim())
    assert (shop.row()["notify"], shop.row()["limits"]) == (notify, None)


def test_a_positive_series_keeps_its_lesions(workshop: Callable[..., Workshop]) -> None:
    shop = workshop(POSITIVE)
    assert analyse(shop.context, shop.claim())
    row = shop.row()
    assert (row["outcome"], row["top_location"], row["diameter_mm"]) == (
        "positive", "Left Middle Cerebral Artery", 4.2,
    )  # fmt: skip
    assert row["lesions"][0]["centre_lps_mm"] == [-18.4, -28.5, 103.0]
    assert "Suspected intracranial aneurysm" in words(shop.report())


@pytest.mark.parametrize(("region", "graphic_type"), [("2d", "CIRCLE"), ("box", "POLYLINE"), ("3d", "POINT")])
def test_a_lesion_is_marked_as_configured(workshop: Callable[..., Workshop], region: str, graphic_type: str) -> None:
    shop = workshop(POSITIVE, report={"region": region, "series_number": 77})
    analyse(shop.context, shop.claim())
    kinds = {str(element.value) for element in shop.report().iterall() if element.keyword == "GraphicType"}
    assert kinds == {graphic_type}
    assert shop.report().SeriesNumber == 77


def test_the_time_of_every_step_is_kept(workshop: Callable[..., Workshop]) -> None:
    shop = workshop()
    analyse(shop.context, shop.claim())
    row = shop.row()
    assert row["volume_seconds"] > 0
    assert row["report_seconds"] > 0
    assert row["inference_seconds"] >= 0


@pytest.mark.parametrize(
    ("findings", "changes", "reason"),
    [
        (NotAnalysable(Reason.NO_CONTRAST, "peak 60 HU"), {}, "no_contrast"),
        (NotAnalysable(Reason.COVERAGE), {}, "coverage"),
        (NEGATIVE, {"RescaleSlope": None}, "missing_rescale"),
        (NEGATIVE, {"PixelData": b"\0\0"}, "pixels_truncated"),
        (NEGATIVE, {"ImagePositionPatient": None}, "missing_geometry"),
    ],
)
def test_what_cannot_be_analysed_is_reported_with_its_reason_and_never_called_negative(
    workshop: Callable[..., Workshop], findings: Any, changes: dict[str, Any], reason: str
) -> None:
    shop = workshop(findings)
    assert analyse(shop.context, shop.claim(**changes))
    row = shop.row()
    assert (row["stage"], row["outcome"], row["reason"], row["delivery"]) == (
        "reported", "not_analysed", reason, "pending",
    )  # fmt: skip
    assert row["p_present"] is None
    said = words(shop.report())
    assert "NOT ANALYSED" in said
    assert "No intracranial aneurysm" not in said


def test_where_no_report_is_wanted_the_worklist_alone_says_it(workshop: Callable[..., Workshop]) -> None:
    shop = workshop(NotAnalysable(Reason.GAP), report={"not_analysed": "never"})
    assert analyse(shop.context, shop.claim())
    row = shop.row()
    assert (row["outcome"], row["reason"], row["report_uid"], row["delivery"]) == ("not_analysed", "gap", None, None)


def test_a_result_is_reported_even_where_failures_are_not(workshop: Callable[..., Workshop]) -> None:
    shop = workshop(NEGATIVE, report={"not_analysed": "never"})
    analyse(shop.context, shop.claim())
    assert shop.row()["delivery"] == "pending"


@pytest.mark.parametrize(
    ("keyword", "value", "reason"),
    [("PatientID", "P-0002", "mixed_patients"), ("StudyInstanceUID", "2.25.8", "mixed_studies")],
)
def test_slices_of_two_patients_or_studies_are_not_analysed(
    workshop: Callable[..., Workshop], keyword: str, value: str, reason: str
) -> None:
    shop = workshop()
    series = ct_series(6)
    setattr(series[5], keyword, value)
    assert analyse(shop.context, shop.claim(series))
    assert (shop.row()["outcome"], shop.row()["reason"], shop.seen) == ("not_analysed", reason, [])


def test_the_same_instance_with_other_bytes_alone_does_not_stop_the_analysis(
    workshop: Callable[..., Workshop],
) -> None:
    shop = workshop()
    keep(shop.context.store, shop.context.files, shop.clock, ct_series(6))
    [(first, _), *_] = shop.context.store.settling.instances(1)
    add(shop.context.store, shop.clock, first, content="other")
    assert analyse(shop.context, shop.claim_again())
    assert shop.row()["outcome"] == "negative"
    assert shop.row()["conflicts"] == ["instances_differ"]


def test_a_series_of_which_the_sender_has_more_is_incomplete(workshop: Callable[..., Workshop]) -> None:
    shop = workshop()
    series = keep(shop.context.store, shop.context.files, shop.clock, ct_series(6))
    shop.context.store.settling.note_expected_count(series.id, 400, shop.clock())
    assert analyse(shop.context, shop.claim_again())
    assert (shop.row()["reason"], shop.row()["detail"], shop.seen) == ("incomplete", "6 of 400 slices", [])


def test_an_ineligible_series_keeps_its_outcome_and_its_report_says_why(workshop: Callable[..., Workshop]) -> None:
    shop = workshop(report={"not_analysed": "always"})
    keep(shop.context.store, shop.context.files, shop.clock, ct_series(6))
    claim = shop.claim_again(outcome=Outcome.NOT_ELIGIBLE, reason="too_few_slices", detail="6 slices")
    assert analyse(shop.context, claim)
    row = shop.row()
    assert (row["outcome"], row["reason"], row["detail"], shop.seen) == (
        "not_eligible", "too_few_slices", "6 slices", [],
    )  # fmt: skip
    assert "too_few_slices" in words(shop.report())


def test_images_that_do_not_say_whose_they_are_get_no_report_and_no_gpu_time(
    workshop: Callable[..., Workshop],
) -> None:
    shop = workshop()
    assert analyse(shop.context, shop.claim(PatientID="", PatientName=""))
    row = shop.row()
    assert (row["reason"], row["detail"], row["report_uid"]) == ("missing_identity", "PatientID", None)
    assert shop.seen == []


def test_nobody_configured_to_get_the_report_leaves_it_on_disk(workshop: Callable[..., Workshop]) -> None:
    shop = workshop(peers={})
    analyse(shop.context, shop.claim())
    assert (shop.row()["delivery"], shop.row()["report_uid"] is None) == (None, False)
    assert shop.report().Modality == "SR"


def test_a_late_slice_during_the_analysis_discards_the_result(workshop: Callable[..., Workshop]) -> None:
    shop = workshop()
    claim = shop.claim()

    def late(_share: float) -> None:
        add(shop.context.store, shop.clock, header(99, "2.25.1002"))

    shop.context.progress = late
    assert not analyse(shop.context, claim)
    row = shop.row()
    assert (row["stage"], row["revision"], row["outcome"], row["delivery"]) == ("receiving", 2, None, None)


def test_the_report_of_a_later_revision_names_its_predecessor_and_has_another_uid(
    workshop: Callable[..., Workshop],
) -> None:
    shop = workshop()
    analyse(shop.context, shop.claim())
    first = shop.report()
    shop.clock.advance(60)
    [late] = ct_series(1, origin_mm=(-20, -30, 106), SOPInstanceUID="2.25.99")
    assert analyse(shop.context, shop.claim([late]))
    second = shop.report()
    assert second.SOPInstanceUID != first.SOPInstanceUID
    assert (second.SeriesInstanceUID, second.InstanceNumber) == (first.SeriesInstanceUID, 2)
    predecessor = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert predecessor.ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert [report["predecessor_uid"] for report in shop.context.store.worklist.reports(1)] == [
        None, first.SOPInstanceUID,
    ]  # fmt: skip


def test_an_attempt_that_died_before_its_record_makes_the_same_object_again(
    workshop: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = workshop()
    claim = shop.claim()
    with monkeypatch.context() as patched:
        patched.setattr(type(shop.context.store.queue), "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            analyse(shop.context, claim)
    [orphan] = (shop.context.files.root / "reports").rglob("*.dcm")
    shop.context.store.queue.give_back("worker:1", refund=False)
    again = shop.context.store.queue.claim("worker:1", shop.clock(), LEASE, 3)
    assert again is not None
    assert analyse(shop.context, again)
    assert list((shop.context.files.root / "reports").rglob("*.dcm")) == [orphan]


def test_a_series_that_is_sent_again_after_its_removal_gets_a_report_of_its_own(
    workshop: Callable[..., Workshop],
) -> None:
    shop = workshop()
    store, clock = shop.context.store, shop.clock
    assert analyse(shop.context, shop.claim())
    first = shop.report()
    delivery = store.outbox.due.claim(clock(), LEASE)
    assert delivery is not None
    store.outbox.accepted(delivery, clock())
    removal = store.retention.begin(1, Why.AGE, clock.advance(60), clock())
    assert removal is not None
    assert store.retention.forget(removal, clock())
    again = shop.claim()
    assert analyse(shop.context, again)
    second = shop.report(again.series.id)
    assert second.InstanceNumber == first.InstanceNumber == 1
    assert second.SOPInstanceUID != first.SOPInstanceUID


def test_what_progress_raises_ends_the_analysis_and_changes_nothing(workshop: Callable[..., Workshop]) -> None:
    shop = workshop()
    claim = shop.claim()

    def stop(_share: float) -> None:
        raise KeyboardInterrupt

    shop.context.progress = stop
    with pytest.raises(KeyboardInterrupt):
        analyse(shop.context, claim)
    assert series_now(shop.context.store, "2.25.1002").stage is Stage.ANALYSING


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
    slices = _read(shop.context, claim, instances, headers_only=headers_only)
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


def test_a_stopwatch_adds_up_and_counts_a_step_that_failed() -> None:
    watch = Stopwatch()

    def fail() -> None:
        with watch.step("volume"):
            raise ValueError

    with watch.step("volume"):
        pass
    first = watch.seconds["volume"]
    with pytest.raises(ValueError):
        fail()
    assert watch.seconds["volume"] > first


def delivered(shop: Workshop) -> dict[tuple[str, str], Dataset]:
    """The objects in the outbox, by kind and destination."""
    return {
        (each.kind, each.destination): dcmread(BytesIO(shop.context.files.read(each.file)))
        for each in shop.context.store.worklist.deliveries(1)
    }


def peer(**settings: Any) -> dict[str, Any]:
    return {"ae_title": "OTHER", "host": "127.0.0.1", "port": 104} | settings


@pytest.mark.parametrize("outcome", [POSITIVE, NEGATIVE, NotAnalysable(Reason.NO_CONTRAST, "peak 60 HU")])
def test_each_destination_gets_what_it_is_configured_to_get(
    workshop: Callable[..., Workshop], outcome: Findings | NotAnalysable
) -> None:
    shop = workshop(
        outcome,
        peers={
            "CT": peer(ae_title="PACS", destination=["ARCHIVE", "SPATIAL", "PLAIN"]),
            "ARCHIVE": peer(results=["sr", "sc"]),
            "SPATIAL": peer(results=["sr", "sc"], region="3d"),
            "PLAIN": peer(results=["sc"]),
        },
    )
    assert analyse(shop.context, shop.claim())
    made = delivered(shop)
    assert list(made) == [
        ("report", "ARCHIVE"),
        ("report 3d", "SPATIAL"),
        ("summary", "ARCHIVE"),
        ("summary", "PLAIN"),
        ("summary", "SPATIAL"),
    ]
    flat, spatial = made["report", "ARCHIVE"], made["report 3d", "SPATIAL"]
    assert ("'SCOORD3D'" in str(spatial)) == ("'SCOORD'" in str(flat)) == (outcome is POSITIVE)
    for report, summary in (
        (flat, made["summary", "ARCHIVE"]),
        (flat, made["summary", "PLAIN"]),
        (spatial, made["summary", "SPATIAL"]),
    ):
        assert summary.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == report.SOPInstanceUID
        assert summary.StudyInstanceUID == report.StudyInstanceUID == "2.25.1001"
    assert len({ds.SOPInstanceUID for ds in made.values()}) == 4
    assert len({ds.SeriesInstanceUID for ds in made.values()}) == 2
    assert (flat.SeriesNumber, made["summary", "PLAIN"].SeriesNumber) == (9901, 9902)


def test_a_destination_of_3d_points_gets_circles_where_there_is_no_frame_of_reference(
    workshop: Callable[..., Workshop],
) -> None:
    shop = workshop(POSITIVE, report={"region": "3d"})
    assert analyse(shop.context, shop.claim(FrameOfReferenceUID=None))
    assert shop.row()["outcome"] == "positive"
    assert "SCOORD3D" not in str(shop.report())


def test_a_finding_is_reported_even_if_it_cannot_be_drawn(
    workshop: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(*_: Any) -> None:
        raise RuntimeError("no font")

    monkeypatch.setattr("node.results.secondary_capture.summary_picture", draw)
    shop = workshop(POSITIVE, report={"results": ["sr", "sc"]})
    assert analyse(shop.context, shop.claim())
    assert list(delivered(shop)) == [("report", "PACS")]
    assert shop.row()["outcome"] == "positive"


@pytest.mark.parametrize("region", ["2d", "3d"])
def test_who_gets_summaries_only_gets_the_report_where_a_summary_cannot_be_drawn(
    workshop: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch, region: str
) -> None:
    def draw(*_: Any) -> None:
        raise RuntimeError("no font")

    monkeypatch.setattr("node.results.secondary_capture.summary_picture", draw)
    peers = {
        "CT": peer(ae_title="PACS", destination=["BOTH", "PLAIN"]),
        "BOTH": peer(results=["sr", "sc"]),
        "PLAIN": peer(results=["sc"], region=region),
    }
    shop = workshop(POSITIVE, peers=peers)
    assert analyse(shop.context, shop.claim())
    kind = {"2d": "report", "3d": "report 3d"}[region]
    assert list(delivered(shop)) == [("report", "BOTH"), (kind, "PLAIN")]


@pytest.mark.parametrize("outcome", [POSITIVE, NEGATIVE, NotAnalysable(Reason.NO_CONTRAST, "peak 60 HU")])
def test_of_findings_alone_there_are_masks_for_those_who_want_them(
    workshop: Callable[..., Workshop], outcome: Findings | NotAnalysable
) -> None:
    peers = {
        "CT": peer(ae_title="PACS", destination=["FLAT", "BOX", "PLAIN"]),
        "FLAT": peer(results=["sr", "seg"]),
        "BOX": peer(results=["sc", "seg"], region="box"),
        "PLAIN": peer(),
    }
    shop = workshop(with_mask(outcome) if outcome is POSITIVE else outcome, peers=peers)
    assert analyse(shop.context, shop.claim())
    made = delivered(shop)
    masks = [("segmentation", "FLAT"), ("segmentation", "BOX")] if outcome is POSITIVE else []
    assert list(made) == [("report", "FLAT"), ("report", "PLAIN"), ("summary", "BOX"), *masks]
    for destination, beside in (("FLAT", "report"), ("BOX", "summary")) if masks else ():
        seg, other = made["segmentation", destination], made[beside, destination]
        report_uid = (
            other.SOPInstanceUID if beside == "report" else other.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID
        )
        assert seg.SegmentSequence[0].TrackingUID == derive_uid("tracking", report_uid, 1)
        assert (seg.StudyInstanceUID, seg.SeriesNumber, seg.Modality) == (other.StudyInstanceUID, 9903, "SEG")
        assert [item.SeriesInstanceUID for item in seg.ReferencedSeriesSequence] == [shop.row()["series_instance_uid"]]
        assert seg.SegmentSequence[0].TrackingID in words(made["report", "FLAT"])
    assert len({ds.SOPInstanceUID for ds in made.values()}) == 2 + len(masks)


def with_mask(outcome: Findings) -> Findings:
    """`POSITIVE` with a mask of eight cells around its lesion."""
    [lesion] = outcome.lesions
    x, y, z = (value - 0.7 for value in lesion.centre_lps_mm)
    mask = LesionMask(np.ones((2, 2, 2), np.bool_), affine((1.4, 1.4, 1.4), (x, y, z)))
    return replace(outcome, lesions=(replace(lesion, mask=mask),))


def test_a_finding_is_reported_even_if_its_mask_cannot_be_laid_over_the_images(
    workshop: Callable[..., Workshop],
) -> None:
    shop = workshop(with_mask(POSITIVE), report={"results": ["sr", "seg"]})
    assert analyse(shop.context, shop.claim(FrameOfReferenceUID=None))
    assert list(delivered(shop)) == [("report", "PACS")]
    assert shop.row()["outcome"] == "positive"


def test_a_full_disk_while_the_masks_are_written_gives_the_claim_back(
    workshop: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise StorageFull("no space")

    monkeypatch.setattr("node.results.objects.build_segmentation", full)
    shop = workshop(with_mask(POSITIVE), report={"results": ["sr", "seg"]})
    with pytest.raises(StorageFull):
        analyse(shop.context, shop.claim())


def test_of_an_ineligible_series_there_is_a_report_and_no_summary(workshop: Callable[..., Workshop]) -> None:
    shop = workshop(report={"not_analysed": "always", "results": ["sc"]})
    keep(shop.context.store, shop.context.files, shop.clock, ct_series(6))
    assert analyse(shop.context, shop.claim_again(outcome=Outcome.NOT_ELIGIBLE, reason="secondary_capture"))
    assert list(delivered(shop)) == [("report", "PACS")]


def test_a_full_disk_while_the_summary_is_written_gives_the_claim_back(
    workshop: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise StorageFull("no space")

    monkeypatch.setattr("node.results.secondary_capture.summary_picture", full)
    shop = workshop(POSITIVE, report={"results": ["sr", "sc"]})
    with pytest.raises(StorageFull):
        analyse(shop.context, shop.claim())


def test_each_form_of_a_report_names_its_own_predecessor(workshop: Callable[..., Workshop]) -> None:
    peers = {"CT": peer(ae_title="PACS", destination=["FLAT", "SPATIAL"]), "FLAT": peer(), "SPATIAL": peer(region="3d")}
    shop = workshop(POSITIVE, peers=peers)
    assert analyse(shop.context, shop.claim())
    first = delivered(shop)
    assert shop.context.store.queue.retry(1)
    claim = shop.context.store.queue.claim("worker:1", shop.clock(), LEASE, 3)
    assert claim is not None
    assert analyse(shop.context, claim)
    for key, ds in delivered(shop).items():  # of the same key, the latest
        [study] = ds.PredecessorDocumentsSequence
        [before] = study.ReferencedSeriesSequence[0].ReferencedSOPSequence
        assert before.ReferencedSOPInstanceUID == first[key].SOPInstanceUID != ds.SOPInstanceUID


def test_only_what_was_read_of_exactly_the_files_that_the_series_has_now_is_not_read_again(
    workshop: Callable[..., Workshop],
) -> None:
    shop = workshop(NEGATIVE)
    claim = shop.claim()
    instances = shop.context.store.settling.instances(claim.series.id)
    known, other, *_ = (file for _, file in instances)
    one, two = (ReadSlice(dcmread(shop.context.files.path(file))) for file in (known, other))
    gone = replace(other, path="instances/gone.dcm")
    shop.context.read_ahead = lambda case: {known: one, replace(other, sha256="0" * 64): two, gone: two}
    slices = _read(shop.context, claim, instances, headers_only=False)
    assert [each is one for each in slices] == [True] + 5 * [False]
    assert two not in slices
    assert [each.ds.InstanceNumber for each in slices] == [1, 2, 3, 4, 5, 6]
    assert analyse(shop.context, claim)
    assert shop.seen == [((6, 8, 9), "auto", True)]


def test_without_an_offset_in_the_images_times_are_those_on_the_wall(workshop: Callable[..., Workshop]) -> None:
    shop = workshop(NEGATIVE, report={"timezone": "Asia/Tokyo"})
    analyse(shop.context, shop.claim())
    wall = shop.clock().astimezone(ZoneInfo("Asia/Tokyo"))
    report = shop.report()
    assert "TimezoneOffsetFromUTC" not in report
    assert (report.ContentDate, report.ContentTime[:6]) == (wall.strftime("%Y%m%d"), wall.strftime("%H%M%S"))


def test_a_stray_is_set_aside_and_the_case_says_so(workshop: Callable[..., Workshop]) -> None:
    scout, *slices = ct_series(7)
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    scout.ImagePositionPatient = [0.0, 0.0, 700.0]
    shop = workshop(NEGATIVE)
    assert analyse(shop.context, shop.claim([scout, *slices]))
    row = shop.row()
    assert (row["outcome"], row["detail"]) == ("negative", "set aside in this series: 1 of kind localizer")


def phases(*clocks: str, count: int = 6, **changes: Any) -> list[Dataset]:
    """One series of as many acquisitions at the same places."""
    series = []
    for number, clock in enumerate(clocks):
        for n, ds in enumerate(ct_series(count, AcquisitionDate="20260101", AcquisitionTime=clock, **changes)):
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = UID(f"2.25.21{number:02d}{n:02d}")
            ds.InstanceNumber = 1 + count * number + n
            series.append(ds)
    return series


FEW = {"minimum_slices": 5}


def finding(*found: Findings | NotAnalysable) -> Callable[..., Findings]:
    """A network that finds these, one after the other."""
    left = list(found)

    def network(*_: Any, **__: Any) -> Findings:
        each = left.pop(0)
        if isinstance(each, NotAnalysable):
            raise each
        return each

    return network


def test_interleaved_passes_are_never_one_volume(workshop: Callable[..., Workshop]) -> None:
    series = ct_series(12)
    for number, ds in enumerate(series):
        ds.AcquisitionDate, ds.AcquisitionTime = "20260101", "101500" if number % 2 else "101545"
    shop = workshop(NEGATIVE, eligibility=FEW | {"maximum_spacing_mm": 2})
    assert analyse(shop.context, shop.claim(series))
    assert [shape for shape, *_ in shop.seen] == [(6, 8, 9), (6, 8, 9)]
    row = shop.row()
    assert (row["outcome"], row["reason"]) == ("negative", "")
    assert row["detail"].startswith(
        "2 acquisitions in this series; this result is of acquisition 1 (10:15:00, 6 slices)"
    )


def test_of_several_acquisitions_the_report_is_on_the_one_with_the_highest_probability(
    workshop: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = workshop(eligibility=FEW)
    monkeypatch.setattr(ai, "analyse", finding(NEGATIVE, POSITIVE), raising=False)
    assert analyse(shop.context, shop.claim(phases("101500", "101545")))
    row, said = shop.row(), words(shop.report())
    assert (row["outcome"], row["p_present"]) == ("positive", 0.9)
    assert "this result is of acquisition 2 (10:15:45, 6 slices)" in row["detail"]
    assert "acquisition 1 (10:15:00, 6 slices): no aneurysm detected, probability 2.0 %" in row["detail"]
    assert row["detail"] in said
    assert "6 images given to" in said
    shown = {str(each.value) for each in shop.report().iterall() if each.keyword == "ReferencedSOPInstanceUID"}
    assert shown
    assert all(uid.startswith("2.25.2101") for uid in shown), "slices of the other phase are shown"


def test_a_finding_in_the_other_acquisition_is_said_too(
    workshop: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = workshop(eligibility=FEW)
    less = replace(POSITIVE, probabilities=(*POSITIVE.probabilities[:-1], 0.6))
    monkeypatch.setattr(ai, "analyse", finding(POSITIVE, less), raising=False)
    assert analyse(shop.context, shop.claim(phases("101500", "101545")))
    assert (
        "acquisition 2 (10:15:45, 6 slices): suspected aneurysm, probability 60.0 %, Left Middle Cerebral Artery 4.2 mm"
        in shop.row()["detail"]
    )


def test_of_three_acquisitions_the_broken_one_is_named_and_the_whole_ones_are_analysed(
    workshop: Callable[..., Workshop],
) -> None:
    series = phases("101500", "101545", "101630", count=7)
    del series[9]
    shop = workshop(NEGATIVE, eligibility=FEW)
    assert analyse(shop.context, shop.claim(series))
    assert len(shop.seen) == 2
    assert shop.row()["outcome"] == "negative"
    assert "acquisition 2 (10:15:45, 6 slices): not analysed: gap" in shop.row()["detail"]


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (NotAnalysable(Reason.COVERAGE), NotAnalysable(Reason.COVERAGE), "coverage"),
        (NotAnalysable(Reason.NO_CONTRAST), NotAnalysable(Reason.COVERAGE), "several_acquisitions"),
    ],
)
def test_where_no_acquisition_can_be_analysed_the_case_is_not_analysed_and_says_why(
    workshop: Callable[..., Workshop],
    monkeypatch: pytest.MonkeyPatch,
    first: NotAnalysable,
    second: NotAnalysable,
    reason: str,
) -> None:
    shop = workshop(eligibility=FEW)
    monkeypatch.setattr(ai, "analyse", finding(first, second), raising=False)
    assert analyse(shop.context, shop.claim(phases("101500", "101545")))
    row = shop.row()
    assert (row["outcome"], row["reason"]) == ("not_analysed", reason)
    for n, (clock, why) in enumerate((("10:15:00", first), ("10:15:45", second)), start=1):
        assert f"acquisition {n} ({clock}, 6 slices): not analysed: {why.reason.value}" in row["detail"]


def test_an_acquisition_that_is_not_of_the_kind_is_not_analysed_and_is_named(workshop: Callable[..., Workshop]) -> None:
    series = phases("101500", "101545")
    shop = workshop(NEGATIVE, eligibility=FEW)
    assert analyse(shop.context, shop.claim(series[:9]))
    assert len(shop.seen) == 1
    assert "acquisition 2 (10:15:45, 3 slices): not eligible: too_few_slices" in shop.row()["detail"]


def test_of_many_acquisitions_that_with_the_fullest_arteries_alone_is_analysed(
    workshop: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = workshop(NEGATIVE, eligibility=FEW)
    asked: list[Any] = []

    def fullest(volumes: Any) -> int:
        asked.extend(volumes)
        return 2

    monkeypatch.setattr(ai, "fullest", fullest, raising=False)
    series = phases("101500", "101505", "101510", "101515")
    series[0].PixelData = b""
    assert analyse(shop.context, shop.claim(series))
    assert [volume is None for volume in asked] == [True, False, False, False]
    assert len(shop.seen) == 1
    assert shop.row()["detail"] == (
        "4 acquisitions in this series; this result is of acquisition 3 (10:15:10, 6 slices); "
        "of 4 only that whose arteries are filled best was analysed"
    )


def test_acquisitions_in_the_frames_of_one_instance_are_told_apart_and_only_the_analysed_one_is_shown(
    workshop: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch
) -> None:
    ds = enhanced_ct([*ct_series(6), *ct_series(6)])
    for n, groups in enumerate(ds.PerFrameFunctionalGroupsSequence):
        content = Dataset()
        content.TemporalPositionIndex = 1 + n // 6
        groups.FrameContentSequence = [content]
    shop = workshop(eligibility=FEW)
    monkeypatch.setattr(ai, "analyse", finding(NEGATIVE, POSITIVE), raising=False)
    assert analyse(shop.context, shop.claim([ds]))
    assert shop.row()["outcome"] == "positive"
    report = shop.report()
    shown = {int(each.value) for each in report.iterall() if each.keyword == "ReferencedFrameNumber"}
    assert shown
    assert min(shown) > 6
    assert report.PatientName == "Doe^Jane"
