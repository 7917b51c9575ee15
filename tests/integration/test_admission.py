"""Who gets in and who does not, as dcmtk and openssl find out on real sockets."""

import socket
import subprocess
from pathlib import Path
from typing import Any

from node.scp.rejections import last_rejections
from tests.support.certificates import Certificates, dcmtk
from tests.support.raw_scu import RawScu, associate_rq
from tests.support.running import wait_until
from tests.support.site import Site, SiteFactory


def peer(**changes: Any) -> dict[str, Any]:
    """[peers.CT1] on loopback."""
    return {"CT1": {"ae_title": "CT1", "host": "127.0.0.1", "port": 1} | changes}


def echo(port: int, calling: str = "CT1", *options: str, cwd: Path | None = None) -> str:
    """What echoscu said; "" when its C-ECHO was answered."""
    command = [dcmtk("echoscu"), *options, "-aet", calling, "-aec", "WILLIS", "-to", "5", "127.0.0.1", str(port)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout + done.stderr if done.returncode else ""


def test_strangers_and_peers_from_elsewhere_are_rejected_by_the_standards_reason_and_the_administrator_reads_why(
    site: SiteFactory,
) -> None:
    made: Site = site(
        peers=peer(networks=["127.0.0.0/8"]) | {"CT2": peer(networks=["10.0.0.0/8"])["CT1"] | {"ae_title": "CT2"}}
    )
    port = made.config.node.port
    assert echo(port) == ""
    for title, said in (
        ("STRANGER", "calling AE title is not on the list"),
        ("CT2", "host is in none of the networks"),
    ):
        answer = echo(port, title)
        assert "Rejected Permanent" in answer
        assert "Calling AE Title Not Recognized" in answer
        (shown,) = [each for each in last_rejections(made.files.root) if each.calling_ae == title]
        assert (shown.host, shown.reason) == ("127.0.0.1", said)
        assert "[peers.NAME]" in shown.line
    with RawScu(port) as scu:
        scu.send(associate_rq())
        assert scu.pdu() == (3, b"\0\1\1\3")  # PS3.8 9.3.4: permanent, service user, calling AE title


def test_a_called_title_of_another_is_rejected_where_ours_is_required(site: SiteFactory) -> None:
    for required, answered in ((True, (3, b"\0\1\1\7")), (False, (2, b""))):  # 7: called AE title not recognized
        made: Site = site(node={"ae_title": "WILLIS2", "require_called_ae": required})
        with RawScu(made.config.node.port) as scu:
            scu.send(associate_rq())
            kind, body = scu.pdu()
            assert (kind, body if kind == 3 else b"") == answered


def test_on_the_tls_port_a_peer_is_known_by_its_certificate(site: SiteFactory, certificates: Certificates) -> None:
    for settings in ({"tls_sha256": certificates.sha256("ct1")}, {"tls_subject": "CT1"}):
        made: Site = site(node={"tls": certificates.of().model_dump()}, peers=peer(**settings))
        tls = made.config.node.tls
        assert tls is not None
        assert echo(tls.port, "CT1", *certificates.dcmtk("ct1"), cwd=certificates.folder) == ""
        other = echo(tls.port, "CT1", *certificates.dcmtk("node"), cwd=certificates.folder)
        assert "Calling AE Title Not Recognized" in other  # of our CA, but another's
        assert "Calling AE Title Not Recognized" in echo(made.config.node.port)  # and none at all
        reasons = [each.reason for each in last_rejections(made.files.root)]
        assert reasons[-2:] == ["another certificate than expected", "no certificate"]


def test_a_peer_with_tls_is_not_heard_on_the_port_without(site: SiteFactory, certificates: Certificates) -> None:
    tls = certificates.of(require_peer_certificate=False)
    made: Site = site(node={"tls": tls.model_dump()}, peers=peer(tls=True))
    assert echo(tls.port, "CT1", "+tla", "+cf", "ca.pem", cwd=certificates.folder) == ""
    assert "Calling AE Title Not Recognized" in echo(made.config.node.port)
    assert [each.reason for each in last_rejections(made.files.root)] == ["no TLS"]


def test_a_connection_without_tls_or_with_a_strange_certificate_is_shown_with_openssls_reason(
    site: SiteFactory, certificates: Certificates
) -> None:
    tls = certificates.of()
    made: Site = site(node={"tls": tls.model_dump()})
    assert echo(tls.port)
    assert echo(tls.port, "CT1", *certificates.dcmtk("stranger"), "-ic", cwd=certificates.folder)
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{tls.port}", "-CAfile", "ca.pem"]
    subprocess.run(command, cwd=certificates.folder, input=b"", capture_output=True, timeout=20, check=False)
    reasons = wait_until(lambda: (r := [each.reason for each in last_rejections(made.files.root)])[2:] and r, 5)
    assert reasons[1].startswith("no TLS: unable to get local issuer")
    assert reasons[2] == "no TLS: peer did not return a certificate"


def fails(port: int) -> int:
    """What a stranger gets: 3, a rejection; 0, not a word."""
    with RawScu(port) as scu:
        try:
            scu.send(associate_rq())
            return scu.pdu()[0]
        except ConnectionError:
            return 0


def test_a_host_that_fails_too_often_is_closed_unheard_for_a_while_and_then_heard_again(site: SiteFactory) -> None:
    limits = {"failed_associations": 3, "failed_associations_seconds": 60, "turned_away_seconds": 1.5}
    port = site(node=limits, peers=peer()).config.node.port
    assert [fails(port), fails(port)] == [3, 3]
    assert echo(port) == ""  # a good one forgives
    assert [fails(port) for _ in range(5)] == [3, 3, 3, 0, 0]
    assert echo(port) != ""  # as documented: good ones behind the same address wait too
    wait_until(lambda: echo(port) == "", 5)


def test_connections_that_say_nothing_are_no_failures(site: SiteFactory) -> None:
    port = site(node={"failed_associations": 2}, peers=peer()).config.node.port
    for _ in range(5):
        socket.create_connection(("127.0.0.1", port)).close()
    assert echo(port) == ""
    with RawScu(port) as scu:
        scu.send(b"GET / HTTP/1.1\r\n\r\n")
        scu.ended()
    assert echo(port) == ""  # one is forgiven
