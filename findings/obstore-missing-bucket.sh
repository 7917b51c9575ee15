#!/usr/bin/env bash
# obstore 0.12.1 says FileNotFoundError of a bucket that does not exist, as of an object that does not.
#
# Software: obstore 0.12.1 (PyPI), Python 3.11 or newer, against an HTTP server on loopback that answers as Amazon S3
# documents it: status 404 with the code NoSuchKey, or NoSuchBucket, in the body; no body to HEAD.
# Input: GET, HEAD and LIST of a valid bucket and key.
# Expected: two kinds of exception, or an attribute with S3's code: an object that is not there is an ordinary answer, a
# bucket that is not there is a fault of the whole configuration.
# Seen: `get` and `head` raise Python's FileNotFoundError for both, without any attribute; the code stands only within the
# exception's text, and after `head` not even there.  `list` raises obstore's GenericError for such a bucket.
#
# So a program that takes FileNotFoundError for "no such object" takes a deleted or misspelt bucket for an empty one.
# This prints what is seen, and fails where that has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$folder" obstore==0.12.1
cd "$folder"
PYTHONPATH=$folder python3 - <<'PROGRAM'
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import obstore
import obstore.exceptions
from obstore.store import S3Store

ANSWER = '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
NO_KEY = ANSWER.format(code="NoSuchKey", message="The specified key does not exist.")
NO_BUCKET = ANSWER.format(code="NoSuchBucket", message="The specified bucket does not exist")


class S3(BaseHTTPRequestHandler):
    """Has the bucket `there`, which is empty, and no other."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def answer(self, with_body: bool) -> None:
        body = (NO_KEY if self.path.startswith("/there/") else NO_BUCKET).encode()
        self.send_response(404)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body) if with_body else 0))
        self.end_headers()
        self.wfile.write(body if with_body else b"")

    def log_message(self, *_: object) -> None:
        """Nothing is printed of requests."""


def raised(ask: Callable[[], object]) -> BaseException:
    """What asking raised."""
    try:
        ask()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


server = ThreadingHTTPServer(("127.0.0.1", 0), S3)
threading.Thread(target=server.serve_forever, daemon=True).start()
stores = {
    name: S3Store(
        name, endpoint=f"http://127.0.0.1:{server.server_port}", region="us-east-1", access_key_id="a",
        secret_access_key="b", client_options={"allow_http": True},
    )
    for name in ("there", "misspelt")
}  # fmt: skip
for verb in (obstore.get, obstore.head):
    of_key, of_bucket = (raised(lambda: verb(store, "key")) for store in stores.values())
    print(f"{verb.__name__}: no such key {type(of_key).__name__}, no such bucket {type(of_bucket).__name__}")
    assert type(of_key) is type(of_bucket) is FileNotFoundError
    assert of_key.errno is of_bucket.errno is None, "nor does errno tell"
    codes = [code in str(error) for code, error in (("NoSuchKey", of_key), ("NoSuchBucket", of_bucket))]
    print(f"{verb.__name__}: S3's code within the text:", codes)
    assert codes == [verb is obstore.get] * 2
of_list = raised(lambda: list(obstore.list(stores["misspelt"])))
print(f"list: no such bucket {type(of_list).__name__}")
assert type(of_list) is obstore.exceptions.GenericError
server.shutdown()
PROGRAM
