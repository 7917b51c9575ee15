"""[web.oidc] and [web.ldap]: who else than Willis may say that a person is who he claims to be."""

import types
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, Field, model_validator

from node.config.peer import wrong
from node.config.types import Section
from node.errors import ConfigError

RoleName = Literal["reader", "lead", "administrator"]
_Roles = Annotated[Mapping[str, RoleName], Field(default_factory=lambda: types.MappingProxyType({}))]
_Wait = Annotated[float, Field(gt=0, le=30)]


def _parts(url: str, schemes: tuple[str, ...]) -> SplitResult | None:
    """The URL's parts; None when it is none with one of these schemes and a host."""
    try:
        parts = urlsplit(url)
        fits = parts.scheme in schemes and parts.hostname and parts.port != 0
    except ValueError:
        return None
    return parts if fits and "@" not in parts.netloc and not parts.query and not parts.fragment else None


def is_loopback(host: str) -> bool:
    """Whether what is sent there stays on this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def may_be_asked(url: str) -> bool:
    """Whether a provider's URL is one over TLS, or on this machine."""
    parts = _parts(url.partition("?")[0], ("https", "http"))
    return parts is not None and (parts.scheme == "https" or is_loopback(parts.hostname or ""))


def _checked_issuer(url: str) -> str:
    """`url`.  Raises ValueError: over plain http anybody on the way could make administrators."""
    if not may_be_asked(url) or "?" in url:
        raise ValueError(
            "an issuer is an https URL without a query (http on this machine alone), as the provider writes it"
        )
    return url


class Oidc(Section):
    """[web.oidc]: an OpenID Connect provider (code flow with PKCE)."""

    name: Annotated[str, Field(pattern=r"^[^\s<>](.{0,38}[^\s<>])?$")] = "single sign-on"
    issuer: Annotated[str, AfterValidator(_checked_issuer)]
    client_id: Annotated[str, Field(min_length=1)]
    client_secret_file: Path | None = None
    scopes: tuple[str, ...] = ("openid", "profile")
    name_claim: str = "preferred_username"
    role_claim: str = "groups"
    roles: _Roles
    default_role: Literal[""] | RoleName = ""
    leeway_seconds: Annotated[float, Field(ge=0, le=600)] = 60
    timeout_seconds: _Wait = 5
    ca: Path | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> "Oidc":
        """Raises PydanticCustomError."""
        if "openid" not in self.scopes:
            raise wrong('scopes needs "openid": without it there is no ID token')
        if not self.roles and not self.default_role:
            raise wrong('nobody could sign in; write roles = { GROUP = "reader" }, or default_role')
        return self

    @property
    def host(self) -> tuple[str, int]:
        """Name and port of the issuer."""
        parts = urlsplit(self.issuer)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)

    def secret(self) -> str:
        """The client's secret, "" for a public client, as it is in the file now.  Raises ConfigError."""
        return _line_of("[web.oidc] client_secret_file", self.client_secret_file)


class Ldap(Section):
    """[web.ldap]: a directory, which is asked whether a password is right and which groups a person is in."""

    url: str
    starttls: bool = False
    allow_plain: bool = False
    ca: Path | None = None
    bind_dn: str = ""
    bind_password_file: Path | None = None
    user_base: Annotated[str, Field(min_length=1)]
    user_filter: str = "(uid={name})"
    name_attribute: str = "uid"
    subject_attribute: str = "entryUUID"
    group_attribute: str = "memberOf"
    group_base: str = ""
    group_filter: str = "(member={dn})"
    roles: _Roles
    default_role: Literal[""] | RoleName = ""
    timeout_seconds: _Wait = 5

    @model_validator(mode="after")
    def _fits_together(self) -> "Ldap":
        """Raises PydanticCustomError."""
        parts = _parts(self.url, ("ldaps", "ldap"))
        if parts is None or parts.path not in ("", "/"):
            raise wrong("url is ldaps://HOST[:PORT] or ldap://HOST[:PORT], without a path, user or query in it")
        if self.starttls and parts.scheme == "ldaps":
            raise wrong("starttls goes with an ldap url: ldaps has TLS from the start")
        is_plain = parts.scheme == "ldap" and not self.starttls
        if is_plain and not self.allow_plain and not is_loopback(parts.hostname or ""):
            raise wrong(
                "url would send passwords without TLS; write ldaps, or starttls = true, or allow_plain = true if nobody can "
                "listen on the way"
            )
        if bool(self.bind_dn) != bool(self.bind_password_file):
            raise wrong("bind_dn and bind_password_file go together; without both it is searched anonymously")
        if "{name}" not in self.user_filter:
            raise wrong("user_filter needs {name}, in whose place comes what the person writes")
        if self.group_base and "{dn}" not in self.group_filter:
            raise wrong("group_filter needs {dn}, in whose place comes the person's distinguished name")
        if not self.roles and not self.default_role:
            raise wrong('nobody could sign in; write roles = { "GROUP\'S DN" = "reader" }, or default_role')
        return self

    @property
    def host(self) -> tuple[str, int]:
        """Name and port."""
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or (636 if parts.scheme == "ldaps" else 389)

    def password(self) -> str:
        """Of `bind_dn`, "" for nobody's, as it is in the file now.  Raises ConfigError."""
        return _line_of("[web.ldap] bind_password_file", self.bind_password_file)


def _line_of(key: str, path: Path | None) -> str:
    """The one line that a file holds.  Raises ConfigError."""
    if path is None:
        return ""
    try:
        text = path.read_text("utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{key} = {str(path)!r}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{key} = {str(path)!r} is not UTF-8") from None
    if not text or not text.isprintable():
        raise ConfigError(f"{key} = {str(path)!r} must hold one line and nothing else")
    return text
