"""Which objects are made of an analysis, and for whom."""

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from ai.errors import NotAnalysable, Reason
from ai.findings import Findings
from ai.lesion_mask import LesionMask
from node.analysis.analysis import analyse
from node.results.identity import derive_uid
from storage.errors import StorageFull
from storage.stages import Outcome
from tests.support.builders import LEASE, keep
from tests.support.dicom_factory import ct_series
from tests.support.made_up_head import affine
from tests.support.reports import named
from tests.unit.node.analysis.conftest import NEGATIVE, POSITIVE, Workshop, words


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


NO_UID = pytest.mark.parametrize("uid", [None, "no uid", "1..2", "1" * 65])


@NO_UID
def test_a_destination_of_3d_points_gets_circles_where_there_is_no_frame_of_reference(
    workshop: Callable[..., Workshop], uid: str | None
) -> None:
    shop = workshop(POSITIVE, report={"region": "3d"})
    assert analyse(shop.context, shop.claim(received_with(uid)))
    assert shop.row()["outcome"] == "positive"
    assert "SCOORD3D" not in str(shop.report())
    assert named(shop.report(), "112227") == []


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


def test_pictures_for_whom_no_report_is_made_belong_to_the_one_that_is(workshop: Callable[..., Workshop]) -> None:
    peers = {
        "CT": peer(ae_title="PACS", destination=["FLAT", "BOX", "SPATIAL"]),
        "FLAT": peer(results=["sr"]),
        "BOX": peer(results=["sc", "seg"], region="box"),
        "SPATIAL": peer(results=["sr", "sc", "seg"], region="3d"),
    }
    shop = workshop(with_mask(POSITIVE), peers=peers)
    assert analyse(shop.context, shop.claim())
    made = delivered(shop)
    for destination, report in (("BOX", made["report", "FLAT"]), ("SPATIAL", made["report 3d", "SPATIAL"])):
        summary, seg = made["summary", destination], made["segmentation", destination]
        assert summary.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == report.SOPInstanceUID
        assert seg.SegmentSequence[0].TrackingUID == derive_uid("tracking", report.SOPInstanceUID, 1)


def with_mask(outcome: Findings) -> Findings:
    """`POSITIVE` with a mask of eight cells around its lesion."""
    [lesion] = outcome.lesions
    x, y, z = (value - 0.7 for value in lesion.centre_lps_mm)
    mask = LesionMask(np.ones((2, 2, 2), np.bool_), affine((1.4, 1.4, 1.4), (x, y, z)))
    return replace(outcome, lesions=(replace(lesion, mask=mask),))


def received_with(frame_of_reference_uid: str | None) -> list[Dataset]:
    """A series whose headers have this as it stands."""
    series = ct_series(6, FrameOfReferenceUID=None)
    value = (frame_of_reference_uid or "").encode()
    for ds in series if value else ():
        ds[0x00200052] = RawDataElement(Tag(0x00200052), "UI", len(value), value, 0, False, True)
    return series


@NO_UID
def test_a_finding_is_reported_even_if_its_mask_cannot_be_laid_over_the_images(
    workshop: Callable[..., Workshop], uid: str | None
) -> None:
    shop = workshop(with_mask(POSITIVE), report={"results": ["sr", "seg"]})
    assert analyse(shop.context, shop.claim(received_with(uid)))
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
