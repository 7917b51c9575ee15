"""A study with more in it than CT comes across whole, by senders that stop at the first thing that is refused."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from tests.interop.test_peers import Orthanc, orthanc, program, run
from tests.support.dicom_factory import STUDY_UID, ct_series, identity, save
from tests.support.node_fixtures import NodeFactory
from tests.support.running import RunningNode, wait_until

__all__ = ["orthanc"]
pytestmark = pytest.mark.interop

PRIVATE = "1.3.12.2.1107.5.9.1"
OTHERS = {
    "1.2.840.10008.5.1.4.1.1.88.67": "SR",  # dose report
    "1.2.840.10008.5.1.4.1.1.88.33": "SR",
    "1.2.840.10008.5.1.4.1.1.88.59": "KO",
    "1.2.840.10008.5.1.4.1.1.11.1": "PR",
    "1.2.840.10008.5.1.4.1.1.66": "OT",  # raw data
    "1.2.840.10008.5.1.4.1.1.104.1": "DOC",
    "1.2.840.10008.5.1.4.1.1.4": "MR",
    "1.2.840.10008.5.1.4.1.1.128": "PT",
}


def other(sop_class: str, number: int, modality: str = "OT", **changes: object) -> Dataset:
    """An object of the study that is no image of ours, in a series of its own."""
    ds = identity(
        SOPClassUID=sop_class, SOPInstanceUID=f"2.25.17{number}", SeriesInstanceUID=f"2.25.18{number}",
        Modality=modality, FrameOfReferenceUID=None, **changes,
    )  # fmt: skip
    ds.file_meta = ct_series(1)[0].file_meta
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = UID(sop_class), ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds


def study(folder: Path, others: dict[str, str] = OTHERS) -> list[Path]:
    """70 slices of air with the other objects among them; one of raw data lies in their series."""
    slices = ct_series(70, rows=64, columns=64, hu=lambda _: np.full((64, 64), -1000, np.int16))
    strays = [other(sop_class, number, modality) for number, (sop_class, modality) in enumerate(others.items())]
    raw = other("1.2.840.10008.5.1.4.1.1.66", 99, "CT")
    raw.SeriesInstanceUID = slices[0].SeriesInstanceUID
    folder.mkdir(exist_ok=True)
    return save([*slices[:12], *strays, raw, *slices[12:]], folder)


def check(node: RunningNode, count: int) -> None:
    """Each other object is on the worklist as not eligible; the CT series was looked at."""
    rows = wait_until(lambda: (r := node.rows()) and len(r) == count and all(x["outcome"] for x in r) and r, 90)
    of_ct = [row for row in rows if row["instance_count"] == 71]
    assert [(row["outcome"], row["reason"]) for row in of_ct] == [("not_analysed", "not_a_head")]
    left = {(row["outcome"], row["reason"]) for row in rows if row["instance_count"] != 71}
    assert left == {("not_eligible", "no_image")}


@pytest.mark.parametrize("sender", ["storescu", "dcmsend"])
def test_dcmtk_ends_with_success_and_nothing_of_the_study_is_missing(
    node_in: NodeFactory, tmp_path: Path, sender: str
) -> None:
    node = node_in(completion__quiet_seconds="2")
    paths = study(tmp_path / "study")
    run(program(sender), "-aet", "PACS", "-aec", "WILLIS", "127.0.0.1", str(node.config.node.port), *paths)
    check(node, 1 + len(OTHERS))
    assert node.log.read_text().count("association_fell_short") == 0


def test_orthanc_sends_a_whole_study_in_one_job(node_in: NodeFactory, orthanc: Orthanc, tmp_path: Path) -> None:
    node = node_in(
        completion__quiet_seconds="2",
        peers__ORTHANC__ae_title='"ORTHANC"',
        peers__ORTHANC__host='"127.0.0.1"',
        peers__ORTHANC__port=str(orthanc.dicom_port),
    )
    modality = {"AET": "WILLIS", "Host": "127.0.0.1", "Port": node.config.node.port}
    orthanc.http.put("/modalities/willis", json=modality).raise_for_status()
    identifier = orthanc.upload(study(tmp_path / "study"))
    done = orthanc.http.post("/modalities/willis/store", json={"Resources": [identifier], "Timeout": 120})
    sent = done.raise_for_status().json()
    assert (sent["InstancesCount"], sent["FailedInstancesCount"]) == (71 + len(OTHERS), 0)
    check(node, 1 + len(OTHERS))


def test_a_private_class_that_is_not_configured_is_named_and_the_part_is_reported(
    node_in: NodeFactory, tmp_path: Path
) -> None:
    node = node_in(completion__quiet_seconds="2")
    paths = study(tmp_path / "study", {PRIVATE: "OT"})
    command = [program("dcmsend"), "-aet", "PACS", "-aec", "WILLIS", "127.0.0.1", str(node.config.node.port)]
    ended = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True, check=False)
    assert ended.returncode == 62, "as docs/operations.md has it"
    (row,) = node.wait_for_delivered()
    assert (row["outcome"], row["reason"]) == ("not_analysed", "incomplete")
    assert row["detail"] == "12 slices came, then the association was aborted"
    shown = run(sys.executable, "-m", "node", "status", "--json", "--config", node.path)
    [line] = json.loads(shown)["more_may_not_have_come"]
    assert f"SOP class {PRIVATE} was offered and is not accepted (12 instances kept, 0 refused)" in line


def test_a_private_class_is_accepted_where_it_is_configured(node_in: NodeFactory, tmp_path: Path) -> None:
    node = node_in(completion__quiet_seconds="2", node__private_storage_classes=f'["{PRIVATE}"]')
    paths = study(tmp_path / "study", {PRIVATE: "OT"})
    run(program("dcmsend"), "-aet", "PACS", "-aec", "WILLIS", "127.0.0.1", str(node.config.node.port), *paths)
    check(node, 2)


def test_a_slice_of_no_pixels_makes_its_series_not_analysed(node_in: NodeFactory, tmp_path: Path) -> None:
    node = node_in(completion__quiet_seconds="2")
    slices = ct_series(70, rows=16, columns=16)
    slices[30].Rows = slices[30].Columns = 0
    slices[30].PixelData = b""
    paths = save(slices, tmp_path)
    run(program("storescu"), "-aet", "PACS", "-aec", "WILLIS", "127.0.0.1", str(node.config.node.port), *paths)
    (row,) = node.wait_for_delivered()
    assert (row["outcome"], row["instance_count"]) == ("not_analysed", 70)
    assert row["study_instance_uid"] == STUDY_UID


def test_a_study_of_forty_series_and_6000_objects_ends_with_success(node_in: NodeFactory, tmp_path: Path) -> None:
    node = node_in(completion__quiet_seconds="2")
    folder = tmp_path / "study"
    folder.mkdir()
    classes = sorted(OTHERS)
    for series in range(40):
        objects = [other(classes[series % len(classes)], 1000 * series + number) for number in range(150)]
        for ds in objects:
            ds.SeriesInstanceUID = f"2.25.19{series:02}"
        save(objects, folder)
    run(program("storescu"), "+sd", "-aet", "PACS", "-aec", "WILLIS", "127.0.0.1", str(node.config.node.port), folder)
    rows = wait_until(lambda: (r := node.rows()) and len(r) == 40 and all(x["outcome"] for x in r) and r, 90)
    ends = {(row["outcome"], row["reason"], row["instance_count"]) for row in rows}
    assert ends == {("not_eligible", "no_image", 150)}


@pytest.mark.parametrize(
    ("sender", "status", "came", "after"),
    [
        (["storescu"], 192, 12, "the caller ended right after an instance was refused with 0xC000"),
        (["storescu", "-nh"], 0, 69, "the caller went on after what was refused"),
        (["dcmsend"], 0, 69, "the caller went on after what was refused"),
    ],
)
def test_a_refused_slice_makes_its_series_incomplete_whatever_the_sender_says(
    node_in: NodeFactory, tmp_path: Path, sender: list[str], status: int, came: int, after: str
) -> None:
    """As the table of docs/operations.md has it."""
    node = node_in(completion__quiet_seconds="2")
    slices = ct_series(70, rows=16, columns=16)
    del slices[12].StudyInstanceUID
    paths = save(slices, tmp_path)
    command = [
        program(sender[0]),
        *sender[1:],
        "-aet",
        "PACS",
        "-aec",
        "WILLIS",
        "127.0.0.1",
        str(node.config.node.port),
    ]
    assert subprocess.run([*command, *map(str, paths)], capture_output=True, check=False).returncode == status
    (row,) = node.wait_for_delivered()
    assert (row["outcome"], row["reason"]) == ("not_analysed", "incomplete")
    assert row["detail"] == f"{came} slices came, 1 was refused"
    assert after in node.log.read_text()
