#!/usr/bin/env bash
# Orthanc 1.10.1 lists the instances that failed in the command set of its C-GET responses, not in their Identifier.
#
# Software: Orthanc 1.10.1 (Debian 12, `apt-get install orthanc`), asked by pynetdicom 3.0.4 with pydicom 3.0.1.
# Input: one valid CT image; a requestor that proposes the SCP role for it and answers its C-STORE with 0xA700, as an SCP
# that has no space left may (PS3.4 B.2.3).
# Expected: a command set has elements of group 0000 alone (PS3.7 6.3.1), and Failed SOP Instance UID List (0008,0058) is
# in the Identifier that follows (PS3.4 C.4.3.1.4.2).
# Seen: (0008,0000) and (0008,0058) follow the last element of group 0000, the Command Group Length counts only the
# elements before them, and no dataset follows: Command Data Set Type is 0x0101.  Where nothing failed, they are not there.
#
# So a requestor that takes every element of another group for a violation aborts, and never learns the status.
# This prints what is seen, and fails where that has changed.
set -euo pipefail
PATH=$PATH:/usr/sbin
command -v Orthanc >/dev/null || apt-get install -y -qq --no-install-recommends orthanc >/dev/null
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$folder" pynetdicom==3.0.4 pydicom==3.0.1
cd "$folder"
PYTHONPATH=$folder python3 - <<'PROGRAM'
import json
import socket
import subprocess
import tempfile
import time
import urllib.request
from io import BytesIO
from pathlib import Path
from typing import Any

ORTHANC = "1.10.1"
OUT_OF_RESOURCES = 0xA700
SEEN = {"(0008,0000)": 14, "(0008,0058)": "2.25.1"}


def main() -> None:
    """What is described above was seen.  Raises AssertionError where it was not."""
    with tempfile.TemporaryDirectory() as folder:
        dicom_port, http_port = free_port(), free_port()
        settings = {
            "DicomAet": "ORTHANC", "DicomPort": dicom_port, "HttpPort": http_port, "StorageDirectory": f"{folder}/db",
            "IndexDirectory": f"{folder}/db", "AuthenticationEnabled": False, "DicomCheckCalledAet": False,
            "DicomAlwaysAllowGet": True, "Plugins": [],
        }  # fmt: skip
        Path(folder, "orthanc.json").write_text(json.dumps(settings))
        process = subprocess.Popen(["Orthanc", f"{folder}/orthanc.json"], stderr=subprocess.DEVNULL)
        try:
            version = version_at(f"http://127.0.0.1:{http_port}")
            assert version == ORTHANC, f"Orthanc {version}: written for {ORTHANC}"
            give_an_image(f"http://127.0.0.1:{http_port}")
            for answer, status, others in ((0x0000, 0x0000, {}), (OUT_OF_RESOURCES, 0xA702, SEEN)):
                found = final_command_set(dicom_port, answer)
                of_other_groups = {tag: value for tag, value in found.items() if not tag.startswith("(0000,")}
                print(f"C-STORE answered 0x{answer:04X}; the last C-GET response:", found)
                assert found["(0000,0900)"] == status, found
                assert found["(0000,0800)"] == 0x0101, "no dataset follows"
                assert found["(0000,0000)"] == 106, "the group length is the same with and without the others"
                assert of_other_groups == others, of_other_groups
        finally:
            process.terminate()
            process.wait(20)


def free_port() -> int:
    """A port of loopback on which nobody listens."""
    with socket.socket() as unbound:
        unbound.bind(("127.0.0.1", 0))
        port: int = unbound.getsockname()[1]
        return port


def version_at(url: str) -> str:
    """Orthanc's, once it answers there."""
    for _ in range(150):
        try:
            with urllib.request.urlopen(f"{url}/system") as response:
                return str(json.load(response)["Version"])
        except OSError:
            time.sleep(0.2)
    raise AssertionError("Orthanc does not answer")


def give_an_image(url: str) -> None:
    """Orthanc holds one CT image."""
    from pydicom import Dataset, FileMetaDataset, dcmwrite
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    ds, content = Dataset(), BytesIO()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality, ds.PatientID = CTImageStorage, "2.25.1", "CT", "P"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "2.25.2", "2.25.3"
    dcmwrite(content, ds, enforce_file_format=True)
    request = urllib.request.Request(f"{url}/instances", content.getvalue())
    urllib.request.urlopen(request).close()


def final_command_set(port: int, answer: int) -> dict[str, Any]:
    """By tag, the values of the last C-GET response's command set, where each C-STORE gets this answer."""
    from pydicom import Dataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
    from pynetdicom import AE, build_role, evt
    from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelGet

    messages: list[Any] = []
    ae = AE("REQUESTOR")
    ae.add_requested_context(StudyRootQueryRetrieveInformationModelGet)
    ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    handlers = [
        (evt.EVT_C_STORE, lambda _event: answer),
        (evt.EVT_DIMSE_RECV, lambda event: messages.append(event.message)),
    ]
    role = build_role(CTImageStorage, scp_role=True)
    assoc = ae.associate("127.0.0.1", port, ae_title="ORTHANC", ext_neg=[role], evt_handlers=handlers)
    query = Dataset()
    query.QueryRetrieveLevel, query.StudyInstanceUID = "STUDY", "2.25.2"
    assert list(assoc.send_c_get(query, StudyRootQueryRetrieveInformationModelGet))
    assoc.release()
    return {str(element.tag): element.value for element in messages[-1].command_set}


if __name__ == "__main__":
    main()
PROGRAM
