"""What a DICOMweb peer answers to a store, by a real HTTP server, and what becomes of it."""

import base64
import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread

from node.config.peer import Peer
from node.dicom.multipart import boundary_of, parts
from node.errors import ConfigError, NodeError, Refused, Unavailable
from node.net.tls import server_context
from node.runtime import log
from node.scu import dicomweb, stow
from node.scu.dicomweb import Service, ask_count, echo
from node.scu.dimse import Timeouts
from node.scu.outgoing import Outgoing
from tests.support.certificates import Certificates
from tests.support.dicom_factory import ct_series, save
from tests.support.running import free_port
from tests.support.web_server import Asked, Said, ServerFactory, WebServer

QUICK = Timeouts(2, 2, 0.5)
OTHER = "2.25.404"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    [path] = save(ct_series(1), tmp_path)
    return path


@pytest.fixture
def ds(path: Path) -> Dataset:
    return dcmread(path)


def module(stored: dict[str, int] | None = None, failed: dict[str, int] | None = None) -> dict[str, Any]:
    """A Store Instances Response Module in DICOM JSON."""

    def items(reasons: dict[str, int], tag: str) -> dict[str, Any]:
        every = [
            {"00081155": {"vr": "UI", "Value": [uid]}} | ({tag: {"vr": "US", "Value": [reason]}} if reason else {})
            for uid, reason in reasons.items()
        ]
        return {"vr": "SQ", "Value": every} if every else {"vr": "SQ"}

    return {"00081199": items(stored or {}, "00081196"), "00081198": items(failed or {}, "00081197")}


def deliver(server: WebServer, path: Path, **changes: Any) -> str:
    return stow.deliver(server.peer(**changes), QUICK, None, Outgoing.read(path))


def test_the_file_goes_as_it_lies_on_disk(web: ServerFactory, path: Path, ds: Dataset) -> None:
    server = web(Said.of(module({ds.SOPInstanceUID: 0})))
    assert deliver(server, path) == "success"
    [asked] = server.asked
    assert (asked.method, asked.path, asked.headers["Accept"]) == (
        "POST",
        "/dicom-web/studies",
        "application/dicom+json",
    )
    assert asked.headers["Content-Type"].startswith('multipart/related; type="application/dicom"; boundary=')
    assert "Authorization" not in asked.headers
    assert list(parts([asked.body], boundary_of(asked.headers["Content-Type"]) or "")) == [path.read_bytes()]


@pytest.mark.parametrize(
    ("status", "stored", "failed", "word"),
    [
        (200, {"ours": 0}, {}, "success"),
        (200, {"ours": 0xB000}, {}, "warning 0xB000"),
        (202, {"ours": 0xB006}, {OTHER: 0x0110}, "warning 0xB006"),
        (202, {"ours": 0}, {"": 0x0110}, "accepted"),
        (200, {}, {}, Unavailable),
        (200, {OTHER: 0}, {}, Unavailable),
        (202, {}, {}, Unavailable),
        (204, {}, {}, Unavailable),
        (409, {"ours": 0}, {OTHER: 0xC000}, "accepted"),
        (409, {}, {"ours": 0x0111}, "already there"),
        (202, {OTHER: 0}, {"ours": 0x0111}, "already there"),
        (409, {}, {"ours": 0xA700}, Unavailable),
        (409, {}, {"ours": 0x0110}, Unavailable),
        (202, {OTHER: 0}, {"ours": 0xA7FF}, Unavailable),
        (409, {OTHER: 0}, {"ours": 0xA900}, Refused),
        (409, {OTHER: 0}, {"ours": 0x0122}, Refused),
        (409, {}, {"": 0xC000}, Refused),
        (409, {}, {"": 0xA700}, Unavailable),
        (200, {}, {"ours": 0xC122}, Refused),
        (409, {}, {OTHER: 0x0111}, Refused),
        (409, {}, {}, Refused),
        (400, {}, {}, Refused),
        (404, {}, {}, Refused),
        (405, {}, {}, Refused),
        (406, {}, {}, Refused),
        (410, {}, {}, Refused),
        (413, {}, {}, Refused),
        (415, {}, {}, Refused),
        (401, {}, {}, Unavailable),
        (403, {}, {}, Unavailable),
        (408, {}, {}, Unavailable),
        (425, {}, {}, Unavailable),
        (429, {}, {}, Unavailable),
        (500, {}, {}, Unavailable),
        (503, {}, {}, Unavailable),
    ],
)
def test_an_answer_is_a_delivery_or_tried_again_or_a_dead_letter(
    web: ServerFactory, path: Path, ds: Dataset, status: int, stored: Any, failed: Any, word: str | type[NodeError]
) -> None:
    name = {"ours": str(ds.SOPInstanceUID)}
    said = module(*({name.get(uid, uid): reason for uid, reason in each.items()} for each in (stored, failed)))
    answers = iter([Said(204) if status == 204 else Said.of(said, status), Said.of([])])
    server = web(lambda _: next(answers))
    if isinstance(word, str):
        assert deliver(server, path) == word
        return
    with pytest.raises(word, match=f"HTTP {status}") as caught:
        deliver(server, path)
    reason = failed.get("ours", failed.get(""))
    assert (f"0x{reason or 0:04X}" in str(caught.value)) == (reason is not None)


def listing(said: Said, *uids: str) -> Callable[[Asked], Said]:
    """Answers a store so, and to a query that it has these instances."""
    listed = [{"00080018": {"vr": "UI", "Value": [uid]}} for uid in uids]
    return lambda asked: said if asked.method == "POST" else Said.of(listed)


def test_after_a_conflict_the_server_is_asked_whether_it_has_the_object(
    web: ServerFactory, path: Path, ds: Dataset
) -> None:
    own_code = module(failed={ds.SOPInstanceUID: 45070})  # some say "exists" with a reason of their own
    server, asked = web(listing(Said.of(own_code, 409), ds.SOPInstanceUID)), list[Dataset]()

    def asking(query: Dataset) -> AbstractContextManager[None]:
        asked.append(query)
        return nullcontext()

    assert stow.deliver(server.peer(), QUICK, None, Outgoing.read(path), asking) == "already there"
    assert server.asked[1].path == (
        f"/dicom-web/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances"
        f"?SOPInstanceUID={ds.SOPInstanceUID}"
    )
    [query] = asked
    assert (query.QueryRetrieveLevel, query.SOPInstanceUID) == ("IMAGE", ds.SOPInstanceUID)


def test_where_it_cannot_be_asked_after_a_conflict_the_object_is_tried_again(web: ServerFactory, path: Path) -> None:
    answers = iter([Said(409), Said(503)])
    with pytest.raises(Unavailable, match="HTTP 503"):
        deliver(web(lambda _: next(answers)), path)


UNREADABLE = [b"", b"no JSON", b"[]", b"[1]", b'{"00081198": []}', b'{"00081198": {"Value": [1]}}', b"\xff"]


@pytest.mark.parametrize("body", UNREADABLE)
def test_a_success_that_does_not_name_the_object_is_one_only_if_the_server_lists_it(
    web: ServerFactory, path: Path, ds: Dataset, body: bytes
) -> None:
    said = Said(200, body)
    assert deliver(web(listing(said, ds.SOPInstanceUID)), path) == "accepted"
    for lists in (listing(said, OTHER), said):  # another object, or whatever a log-in page answers to a query
        with pytest.raises(Unavailable, match="HTTP 200, but does not name the object, nor list it; is url that of"):
            deliver(web(lists), path)


@pytest.mark.parametrize("body", UNREADABLE)
def test_a_conflict_whose_body_cannot_be_read_is_refused(web: ServerFactory, path: Path, body: bytes) -> None:
    with pytest.raises(Refused, match="HTTP 409"):
        deliver(web(listing(Said(409, body))), path)


def test_a_failure_that_names_no_instance_is_ours(web: ServerFactory, path: Path) -> None:
    full = {"0008119A": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [0xA700]}}]}}
    with pytest.raises(Unavailable, match="HTTP 409, failure reason 0xA700"):
        deliver(web(Said.of(full, 409)), path)


def test_a_server_that_is_away_or_silent_or_hangs_up_is_tried_again(web: ServerFactory, path: Path) -> None:
    away = peer_at(free_port())
    with pytest.raises(Unavailable, match="no connection with PACS at http://127.0.0.1:"):
        stow.deliver(away, QUICK, None, Outgoing.read(path))

    def silent(_: Asked) -> Said:
        time.sleep(1)
        return Said()

    with pytest.raises(Unavailable, match="did not answer in time"):
        deliver(web(silent), path)
    with pytest.raises(Unavailable, match="ended early"):
        deliver(web(Said(200, b"{", length=500)), path)


def peer_at(port: int) -> Peer:
    return Peer.model_validate({"ae_title": "PACS", "url": f"http://127.0.0.1:{port}/dicom-web"})


def test_a_redirect_is_no_success(web: ServerFactory, path: Path) -> None:
    there = web(Said.of(module()))
    moved = web(Said(302, headers={"Location": f"{there.url}/studies"}))
    with pytest.raises(Refused, match="is elsewhere: set url to where it leads"):
        deliver(moved, path)
    assert there.asked == []


def test_what_is_no_dicom_file_is_not_sent(web: ServerFactory, tmp_path: Path) -> None:
    server = web(Said())
    (tmp_path / "x").write_bytes(b"no DICOM")
    with pytest.raises(Refused, match="not a DICOM file"):
        deliver(server, tmp_path / "x")
    assert server.asked == []


def test_credentials_come_from_files_as_they_are_at_each_request_and_are_never_shown(
    web: ServerFactory, path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], logging_restored: None
) -> None:
    log.configure(level="debug")
    server, secret = web(Said(401)), tmp_path / "secret"
    ways: list[tuple[dict[str, str], str]] = [
        (
            {"username": "willis", "password_file": str(secret)},
            "Basic " + base64.b64encode("willis:firsté".encode()).decode(),
        ),
        ({"token_file": str(secret)}, "Bearer firsté".encode().decode("latin-1")),
    ]
    for keys, header in ways:
        secret.write_text("firsté\n", "utf-8")
        with pytest.raises(Unavailable, match="HTTP 401: look at its username, password_file or token_file") as caught:
            deliver(server, path, **keys)
        assert server.asked[-1].headers["Authorization"] == header
        assert "first" not in str(caught.value) + repr(server.peer(**keys))
        secret.write_text("second")
        with pytest.raises(Unavailable):
            deliver(server, path, **keys)
        assert server.asked[-1].headers["Authorization"] != header
        for content in (b"", b"two\nlines", b"\xff"):
            secret.write_bytes(content)
            with pytest.raises(ConfigError, match=r"(password|token)_file = "):
                deliver(server, path, **keys)
    assert len(server.asked) == 4
    said = "".join(capfd.readouterr())
    assert "first" not in said and "second" not in said


def test_neither_netrc_nor_proxies_of_the_environment_are_used(
    web: ServerFactory, path: Path, ds: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    server = web(Said.of(module({ds.SOPInstanceUID: 0})))
    assert deliver(server, path) == "success"
    assert "Authorization" not in server.asked[0].headers


def test_over_https_the_ca_name_and_fingerprint_of_the_configuration_are_asked_for(
    web: ServerFactory, path: Path, ds: Dataset, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls, stored = certificates.of(), Said.of(module({ds.SOPInstanceUID: 0}))

    def try_(who: str, ours: Any = tls, **changes: Any) -> str:
        server = web(stored, server_context(certificates.of(who)))
        return stow.deliver(server.peer(**changes), QUICK, ours, Outgoing.read(path))

    assert try_("node") == "success"  # the server asked for our certificate, too
    assert try_("node", tls_sha256=certificates.sha256()) == "success"
    assert try_("elsewhere", tls_name="elsewhere.example") == "success"
    assert try_("elsewhere", tls_sha256=certificates.sha256("elsewhere")) == "success"  # in place of the name
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates.folder / "other.pem"))
    for who, changes, said in (
        ("stranger", {}, "TLS: unable to get local issuer certificate"),
        ("expired", {}, "TLS: certificate has expired"),
        ("elsewhere", {}, "TLS: IP address mismatch"),
        ("node", {"tls_name": "elsewhere.example"}, "TLS: Hostname mismatch"),
        ("node", {"tls_sha256": "00" * 32}, "TLS: its certificate is not the one of tls_sha256"),
        ("stranger", {"tls_sha256": certificates.sha256("stranger")}, "unable to get local issuer"),  # not of the CA
        ("expired", {"tls_sha256": certificates.sha256("expired")}, "TLS: certificate has expired"),
    ):
        with pytest.raises(Unavailable, match=said):
            try_(who, **changes)
    with pytest.raises(Unavailable, match="TLS: "):  # without [node.tls] the system's CAs count
        try_("node", None)


def test_the_authorities_of_the_requests_library_are_not_trusted(
    web: ServerFactory, path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", str(certificates.folder / "other.pem"))
    server = web(Said.of(module()), server_context(certificates.of("stranger", require_peer_certificate=False)))
    with pytest.raises(Unavailable, match="unable to get local issuer"):
        stow.deliver(server.peer(), QUICK, certificates.of(), Outgoing.read(path))


def service(server: WebServer) -> Service:
    return Service(server.peer(), QUICK, None)


def test_an_echo_is_a_query_for_one_study(web: ServerFactory) -> None:
    server = web(Said.of([]))
    echo(service(server))
    assert [asked.path for asked in server.asked] == ["/dicom-web/studies?limit=1"]
    assert f"http://{server.asked[0].headers['Host']}/dicom-web" == server.url  # with its port
    with pytest.raises(Refused, match="HTTP 404: is url that of its DICOMweb service"):
        echo(service(web(Said(404))))
    with pytest.raises(Refused, match="did not answer with DICOM JSON; is url"):
        echo(service(web(Said(200, b"<html>Please log in</html>"))))


@pytest.mark.parametrize(("counted", "count"), [(7, 7), ("7", 7), (None, None), ("many", None)])
def test_a_count_is_read_of_the_series_that_was_asked_for(web: ServerFactory, counted: Any, count: int | None) -> None:
    def series(uid: str, value: Any) -> dict[str, Any]:
        return {"0020000E": {"vr": "UI", "Value": [uid]}, "00201209": {"vr": "IS", "Value": [value]}}

    server = web(Said.of([series("2.25.9", 99), series("2.25.2", counted)]))
    assert ask_count(service(server), "2.25.1", "2.25.2") == count
    assert ask_count(service(server), "2.25.1", "2.25.3") is None


def test_what_the_answer_is_not_made_of_is_refused(web: ServerFactory) -> None:
    for body in (b"[1]", b'{"0020000E": 1}', b'[{"0020000E": {"Value": 3}}]', json.dumps([{"0020000E": []}]).encode()):
        with pytest.raises(Refused, match="did not answer with DICOM JSON"):
            ask_count(service(web(Said(200, body))), "2.25.1", "2.25.2")


def test_a_failure_is_named_by_its_status() -> None:
    peer = peer_at(1)
    assert isinstance(dicomweb.failure(peer, 502), Unavailable)
    assert str(dicomweb.failure(peer, 405)) == "PACS answered HTTP 405: is url that of its DICOMweb service?"
