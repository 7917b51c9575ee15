"""Which keys of [peers.NAME] go together: a peer is reached by DIMSE, or by DICOMweb where it has a `url`.  Pure."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic_core import PydanticCustomError

if TYPE_CHECKING:
    from node.config.sections import Peer

WRONG = "section"
"""The type of an error that is about several keys: its message says it all, and no value is to be shown."""
_PORTS = {"http": 80, "https": 443}


def with_address(values: Any) -> Any:
    """The keys, with the host and the port of the `url` where there is one.  Raises PydanticCustomError."""
    url = values.get("url") if isinstance(values, Mapping) else None
    if not url or not isinstance(url, str):
        return values
    if "host" in values or "port" in values:
        raise _wrong("url takes the place of host and port: leave those out")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in _PORTS or "@" in parts.netloc or parts.query or parts.fragment:
        raise _wrong(
            "url is that of a DICOMweb service: http or https://HOST[:PORT]/PATH, without a user, password or query in it"
        )
    return {**values, "url": parts.geturl().rstrip("/"), "host": host, "port": port or _PORTS[parts.scheme]}


def check(peer: "Peer") -> None:
    """The keys go together.  Raises PydanticCustomError."""
    if not peer.url and (peer.username or peer.password_file or peer.token_file):
        raise _wrong("username, password_file and token_file need url")
    if bool(peer.username) != bool(peer.password_file):
        raise _wrong("username and password_file go together")
    if peer.password_file and peer.token_file:
        raise _wrong("password_file or token_file, not both")
    if peer.url and peer.storage_commitment:
        raise _wrong("storage_commitment needs host and port; at a url, what the store answers is the end")
    if peer.tls and peer.url.startswith("http:"):
        raise _wrong("tls = true goes with an https url: to this one results would go without TLS")
    if peer.retrieve and (peer.retrieve == "wado") != bool(peer.url):
        raise _wrong("retrieve = 'wado' goes with url, 'move' and 'get' go with host and port")


def _wrong(complaint: str) -> PydanticCustomError:
    return PydanticCustomError(WRONG, "{complaint}", {"complaint": complaint})
