"""`willis send` and `willis peer` over TLS, against a receiver with `[node.tls]` and against our own delivery."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from node.cli.main import app
from node.config.peer import Peer
from node.errors import Unavailable
from node.scu import dimse, storage_scu
from node.scu.outgoing import Outgoing
from tests.support.certificates import Certificates
from tests.support.dicom_factory import ct_series, save
from tests.support.running import ROOT, free_port
from tests.support.site import SiteFactory


@pytest.fixture
def path(tmp_path: Path) -> Path:
    [path] = save(ct_series(1), tmp_path)
    return path


def options(certificates: Certificates, who: str) -> list[str]:
    tls = certificates.of(who)
    return ["--certificate", str(tls.certificate), "--key", str(tls.key), "--ca", str(tls.ca)]


@pytest.mark.usefixtures("logging_restored")
def test_send_shows_its_certificate_and_says_why_when_no_tls_comes_about(
    site: SiteFactory, certificates: Certificates, path: Path
) -> None:
    tls = certificates.of()
    made = site(node={"tls": tls.model_dump()})

    def send(*more: str, who: str = "ct1") -> Result:
        to = f"WILLIS@127.0.0.1:{tls.port}"
        return CliRunner().invoke(
            app, ["send", str(path), "--to", to, *(options(certificates, who) if who else []), *more]
        )

    assert send().exit_code == 0
    assert len(made.store.worklist.rows()) == 1
    other = send("--tls-name", "elsewhere.example")
    assert (other.exit_code, "Hostname mismatch" in other.output) == (1, True)
    assert send(who="stranger").exit_code == 1
    assert send(who="").exit_code == 1  # no TLS on the TLS port
    half = send("--certificate", str(tls.certificate), who="")
    assert (half.exit_code, "--certificate, --key and --ca" in half.output) == (2, True)
    assert len(made.store.worklist.rows()) == 1


def test_a_peer_with_certificates_speaks_tls_and_nothing_else(
    certificates: Certificates, path: Path, tmp_path: Path
) -> None:
    port = free_port()
    arguments = ["peer", "--port", str(port), "--folder", str(tmp_path / "got"), *options(certificates, "node")]
    process = subprocess.Popen([sys.executable, "-m", "node", *arguments], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert b"listens" in process.stdout.readline()
        ours = dimse.Entity("WILLIS", dimse.Timeouts(5, 5, 5), certificates.of("ct1"))
        to = Peer(ae_title="PACS", host="127.0.0.1", port=port, tls=True)
        assert storage_scu.deliver(ours, to, Outgoing.read(path)) == "success"
        with pytest.raises(Unavailable):
            storage_scu.deliver(ours, to.model_copy(update={"tls": False}), Outgoing.read(path))
        assert [each.name for each in (tmp_path / "got").iterdir()] == [f"{ct_series(1)[0].SOPInstanceUID}.dcm"]
    finally:
        process.terminate()
        process.wait(20)
