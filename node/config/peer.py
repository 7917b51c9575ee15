"""[peers.NAME]: its keys, and which of them go together: a peer is reached by DIMSE, or by DICOMweb where it has a `url`."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from node.config.types import AETitle, Network, Port, Region, Results, Section

WRONG = "section"
"""The type of an error that is about several keys: its message says it all, and no value is to be shown."""
_PORTS = {"http": 80, "https": 443}


def wrong(complaint: str) -> PydanticCustomError:
    """An error that is about several keys."""
    return PydanticCustomError(WRONG, "{complaint}", {"complaint": complaint})


class Peer(Section):
    """[peers.NAME]: a PACS or a modality, reached by DIMSE, or by DICOMweb where it has a `url`."""

    ae_title: AETitle
    host: str
    port: Port
    url: str = ""
    username: str = ""
    password_file: str = ""
    token_file: str = ""
    answers_queries: bool = False
    series_on_one_association: bool = False
    retrieve: Literal["", "move", "get", "wado"] = ""
    storage_commitment: bool = False
    tls: bool = False
    tls_name: str = ""
    tls_sha256: Annotated[str, Field(pattern=r"^(([0-9A-Fa-f]{2}:?){32})?$")] = ""
    tls_subject: str = ""
    networks: tuple[Network, ...] = ()
    destination: str | tuple[str, ...] = ""
    results: Results = ()
    region: Literal[""] | Region = ""
    reviews: bool = False

    @model_validator(mode="before")
    @classmethod
    def _address_of_url(cls, values: Any) -> Any:
        """The keys, with the host and the port of the `url` where there is one.  Raises PydanticCustomError."""
        url = values.get("url") if isinstance(values, Mapping) else None
        if not url or not isinstance(url, str):
            return values
        if "host" in values or "port" in values:
            raise wrong("url takes the place of host and port: leave those out")
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if not host or parts.scheme not in _PORTS or "@" in parts.netloc or parts.query or parts.fragment:
            raise wrong(
                "url is that of a DICOMweb service: http or https://HOST[:PORT]/PATH, without a user, password or query in it"
            )
        return {**values, "url": parts.geturl().rstrip("/"), "host": host, "port": port or _PORTS[parts.scheme]}

    @model_validator(mode="after")
    def _keys_fit(self) -> "Peer":
        """The keys go together.  Raises PydanticCustomError."""
        if not self.url and (self.username or self.password_file or self.token_file):
            raise wrong("username, password_file and token_file need url")
        if bool(self.username) != bool(self.password_file):
            raise wrong("username and password_file go together")
        if self.password_file and self.token_file:
            raise wrong("password_file or token_file, not both")
        if self.url and self.storage_commitment:
            raise wrong("storage_commitment needs host and port; at a url, what the store answers is the end")
        if self.tls and self.url.startswith("http:"):
            raise wrong("tls = true goes with an https url: to this one results would go without TLS")
        if self.retrieve and (self.retrieve == "wado") != bool(self.url):
            raise wrong("retrieve = 'wado' goes with url, 'move' and 'get' go with host and port")
        return self

    @property
    def named(self) -> tuple[str, ...]:
        """The peers that get the reports instead of this one, each once."""
        names = (self.destination,) if isinstance(self.destination, str) else self.destination
        return tuple(dict.fromkeys(name for name in names if name))
