"""Real peers: dcmtk sends, Orthanc is the PACS that forwards a study and receives the report, a real scanner's study."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.support.absent import absent
from tests.support.dicom_factory import PHILIPS_STUDY
from tests.support.node_fixtures import SHIPPED, NodeFactory
from tests.support.running import RunningNode, free_port, wait_until

pytestmark = pytest.mark.interop


def program(name: str) -> str:
    """The program's path; without it the test is left out, saying so, and in CI it fails."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        absent(f"{name} is not installed")
    return found


def run(*command: str | Path) -> str:
    """What the command printed; it must succeed."""
    environment = {**os.environ, "TCP_NODELAY": "1"}
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=300, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def quick_node(tmp_path_factory: pytest.TempPathFactory, without_finding: dict[str, str]) -> Iterator[RunningNode]:
    """One node, which finds nothing in anything, for the tests in which senders matter: to start one takes long."""
    made = RunningNode(tmp_path_factory.mktemp("quick_node"), completion__quiet_seconds="2", **without_finding)
    yield made.start()
    made.close()


@pytest.mark.parametrize(("sender", "series"), [("storescu", "negative_series"), ("dcmsend", "positive_series")])
def test_dcmtk_sends_a_study_and_the_report_comes_back(
    quick_node: RunningNode, request: pytest.FixtureRequest, sender: str, series: str
) -> None:
    node, paths = quick_node, request.getfixturevalue(series)
    folder, before = paths[0].parent, {row["case_id"] for row in node.rows()}
    run(program("echoscu"), "-aet", "PACS", "-aec", "WILLIS", "127.0.0.1", str(node.config.node.port))
    run(program(sender), "+sd", "-aet", "PACS", "-aec", "WILLIS", "127.0.0.1", str(node.config.node.port), folder)
    (row,) = [row for row in node.wait_for_delivered(len(before) + 1) if row["case_id"] not in before]
    assert (row["outcome"], row["instance_count"]) == ("negative", len(paths))
    run(program("dsrdump"), node.pacs.folder / f"{row['report_uid']}.dcm")


@dataclass
class Orthanc:
    """An Orthanc in a folder of its own."""

    dicom_port: int
    http: httpx.Client

    def upload(self, paths: list[Path]) -> str:
        """The files are in; returns Orthanc's identifier of their study."""
        study = ""
        for path in paths:
            study = self.http.post("/instances", content=path.read_bytes()).raise_for_status().json()["ParentStudy"]
        return study


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    """Orthanc with Willis as its modality; the node's port is told later."""
    folder = tmp_path / "orthanc"
    folder.mkdir()
    dicom_port, http_port = free_port(), free_port()
    settings = {
        "Name": "PACS", "DicomAet": "ORTHANC", "DicomPort": dicom_port, "HttpPort": http_port, "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False, "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"),
        "DicomCheckCalledAet": False, "DicomModalitiesInDatabase": True, "Plugins": [],
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program("Orthanc"), str(folder / "orthanc.json")], stdout=log, stderr=log)
    client = httpx.Client(base_url=f"http://127.0.0.1:{http_port}", timeout=120, trust_env=False)
    try:
        wait_until(lambda: _answers(client), 60, "Orthanc answers")
        yield Orthanc(dicom_port, client)
    finally:
        client.close()
        process.terminate()
        process.wait(20)


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/system").status_code == 200
    except httpx.TransportError:
        return False


def test_orthanc_forwards_a_study_and_holds_every_result_in_it(
    node_in: NodeFactory, orthanc: Orthanc, positive_series: list[Path]
) -> None:
    node = node_in(
        peers__ORTHANC__ae_title='"ORTHANC"',
        peers__ORTHANC__host='"127.0.0.1"',
        peers__ORTHANC__port=str(orthanc.dicom_port),
        peers__ORTHANC__results='["sr", "sc", "seg"]',
        **SHIPPED,
    )
    modality = {"AET": "WILLIS", "Host": "127.0.0.1", "Port": node.config.node.port}
    orthanc.http.put("/modalities/willis", json=modality).raise_for_status()
    study = orthanc.upload(positive_series)
    orthanc.http.post("/modalities/willis/store", json={"Resources": [study], "Timeout": 120}).raise_for_status()
    (row,) = node.wait_for_delivered()
    assert row["outcome"] == "positive"

    series = [
        orthanc.http.get(f"/series/{each}").json() for each in orthanc.http.get(f"/studies/{study}").json()["Series"]
    ]
    assert sorted(each["MainDicomTags"]["Modality"] for each in series) == ["CT", "OT", "SEG", "SR"]
    (report,) = [each for each in series if each["MainDicomTags"]["Modality"] == "SR"]
    tags = orthanc.http.get(f"/instances/{report['Instances'][0]}/simplified-tags").json()
    assert tags["SOPInstanceUID"] == row["report_uid"]
    assert tags["CompletionFlag"] == "COMPLETE"


def send_philips(node: RunningNode) -> None:
    """The whole study, by dcmsend, as the scanner left it."""
    if not PHILIPS_STUDY.exists():
        absent(f"the scanner's study is not at {PHILIPS_STUDY}")
    images = sorted(path for path in PHILIPS_STUDY.rglob("I*") if path.is_file())
    run(program("dcmsend"), "-aet", "PACS", "-aec", "WILLIS", "127.0.0.1", str(node.config.node.port), *images)


def outcomes(node: RunningNode) -> dict[str, tuple[str, str]]:
    """Outcome and reason by series description."""
    return {row["series_description"]: (row["outcome"], row["reason"]) for row in node.rows()}


def test_each_series_of_a_real_scanners_study_gets_its_outcome(node_in: NodeFactory) -> None:
    node = node_in(completion__quiet_seconds="2", eligibility__sibling_wait_seconds="2")
    send_philips(node)
    wait_until(lambda: len(node.rows()) == 5 and all(row["outcome"] for row in node.rows()), 120)
    node.wait_for_delivered()
    assert outcomes(node) == {
        "": ("not_eligible", "localizer"),
        "Exam Summary": ("not_eligible", "secondary_capture"),
        "STD BRAIN 1MM, iDose": ("not_analysed", "no_contrast"),
        "BONE BRAIN 1MM": ("covered", "covered"),
        "STD BRAIN 5MM": ("not_eligible", "too_few_slices"),
    }
    (report,) = node.pacs.folder.glob("*.dcm")
    run(program("dsrdump"), report)
    found = subprocess.run([program("dciodvfy"), "-new", str(report)], capture_output=True, text=True, check=False)
    assert "Error" not in found.stderr + found.stdout


def test_the_real_study_is_analysed_when_the_setting_allows_no_contrast(node_in: NodeFactory) -> None:
    node = node_in(completion__quiet_seconds="2", eligibility__require_contrast="false")
    send_philips(node)
    node.wait_for_delivered()
    assert outcomes(node)["STD BRAIN 1MM, iDose"][0] in ("positive", "negative")


def test_objects_without_an_image_are_skipped_by_name_when_willis_sends(quick_node: RunningNode) -> None:
    if not PHILIPS_STUDY.exists():
        absent(f"the scanner's study is not at {PHILIPS_STUDY}")
    node, before = quick_node, len(quick_node.rows())
    sent = node.send(sorted(PHILIPS_STUDY.rglob("DIRFILE")))
    assert len(sent) == 6
    assert all(each.error for each in sent)
    time.sleep(0.5)
    assert len(node.rows()) == before
