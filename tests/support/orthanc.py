"""Orthanc in a folder of its own, with TLS or DICOMweb where a test wants them."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.interop.test_peers import Orthanc, program
from tests.support.absent import absent
from tests.support.certificates import Certificates
from tests.support.running import free_port, wait_until

DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def with_dicomweb() -> dict[str, Any]:
    """Settings for `/dicom-web`; the plug-in must be there."""
    if not DICOMWEB.exists():
        absent(f"{DICOMWEB} is not there: apt-get install orthanc-dicomweb")
    return {"DicomWeb": {"Enable": True, "Root": "/dicom-web/"}, "Plugins": [str(DICOMWEB)]}


def with_tls(certificates: Certificates, who: str) -> dict[str, Any]:
    """Settings for DICOM over TLS and nothing else, with this certificate."""
    folder = certificates.folder
    return {
        "DicomTlsEnabled": True, "DicomTlsCertificate": str(folder / f"{who}.pem"), "DicomTlsPrivateKey": str(folder / f"{who}.key"),
        "DicomTlsTrustedCertificates": str(folder / "ca.pem"), "DicomTlsRemoteCertificateRequired": True,
    }  # fmt: skip


@contextmanager
def running(folder: Path, user: tuple[str, str] | None = None, **settings: Any) -> Iterator[Orthanc]:
    """Orthanc with these settings besides the necessary ones; with a `user`, name and password, for nobody else."""
    dicom_port, http_port, database = free_port(), free_port(), str(folder / "db")
    necessary = {
        "Name": "PACS", "DicomAet": "ORTHANC", "DicomPort": dicom_port, "HttpPort": http_port, "RemoteAccessAllowed": False,
        "AuthenticationEnabled": user is not None,
        "RegisteredUsers": dict([user] if user else []), "StorageDirectory": database, "IndexDirectory": database,
        "DicomCheckCalledAet": False, "DicomModalitiesInDatabase": True, "Plugins": [],
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(necessary | settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program("Orthanc"), str(folder / "orthanc.json")], stdout=log, stderr=log)
    client = httpx.Client(base_url=f"http://127.0.0.1:{http_port}", timeout=120, trust_env=False, auth=user)

    def answers() -> bool:
        try:
            return client.get("/system").status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_until(answers, 60, "Orthanc answers")
        yield Orthanc(dicom_port, client)
    finally:
        client.close()
        process.terminate()
        process.wait(20)
