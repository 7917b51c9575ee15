"""Signing in by a directory (LDAP): it finds the person, and whether the password is his by a bind as him.

Every failure becomes a NotAdmitted, never with the text of ldap3 or of the server.
"""

import math
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ldap3
from ldap3.core import exceptions as ldap
from ldap3.core.results import RESULT_SIZE_LIMIT_EXCEEDED, RESULT_SUCCESS
from ldap3.utils.conv import escape_filter_chars
from ldap3.utils.dn import parse_dn

from node.config.sign_in import Ldap
from node.web.identity import LOCAL_GO_ON, NotAdmitted, Reason, account_name
from node.web.person_names import composed_person_name
from node.web.trust import trusted
from storage.queries.accounts import Identity, Provider

_MOST_NAME, _MOST_SUBJECT = 256, 512
_PERSON = ("displayName", "cn", "sn", "givenName")
"""What may say a person's name (RFC 4519, RFC 2798)."""
_NOT_HIS = (
    ldap.LDAPInvalidCredentialsResult,
    ldap.LDAPInappropriateAuthenticationResult,
    ldap.LDAPConstraintViolationResult,
    ldap.LDAPUnwillingToPerformResult,
    ldap.LDAPInsufficientAccessRightsResult,
)
"""What servers answer to a wrong password, a person without one, one who is locked, or disabled."""


@dataclass(frozen=True)
class Found:
    """A person in the directory, and the groups that have a role, as the configuration writes them."""

    identity: Identity
    dn: str
    groups: tuple[str, ...]


class Directory:
    """The server of [web.ldap]; each call makes connections of its own."""

    def __init__(self, settings: Ldap) -> None:
        """Raises ConfigError where a file cannot be read."""
        self._settings = settings
        (host, port), wait = settings.host, settings.timeout_seconds
        self._tls = _Tls(trusted("web.ldap", settings.ca))
        is_tls = settings.url.startswith("ldaps:")
        self._server = ldap3.Server(
            host, port, use_ssl=is_tls, tls=self._tls, get_info=ldap3.NONE, connect_timeout=wait
        )
        self._own = (settings.bind_dn, settings.password())

    def check(self) -> None:
        """The directory lets Willis search, and there are people's entries."""
        with self._asking(), self._bound_as_willis() as connection:
            connection.search(self._settings.user_base, "(objectClass=*)", ldap3.BASE, attributes=[ldap3.NO_ATTRIBUTES])
            _demand(connection, RESULT_SUCCESS)

    def find(self, name: str) -> Found | None:
        """The one person whom the filter finds by this name; None when there is none."""
        settings = self._settings
        if not name or len(name) > _MOST_NAME:
            return None
        wanted = settings.user_filter.replace("{name}", escape_filter_chars(name))
        attributes = [settings.name_attribute, settings.subject_attribute, settings.group_attribute, *_PERSON]
        with self._asking(), self._bound_as_willis() as connection:
            found = _entries(connection, settings.user_base, wanted, attributes, most=2)
            if len(found) > 1:
                raise self._wrong("finds several persons by that name; an administrator makes user_filter stricter")
            if not found:
                return None
            [entry] = found
            groups = [
                value.decode("utf-8", "replace") for value in entry["raw_attributes"].get(settings.group_attribute, [])
            ]
            if settings.group_base:
                of_person = settings.group_filter.replace("{dn}", escape_filter_chars(entry["dn"]))
                groups += [
                    each["dn"] for each in _entries(connection, settings.group_base, of_person, [ldap3.NO_ATTRIBUTES])
                ]
        named = {_same(group) for group in groups}
        return Found(
            self._identity(entry, name), entry["dn"], tuple(key for key in settings.roles if _same(key) in named)
        )

    def is_password(self, found: Found, password: str) -> bool:
        """Whether the password is the person's.

        An empty one never is: many servers answer a bind with it by success, as nobody (RFC 4513 5.1.2).
        """
        if not password or "\0" in password:
            return False
        with self._asking():
            try:
                with self._bound(found.dn, password):
                    return True
            except _NOT_HIS:
                return False

    def _identity(self, entry: dict[str, Any], name: str) -> Identity:
        raw = entry["raw_attributes"]
        [subject] = raw.get(self._settings.subject_attribute, [b""])[:1] or [b""]
        if not subject or len(subject) > _MOST_SUBJECT:
            raise self._wrong(
                f"gives no {self._settings.subject_attribute} of the person; set [web.ldap] subject_attribute"
            )
        plain = (
            subject.decode("ascii") if subject.isascii() and subject.decode("ascii").isprintable() else subject.hex()
        )
        [called] = raw.get(self._settings.name_attribute, [])[:1] or [name.encode()]
        whole = f"{self._settings.user_base.lower()} {plain}"
        shown, common, family, given = (_first(raw, name) for name in _PERSON)
        person_name = composed_person_name(shown or common, family, given)
        return Identity(Provider.LDAP, whole, account_name(called.decode("utf-8", "replace"), whole), person_name)

    @contextmanager
    def _bound_as_willis(self) -> Iterator[Any]:
        try:
            with self._bound(*self._own) as connection:
                yield connection
        except _NOT_HIS:
            where = "[web.ldap] bind_dn and bind_password_file"
            message = f"{self._where} does not let Willis search; {LOCAL_GO_ON}. An administrator corrects {where}."
            raise NotAdmitted(Reason.CLIENT, message) from None

    @contextmanager
    def _bound(self, dn: str, password: str) -> Iterator[Any]:
        connection = ldap3.Connection(
            self._server,
            dn or None,
            password.encode() or None,  # as bytes, or ldap3 would change it (SASLprep)
            authentication=ldap3.SIMPLE if dn else ldap3.ANONYMOUS,
            auto_referrals=False,  # a password goes to the configured server alone
            read_only=True,
            raise_exceptions=True,
            check_names=False,
            receive_timeout=math.ceil(self._settings.timeout_seconds),
        )
        try:
            connection.open()
            if self._settings.starttls:
                self._start_tls(connection)
            connection.bind()
            _demand(connection, RESULT_SUCCESS)  # what ldap3 raises nothing for, a referral among them, is none
            yield connection
        finally:
            connection.strategy.close()

    def _start_tls(self, connection: Any) -> None:
        """The connection speaks TLS; without it no password is sent."""
        try:
            is_tls = connection.start_tls()
        except (ldap.LDAPStartTLSError, ldap.LDAPOperationResult) as error:
            if self._tls.failed or isinstance(error, OSError):  # it did not answer to the end
                raise
            is_tls = False
        if not is_tls:
            remedy = "an administrator has a certificate put there, or writes ldaps:// in [web.ldap] url"
            raise self._wrong(f"refuses StartTLS; {remedy}")

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """What fails within raises NotAdmitted."""
        self._tls.failed = False
        try:
            yield
        except (ldap.LDAPBusyResult, ldap.LDAPUnavailableResult):
            raise NotAdmitted(Reason.AWAY, f"{self._where} is busy; {LOCAL_GO_ON}.") from None
        except (ldap.LDAPNoSuchObjectResult, ldap.LDAPInvalidDNSyntaxResult):
            raise self._wrong("has no such base; an administrator corrects user_base or group_base") from None
        except (ldap.LDAPInvalidFilterError, ldap.LDAPObjectError):
            raise self._wrong("cannot be searched so; an administrator corrects user_filter or group_filter") from None
        except (ldap.LDAPConfidentialityRequiredResult, ldap.LDAPStrongerAuthRequiredResult):
            raise self._wrong("wants TLS; an administrator writes ldaps or starttls = true") from None
        except ldap.LDAPOperationResult as error:
            remedy = "an administrator finds its meaning in RFC 4511, A.2, and looks at the directory's log"
            raise self._wrong(f"refuses with LDAP result {error.result}; {remedy}") from None
        except (ldap.LDAPExceptionError, OSError):
            if self._tls.failed:
                message = f"The certificate of {self._where} is not trusted, or TLS failed; {LOCAL_GO_ON}."
                raise NotAdmitted(
                    Reason.AWAY, f"{message} An administrator sets [web.ldap] ca to the CA that signed it."
                ) from None
            message = f"{self._where} does not answer within {self._settings.timeout_seconds:g} s; {LOCAL_GO_ON}."
            raise NotAdmitted(Reason.AWAY, message) from None

    @property
    def _where(self) -> str:
        host, port = self._settings.host
        return f"The directory at {host}:{port}"

    def _wrong(self, what: str) -> NotAdmitted:
        return NotAdmitted(Reason.ANSWER, f"{self._where} {what}; {LOCAL_GO_ON}.")


class _Tls(ldap3.Tls):  # type: ignore[misc]  # ldap3 has no types
    """TLS as Python's own contexts do it: ldap3 compares names itself, and no addresses."""

    def __init__(self, context: ssl.SSLContext) -> None:
        """`context` decides whom to trust."""
        super().__init__(validate=ssl.CERT_REQUIRED)
        self._context, self.failed = context, False

    def wrap_socket(self, connection: Any, do_handshake: bool = False) -> None:  # noqa: ARG002
        """The connection's socket speaks TLS with who it should.  Raises OSError."""
        try:
            connection.socket = self._context.wrap_socket(connection.socket, server_hostname=connection.server.host)
        except ssl.SSLError:
            self.failed = True
            raise


def _entries(connection: Any, base: str, wanted: str, attributes: list[str], most: int = 0) -> list[dict[str, Any]]:
    """What is found below the base: entries alone, no referrals; of more than `most` so many.

    Raises LDAPOperationResult for an answer that is not whole: who loses his groups by one would be signed out.
    """
    connection.search(base, wanted, ldap3.SUBTREE, attributes=attributes, size_limit=most)
    _demand(connection, RESULT_SUCCESS, *([RESULT_SIZE_LIMIT_EXCEEDED] if most else []))
    return [each for each in connection.response or [] if each["type"] == "searchResEntry"]


def _first(raw: Mapping[str, Any], name: str) -> str:
    """The first value of the attribute as text; "" where there is none."""
    values = raw.get(name) or [b""]
    return str(values[0].decode("utf-8", "replace"))


def _demand(connection: Any, *results: int) -> None:
    """The last answer has one of these results.  Raises LDAPOperationResult."""
    found = connection.result["result"]
    if found not in results:
        raise ldap.LDAPOperationResult(result=found, description=connection.result["description"])


def _same(dn: str) -> str:
    """A distinguished name so that two spellings of one are equal; what is none stays itself."""
    try:
        return ",".join(f"{kind.strip()}={value.strip()}".casefold() for kind, value, _ in parse_dn(dn, strip=True))
    except ldap.LDAPExceptionError:
        return dn.casefold()
