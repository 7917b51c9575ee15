"""TLS by openssl's certificates: dcmtk sends to us, we send to dcmtk, and what must not come about does not."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from node.config.peer import Peer
from node.config.sections import Config, Tls
from node.errors import ConfigError, Refused, Unavailable
from node.net.tls import server_context
from node.scu import dimse, storage_scu
from node.scu.outgoing import Outgoing
from tests.support.certificates import Certificates, dcmtk
from tests.support.dicom_factory import ct_series, save
from tests.support.running import free_port, wait_until
from tests.support.site import Site, SiteFactory


def sends(certificates: Certificates, port: int, path: Path, *options: str) -> bool:
    """Whether storescu's object was accepted."""
    command = [dcmtk("storescu"), *options, "-to", "5", "127.0.0.1", str(port), str(path)]
    return (
        subprocess.run(command, cwd=certificates.folder, capture_output=True, timeout=30, check=False).returncode == 0
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    [path] = save(ct_series(1), tmp_path)
    return path


def test_dcmtk_sends_with_a_certificate_of_our_ca_and_with_no_other(
    site: SiteFactory, certificates: Certificates, path: Path
) -> None:
    tls = certificates.of()
    made: Site = site(node={"tls": tls.model_dump()})
    assert sends(certificates, tls.port, path, *certificates.dcmtk("node"))
    assert len(made.store.worklist.rows()) == 1
    for who in ("stranger", "expired"):
        assert not sends(certificates, tls.port, path, *certificates.dcmtk(who), "-ic")
    assert not sends(certificates, tls.port, path)  # no TLS on the TLS port
    assert not sends(certificates, made.config.node.port, path, *certificates.dcmtk("node"))  # TLS on the other
    assert sends(certificates, made.config.node.port, path)
    assert sends(certificates, tls.port, path, *certificates.dcmtk("node"))


def test_where_tls_is_required_the_plain_port_is_closed(
    site: SiteFactory, certificates: Certificates, path: Path
) -> None:
    made: Site = site(node={"tls": certificates.of(required=True).model_dump()})
    assert not sends(certificates, made.config.node.port, path)


def test_a_version_before_1_2_is_refused(site: SiteFactory, certificates: Certificates) -> None:
    tls = certificates.of()
    site(node={"tls": tls.model_dump()})

    def shakes_hands(version: str) -> bool:
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{tls.port}", version, "-cipher", "ALL@SECLEVEL=0",
                   "-cert", "node.pem", "-key", "node.key", "-CAfile", "ca.pem"]  # fmt: skip
        done = subprocess.run(command, cwd=certificates.folder, input=b"", capture_output=True, timeout=20, check=False)
        return b"Verify return code: 0 (ok)" in done.stdout and b"Cipher is (NONE)" not in done.stdout

    assert shakes_hands("-tls1_2") and shakes_hands("-tls1_3")
    assert not shakes_hands("-tls1_1")


@pytest.fixture
def pacs(certificates: Certificates, tmp_path: Path) -> Iterator[Any]:
    """Starts dcmtk's storescp with a certificate; returns its port."""
    started: list[subprocess.Popen[bytes]] = []

    def start(who: str) -> int:
        port, folder = free_port(), tmp_path / f"pacs{len(started)}"
        folder.mkdir()
        options = certificates.dcmtk(who) if who else []
        command = [dcmtk("storescp"), *options, "-od", str(folder), str(port)]
        started.append(
            subprocess.Popen(command, cwd=certificates.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )
        listening = f":{port:04X} 00000000:0000 0A"
        wait_until(lambda: listening in Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text(), 10)
        time.sleep(0.1)
        return port

    yield start
    for process in started:
        process.terminate()
        process.wait(10)


def deliver(settings: Tls | None, port: int, path: Path, **changes: Any) -> str:
    peer = Peer.model_validate({"ae_title": "PACS", "host": "127.0.0.1", "port": port, "tls": True} | changes)
    return storage_scu.deliver(dimse.Entity("WILLIS", dimse.Timeouts(5, 5, 5), settings), peer, Outgoing.read(path))


def test_we_send_to_dcmtk_over_tls_and_only_to_the_certificate_that_was_expected(
    pacs: Any, certificates: Certificates, path: Path
) -> None:
    port = pacs("node")
    assert deliver(certificates.of(), port, path) == "success"
    assert deliver(certificates.of(), port, path, tls_sha256=certificates.sha256()) == "success"
    with pytest.raises(Unavailable, match="not the one of tls_sha256"):
        deliver(certificates.of(), port, path, tls_sha256="00" * 32)


@pytest.mark.parametrize(
    ("who", "said"),
    [("elsewhere", "IP address mismatch"), ("expired", "certificate has expired"), ("stranger", "unable to get local issuer"),
     ("", "TLS: |the other side closed the connection")],
)  # fmt: skip
def test_a_peer_with_the_wrong_certificate_or_none_gets_nothing_and_we_say_why(
    pacs: Any, certificates: Certificates, path: Path, who: str, said: str
) -> None:
    with pytest.raises(Unavailable, match=said):
        deliver(certificates.of(), pacs(who), path)


def test_a_certificate_for_another_name_is_accepted_where_that_name_is_configured(
    pacs: Any, certificates: Certificates, path: Path
) -> None:
    assert deliver(certificates.of(), pacs("elsewhere"), path, tls_name="elsewhere.example") == "success"


def test_what_cannot_be_used_is_said_in_one_line(certificates: Certificates, path: Path) -> None:
    wrongs: tuple[dict[str, Any], ...] = (
        {"certificate": path},
        {"key": certificates.folder / "ca.key"},
        {"ca": path},
        {"ca": Path("/nothing")},
    )
    for wrong in wrongs:
        with pytest.raises(ConfigError, match=r"\[node\.tls\]"):
            server_context(certificates.of(**wrong))
    with pytest.raises(Refused, match=r"\[node\.tls\] is not configured"):
        deliver(None, 1, path)
    with pytest.raises(ValueError, match=r"peers\.PACS\] tls = true needs \[node\.tls\]"):
        Config.model_validate({"peers": {"PACS": {"ae_title": "PACS", "host": "x", "port": 1, "tls": True}}})
