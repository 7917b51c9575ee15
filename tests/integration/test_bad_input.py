"""What a receiver must survive: each bad thing is answered plainly, and loses nothing else."""

import socket
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom.dimse_primitives import C_STORE

from node.errors import Unavailable
from node.scu import dimse
from tests.support.absent import absent
from tests.support.dicom_factory import identity
from tests.support.node_fixtures import NodeFactory
from tests.support.running import RunningNode, wait_until
from tests.support.unmeasured import unmeasured  # noqa: F401  fixture


def small_slice(number: int, **changes: object) -> Dataset:
    """A 16² CT slice, `number` mm up."""
    ds = identity(**changes)
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, f"2.25.77{number}"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, float(number)], [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing, ds.Rows, ds.Columns = [0.5, 0.5], 16, 16
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
    ds.PixelData = bytes(512)
    for keyword, value in changes.items():
        if value is not None:
            setattr(ds, keyword, value)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds


def store(node: RunningNode, *datasets: Dataset) -> list[tuple[int, str]]:
    """Status and comment of each dataset, sent on one association."""
    answers = []
    with dimse.associate(dimse.Entity("PACS"), node.address, [(CTImageStorage, ExplicitVRLittleEndian)]) as assoc:
        [context] = assoc.contexts_of(CTImageStorage)
        for ds in datasets:
            request = C_STORE()
            request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
            request.Priority = 2
            [(answer, _)] = assoc.ask(request, context, ds)
            answers.append((answer.Status, answer.ErrorComment or ""))
    return answers


@pytest.fixture
def node(node_in: NodeFactory) -> RunningNode:
    """A node with a short quiet timer."""
    return node_in(completion__quiet_seconds="1")


def test_bytes_that_are_not_dicom_end_their_connection_and_nothing_else(node: RunningNode) -> None:
    with socket.create_connection(("127.0.0.1", node.config.node.port)) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\nHost: willis\r\n\r\n")
        stranger.settimeout(20)
        while stranger.recv(4096):
            pass
    assert store(node, small_slice(1))[0][0] == 0x0000


def test_an_unknown_calling_ae_is_rejected(node: RunningNode, tmp_path: Path) -> None:
    path = tmp_path / "one.dcm"
    small_slice(1).save_as(path, enforce_file_format=True)
    with pytest.raises(Unavailable, match="rejected"):
        node.send([path], calling="STRANGER")
    assert node.rows() == []


def test_a_slice_without_series_uid_or_with_a_path_for_a_uid_is_refused_alone(node: RunningNode) -> None:
    answers = store(
        node,
        small_slice(1),
        small_slice(2, SeriesInstanceUID=None),
        small_slice(3),
        small_slice(4, SeriesInstanceUID="../../etc"),
    )
    assert [status for status, _ in answers] == [0x0000, 0xC000, 0x0000, 0xC000]
    assert answers[1][1] == "SeriesInstanceUID is missing"
    assert answers[3][1] == "SeriesInstanceUID is not a valid UID"
    assert node.rows()[0]["instance_count"] == 2


def test_the_same_uid_with_other_bytes_keeps_the_first_and_warns(node: RunningNode) -> None:
    answers = store(node, small_slice(1), small_slice(1), small_slice(1, PixelData=b"\1" * 512))
    assert [status for status, _ in answers] == [0x0000, 0x0000, 0xB006]
    (row,) = node.rows()
    assert (row["instance_count"], row["conflicts"]) == (1, ["instances_differ"])


def test_a_series_of_one_slice_is_not_eligible_and_says_why(node: RunningNode) -> None:
    store(node, small_slice(1))
    row = node.wait_for_stage("set_aside")[0]
    assert (row["outcome"], row["reason"]) == ("not_eligible", "too_few_slices")


def test_slices_of_two_patients_under_one_series_are_reported_as_not_analysed(node_in: NodeFactory) -> None:
    node = node_in(completion__quiet_seconds="1", eligibility__minimum_slices="3")
    others = [small_slice(4, PatientID="OTHER", PatientName="Roe^Jane")]
    store(node, *(small_slice(number) for number in range(4)), *others)
    (row,) = node.wait_for_delivered()
    assert (row["outcome"], row["reason"]) == ("not_analysed", "mixed_patients")
    assert row["instance_count"] == 5


@pytest.mark.parametrize("number_of_missing_bytes", [2, 300])
def test_truncated_pixel_data_is_stored_and_reported_as_not_analysed(
    node_in: NodeFactory, number_of_missing_bytes: int
) -> None:
    node = node_in(completion__quiet_seconds="1", eligibility__minimum_slices="3")
    short = small_slice(2, PixelData=bytes(512 - number_of_missing_bytes))
    assert [s for s, _ in store(node, small_slice(0), small_slice(1), short, small_slice(3))] == [0x0000] * 4
    (row,) = node.wait_for_delivered()
    assert (row["outcome"], row["reason"]) == ("not_analysed", "pixels_truncated")


def test_japanese_and_accented_names_and_an_empty_accession_number_reach_report_and_worklist(
    node_in: NodeFactory,
) -> None:
    node = node_in(completion__quiet_seconds="1", eligibility__minimum_slices="3")
    japanese = {
        "SpecificCharacterSet": ["", "ISO 2022 IR 87"],
        "PatientName": "Yamada^Tarou=山田^太郎",
        "AccessionNumber": "",
    }
    accented = {
        "SpecificCharacterSet": "ISO_IR 100", "PatientName": "Müller^Zoë", "StudyInstanceUID": "2.25.9", "SeriesInstanceUID": "2.25.10",
    }  # fmt: skip
    store(node, *(small_slice(n, **japanese) for n in range(4)), *(small_slice(n, **accented) for n in range(10, 14)))
    rows = {row["patient_name"]: row for row in node.wait_for_delivered(2)}
    assert set(rows) == {"Yamada^Tarou=山田^太郎", "Müller^Zoë"}
    for name, row in rows.items():
        report = dcmread(node.pacs.folder / f"{row['report_uid']}.dcm")
        assert str(report.PatientName) == name
    assert rows["Yamada^Tarou=山田^太郎"]["accession_number"] == ""


def test_two_thousand_slices_arrive_and_are_counted(node: RunningNode) -> None:
    answers = store(node, *(small_slice(number) for number in range(2000)))
    assert {status for status, _ in answers} == {0x0000}
    assert node.rows()[0]["instance_count"] == 2000


def test_a_full_disk_is_answered_with_out_of_resources_and_the_next_try_succeeds(
    node_in: NodeFactory, tmp_path: Path
) -> None:
    import subprocess

    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(disk)], capture_output=True, check=False
    ).returncode:
        absent("a small file system cannot be mounted here (not root)")
    try:
        node = node_in(
            storage__directory=repr(str(disk)), storage__database_url=repr(f"sqlite:///{tmp_path}/elsewhere.db")
        )
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(2 * 2**20 - 120 * 1024))
        big = small_slice(2, PixelData=bytes(400_000))
        assert [s for s, _ in store(node, small_slice(1), big)] == [0x0000, 0xA700]
        assert node.rows()[0]["instance_count"] == 1
        ballast.unlink()
        assert store(node, big)[0][0] == 0x0000
        wait_until(lambda: node.rows()[0]["instance_count"] == 2)
        node.close()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)
