"""The worker's verb with a real store and real files; the network's findings are made up."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydicom import Dataset, dcmread

import ai
from ai.errors import NotAnalysable, Reason
from ai.findings import Findings
from ai.quality import Quality
from ai.volume import ReadSlice, Volume, read_slice, volume_from_slices
from node.analysis import analysis
from node.analysis.analysis import Stopwatch, _read, analyse
from node.analysis.read_ahead import Ahead
from storage.queries.retention import Why
from storage.stages import Outcome, Stage
from tests.support.builders import LEASE, add, header, keep, series_now
from tests.support.dicom_factory import ct_series
from tests.unit.node.analysis.conftest import NEGATIVE, POSITIVE, Workshop, words


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


@pytest.mark.parametrize("read_ahead", [False, True])
def test_while_the_network_runs_the_slices_hold_no_pixels_beside_the_volume(
    read_ahead: bool, workshop: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = workshop()
    claim = shop.claim()
    held: list[ReadSlice] = []

    def volume_of(slices: Sequence[ReadSlice], threads: int) -> Volume:
        held.extend(slices)
        assert all((each.hu is not None) == read_ahead and ("PixelData" in each.ds) != read_ahead for each in slices)
        return volume_from_slices(slices, threads)

    def nothing_but_the_volume(*_: object, **__: object) -> Findings:
        assert [each.hu for each in held] == [None] * 6 and not any("PixelData" in each.ds for each in held)
        return NEGATIVE

    def ahead(case: int) -> Ahead:
        stored = shop.context.store.settling.instances(case) if read_ahead else []
        return Ahead(case, slices={file: read_slice(dcmread(shop.context.files.path(file))) for _, file in stored})

    monkeypatch.setattr(analysis, "volume_from_slices", volume_of)
    monkeypatch.setattr(ai, "analyse", nothing_but_the_volume)
    assert analyse(replace(shop.context, read_ahead=ahead), claim)
    assert shop.row()["outcome"] == "negative"


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
    assert (second.SeriesInstanceUID, second.InstanceNumber) == (first.SeriesInstanceUID, 200)
    assert named_as_predecessor(second) == (*place(first), first.SOPInstanceUID)
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
    assert second.InstanceNumber == first.InstanceNumber == 100
    assert second.SOPInstanceUID != first.SOPInstanceUID
    assert second.SeriesInstanceUID != first.SeriesInstanceUID, "viewers show the highest number of a series"


def revised(shop: Workshop, **changes: Any) -> Dataset:
    """The report of the next revision: of one more slice, or of the same ones with these changes."""
    shop.clock.advance(60)
    [late] = ct_series(1, origin_mm=(-20, -30, 106), SOPInstanceUID="2.25.99", **changes)
    assert analyse(shop.context, shop.claim([late]))
    return shop.report()


def place(ds: Dataset) -> tuple[str, str]:
    return str(ds.StudyInstanceUID), str(ds.SeriesInstanceUID)


def named_as_predecessor(ds: Dataset) -> tuple[str, str, str]:
    [study] = ds.PredecessorDocumentsSequence
    [series] = study.ReferencedSeriesSequence
    [before] = series.ReferencedSOPSequence
    return study.StudyInstanceUID, series.SeriesInstanceUID, before.ReferencedSOPInstanceUID


def test_results_go_where_those_of_the_case_are_whatever_names_their_series_would_get_now(
    workshop: Callable[..., Workshop],
) -> None:
    shop = workshop(report={"results": ["sr", "sc"]})
    assert analyse(shop.context, shop.claim())
    first, files = shop.report(), shop.context.files
    config = shop.context.config
    node = config.node.model_copy(update={"ae_title": "OTHER"})
    shop.context.config = config.model_copy(update={"node": node})
    second = revised(shop)
    assert place(second) == place(first)
    assert named_as_predecessor(second) == (*place(first), first.SOPInstanceUID)
    summaries = [each.file for each in shop.context.store.worklist.deliveries(1) if each.kind == "summary"]
    assert len({place(dcmread(files.path(file))) for file in summaries}) == 1 < len(summaries)


def test_a_report_whose_file_is_lost_is_named_all_the_same(workshop: Callable[..., Workshop]) -> None:
    shop = workshop()
    assert analyse(shop.context, shop.claim())
    first = shop.report()
    [file] = (shop.context.files.root / "reports").rglob("*.dcm")
    file.unlink()
    assert named_as_predecessor(revised(shop)) == (*place(first), first.SOPInstanceUID)


def test_what_progress_raises_ends_the_analysis_and_changes_nothing(workshop: Callable[..., Workshop]) -> None:
    shop = workshop()
    claim = shop.claim()

    def stop(_share: float) -> None:
        raise KeyboardInterrupt

    shop.context.progress = stop
    with pytest.raises(KeyboardInterrupt):
        analyse(shop.context, claim)
    assert series_now(shop.context.store, "2.25.1002").stage is Stage.ANALYSING


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


def test_only_what_was_read_of_exactly_the_files_that_the_series_has_now_is_not_read_again(
    workshop: Callable[..., Workshop],
) -> None:
    shop = workshop(NEGATIVE)
    claim = shop.claim()
    instances = shop.context.store.settling.instances(claim.series.id)
    known, other, *_ = (file for _, file in instances)
    one, two = (ReadSlice(dcmread(shop.context.files.path(file))) for file in (known, other))
    gone = replace(other, path="instances/gone.dcm")
    held = {known: one, replace(other, sha256="0" * 64): two, gone: two}
    shop.context.read_ahead = lambda case: Ahead(case, slices=held)
    slices = _read(shop.context, claim, instances, shop.context.read_ahead(1), headers_only=False)
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
