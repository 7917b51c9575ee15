"""A head CTA goes in, a Structured Report comes back: whole nodes, real sockets, real databases."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pytest
from pydicom import dcmread

from ai.locations import COLUMNS
from tests.support.node_fixtures import NodeFactory
from tests.support.reports import named
from tests.support.running import wait_until
from tests.support.segments import painted_lps_mm
from tests.support.unmeasured import unmeasured  # noqa: F401  fixture


def test_both_studies_come_back_as_reports_in_their_own_study_and_no_log_line_names_the_patient(
    node_in: NodeFactory, positive_series: list[Path], negative_series: list[Path]
) -> None:
    node = node_in(log__level='"debug"', report__results='["sr", "seg"]')
    assert not [sent for sent in node.send(positive_series) if sent.error]
    assert not [sent for sent in node.send(negative_series) if sent.error]
    rows = {row["outcome"]: row for row in node.wait_for_delivered(2)}

    assert set(rows) == {"positive", "negative"}
    for outcome, first in (("positive", positive_series[0]), ("negative", negative_series[0])):
        source, row = dcmread(first), rows[outcome]
        report = dcmread(node.pacs.folder / f"{row['report_uid']}.dcm")
        assert report.StudyInstanceUID == source.StudyInstanceUID
        assert report.SeriesInstanceUID != source.SeriesInstanceUID
        assert (report.PatientID, report.PatientName) == (source.PatientID, source.PatientName)
        assert report.VerificationFlag == "UNVERIFIED"
        assert row["evidence"] == "anatomy"
        assert len([value for key, value in row.items() if key.startswith("p_") and value is not None]) == len(COLUMNS)
    assert rows["positive"]["priority"] < rows["negative"]["priority"]
    [masks] = [
        path for path in node.pacs.folder.glob("*.dcm") if dcmread(path, specific_tags=["Modality"]).Modality == "SEG"
    ]
    assert_masks_lie_on_the_findings(masks, rows["positive"])
    assert node.stop() < 10
    text = node.log.read_text()
    assert "series_reported" in text
    for secret in ("Secretive", "SECRET-ID-7", "SECRETACC", str(dcmread(positive_series[0]).StudyInstanceUID)):
        assert secret not in text


def assert_masks_lie_on_the_findings(path: Path, row: Mapping[str, Any]) -> None:
    """One segment for each lesion of the worklist, around its centre, about as large, and the report's own."""
    seg = highdicom.seg.segread(path)
    assert seg.number_of_segments == len(row["lesions"])
    report = dcmread(path.with_name(f"{row['report_uid']}.dcm"))
    assert [each.TrackingUID for each in seg.SegmentSequence] == [item.UID for item in named(report, "112040")]
    voxel_mm3 = float(np.prod(seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing))
    voxel_mm3 *= seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices
    for number, lesion in enumerate(row["lesions"], start=1):
        points = painted_lps_mm(seg, number)
        assert np.linalg.norm(points.mean(axis=0) - lesion["centre_lps_mm"]) < lesion["diameter_mm"] / 2
        assert 0.4 < (6 * len(points) * voxel_mm3 / np.pi) ** (1 / 3) / lesion["diameter_mm"] < 2.5


@pytest.mark.postgresql
def test_the_same_run_passes_on_postgresql(
    node_in: NodeFactory, postgresql_url: str, negative_series: list[Path], without_finding: dict[str, str]
) -> None:
    node = node_in(postgresql_url, **without_finding)
    node.send(negative_series)
    (row,) = node.wait_for_delivered()
    assert row["outcome"] == "negative"


def test_a_part_that_was_released_is_not_called_negative_and_the_rest_makes_a_new_revision(
    node_in: NodeFactory, negative_series: list[Path], without_finding: dict[str, str]
) -> None:
    node = node_in(completion__quiet_seconds="3", eligibility__minimum_slices="40", **without_finding)
    node.send(negative_series[:100])
    (part,) = node.wait_for_delivered()
    assert (part["outcome"], part["evidence"]) == ("not_analysed", "quiet")
    assert part["reason"] in ("coverage", "not_a_head")

    node.send(negative_series[100:])
    wait_until(lambda: node.rows()[0]["revision"] > 1 and node.rows()[0]["delivery"] == "delivered", 120)
    (whole,) = node.rows()
    assert whole["outcome"] == "negative"
    report = dcmread(node.pacs.folder / f"{whole['report_uid']}.dcm")
    predecessor = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert predecessor.ReferencedSOPInstanceUID == part["report_uid"]


def test_one_association_per_slice_is_no_evidence_until_the_anatomy_is_whole(
    node_in: NodeFactory, negative_series: list[Path], without_finding: dict[str, str]
) -> None:
    node = node_in(completion__quiet_seconds="600", eligibility__minimum_slices="10", **without_finding)
    for path in negative_series[:30]:
        node.send([path])
    (row,) = node.rows()
    assert row["stage"] == "receiving"
    node.send(negative_series[30:])
    (row,) = node.wait_for_delivered()
    assert (row["outcome"], row["evidence"], row["revision"]) == ("negative", "anatomy", 1)


def test_a_peer_that_answers_queries_makes_a_series_ready_by_its_count(
    node_in: NodeFactory, negative_series: list[Path], without_finding: dict[str, str]
) -> None:
    node = node_in(peers__PACS__answers_queries="true", completion__quiet_seconds="600", **without_finding)
    first = dcmread(negative_series[0], stop_before_pixels=True)
    held = {str(dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID) for path in negative_series}
    node.pacs.held[first.StudyInstanceUID][first.SeriesInstanceUID] |= held
    node.send(negative_series)
    (row,) = node.wait_for_delivered()
    assert row["evidence"] == "count"
    assert (row["ready_at"] - row["last_instance_at"]).total_seconds() < 3


def test_a_pacs_that_is_down_for_the_first_attempts_gets_the_report_when_it_is_back(
    node_in: NodeFactory, negative_series: list[Path], without_finding: dict[str, str]
) -> None:
    node = node_in(delivery__first_retry_seconds="0.5", **without_finding)
    # a quarter of the default: what takes a minute takes a quarter of it
    node.pacs.stop()
    node.send(negative_series)
    (row,) = node.wait_for_stage("reported")
    wait_until(lambda: datetime.now(UTC) - row["reported_at"] > timedelta(seconds=15), 90)
    (delivery,) = node.store.worklist.deliveries(1)
    assert delivery.attempts >= 4
    assert node.rows()[0]["delivery"] == "pending"
    node.pacs_returns()
    (row,) = node.wait_for_delivered()
    assert node.pacs.requests == [row["report_uid"]]
