"""What the object store's answers become: a cause and a remedy in one line.  The answers are those of real stores."""

import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from node.config.files import files_of
from node.config.sections import Config
from node.errors import ConfigError
from storage.errors import ObjectsAway, StorageError
from storage.files.objects import Bucket, Objects, read_credentials
from tests.support.certificates import Certificates, certificates
from tests.support.running import free_port

__all__ = ["certificates"]
Answering = Callable[..., str]


@pytest.fixture
def answering() -> Iterator[Answering]:
    """The address of a server that gives every request this status and this code, over TLS where it has certificates."""
    servers: list[ThreadingHTTPServer] = []

    def make(status: int, code: str, certificates: Certificates | None = None) -> str:
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode() if code else b""

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        if certificates is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificates.folder / "node.pem", certificates.folder / "node.key")
            servers[-1].socket = context.wrap_socket(servers[-1].socket, server_side=True)
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return f"{'https' if certificates else 'http'}://127.0.0.1:{servers[-1].server_port}"

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


def bucket(endpoint: str, tmp_path: Path) -> Bucket:
    credentials = tmp_path / "credentials"
    credentials.write_text("[default]\naws_access_key_id = willis\naws_secret_access_key = hush\n")
    return Bucket("s3://images/site-a", endpoint, "eu-central-1", credentials, timeout_seconds=2)


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (404, "NoSuchBucket", "there is no bucket images: create it, or correct [storage] objects"),
        (403, "InvalidAccessKeyId", "it does not know the access key: correct [storage] objects_credentials"),
        (403, "SignatureDoesNotMatch", "the secret key does not fit the access key, or objects_region is wrong"),
        (403, "RequestTimeTooSkewed", "this machine's clock and the store's differ too much: set both by NTP"),
        (403, "AccessDenied", "the credentials may not do that: allow s3:ListBucket, s3:GetObject"),
        (403, "", "it answered 403: the credentials may not do that"),
        (400, "AuthorizationHeaderMalformed", "the bucket is in another region: correct [storage] objects_region"),
        (503, "SlowDown", "it is asked too often"),
        (507, "XMinioStorageFull", "it is full: make room"),
        (418, "Teapot", "it answered Teapot; look it up in the store's manual"),
    ],
)
def test_what_the_store_refuses_is_said_with_its_remedy(
    answering: Answering, tmp_path: Path, status: int, code: str, said: str
) -> None:
    endpoint = answering(status, code)
    with pytest.raises(ObjectsAway) as raised:
        Objects(bucket(endpoint, tmp_path)).check()
    assert str(raised.value).startswith(f"the object store s3://images/site-a at {endpoint}: {said}")
    assert "hush" not in str(raised.value)


def test_a_store_that_does_not_run_and_a_name_that_is_none_are_told_apart(tmp_path: Path) -> None:
    for endpoint, said in (
        (f"http://127.0.0.1:{free_port()}", "it does not run there: start it, or correct objects_endpoint"),
        ("http://nothing.invalid:9000", "its name is not known: correct objects_endpoint, or look at the DNS"),
    ):
        with pytest.raises(ObjectsAway, match=said):
            Objects(bucket(endpoint, tmp_path)).check()


def test_plain_http_where_tls_is_expected_is_said(answering: Answering, tmp_path: Path) -> None:
    endpoint = answering(200, "").replace("http://", "https://")
    with pytest.raises(ObjectsAway, match="it does not speak TLS there: correct http or https in objects_endpoint"):
        Objects(bucket(endpoint, tmp_path)).check()


def test_a_store_is_believed_by_the_ca_that_is_configured_and_by_no_other(
    answering: Answering, tmp_path: Path, certificates: Certificates
) -> None:
    endpoint = answering(404, "NoSuchBucket", certificates)
    with pytest.raises(ObjectsAway, match="its certificate is not signed by a CA that is known"):
        Objects(bucket(endpoint, tmp_path)).check()
    with pytest.raises(ObjectsAway, match="there is no bucket images"):
        Objects(replace(bucket(endpoint, tmp_path), ca=certificates.folder / "ca.pem")).check()


@pytest.mark.parametrize("content", ["", "[default]\naws_access_key_id = willis\n", "hush", "[default\n", "\x80"])
def test_a_credentials_file_that_is_none_is_named_and_not_quoted(tmp_path: Path, content: str) -> None:
    path = tmp_path / "credentials"
    path.write_text(content)
    with pytest.raises(StorageError, match=r"objects_credentials = .*write \[default\]") as raised:
        read_credentials(path)
    assert "hush" not in str(raised.value)


def test_a_node_does_not_start_with_credentials_that_are_not_there(tmp_path: Path) -> None:
    storage = {"directory": tmp_path, "objects": "s3://images", "objects_credentials": str(tmp_path / "none")}
    with pytest.raises(ConfigError, match=r"objects_credentials = .*No such file or directory; correct the path"):
        files_of(Config.model_validate({"storage": storage}))
