"""Orthanc forwards every image to Willis as it comes, and so everything that Willis stores there."""

from pathlib import Path

import pytest

from tests.support.dicom_factory import ct_series, save
from tests.support.node_fixtures import NodeFactory
from tests.support.orthanc import running

pytestmark = pytest.mark.interop
FORWARD = "function OnStoredInstance(instance, tags, metadata, origin) SendToModality(instance, 'willis') end"


def test_orthanc_forwards_images_as_they_come_and_results_that_come_back_are_not_reported_on(
    node_in: NodeFactory, tmp_path: Path
) -> None:
    folder = tmp_path / "orthanc"
    folder.mkdir()
    (folder / "forward.lua").write_text(FORWARD)
    with running(folder, LuaScripts=[str(folder / "forward.lua")]) as orthanc:
        node = node_in(
            completion__quiet_seconds="3",
            eligibility__minimum_slices="3",
            peers__ORTHANC__ae_title='"ORTHANC"',
            peers__ORTHANC__host='"127.0.0.1"',
            peers__ORTHANC__port=str(orthanc.dicom_port),
            peers__ORTHANC__results='["sr", "sc"]',
        )
        modality = {"AET": "WILLIS", "Host": "127.0.0.1", "Port": node.config.node.port}
        orthanc.http.put("/modalities/willis", json=modality).raise_for_status()
        orthanc.upload(save(ct_series(6), folder))
        node.wait_for_delivered()
        rows = node.wait_for_stage("set_aside", count=2)
        [images, summary, report] = sorted(rows, key=lambda row: str(row["modality"]))
        assert (images["outcome"], images["instance_count"], images["delivery"]) == ("not_analysed", 6, "delivered")
        assert (summary["modality"], summary["outcome"], summary["reason"]) == (
            "OT",
            "not_eligible",
            "secondary_capture",
        )
        assert (report["modality"], report["outcome"], report["reason"]) == ("SR", "not_eligible", "no_image")
        assert len(orthanc.http.get("/instances").json()) == 8
