"""A running node completes by itself what it was sent in part: over TLS to the end, and through a kill."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from node.dicom.multipart import unpacked
from storage.files.instances import Files
from tests.faults.proof import violations
from tests.interop.test_peers import Orthanc, program
from tests.support import orthanc as peers
from tests.support.certificates import Certificates
from tests.support.dicom_factory import ct_series, save
from tests.support.node_fixtures import NodeFactory
from tests.support.running import ROOT, RunningNode, wait_until

pytestmark = pytest.mark.interop


def quoted(values: dict[str, object]) -> dict[str, str]:
    """Settings as `RunningNode` takes them."""
    return {key: json.dumps(str(value) if isinstance(value, Path) else value) for key, value in values.items()}


def results(orthanc: Orthanc) -> list[str]:
    """The SOP Instance UIDs of the reports that Orthanc holds."""
    found = orthanc.http.post(
        "/tools/find", json={"Level": "Instance", "Query": {"Modality": "SR"}, "Expand": True}
    ).json()
    return [each["MainDicomTags"]["SOPInstanceUID"] for each in found]


def test_over_tls_dcmtk_sends_a_part_the_pacs_gives_the_rest_gets_the_report_and_commits_to_it(
    node_in: NodeFactory, certificates: Certificates, negative_series: list[Path], tmp_path: Path
) -> None:
    tls = certificates.of()
    with peers.running(tmp_path, **peers.with_tls(certificates, "ct1")) as orthanc:
        node = node_in(
            **quoted(
                {f"node__tls__{key}": value for key, value in tls.model_dump().items()}
                | {f"peers__ORTHANC__{key}": value for key, value in {
                    "ae_title": "ORTHANC", "host": "127.0.0.1", "port": orthanc.dicom_port, "tls": True,
                    "tls_sha256": certificates.sha256("ct1"), "retrieve": "move", "storage_commitment": True,
                    }.items()}
                | {"completion__quiet_seconds": 2}
            )
        )  # fmt: skip
        modality = {"AET": "WILLIS", "Host": "127.0.0.1", "Port": tls.port, "UseDicomTls": True}
        orthanc.http.put("/modalities/willis", json=modality).raise_for_status()
        orthanc.upload(negative_series)
        part = negative_series[:40]
        options = [*certificates.dcmtk("ct1"), "-aet", "ORTHANC", "-aec", "WILLIS", "127.0.0.1"]
        command = [program("storescu"), *options, str(tls.port), *map(str, part)]
        subprocess.run(command, cwd=certificates.folder, check=True, timeout=60, env=os.environ | {"TCP_NODELAY": "1"})
        wait_until(lambda: [row for row in node.rows() if row["delivery"] == "committed"], 240)
        (row,) = node.rows()
        assert (row["outcome"], row["instance_count"]) == ("negative", len(negative_series))
        assert results(orthanc) == [row["report_uid"]]
        status = [sys.executable, "-m", "node", "status", "--json", "--config", str(node.path)]
        answer = subprocess.run(status, cwd=ROOT, capture_output=True, check=False, timeout=60)
        said = json.loads(answer.stdout)
        assert (answer.returncode, {each["about"] for each in said["reasons"]}) == (1, {"certificates"}), (
            "they last two days"
        )
        assert (said["deliveries"]["committed"], said["series"]["reported"]) == (1, 1)
        assert said["last_rejected_callers"] == []


@pytest.mark.parametrize("how", ["wado", "get"])
def test_a_retrieval_in_which_the_node_is_killed_is_completed_after_its_start(
    node_in: NodeFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    series = save(ct_series(80), tmp_path)  # too small to be analysed, and reported all the same
    with peers.running(tmp_path, **peers.with_dicomweb()) as orthanc:
        at: dict[str, object] = {"host": "127.0.0.1", "port": orthanc.dicom_port}
        if how == "wado":
            at = {"url": f"{orthanc.http.base_url}/dicom-web"}
        peer = {"ae_title": "ORTHANC", "retrieve": how} | at
        settings: dict[str, object] = {f"peers__ORTHANC__{key}": value for key, value in peer.items()}
        settings |= {
            "completion__quiet_seconds": 2,
            "completion__retrieve_seconds": 600,
            "report__not_analysed": "always",
        }
        node = node_in(start=False, **quoted(settings))
        modality = {"AET": "WILLIS", "Host": "127.0.0.1", "Port": node.config.node.port}
        orthanc.http.put("/modalities/willis", json=modality).raise_for_status()
        orthanc.upload(series)
        monkeypatch.setenv("WILLIS_KILL_AT", "after_flush:30")  # of the retrieval: the receiver gets only ten
        node.start()
        assert not [sent for sent in node.send(series[:10], calling="ORTHANC") if sent.error]
        assert node.process is not None
        assert node.process.wait(120) == -signal.SIGKILL
        assert 10 < node.rows()[0]["instance_count"] < len(series)

        monkeypatch.delenv("WILLIS_KILL_AT")
        node.start()
        (row,) = node.wait_for_delivered(seconds=240)
        assert (row["instance_count"], row["revision"], row["evidence"]) == (len(series), 1, "count")
        assert results(orthanc) == [row["report_uid"]]
        assert not wrong(node, series)


def wrong(node: RunningNode, sent: list[Path]) -> list[str]:
    """What is lost, or there twice, or not as it was."""
    files = Files(node.config.storage.directory)
    parts = [unpacked(bytearray(path.read_bytes())) for path in sent]
    return violations(node.store, files, {uid: bytes(dataset) for _, uid, _, dataset in parts})
