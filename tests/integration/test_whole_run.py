"""A head CTA goes in, a Structured Report comes back: whole nodes, real sockets, real databases."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pytest
from pydicom import dcmread

from ai.locations import COLUMNS
from tests.support.node_fixtures import SHIPPED, NodeFactory
from tests.support.reports import named
from tests.support.running import RunningNode, wait_until
from tests.support.segments import painted_lps_mm
from tests.support.unmeasured import unmeasured  # noqa: F401  fixture


def test_both_studies_come_back_as_reports_in_their_own_study_and_no_log_line_names_the_patient(
    node_in: NodeFactory, positive_series: list[Path], negative_series: list[Path]
) -> None:
    node = node_in(log__level='"debug"', report__results='["sr", "seg"]', **SHIPPED)
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
    node_in: NodeFactory, postgresql_url: str, negative_series: list[Path]
) -> None:
    node = node_in(postgresql_url)
    node.send(negative_series)
    (row,) = node.wait_for_delivered()
    assert row["outcome"] == "negative"


@pytest.fixture(scope="module")
def quick_node(tmp_path_factory: pytest.TempPathFactory, without_finding: dict[str, str]) -> Iterator[RunningNode]:
    """One node with short timers for a test of each study: to start one takes longer than a test."""
    made = RunningNode(
        tmp_path_factory.mktemp("quick_node"),
        completion__quiet_seconds="3",
        eligibility__minimum_slices="40",
        delivery__first_retry_seconds="0.25",  # an eighth of the default: what takes a minute takes an eighth of it
        **without_finding,
    )
    yield made.start()
    made.close()


def row_of(node: RunningNode, paths: list[Path]) -> dict[str, Any]:
    """The case of this series."""
    series = dcmread(paths[0], specific_tags=["SeriesInstanceUID"]).SeriesInstanceUID
    [row] = [row for row in node.rows() if row["series_instance_uid"] == series]
    return dict(row)


def delivered(node: RunningNode, paths: list[Path], revision: int = 1) -> dict[str, Any]:
    """The same once the PACS has the report of this revision, or of a later one."""

    def found() -> dict[str, Any] | None:
        row = row_of(node, paths)
        return row if row["revision"] >= revision and row["delivery"] == "delivered" else None

    return dict(wait_until(found, 120, "the report is delivered"))


def test_a_part_that_was_released_is_not_called_negative_and_the_rest_makes_a_new_revision(
    quick_node: RunningNode, negative_series: list[Path]
) -> None:
    node = quick_node
    node.send(negative_series[:100])
    part = delivered(node, negative_series)
    assert (part["outcome"], part["evidence"]) == ("not_analysed", "quiet")
    assert part["reason"] in ("coverage", "not_a_head")

    node.send(negative_series[100:])
    whole = delivered(node, negative_series, revision=2)
    assert whole["outcome"] == "negative"
    report = dcmread(node.pacs.folder / f"{whole['report_uid']}.dcm")
    predecessor = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert predecessor.ReferencedSOPInstanceUID == part["report_uid"]


def test_one_association_per_slice_is_no_evidence_until_the_anatomy_is_whole(
    node_in: NodeFactory, negative_series: list[Path]
) -> None:
    node = node_in(completion__quiet_seconds="600", eligibility__minimum_slices="10")
    for path in negative_series[:30]:
        node.send([path])
    (row,) = node.rows()
    assert row["stage"] == "receiving"
    node.send(negative_series[30:])
    (row,) = node.wait_for_delivered()
    assert (row["outcome"], row["evidence"], row["revision"]) == ("negative", "anatomy", 1)


def test_a_peer_that_answers_queries_makes_a_series_ready_by_its_count(
    node_in: NodeFactory, negative_series: list[Path]
) -> None:
    node = node_in(peers__PACS__answers_queries="true", completion__quiet_seconds="600")
    first = dcmread(negative_series[0], stop_before_pixels=True)
    held = {str(dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID) for path in negative_series}
    node.pacs.held[first.StudyInstanceUID][first.SeriesInstanceUID] |= held
    node.send(negative_series)
    (row,) = node.wait_for_delivered()
    assert row["evidence"] == "count"
    assert (row["ready_at"] - row["last_instance_at"]).total_seconds() < 3


def test_a_pacs_that_is_down_for_the_first_attempts_gets_the_report_when_it_is_back(
    quick_node: RunningNode, positive_series: list[Path]
) -> None:
    node, before = quick_node, len(quick_node.pacs.requests)
    node.pacs.stop()
    node.send(positive_series)
    row = wait_until(lambda: (r := row_of(node, positive_series))["stage"] == "reported" and r, 120)
    wait_until(lambda: datetime.now(UTC) - row["reported_at"] > timedelta(seconds=8), 90)
    (delivery,) = node.store.worklist.deliveries(row["case_id"])
    assert delivery.attempts >= 4
    assert row_of(node, positive_series)["delivery"] == "pending"
    node.pacs_returns()
    row = delivered(node, positive_series)
    assert node.pacs.requests[before:] == [row["report_uid"]]
