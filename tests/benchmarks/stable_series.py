"""An Orthanc that tells when it takes a series to be whole: the moment at which a script of its would call a model."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from node.config.peer import Peer
from node.scu.dimse import Entity, Timeouts
from node.scu.storage_scu import send_files
from tests.support.running import free_port, wait_until

POLL_SECONDS = 0.1


class StableOrthanc:
    """Orthanc with its default StableAge of 60 s."""

    def __init__(self, folder: Path) -> None:
        """It is started, with storage in this folder."""
        program = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
        if program is None:
            raise SystemExit("no Orthanc: apt-get install orthanc")
        folder.mkdir()
        self.peer = Peer(ae_title="ORTHANC", host="127.0.0.1", port=free_port())
        http_port = free_port()
        settings = {
            "StorageDirectory": str(folder), "IndexDirectory": str(folder), "DicomPort": self.peer.port, "Plugins": [],
            "HttpPort": http_port, "RemoteAccessAllowed": False, "AuthenticationEnabled": False,
            "DicomAlwaysAllowStore": True, "DicomCheckCalledAet": False,
        }  # fmt: skip
        (folder / "orthanc.json").write_text(json.dumps(settings))
        with (folder / "output").open("wb") as output:
            self.process = subprocess.Popen(
                [program, str(folder / "orthanc.json")],
                stdout=output, stderr=output, env={**os.environ, "TCP_NODELAY": "1"},
            )  # fmt: skip
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{http_port}", timeout=30, trust_env=False)
        wait_until(self._answers, 60, "Orthanc answers")
        self._stable = 0

    def _answers(self) -> bool:
        try:
            return self.http.get("/system").status_code == 200
        except httpx.TransportError:
            return False

    def send(self, paths: list[Path]) -> float:
        """Orthanc has the series; returns when its last slice was answered (time.monotonic)."""
        refused = [sent.error for sent in send_files(Entity("PACS", Timeouts()), self.peer, paths) if sent.error]
        if refused:
            raise SystemExit(f"Orthanc refused {len(refused)} slices: {refused[0]}")
        return time.monotonic()

    def wait_for_stable_series(self) -> float:
        """When the next series was called stable (time.monotonic)."""
        while True:
            changes = self.http.get("/changes", params={"since": 0, "limit": 100_000}).json()["Changes"]
            stable = sum(change["ChangeType"] == "StableSeries" for change in changes)
            if stable > self._stable:
                self._stable += 1
                return time.monotonic()
            time.sleep(POLL_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()
        self.process.terminate()
        self.process.wait(30)
