"""A peer's DICOMweb service (PS3.18): requests with its credentials and certificates; a failure becomes an error type."""

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import HTTPBasicAuth

from node.config.peer import Peer
from node.config.sections import Tls
from node.errors import Busy, ConfigError, NodeError, Refused, Unavailable
from node.net.tls import client_context, peer_name, reason_for_failure
from node.scu.dimse import Timeouts

if TYPE_CHECKING:
    from dicomweb_client.web import DICOMwebClient

Json = dict[str, Any]
"""A dataset in DICOM JSON (PS3.18 F.2)."""
SERIES, _INSTANCES_OF_SERIES = "0020000E", "00201209"
_TRANSIENT = (408, 425, 429)


class Service:
    """The service of one peer while the `with` lasts.  Everything that fails raises Unavailable or Refused."""

    def __init__(self, peer: Peer, timeouts: Timeouts, tls: Tls | None) -> None:
        """Raises ConfigError when a file of credentials or certificates cannot be used."""
        self.peer = peer
        self._timeouts, self._tls = (timeouts.acse, timeouts.network), tls
        self._session = requests.Session()
        self._session.trust_env = False  # no proxies, certificates or passwords but those of the configuration
        self._session.max_redirects = 0  # a redirected POST would become a GET, and look like a success
        self._session.headers["User-Agent"] = "Willis"
        if (context := _context(peer, tls)) is not None:
            self._session.mount("https://", _Adapter(peer, context))
        self._session.auth = credentials(peer)

    def __enter__(self) -> "Service":
        return self

    def __exit__(self, *_error: object) -> None:
        self._session.close()

    @cached_property
    def client(self) -> "DICOMwebClient":
        """For QIDO-RS.  What it retrieves and stores it decodes and encodes again: `get` and `post` are for that."""
        from dicomweb_client.web import DICOMwebClient  # takes 0.3 s, which most processes can do without

        client = DICOMwebClient(self.peer.url, self._session, timeout=self._timeouts)
        client.set_http_retry_params(retry=False)
        client.host = urlsplit(self.peer.url).netloc  # of the Host field: it would lack the port (RFC 9110 7.2)
        return client

    @contextmanager
    def answering(self) -> Iterator[None]:
        """What fails within raises Unavailable or Refused; never a library's exception, nor its text."""
        where = f"{self.peer.ae_title} at {self.peer.url}"
        not_json = Refused(f"{where} did not answer with DICOM JSON; is url that of its DICOMweb service?")
        try:
            yield
        except requests.HTTPError as error:
            raise failure(self.peer, error.response.status_code) from None
        except requests.TooManyRedirects:
            raise Refused(f"{where} is elsewhere: set url to where it leads") from None
        except requests.exceptions.SSLError:
            raise Unavailable(f"no connection with {where}: {self._tls_reason()}") from None
        except requests.Timeout:
            raise Unavailable(f"{where} did not answer in time") from None
        except requests.JSONDecodeError:
            raise not_json from None
        except requests.RequestException:
            raise Unavailable(f"no connection with {where}, or it ended early") from None
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            raise not_json from None

    def _tls_reason(self) -> str:
        """Of a new context: urllib3 turns the check of the name off in the one where it does that itself."""
        context = _context(self.peer, self._tls)
        if context is None:
            return "TLS"
        context.check_hostname = not self.peer.tls_sha256
        return reason_for_failure(self.peer, context, self._timeouts[0]) or "TLS: it broke off"

    def get(self, url: str, accept: str) -> requests.Response:
        """The answer to a GET, its body still to come."""
        return self._session.get(url, headers={"Accept": accept}, timeout=self._timeouts, stream=True)

    def post(self, url: str, content: bytes, content_type: str, accept: str) -> requests.Response:
        """The answer to a POST, its body still to come."""
        headers = {"Content-Type": content_type, "Accept": accept}
        return self._session.post(url, content, headers=headers, timeout=self._timeouts, stream=True)


def failure(peer: Peer, status: int) -> NodeError:
    """What an HTTP status that is no success means: try again, or ask a person (docs/conformance.md has the table)."""
    text = f"{peer.ae_title} answered HTTP {status}"
    if status in (401, 403):  # the next attempt reads the files again
        return Unavailable(f"{text}: look at its username, password_file or token_file")
    if status >= 500:
        return Busy(text)
    if status in _TRANSIENT:
        return Unavailable(text)
    return Refused(f"{text}: is url that of its DICOMweb service?" if status in (404, 405) else text)


def echo(service: Service) -> None:
    """The service answers queries with these credentials.  Raises Unavailable or Refused."""
    with service.answering():
        service.client.search_for_studies(limit=1)


def ask_count(service: Service, study_instance_uid: str, series_instance_uid: str) -> int | None:
    """How many instances the peer says the series has; None when it does not say.  Raises Unavailable or Refused."""
    with service.answering():
        found = service.client.search_for_series(
            study_instance_uid,
            fields=["NumberOfSeriesRelatedInstances"],
            search_filters={"SeriesInstanceUID": series_instance_uid},
        )
        counts = [text_of(each, _INSTANCES_OF_SERIES) for each in found if text_of(each, SERIES) == series_instance_uid]
    return int(counts[0]) if counts and counts[0].isdecimal() else None


def text_of(answer: Json, tag: str) -> str:
    """The first value as text, "" where there is none."""
    value = first(answer, tag, "")
    return "" if value is None else str(value)


def first(dataset: Json, tag: str, default: Any) -> Any:
    """The first value, `default` where there is none."""
    return (dataset.get(tag, {}).get("Value") or [default])[0]


def credentials(peer: Peer) -> Callable[[requests.PreparedRequest], requests.PreparedRequest] | None:
    """How requests to the peer are authenticated, from its files as they are now.  Raises ConfigError."""
    if peer.password_file:  # UTF-8 (RFC 7617 2.1)
        return HTTPBasicAuth(peer.username.encode(), _secret("password_file", peer.password_file))
    return partial(_with_token, _secret("token_file", peer.token_file)) if peer.token_file else None


def _with_token(token: bytes, request: requests.PreparedRequest) -> requests.PreparedRequest:
    """The request with a bearer token (RFC 6750 2.1)."""
    request.headers["Authorization"] = f"Bearer {token.decode('latin-1')}"  # as headers are sent
    return request


def _secret(key: str, path: str) -> bytes:
    try:
        text = Path(path).read_text("utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{key} = {path!r}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{key} = {path!r} is not UTF-8") from None
    if not text or "\n" in text or not text.isprintable():
        raise ConfigError(f"{key} = {path!r} must hold one line and nothing else")
    return text.encode()


def _context(peer: Peer, tls: Tls | None) -> ssl.SSLContext | None:
    """As for DIMSE peers where [node.tls] is configured, else with the CAs of the system; None for http."""
    if not peer.url.startswith("https:"):
        return None
    if tls is not None:
        return client_context(tls)
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class _Adapter(HTTPAdapter):
    """Connections that trust the context's CAs alone: `requests` would add a list of its own.

    Where a fingerprint says which certificate it is, urllib3 does not ask for a name in it.
    """

    def __init__(self, peer: Peer, context: ssl.SSLContext) -> None:
        self._tls: dict[str, Any] = {
            "ssl_context": context,
            "assert_hostname": peer_name(peer) if peer.tls_name else None,
            "assert_fingerprint": peer.tls_sha256 or None,
        }
        super().__init__()

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **keywords: Any) -> None:
        """See HTTPAdapter."""
        super().init_poolmanager(connections, maxsize, block, **keywords, **self._tls)

    def cert_verify(self, *_: Any) -> None:
        """The context verifies."""
