"""Certificates as openssl makes them, and dcmtk's tools, which show them."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from node.config.sections import Tls
from tests.support.absent import absent
from tests.support.running import free_port

_KEY = ("ec", "-pkeyopt", "ec_paramgen_curve:P-256")


class Certificates:
    """A CA and what it signed, made by openssl."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for ca in ("ca", "other"):
            self._openssl("req", "-x509", "-newkey", *_KEY, "-nodes", "-keyout", f"{ca}.key", "-out", f"{ca}.pem",
                          "-subj", f"/CN={ca}", "-days", "2")  # fmt: skip
        self._sign("node", "ca")
        self._sign("ct1", "ca")
        self._sign("elsewhere", "ca", name="DNS:elsewhere.example")
        self._sign("stranger", "other")
        self._sign("expired", "ca", days="-1")

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)

    def _sign(self, who: str, ca: str, name: str = "IP:127.0.0.1", days: str = "2") -> None:
        (self.folder / "ext").write_text(f"subjectAltName={name}\n")
        self._openssl("req", "-newkey", *_KEY, "-nodes", "-keyout", f"{who}.key", "-out", "csr", "-subj", f"/CN={who}")
        self._openssl("x509", "-req", "-in", "csr", "-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-CAcreateserial",
                      "-out", f"{who}.pem", "-days", days, "-extfile", "ext")  # fmt: skip

    def of(self, who: str = "node", **changes: Any) -> Tls:
        """Settings with this certificate."""
        values = {"certificate": self.folder / f"{who}.pem", "key": self.folder / f"{who}.key"}
        return Tls.model_validate(values | {"ca": self.folder / "ca.pem", "port": free_port()} | changes)

    def sha256(self, who: str = "node") -> str:
        """The certificate's fingerprint, as openssl prints it."""
        command = ["openssl", "x509", "-in", f"{who}.pem", "-noout", "-fingerprint", "-sha256"]
        shown = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=True)
        return shown.stdout.strip().split("=")[1]

    def dcmtk(self, who: str) -> list[str]:
        """dcmtk's options for this certificate."""
        return ["+tls", f"{who}.key", f"{who}.pem", "+cf", "ca.pem"]


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def dcmtk(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        absent(f"{name} is not installed")
    return found
