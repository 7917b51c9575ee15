"""What a receiver must survive: each bad thing is answered plainly, and loses nothing else."""

import itertools
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom.dimse_primitives import C_STORE

from node.errors import Unavailable
from node.scu import dimse
from storage.queries.worklist import Row
from tests.support.absent import absent
from tests.support.dicom_factory import change, identity
from tests.support.node_fixtures import NodeFactory
from tests.support.running import RunningNode, wait_until
from tests.support.unmeasured import unmeasured  # noqa: F401  fixture


def small_slice(number: int, series: int = 0, **changes: object) -> Dataset:
    """A 16² CT slice, `number` mm up, of the series and the study of this number."""
    ds = identity(StudyInstanceUID=f"2.25.76{series}", SeriesInstanceUID=f"2.25.78{series}")
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, f"2.25.77{series}.{number}"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, float(number)], [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing, ds.Rows, ds.Columns = [0.5, 0.5], 16, 16
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
    ds.PixelData = bytes(512)
    change(ds, **changes)
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


@pytest.fixture(scope="module")
def shared_node(tmp_path_factory: pytest.TempPathFactory, without_finding: dict[str, str]) -> Iterator[RunningNode]:
    """One node with a short quiet timer for all that it must survive: to start one takes longer than a test."""
    folder = tmp_path_factory.mktemp("bad_input")
    made = RunningNode(folder, completion__quiet_seconds="1", eligibility__minimum_slices="3", **without_finding)
    yield made.start()
    made.close()


@pytest.fixture
def node(shared_node: RunningNode) -> RunningNode:
    """The node, which has survived the tests before."""
    assert shared_node.process is not None
    assert shared_node.process.poll() is None
    return shared_node


_numbers = itertools.count(1)


@pytest.fixture
def series() -> int:
    """The number of a series that no other test sends."""
    return next(_numbers)


def rows_of(node: RunningNode, *series: int) -> list[Row]:
    """The worklist, of these series alone."""
    return [row for row in node.rows() if row["study_instance_uid"] in {f"2.25.76{number}" for number in series}]


def delivered(node: RunningNode, *series: int) -> list[Row]:
    """The same once the PACS has a report on each."""
    return list(
        wait_until(
            lambda: (
                len(rows := rows_of(node, *series)) == len(series)
                and all(row["delivery"] == "delivered" for row in rows)
                and rows
            ),
            120,
            "the reports are delivered",
        )
    )


def test_bytes_that_are_not_dicom_end_their_connection_and_nothing_else(node: RunningNode, series: int) -> None:
    with socket.create_connection(("127.0.0.1", node.config.node.port)) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\nHost: willis\r\n\r\n")
        stranger.settimeout(20)
        while stranger.recv(4096):
            pass
    assert store(node, small_slice(1, series))[0][0] == 0x0000


def test_an_unknown_calling_ae_is_rejected(node: RunningNode, series: int, tmp_path: Path) -> None:
    path = tmp_path / "one.dcm"
    small_slice(1, series).save_as(path, enforce_file_format=True)
    with pytest.raises(Unavailable, match="rejected"):
        node.send([path], calling="STRANGER")
    assert rows_of(node, series) == []


def test_a_slice_without_series_uid_or_with_a_path_for_a_uid_is_refused_alone(node: RunningNode, series: int) -> None:
    answers = store(
        node,
        small_slice(1, series),
        small_slice(2, series, SeriesInstanceUID=None),
        small_slice(3, series),
        small_slice(4, series, SeriesInstanceUID="../../etc"),
    )
    assert [status for status, _ in answers] == [0x0000, 0xC000, 0x0000, 0xC000]
    assert answers[1][1] == "SeriesInstanceUID is missing"
    assert answers[3][1] == "SeriesInstanceUID is not a valid UID"
    assert [row["instance_count"] for row in rows_of(node, series)] == [2]


def test_the_same_uid_with_other_bytes_keeps_the_first_and_warns(node: RunningNode, series: int) -> None:
    first = small_slice(1, series)
    answers = store(node, first, first, small_slice(1, series, PixelData=b"\1" * 512))
    assert [status for status, _ in answers] == [0x0000, 0x0000, 0xB006]
    (row,) = rows_of(node, series)
    assert (row["instance_count"], row["conflicts"]) == (1, ["instances_differ"])


def test_a_series_of_one_slice_is_not_eligible_and_says_why(node: RunningNode, series: int) -> None:
    store(node, small_slice(1, series))
    [row] = wait_until(lambda: [row for row in rows_of(node, series) if row["stage"] == "set_aside"], 120)
    assert (row["outcome"], row["reason"]) == ("not_eligible", "too_few_slices")


def test_slices_of_two_patients_under_one_series_are_reported_as_not_analysed(node: RunningNode, series: int) -> None:
    others = [small_slice(4, series, PatientID="OTHER", PatientName="Roe^Jane")]
    store(node, *(small_slice(number, series) for number in range(4)), *others)
    (row,) = delivered(node, series)
    assert (row["outcome"], row["reason"]) == ("not_analysed", "mixed_patients")
    assert row["instance_count"] == 5


@pytest.mark.parametrize("number_of_missing_bytes", [2, 300])
def test_truncated_pixel_data_is_stored_and_reported_as_not_analysed(
    node: RunningNode, series: int, number_of_missing_bytes: int
) -> None:
    short = small_slice(2, series, PixelData=bytes(512 - number_of_missing_bytes))
    slices = [small_slice(0, series), small_slice(1, series), short, small_slice(3, series)]
    assert [status for status, _ in store(node, *slices)] == [0x0000] * 4
    (row,) = delivered(node, series)
    assert (row["outcome"], row["reason"]) == ("not_analysed", "pixels_truncated")


def test_japanese_and_accented_names_and_an_empty_accession_number_reach_report_and_worklist(
    node: RunningNode, series: int
) -> None:
    japanese = {
        "SpecificCharacterSet": ["", "ISO 2022 IR 87"],
        "PatientName": "Yamada^Tarou=山田^太郎",
        "AccessionNumber": "",
    }
    accented = {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Müller^Zoë"}
    other = next(_numbers)
    store(
        node,
        *(small_slice(n, series, **japanese) for n in range(4)),
        *(small_slice(n, other, **accented) for n in range(4)),
    )
    rows = {row["patient_name"]: row for row in delivered(node, series, other)}
    assert set(rows) == {"Yamada^Tarou=山田^太郎", "Müller^Zoë"}
    for name, row in rows.items():
        report = dcmread(node.pacs.folder / f"{row['report_uid']}.dcm")
        assert str(report.PatientName) == name
    assert rows["Yamada^Tarou=山田^太郎"]["accession_number"] == ""


def test_two_thousand_slices_arrive_and_are_counted(node: RunningNode, series: int) -> None:
    answers = store(node, *(small_slice(number, series) for number in range(2000)))
    assert {status for status, _ in answers} == {0x0000}
    assert [row["instance_count"] for row in rows_of(node, series)] == [2000]


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
