"""What dcmtk's findscu and Orthanc read when they ask Willis what it holds."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from storage.records import Received
from tests.interop.test_peers import program
from tests.support.absent import absent
from tests.support.builders import header, received, reported, stored_file
from tests.support.running import ROOT
from tests.support.site import Site, SiteFactory, peers

pytestmark = pytest.mark.interop


@pytest.fixture
def asked(site: SiteFactory) -> Site:
    """A site with a positive study, reported, and another in work."""
    made = site(peers=peers(11113))
    received(made.store, made.clock, 2, "2.25.9", study_instance_uid="2.25.8", patient_name="Müller^Jörg")
    reported(made.store, made.clock)
    return made


def findscu(made: Site, *keys: str) -> str:
    """What findscu prints, with the dictionary of our private attributes."""
    dictionary = next(iter(sorted(Path("/usr/share").glob("libdcmtk*/dicom.dic"))), None)
    if dictionary is None:
        absent("no dcmtk data dictionary (/usr/share/libdcmtk*/dicom.dic)")
    options = [option for key in keys for option in (key.split("=") if key[0] == "-" else ("-k", key))]
    command = [
        program("findscu"),
        "-S",
        "-aet",
        "PACS",
        "-aec",
        "WILLIS",
        "127.0.0.1",
        str(made.config.node.port),
        *options,
    ]
    environment = {**os.environ, "DCMDICTPATH": f"{dictionary}:{ROOT / 'docs' / 'willis.dic'}"}
    done = subprocess.run(command, capture_output=True, timeout=60, env=environment, check=False)
    printed = (done.stdout + done.stderr).decode("latin-1")
    assert done.returncode == 0, printed
    return printed


def values(printed: str) -> list[dict[str, str]]:
    """Tag → value of each response that findscu printed."""
    found: list[dict[str, str]] = []
    for line in printed.splitlines():
        text = line.removeprefix("I: ").removeprefix("W: ")
        if "Find Response" in text:
            found.append({})
        elif text.startswith("(") and found:
            tag, rest = text[1:10], text[15:]
            found[-1][tag] = rest[1 : rest.index("]")].rstrip("\0 ") if rest[0] == "[" else ""
    return found


def test_findscu_reads_the_most_urgent_study_first_with_its_outcome(asked: Site) -> None:
    printed = findscu(
        asked, "QueryRetrieveLevel=STUDY", "PatientName", "StudyInstanceUID", "ModalitiesInStudy",
        "NumberOfStudyRelatedInstances", "0099,0010=WILLIS", "0099,1001", "0099,1002", "0099,1003", "0099,1005",
    )  # fmt: skip
    first, second = values(printed)
    assert first | {"0099,1005": ""} == {
        "0008,0052": "STUDY", "0008,0054": "", "0008,0056": "UNAVAILABLE", "0008,0061": "CT", "0010,0010": "Doe^Jane",
        "0020,000d": "2.25.1001", "0020,1208": "3", "0099,0010": "WILLIS", "0099,1001": "POSITIVE", "0099,1002": "0.9000",
        "0099,1003": "REPORTED", "0099,1005": "",
    }  # fmt: skip
    assert first["0099,1005"].startswith("20") and first["0099,1005"].endswith("+0000")
    assert (second["0020,000d"], second["0099,1001"], second["0099,1003"]) == ("2.25.8", "", "RECEIVING")
    assert second["0008,0005"] == "ISO_IR 192"
    assert second["0010,0010"].encode("latin-1").decode() == "Müller^Jörg"


@pytest.mark.parametrize("encoding", ["-xi", "-xe"])
def test_findscu_finds_by_outcome_name_and_range(asked: Site, encoding: str) -> None:
    study = ("QueryRetrieveLevel=STUDY", "StudyInstanceUID", encoding)

    def studies(*keys: str) -> list[str]:
        return [found["0020,000d"] for found in values(findscu(asked, *study, *keys))]

    assert studies("0099,0010=WILLIS", "0099,1001=POSITIVE") == ["2.25.1001"]
    assert studies("PatientName=DOE*") == ["2.25.1001"]
    assert studies("StudyDate=20261101-20261130") == ["2.25.1001", "2.25.8"]
    assert studies("StudyDate=20261124-") == []
    series = ("StudyInstanceUID=2.25.8", "SeriesInstanceUID=2.25.9")
    printed = findscu(asked, "QueryRetrieveLevel=IMAGE", *series, "SOPInstanceUID", "InstanceNumber=2", encoding)
    assert [(found["0008,0018"], found["0020,0013"]) for found in values(printed)] == [("2.25.9.2", "2")]


def test_findscu_is_told_why_a_query_fails(asked: Site) -> None:
    printed = findscu(asked, "-d", "QueryRetrieveLevel=SERIES", "SeriesInstanceUID")
    assert "0xa900: Error: Data Set does not match SOP Class" in printed
    assert "StudyInstanceUID must be one UID at SERIES level" in printed


def test_findscu_may_cancel(asked: Site) -> None:
    heads = [header(1, f"2.25.1{number}", study_instance_uid=f"2.25.2{number}") for number in range(1000)]
    asked.store.intake.take([Received(head, stored_file(head), 1, "PACS", asked.clock()) for head in heads])
    printed = findscu(asked, "-v", "--cancel=3", "QueryRetrieveLevel=STUDY", "StudyInstanceUID")
    assert "Received Final Find Response (Cancel: MatchingTerminatedDueToCancelRequest)" in printed
    assert 3 <= len(values(printed)) < 1000


def test_orthanc_reads_a_study_its_series_and_images(site: SiteFactory, orthanc: Any) -> None:
    made = site(peers=peers(orthanc.dicom_port, ae_title="ORTHANC"))
    received(made.store, made.clock, 2, "2.25.9", study_instance_uid="2.25.8", patient_name="Müller^Jörg")
    reported(made.store, made.clock)
    modality = {"AET": "WILLIS", "Host": "127.0.0.1", "Port": made.config.node.port}
    orthanc.http.put("/modalities/willis", json=modality).raise_for_status()

    def ask(path: str, query: dict[str, str], **more: str) -> tuple[str, list[dict[str, Any]]]:
        started = orthanc.http.post(path, json={"Query": query, **more}).raise_for_status().json()
        answers = orthanc.http.get(f"{started['Path']}/answers?expand&simplify").raise_for_status().json()
        return str(started["Path"]), answers

    keys = {"PatientName": "m*", "StudyDate": "20261101-20261130"}
    path, studies = ask("/modalities/willis/query", keys, Level="Study")
    [study] = studies
    assert (study["PatientName"], study["StudyInstanceUID"]) == ("Müller^Jörg", "2.25.8")
    path, [series] = ask(f"{path}/answers/0/query-series", {"Modality": "CT", "SeriesNumber": ""})
    assert (series["SeriesInstanceUID"], series["SeriesNumber"]) == ("2.25.9", "3")
    _, images = ask(f"{path}/answers/0/query-instances", {})
    assert sorted(image["SOPInstanceUID"] for image in images) == ["2.25.9.1", "2.25.9.2"]
    assert len(ask("/modalities/willis/query", {"StudyInstanceUID": ""}, Level="Study")[1]) == 2
