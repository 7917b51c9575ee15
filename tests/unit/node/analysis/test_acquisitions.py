"""Series of several acquisitions: each is analysed by itself, and the report says which one it is of."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import UID

import ai
from ai.errors import NotAnalysable, Reason
from ai.findings import Findings
from node.analysis.analysis import analyse
from tests.support.dicom_factory import ct_series, enhanced_ct
from tests.support.reports import answers
from tests.unit.node.analysis.conftest import NEGATIVE, POSITIVE, Workshop, words


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
    assert (shop.report().CompletionFlag, answers(shop.report(), "111017")) == ("COMPLETE", ["111242"])
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
    report = shop.report()
    assert (report.CompletionFlag, report.CompletionFlagDescription) == (
        "PARTIAL",
        "Not analysed: 1 of 3 acquisitions",
    )
    assert answers(report, "111017") == ["111243"]


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


@pytest.mark.parametrize("outcome", ["positive", "negative"])
def test_acquisitions_in_the_frames_of_one_instance_are_told_apart_and_only_the_analysed_one_is_shown(
    workshop: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch, outcome: str
) -> None:
    ds = enhanced_ct([*ct_series(6), *ct_series(6)])
    for n, groups in enumerate(ds.PerFrameFunctionalGroupsSequence):
        content = Dataset()
        content.TemporalPositionIndex = 1 + n // 6
        groups.FrameContentSequence = [content]
    shop = workshop(eligibility=FEW)
    less = Findings((0.01,) * 14, (), 0.5)
    found = {"positive": (NEGATIVE, POSITIVE), "negative": (less, NEGATIVE)}[outcome]
    monkeypatch.setattr(ai, "analyse", finding(*found), raising=False)
    assert analyse(shop.context, shop.claim([ds]))
    assert shop.row()["outcome"] == outcome
    report = shop.report()
    shown = {int(each.value) for each in report.iterall() if each.keyword == "ReferencedFrameNumber"}
    assert shown
    assert min(shown) > 6
    assert report.PatientName == "Doe^Jane"
