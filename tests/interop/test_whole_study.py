"""A study with more in it than CT comes across whole, by senders that stop at the first thing that is refused."""

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from storage.queries.worklist import Row
from tests.corpus.situation import of_its_own, study_root
from tests.interop.test_peers import program, run
from tests.support.dicom_factory import ct_series, identity, save
from tests.support.orthanc import running
from tests.support.running import RunningNode, wait_until

pytestmark = pytest.mark.interop

PRIVATE, OTHER_PRIVATE = "1.3.12.2.1107.5.9.1", "1.3.12.2.1107.5.9.2"
"""One that the node is configured to accept, and one that it is not."""
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


@pytest.fixture(scope="module")
def shared_node(tmp_path_factory: pytest.TempPathFactory, without_finding: dict[str, str]) -> Iterator[RunningNode]:
    """One node for all studies: to start one takes longer than to send most of them."""
    folder = tmp_path_factory.mktemp("whole_study")
    made = RunningNode(
        folder, completion__quiet_seconds="2", node__private_storage_classes=f'["{PRIVATE}"]', **without_finding
    )
    yield made.start()
    made.close()


_numbers = itertools.count(1)


class Study:
    """The one study of a test, of which the node is asked alone."""

    def __init__(self, node: RunningNode) -> None:
        self.node, self.number = node, next(_numbers)
        self._logged = len(node.log.read_text())

    def save(self, instances: Sequence[Dataset], folder: Path) -> list[Path]:
        """The files of the instances, which have UIDs of this study's own."""
        folder.mkdir(exist_ok=True)
        own = of_its_own(instances, self.number)
        for ds in own:
            ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        return save(own, folder)

    def with_others(self, folder: Path, others: dict[str, str] = OTHERS) -> list[Path]:
        """70 slices of air with the other objects among them; one of raw data lies in their series."""
        slices = ct_series(70, rows=64, columns=64, hu=lambda _: np.full((64, 64), -1000, np.int16))
        strays = [other(sop_class, number, modality) for number, (sop_class, modality) in enumerate(others.items())]
        raw = other("1.2.840.10008.5.1.4.1.1.66", 99, "CT")
        raw.SeriesInstanceUID = slices[0].SeriesInstanceUID
        return self.save([*slices[:12], *strays, raw, *slices[12:]], folder)

    def called_by(self, sender: str, *options: str) -> list[str]:
        """The command of this sender of dcmtk, without the files."""
        port = str(self.node.config.node.port)
        return [program(sender), *options, "-aet", "PACS", "-aec", "WILLIS", "127.0.0.1", port]

    def rows(self) -> list[Row]:
        """The worklist, of this study alone."""
        return [row for row in self.node.rows() if row["study_instance_uid"].startswith(study_root(self.number))]

    def delivered(self) -> Row:
        """The study's one series once the PACS has the report on it."""
        [row] = wait_until(lambda: (r := self.rows()) and all(x["delivery"] == "delivered" for x in r) and r, 120)
        return dict(row)

    def log(self) -> str:
        """What the node has logged since this study began."""
        return self.node.log.read_text()[self._logged :]

    def check(self, count: int) -> None:
        """Each other object is on the worklist as not eligible; the CT series was looked at."""
        rows = wait_until(lambda: len(r := self.rows()) == count and all(x["outcome"] for x in r) and r, 90)
        of_ct = [row for row in rows if row["instance_count"] == 71]
        assert [(row["outcome"], row["reason"]) for row in of_ct] == [("not_analysed", "not_a_head")]
        left = {(row["outcome"], row["reason"]) for row in rows if row["instance_count"] != 71}
        assert left == {("not_eligible", "no_image")}


@pytest.fixture
def study(shared_node: RunningNode) -> Study:
    """A study that no other test sends."""
    assert shared_node.process is not None
    assert shared_node.process.poll() is None
    return Study(shared_node)


@pytest.mark.parametrize("sender", ["storescu", "dcmsend"])
def test_dcmtk_ends_with_success_and_nothing_of_the_study_is_missing(study: Study, tmp_path: Path, sender: str) -> None:
    run(*study.called_by(sender), *study.with_others(tmp_path))
    study.check(1 + len(OTHERS))
    assert study.log().count("association_fell_short") == 0


def test_orthanc_sends_a_whole_study_in_one_job(study: Study, tmp_path: Path) -> None:
    paths = study.with_others(tmp_path / "study")
    (tmp_path / "orthanc").mkdir()
    with running(tmp_path / "orthanc", DicomAet="PACS") as orthanc:
        modality = {"AET": "WILLIS", "Host": "127.0.0.1", "Port": study.node.config.node.port}
        orthanc.http.put("/modalities/willis", json=modality).raise_for_status()
        done = orthanc.http.post(
            "/modalities/willis/store", json={"Resources": [orthanc.upload(paths)], "Timeout": 120}
        )
        sent = done.raise_for_status().json()
    assert (sent["InstancesCount"], sent["FailedInstancesCount"]) == (71 + len(OTHERS), 0)
    study.check(1 + len(OTHERS))


def test_a_private_class_that_is_not_configured_is_named_and_the_part_is_reported(study: Study, tmp_path: Path) -> None:
    command = [*study.called_by("dcmsend"), *map(str, study.with_others(tmp_path, {OTHER_PRIVATE: "OT"}))]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 62, "as docs/operations.md has it"
    row = study.delivered()
    assert (row["outcome"], row["reason"]) == ("not_analysed", "incomplete")
    assert row["detail"] == "12 slices came, then the association was aborted"
    shown = json.loads(run(sys.executable, "-m", "node", "status", "--json", "--config", study.node.path))
    [line] = [each for each in shown["more_may_not_have_come"] if OTHER_PRIVATE in each]
    assert f"SOP class {OTHER_PRIVATE} was offered and is not accepted (12 instances kept, 0 refused)" in line


def test_a_private_class_is_accepted_where_it_is_configured(study: Study, tmp_path: Path) -> None:
    run(*study.called_by("dcmsend"), *study.with_others(tmp_path, {PRIVATE: "OT"}))
    study.check(2)


def test_a_slice_of_no_pixels_makes_its_series_not_analysed(study: Study, tmp_path: Path) -> None:
    slices = ct_series(70, rows=16, columns=16)
    slices[30].Rows = slices[30].Columns = 0
    slices[30].PixelData = b""
    run(*study.called_by("storescu"), *study.save(slices, tmp_path))
    row = study.delivered()
    assert (row["outcome"], row["instance_count"]) == ("not_analysed", 70)


def test_a_study_of_forty_series_and_2000_objects_ends_with_success(study: Study, tmp_path: Path) -> None:
    classes = sorted(OTHERS)
    for series in range(40):
        objects = [other(classes[series % len(classes)], 1000 * series + number) for number in range(50)]
        for ds in objects:
            ds.SeriesInstanceUID = f"2.25.19{series:02}"
        study.save(objects, tmp_path)
    run(*study.called_by("storescu", "+sd"), tmp_path)
    rows = wait_until(lambda: len(r := study.rows()) == 40 and all(x["outcome"] for x in r) and r, 90)
    ends = {(row["outcome"], row["reason"], row["instance_count"]) for row in rows}
    assert ends == {("not_eligible", "no_image", 50)}


@pytest.mark.parametrize(
    ("sender", "status", "came", "after"),
    [
        (["storescu"], 192, 12, "the caller ended right after an instance was refused with 0xC000"),
        (["storescu", "-nh"], 0, 69, "the caller went on after what was refused"),
        (["dcmsend"], 0, 69, "the caller went on after what was refused"),
    ],
)
def test_a_refused_slice_makes_its_series_incomplete_whatever_the_sender_says(
    study: Study, tmp_path: Path, sender: list[str], status: int, came: int, after: str
) -> None:
    """As the table of docs/operations.md has it."""
    slices = ct_series(70, rows=16, columns=16)
    del slices[12].StudyInstanceUID
    command = [*study.called_by(*sender), *map(str, study.save(slices, tmp_path))]
    assert subprocess.run(command, capture_output=True, check=False).returncode == status
    row = study.delivered()
    assert (row["outcome"], row["reason"]) == ("not_analysed", "incomplete")
    assert row["detail"] == f"{came} slices came, 1 was refused"
    assert after in study.log()
