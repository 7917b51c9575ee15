"""Signing in by OpenID Connect: the code flow with PKCE.  Nothing is kept between two sign-ins: new keys count at once.

Authlib makes the requests and compares the claims (OpenID Connect Core 3.1.3.7); every failure becomes a NotAdmitted.
"""

import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import requests
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import ClaimError, ExpiredTokenError, JoseError
from joserfc.jwk import import_key
from requests.adapters import HTTPAdapter

from node.config.sign_in import Oidc, may_be_asked
from node.web.identity import LOCAL_GO_ON, NotAdmitted, Reason, account_name
from node.web.person_names import composed_person_name
from node.web.trust import trusted
from storage.queries.accounts import Identity, Provider

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures with a public key alone: with "none", or with a secret that the browser may know, anybody could sign."""
_WRONG_CLIENT = ("invalid_client", "unauthorized_client")
_BASIC, _POST = "client_secret_basic", "client_secret_post"
_MOST_SUBJECT = 255  # OpenID Connect Core 2
_CLAIMS = {
    "iss": (Reason.ISSUER, "names another issuer than [web.oidc] issuer"),
    "aud": (Reason.AUDIENCE, "is meant for another client than [web.oidc] client_id"),
    "azp": (Reason.AUDIENCE, "is meant for another client than [web.oidc] client_id"),
    "nonce": (Reason.NONCE, "answers another sign-in than this one"),
}


@dataclass(frozen=True)
class Begun:
    """What a sign-in is begun with; each is random."""

    state: str
    nonce: str
    code_verifier: str


@dataclass(frozen=True)
class Person:
    """Who has signed in, and the groups that the provider names."""

    identity: Identity
    groups: tuple[str, ...]


class OpenIdProvider:
    """The provider of [web.oidc].  What fails raises NotAdmitted, or ConfigError where a file cannot be read."""

    def __init__(self, settings: Oidc, redirect_uri: str, clock: Callable[[], datetime]) -> None:
        """`redirect_uri` is the one that the provider knows of us."""
        self._settings, self._clock = settings, clock
        self._session = _session(settings, redirect_uri)

    def address(self, begun: Begun) -> str:
        """Where the browser goes to sign in."""
        endpoint = self.metadata()["authorization_endpoint"]
        address, _ = self._session.create_authorization_url(
            endpoint, state=begun.state, code_verifier=begun.code_verifier, nonce=begun.nonce
        )
        return str(address)

    def metadata(self) -> Mapping[str, Any]:
        """What the provider says of itself (OpenID Connect Discovery 1.0, 4)."""
        issuer = self._settings.issuer
        found = self._json(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if found.get("issuer") != issuer:
            issuer_there = str(found.get("issuer"))[:200]
            raise self._wrong(f"calls itself {issuer_there!r}; write that as [web.oidc] issuer if it is right")
        needed = ("authorization_endpoint", "token_endpoint", "jwks_uri")
        for key in (*needed, *(["userinfo_endpoint"] if found.get("userinfo_endpoint") else [])):
            if not may_be_asked(str(found.get(key, ""))):
                raise self._wrong(f"has no {key} over https")
        if "S256" not in (found.get("code_challenge_methods_supported") or ["S256"]):
            raise self._wrong("cannot do PKCE with S256")
        return found

    def person(self, code: str, code_verifier: str, nonce: str) -> Person:
        """Who the code stands for."""
        metadata, dates = self.metadata(), list[datetime]()
        self._session.register_compliance_hook("access_token_response", lambda answer: _dated(answer, dates))
        methods = metadata.get("token_endpoint_auth_methods_supported") or [_BASIC]
        if self._session.client_secret and _BASIC not in methods:
            self._session.token_endpoint_auth_method = _POST
        with self._answering():
            try:
                tokens = self._session.fetch_token(
                    metadata["token_endpoint"], code=code, code_verifier=code_verifier, grant_type="authorization_code"
                )
            except OAuthError as error:
                raise self._refused_code(str(error.error)) from None
        id_token, access_token = tokens.get("id_token"), tokens.get("access_token")
        if not isinstance(id_token, str):
            raise self._wrong("gave no ID token; does the client there have the scope openid?")
        signed = self._signed(id_token, metadata["jwks_uri"])
        claims = CodeIDToken(
            signed.claims,
            signed.header,
            {
                "iss": {"essential": True, "value": self._settings.issuer},
                "aud": {"essential": True, "value": self._settings.client_id},
                "sub": {"essential": True},
            },
            {"nonce": nonce, "client_id": self._settings.client_id, "access_token": access_token},
        )
        now = self._clock()
        try:
            claims.validate(now.timestamp(), self._settings.leeway_seconds)
        except JoseError as error:
            raise self._not_valid(error, claims, now, dates[0] if dates else None) from None
        return self._person(claims, metadata, str(access_token or ""))

    def _person(self, claims: Mapping[str, Any], metadata: Mapping[str, Any], access_token: str) -> Person:
        settings, subject = self._settings, str(claims["sub"])
        if not subject.isprintable() or len(subject) > _MOST_SUBJECT:
            raise self._wrong("names the person by more than 255 letters (sub)")
        known = dict(claims)
        if _claim(known, settings.role_claim) is None and metadata.get("userinfo_endpoint"):
            answer = self._json(metadata["userinfo_endpoint"], {"Authorization": f"Bearer {access_token}"})
            if answer.get("sub") == subject:  # OpenID Connect Core 5.3.2
                known = answer | known
        groups = _claim(known, settings.role_claim)
        named = (groups,) if isinstance(groups, str) else tuple(groups) if isinstance(groups, list) else ()
        wanted = next((known[key] for key in (settings.name_claim, "email", "name") if known.get(key)), subject)
        whole = f"{settings.issuer} {subject}"
        person_name = composed_person_name(*(_text(known.get(key)) for key in ("name", "family_name", "given_name")))
        identity = Identity(Provider.OIDC, whole, account_name(str(wanted), whole), person_name)
        return Person(identity, tuple(each for each in named if isinstance(each, str)))

    def _signed(self, id_token: str, jwks_uri: str) -> jwt.Token:
        """The token, signed by one of the provider's keys as they are now."""
        keys = self._json(jwks_uri).get("keys")
        for key in keys if isinstance(keys, list) else []:
            try:
                if key.get("use", "sig") == "sig" and key.get("kty") != "oct":
                    return jwt.decode(id_token, import_key(key), algorithms=ALGORITHMS)
            except (JoseError, ValueError, TypeError, KeyError, AttributeError):
                continue  # signed with another one, or of a kind that nobody knows here
        message = f"The answer of {self._settings.name} is not signed with any of its keys; sign in again."
        raise NotAdmitted(
            Reason.SIGNATURE, f"{message} If that stays so, the answer may be forged: tell an administrator."
        )

    def _json(self, url: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        with self._answering():
            answer = self._session.get(url, withhold_token=True, headers=headers)
            answer.raise_for_status()
            found = answer.json()
        if not isinstance(found, dict):
            raise self._wrong("does not answer as a provider of OpenID Connect; is [web.oidc] issuer right?")
        return found

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """What fails within raises NotAdmitted, never with a library's text."""
        name, (host, port) = self._settings.name, self._settings.host
        where = f"{name} at {host}:{port}"
        try:
            yield
        except requests.exceptions.SSLError:
            message = f"The certificate of {where} is not trusted, or TLS failed; {LOCAL_GO_ON}."
            raise NotAdmitted(
                Reason.AWAY, f"{message} An administrator sets [web.oidc] ca to the CA that signed it."
            ) from None
        except requests.Timeout:
            message = f"{where} does not answer within {self._settings.timeout_seconds:g} s; {LOCAL_GO_ON}."
            raise NotAdmitted(Reason.AWAY, message) from None
        except requests.HTTPError as error:
            status = error.response.status_code
            if status >= 500:
                raise NotAdmitted(Reason.AWAY, f"{where} answers HTTP {status}; {LOCAL_GO_ON}.") from None
            raise self._wrong(f"answers HTTP {status}; is [web.oidc] issuer right?") from None
        except requests.TooManyRedirects:
            raise self._wrong("leads elsewhere; write where to as [web.oidc] issuer") from None
        except (requests.JSONDecodeError, ValueError, TypeError, KeyError):  # JSON of other kinds than the standard has
            raise self._wrong("does not answer as a provider of OpenID Connect; is [web.oidc] issuer right?") from None
        except (requests.RequestException, OSError):
            raise NotAdmitted(Reason.AWAY, f"{where} cannot be reached; {LOCAL_GO_ON}.") from None

    def _wrong(self, what: str) -> NotAdmitted:
        return NotAdmitted(Reason.ANSWER, f"{self._settings.name} {what}; {LOCAL_GO_ON}.")

    def _refused_code(self, error: str) -> NotAdmitted:
        name = self._settings.name
        if error in _WRONG_CLIENT:
            message = (
                f"{name} does not accept Willis's client secret; {LOCAL_GO_ON}. An administrator puts the one that"
            )
            of_client = (
                f"{message} {name} has for the client {self._settings.client_id} into [web.oidc] client_secret_file."
            )
            return NotAdmitted(Reason.CLIENT, of_client)
        if error == "invalid_grant":
            return NotAdmitted(Reason.CODE, f"This answer of {name} was used already or is too old; sign in again.")
        return NotAdmitted(
            Reason.REFUSED, f"{name} refused the sign-in ({error[:60]}); an administrator looks at its log."
        )

    def _not_valid(
        self, error: JoseError, claims: Mapping[str, Any], now: datetime, date: datetime | None
    ) -> NotAdmitted:
        """Why the token does not count; where clocks differ, that is named as the cause."""
        name, claim = self._settings.name, error.claim if isinstance(error, ClaimError) else ""
        if claim in _CLAIMS:
            reason, what = _CLAIMS[claim]
            return NotAdmitted(reason, f"The answer of {name} {what}; sign in again, or tell an administrator.")
        is_late = isinstance(error, ExpiredTokenError)
        if is_late or claim in ("iat", "nbf"):
            ahead = (date - now).total_seconds() if date else 0.0
            if not is_late and abs(ahead) <= self._settings.leeway_seconds:
                ahead = _seconds(claims.get(claim)) - now.timestamp()
            if abs(ahead) > self._settings.leeway_seconds:
                return self._skew(ahead)
            late = now.timestamp() - _seconds(claims.get("exp"))
            return NotAdmitted(Reason.EXPIRED, f"The answer of {name} expired {late:.0f} s ago; sign in again.")
        return NotAdmitted(
            Reason.NOT_VALID, f"The answer of {name} is not as it should be ({claim or 'ID token'}); sign in again."
        )

    def _skew(self, ahead: float) -> NotAdmitted:
        way = "ahead of" if ahead > 0 else "behind"
        message = f"The clock of {self._settings.name} is {abs(ahead):.0f} s {way} Willis's, more than the"
        allowed = f"{self._settings.leeway_seconds:g} s of [web.oidc] leeway_seconds"
        return NotAdmitted(Reason.SKEW, f"{message} {allowed}; an administrator sets both clocks by NTP.")


def _session(settings: Oidc, redirect_uri: str) -> OAuth2Session:
    secret = settings.secret()
    session = OAuth2Session(
        settings.client_id,
        secret or None,
        token_endpoint_auth_method=_BASIC if secret else "none",
        scope=" ".join(settings.scopes),
        redirect_uri=redirect_uri,
        code_challenge_method="S256",
        default_timeout=settings.timeout_seconds,
    )
    session.trust_env = False  # no proxies, certificates or passwords but those of the configuration
    session.max_redirects = 0
    session.headers["User-Agent"] = "Willis"
    session.mount("https://", _Adapter(trusted("web.oidc", settings.ca)))
    return session


class _Adapter(HTTPAdapter):
    """Connections that trust the context's CAs alone."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__()

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **keywords: Any) -> None:
        """See HTTPAdapter."""
        super().init_poolmanager(connections, maxsize, block, **keywords, ssl_context=self._context)

    def cert_verify(self, *_: Any) -> None:
        """The context verifies."""


def _dated(answer: requests.Response, dates: list[datetime]) -> requests.Response:
    """The answer; by its field Date the provider's clock is known."""
    try:
        date = parsedate_to_datetime(answer.headers.get("Date", ""))
    except ValueError:
        return answer
    if date.tzinfo is not None:
        dates.append(date)
    return answer


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    """The claim of this name, or by a path with dots (`realm_access.roles`); None where there is none."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _seconds(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
