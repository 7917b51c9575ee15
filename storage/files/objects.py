"""An S3 bucket, by the library obstore: what is put, fetched and asked for, and every failure in words with a remedy."""

import configparser
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

from storage.errors import NotStored, ObjectsAway, StorageError

if TYPE_CHECKING:
    from obstore.store import S3Store

_LARGE_BYTES = 32 << 20
"""A larger file may take ten times as long."""
_READ_AGAIN = timedelta(minutes=5)
"""So often a credentials file is read, for one that is replaced by another program."""
_META_SHA256 = "sha256"
"""The name of what is kept beside an object: the sha256 of all its bytes, as they were here."""


@dataclass(frozen=True)
class Bucket:
    """Where objects are: `s3://bucket/prefix`, at which endpoint ("": Amazon's), with which credentials and CA.

    `credentials` is a file as the AWS command line has it; without one, the environment (AWS_ACCESS_KEY_ID,
    AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN) or the role of the machine says who we are.
    """

    url: str
    endpoint: str = ""
    region: str = ""
    credentials: Path | None = None
    ca: Path | None = None
    timeout_seconds: float = 60.0

    @property
    def name(self) -> str:
        """The bucket's."""
        return urlsplit(self.url).netloc

    @property
    def prefix(self) -> str:
        """What every key begins with, "" for none."""
        return urlsplit(self.url).path.strip("/")


@dataclass(frozen=True)
class Object:
    """An object as the store describes it."""

    size_bytes: int
    e_tag: str


class AlreadyThere(Exception):
    """The key is taken; nothing was written."""


class _Changed(ObjectsAway):
    """The object is not what was known of it; nothing was written."""


class Objects:
    """The objects below one prefix.  Every method raises ObjectsAway where the store does not do what it is asked."""

    def __init__(self, bucket: Bucket) -> None:
        """Nothing is asked of the store yet.  Raises StorageError where the library or a file is missing."""
        try:
            import obstore
            from obstore import exceptions, store
        except ImportError:
            raise StorageError(
                "[storage] objects needs the library obstore: pip install --constraint constraints.txt '.[s3]'"
            ) from None
        self.bucket = bucket
        self._obstore, self._exceptions = obstore, exceptions
        self._small = _client(store.S3Store, bucket, bucket.timeout_seconds)
        self._large = _client(store.S3Store, bucket, 10 * bucket.timeout_seconds)

    def create(self, key: str, content: bytes, sha256: str) -> Object:
        """A new object has this content.  Raises AlreadyThere."""
        return self._put(key, content, sha256, "create")

    def replace(self, key: str, content: bytes, sha256: str, known: Object) -> Object:
        """The object has this content in place of what is `known` of it.  Raises ObjectsAway too when another changed it."""
        try:
            return self._put(key, content, sha256, {"e_tag": known.e_tag})
        except _Changed:
            if (there := self.look(key)) is None or there.e_tag != known.e_tag:
                raise
        # Nobody has: in this request Ceph's gateway (16.2.15) takes the quotes of an ETag for a part of its value.
        return self._put(key, content, sha256, {"e_tag": known.e_tag.strip('"')})

    def _put(self, key: str, content: bytes, sha256: str, mode: Any) -> Object:
        kept_beside: Any = {_META_SHA256: sha256}
        with _Translated(self):
            try:
                put = self._obstore.put(
                    self._for(len(content)), key, content, mode=mode, attributes=kept_beside, use_multipart=False
                )
            except self._exceptions.AlreadyExistsError:
                raise AlreadyThere from None
            except self._exceptions.PreconditionError as error:
                raise _Changed(_message(error, self.bucket)) from None
        return Object(len(content), put["e_tag"] or "")

    def fetch(self, key: str, to: BinaryIO, size_bytes: int) -> tuple[Object, str]:
        """`to` has the object's bytes; what the store says of it, and the sha256 that was kept beside it ("": none).

        Raises NotStored where there is no such object, and what `to` raises.  `size_bytes`: about so many are expected.
        """
        with _Translated(self, key):
            got = self._obstore.get(self._for(size_bytes), key)
            pieces = iter(got)
        while True:
            with _Translated(self, key):
                piece = next(pieces, None)
            if piece is None:
                break
            to.write(piece)  # an error of the disk here is none of the store
        meta, attributes = got.meta, got.attributes
        return Object(meta["size"], meta["e_tag"] or ""), str(attributes.get(_META_SHA256, ""))

    def look(self, key: str) -> Object | None:
        """What the store says of the object; None where there is none."""
        with _Translated(self):
            try:
                meta = self._obstore.head(self._small, key)
            except (FileNotFoundError, self._exceptions.NotFoundError):
                self.check()  # an answer without a body does not say whether the bucket is missing
                return None
        return Object(meta["size"], meta["e_tag"] or "")

    def remove(self, key: str) -> None:
        """There is no such object."""
        with _Translated(self):
            try:
                self._obstore.delete(self._small, key)
            except (FileNotFoundError, self._exceptions.NotFoundError) as error:
                if _code(error) == "NoSuchBucket":
                    raise

    def check(self) -> None:
        """The bucket is there and may be listed."""
        with _Translated(self):
            self._obstore.list_with_delimiter(self._small, "")

    def _for(self, size_bytes: int) -> "S3Store":
        return self._small if size_bytes <= _LARGE_BYTES else self._large


class _Translated:
    """An error of the library inside becomes one of ours; NotStored where an object of this `key` is asked for."""

    def __init__(self, objects: Objects, key: str = "") -> None:
        self._bucket, self._key = objects.bucket, key

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if not isinstance(error, Exception) or isinstance(error, StorageError | AlreadyThere):
            return
        if isinstance(error, FileNotFoundError) and self._key and _code(error) == "NoSuchKey":
            raise NotStored(f"{self._key} is not in the object store") from None
        if type(error).__module__.startswith("obstore") or isinstance(error, OSError | ValueError):
            raise ObjectsAway(_message(error, self._bucket)) from None


def _client(kind: Callable[..., "S3Store"], bucket: Bucket, timeout_seconds: float) -> "S3Store":
    config: dict[str, Any] = {"checksum_algorithm": "SHA256"}
    config |= {"endpoint": bucket.endpoint} if bucket.endpoint else {}
    config |= {"region": bucket.region} if bucket.region else {}
    options: dict[str, Any] = {
        "connect_timeout": timedelta(seconds=min(5.0, bucket.timeout_seconds)),
        "timeout": timedelta(seconds=timeout_seconds),
        "allow_http": bucket.endpoint.startswith("http://"),
    }
    if bucket.ca is not None:
        options["root_certificate"] = _read(bucket.ca, "[storage] objects_ca")
    more: dict[str, Any] = {}
    if (file := bucket.credentials) is not None:
        read_credentials(file)
        more["credential_provider"] = lambda: {**read_credentials(file), "expires_at": datetime.now(UTC) + _READ_AGAIN}
    retries: Any = {"max_retries": 1, "retry_timeout": timedelta(seconds=timeout_seconds)}
    try:
        return kind(
            bucket.name,
            prefix=bucket.prefix or None,
            config=config,
            client_options=options,
            retry_config=retries,
            **more,
        )
    except Exception as error:  # noqa: BLE001  the library names no common base of what it raises for values
        text = " ".join(str(error).split())[:200]
        raise StorageError(f"[storage] objects = {bucket.url!r} cannot be used: {text}") from None


def read_credentials(path: Path) -> Mapping[str, str | None]:
    """Those of the section [default], or of the only one.  Raises StorageError, which never quotes the file."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(_read(path, "[storage] objects_credentials").decode())
        section = parser["default" if parser.has_section("default") else parser.sections()[0]]
        found = section["aws_access_key_id"], section["aws_secret_access_key"]
    except (configparser.Error, UnicodeDecodeError, KeyError, IndexError):
        raise StorageError(
            f"[storage] objects_credentials = {str(path)!r}: write [default], and below it a line each "
            "aws_access_key_id = ... and aws_secret_access_key = ..."
        ) from None
    return {"access_key_id": found[0], "secret_access_key": found[1], "token": section.get("aws_session_token")}


def _read(path: Path, key: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageError(
            f"{key} = {str(path)!r}: {os.strerror(error.errno or 0)}; correct the path or its rights"
        ) from None


def _code(error: Exception) -> str:
    """What the store calls it, "" where it did not say."""
    found = re.search(r"<Code>(\w+)</Code>", str(error))
    return found[1] if found else ""


_REMEDIES = {
    "NoSuchBucket": "there is no bucket {name}: create it, or correct [storage] objects",
    "InvalidAccessKeyId": "it does not know the access key: correct [storage] objects_credentials or the environment",
    "SignatureDoesNotMatch": "the secret key does not fit the access key, or objects_region is wrong: correct them",
    "ExpiredToken": "the session token has expired: renew the credentials",
    "InvalidToken": "it does not know the session token: renew the credentials",
    "RequestTimeTooSkewed": "this machine's clock and the store's differ too much: set both by NTP",
    "RequestExpired": "this machine's clock and the store's differ too much: set both by NTP",
    "AccessDenied": "the credentials may not do that: allow s3:ListBucket, s3:GetObject, s3:PutObject and s3:DeleteObject on {name}",
    "AuthorizationHeaderMalformed": "the bucket is in another region: correct [storage] objects_region",
    "PermanentRedirect": "the bucket is in another region: correct [storage] objects_region",
    "QuotaExceeded": "its quota is used up: raise it or make room",
    "XMinioStorageFull": "it is full: make room",
    "BadDigest": "what arrived was not what was sent; look at the network if this stays",
    "XAmzContentSHA256Mismatch": "what arrived was not what was sent; look at the network if this stays",
    "PreconditionFailed": "another has changed it meanwhile; nothing to do if this goes away",
    "SlowDown": "it is asked too often; nothing to do if this goes away",
}
_OF_TEXT = (
    (r"169\.254|redential", "no credentials are known: set objects_credentials, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    (r"InvalidContentType", "it does not speak TLS there: correct http or https in objects_endpoint"),
    (r"certificate|UnknownIssuer", "its certificate is not signed by a CA that is known, or not for this name: set objects_ca"),
    (r"dns error", "its name is not known: correct objects_endpoint, or look at the DNS"),
    (r"ConnectionRefused", "it does not run there: start it, or correct objects_endpoint"),
    (r"TimedOut|kind: Timeout", "it does not answer in time: look at the store and the network"),
    (r"Unreachable", "there is no way to it: look at the network"),
    (r"IncompleteBody|IncompleteMessage|ConnectionReset|BrokenPipe|UnexpectedEof", "it broke off: look at the store and the network"),
)  # fmt: skip
"""What is found in the library's text, which names what it stumbled over."""


def _message(error: Exception, bucket: Bucket) -> str:
    """Cause and remedy, in words of ours: the library's text may hold a signature."""
    where = f"the object store {bucket.url} at {bucket.endpoint or 'Amazon S3'}"
    code, text = _code(error), str(error)
    if code:
        remedy = _REMEDIES.get(code, f"it answered {code}; look it up in the store's manual")
        return f"{where}: {remedy.format(name=bucket.name)} ({code})"
    if status := re.search(r"status code: (\d+)", text):
        words = _REMEDIES["AccessDenied"].format(name=bucket.name) if status[1] == "403" else "look at the store"
        return f"{where}: it answered {status[1]}: {words}"
    for pattern, words in _OF_TEXT:
        if re.search(pattern, text):
            return f"{where}: {words}"
    return f"{where}: {type(error).__name__}; look at the store"
