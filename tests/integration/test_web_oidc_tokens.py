"""Answers of an OpenID Connect provider that are not as they should be: the provider is made up, and signs what a test wants."""

import hmac
import json
import socket
import ssl
import subprocess
import sys
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from storage.files.instances import Files
from storage.queries.accounts import Role
from storage.store import Store
from tests.support.certificates import Certificates, certificates
from tests.support.pages import Served, serving, web_context
from tests.support.running import ROOT, free_port
from tests.support.web_server import Asked, Said, WebServer

__all__ = ["certificates"]
KEY, STRANGER = RSAKey.generate_key(2048), RSAKey.generate_key(2048)
Token = Callable[[dict[str, Any]], str]


def signed(claims: dict[str, Any], key: Any = KEY, alg: str = "RS256") -> str:
    return jwt.encode({"alg": alg, "kid": "1"}, claims, key, algorithms=[alg])


def with_time(claim: str, seconds_from_now: int) -> Token:
    return lambda claims: signed(claims | {claim: int(time.time()) + seconds_from_now})


def with_claims(**changes: Any) -> Token:
    return lambda claims: signed({key: value for key, value in (claims | changes).items() if value is not None})


class MadeUpProvider:
    """What it answers can be changed."""

    def __init__(self, started: list[WebServer], context: ssl.SSLContext | None = None) -> None:
        self.reset()
        started.append(WebServer(self._answer, context))
        self.issuer = started[0].url

    def reset(self) -> None:
        """It answers as it should."""
        self.token: Token = signed
        self.nonce, self.userinfo = "", dict[str, Any]()
        self.changes: dict[str, Said] = {}
        self.metadata: dict[str, Any] = {}
        self.keys: list[Any] = [{"kty": "oct", "k": "AA"}, STRANGER.as_dict(False), KEY.as_dict(False)]

    def _answer(self, asked: Asked) -> Said:
        kind = urlsplit(asked.path).path.rsplit("/", 1)[1]
        if kind in self.changes:
            return self.changes[kind]
        now = int(time.time())
        claims = {"iss": self.issuer, "sub": "7", "aud": "willis", "exp": now + 300, "iat": now, "nonce": self.nonce}
        id_token = self.token(claims | {"groups": ["r"]}) if kind == "token" else None
        answers: dict[str, dict[str, Any]] = {
            "openid-configuration": {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
                "userinfo_endpoint": f"{self.issuer}/userinfo",
            }
            | self.metadata,
            "token": {"token_type": "Bearer", "access_token": "x", "id_token": id_token},
            "keys": {"keys": self.keys},
            "userinfo": self.userinfo,
        }
        return Said(200, json.dumps(answers[kind]).encode(), {"Content-Type": "application/json"})


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, MadeUpProvider]]:
    """The pages and their provider: one pair for all tests here, as most leave nothing behind."""
    folder, servers = tmp_path_factory.mktemp("pages"), list[WebServer]()
    provider = MadeUpProvider(servers)
    settings = {"name": "Hospital", "issuer": provider.issuer, "client_id": "willis", "roles": {"r": "reader"}}
    store = Store.open(f"sqlite:///{folder / 'willis.db'}")
    with serving(web_context(store, Files(folder), folder, oidc=settings)) as pages:
        yield pages, provider
    servers[0].close()
    store.close()


@pytest.fixture
def provider(served: tuple[Served, MadeUpProvider]) -> MadeUpProvider:
    """As it should be."""
    served[1].reset()
    return served[1]


@pytest.fixture
def pages(served: tuple[Served, MadeUpProvider], provider: MadeUpProvider) -> Served:
    """Nobody has an account."""
    transactions = served[0].context.store.transactions
    with transactions.writing_plainly() as connection:
        for table in ("account_token", "account", "sign_in_request"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
    return served[0]


def signed_in(pages: Served, provider: MadeUpProvider, **answer: str) -> httpx.Response:
    """The page after the provider has answered; `answer` replaces what comes back in the address."""
    client = pages.client()
    begun = client.get("/sign-in/oidc", follow_redirects=False)
    assert begun.status_code == 303, begun.text
    asked = {key: values[0] for key, values in parse_qs(urlsplit(begun.headers["Location"]).query).items()}
    assert (asked["code_challenge_method"], asked["response_type"], len(asked["code_challenge"])) == (
        "S256",
        "code",
        43,
    )
    assert asked["scope"] == "openid profile" and asked["redirect_uri"] == f"{pages.url}/sign-in/oidc/answer"
    provider.nonce = asked["nonce"]
    return client.get("/sign-in/oidc/answer", params={"code": "c", "state": asked["state"]} | answer)


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (with_claims(iss="https://evil.example"), "names another issuer than [web.oidc] issuer"),
        (with_claims(aud="another"), "is meant for another client than [web.oidc] client_id"),
        (with_claims(aud=["another", "third"]), "is meant for another client than [web.oidc] client_id"),
        (with_claims(azp="another"), "is meant for another client than [web.oidc] client_id"),
        (with_claims(nonce="of another sign-in"), "answers another sign-in than this one"),
        (with_claims(nonce=None), "answers another sign-in than this one"),
        (with_time("exp", -3600), "The answer of Hospital expired 36"),
        (with_claims(exp=None), "is not as it should be (exp)"),
        (with_claims(exp=True), "is not as it should be (exp)"),
        (with_time("iat", 3600), "s ahead of Willis&#39;s, more than the 60 s of [web.oidc] leeway_seconds"),
        (with_time("nbf", 3600), "s ahead of Willis&#39;s, more than the 60 s of [web.oidc] leeway_seconds"),
        (with_claims(sub=None), "is not as it should be (sub)"),
        (with_claims(sub=7), "is not as it should be (sub)"),
        (with_claims(sub="x" * 256), "names the person by more than 255 letters"),
        (with_claims(at_hash="AAAAAAAAAAAAAAAAAAAAAA"), "is not as it should be (at_hash)"),
        (lambda claims: signed(claims, RSAKey.generate_key(2048)), "is not signed with any of its keys"),
        (lambda claims: signed(claims, ECKey.generate_key("P-256"), "ES256"), "is not signed with any of its keys"),
        (lambda claims: _with_public_key_as_secret(claims), "is not signed with any of its keys"),
        (lambda claims: _without_signature(claims), "is not signed with any of its keys"),
        (lambda claims: signed(claims)[:-8] + "AAAAAAAA", "is not signed with any of its keys"),
        (lambda _: "no.token.atall", "is not signed with any of its keys"),
        (lambda _: None, "gave no ID token"),
    ],
)
def test_a_token_that_is_not_as_it_should_be_lets_nobody_in(
    pages: Served, provider: MadeUpProvider, token: Token, message: str
) -> None:
    provider.token = token
    page = signed_in(pages, provider)
    assert (page.status_code, message in page.text) == (403, True), page.text
    assert pages.context.store.accounts.all() == []


def _parts(*parts: bytes) -> str:
    return ".".join(urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def _without_signature(claims: dict[str, Any]) -> str:
    return _parts(b'{"alg":"none"}', json.dumps(claims).encode(), b"")


def _with_public_key_as_secret(claims: dict[str, Any]) -> str:
    """What a verifier takes that believes the header's algorithm."""
    to_sign = _parts(b'{"alg":"HS256"}', json.dumps(claims).encode())
    return f"{to_sign}.{_parts(hmac.digest(KEY.as_pem(False), to_sign.encode(), 'sha256'))}"


def test_a_good_token_lets_its_person_in(pages: Served, provider: MadeUpProvider) -> None:
    assert "Sign out" in signed_in(pages, provider).text
    [account] = pages.context.store.accounts.all()
    assert (account.name, account.subject) == ("7", f"{provider.issuer} 7")


def test_a_person_s_name_is_taken_from_the_provider(pages: Served, provider: MadeUpProvider) -> None:
    provider.token = with_claims(name="Jane Doe")
    assert "Sign out" in signed_in(pages, provider).text
    [account] = pages.context.store.accounts.all()
    assert account.person_name == "Doe^Jane"


@pytest.mark.parametrize(
    ("who", "ca", "is_trusted"), [("node", "ca", True), ("node", "other", False), ("elsewhere", "ca", False)]
)
def test_a_provider_over_tls_is_trusted_by_the_configured_ca_and_under_its_name_alone(
    sqlite_store: Store, files: Files, tmp_path: Path, certificates: Certificates, who: str, ca: str, is_trusted: bool
) -> None:
    context, servers = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), list[WebServer]()
    context.load_cert_chain(certificates.folder / f"{who}.pem", certificates.folder / f"{who}.key")
    provider = MadeUpProvider(servers, context)
    settings = {"name": "Hospital", "issuer": provider.issuer, "client_id": "willis", "roles": {"r": "reader"}}
    private = {"ca": certificates.folder / f"{ca}.pem"}
    with serving(web_context(sqlite_store, files, tmp_path, oidc=settings | private)) as served:
        if is_trusted:
            assert "Sign out" in signed_in(served, provider).text
            assert {request.path.rsplit("/", 1)[1] for request in servers[0].asked} >= {"token", "keys"}
        else:
            answer = served.client().get("/sign-in/oidc")
            assert (answer.status_code, "is not trusted, or TLS failed" in answer.text) == (503, True)
            assert servers[0].asked == []
    servers[0].close()


def test_groups_that_the_token_lacks_are_asked_for_of_the_same_person_alone(
    pages: Served, provider: MadeUpProvider
) -> None:
    provider.token = with_claims(groups=None)
    provider.userinfo = {"sub": "8", "groups": ["r"]}
    assert "No group of" in signed_in(pages, provider).text
    provider.userinfo = {"sub": "7", "groups": ["r"], "preferred_username": "Jörg Müller"}
    assert "Sign out" in signed_in(pages, provider).text
    assert [each.name for each in pages.context.store.accounts.all()] == ["jorg-muller"]


def test_who_loses_his_groups_loses_his_sessions_at_the_next_try(pages: Served, provider: MadeUpProvider) -> None:
    before = pages.client()
    assert "Sign out" in signed_in(pages, provider).text
    [account] = pages.context.store.accounts.all()
    cookie = pages.clients[-1].cookies["willis_session"]
    provider.token = with_claims(groups=["gone"])
    assert signed_in(pages, provider).status_code == 403
    before.cookies.update({"willis_session": cookie})
    assert "Password" in before.get("/").text
    assert account.role is Role.READER


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"state": "forged"}, "belongs to no sign-in that this browser began"),
        ({"iss": "https://evil.example"}, "Another issuer than Hospital answered"),
    ],
)
def test_an_answer_that_is_not_the_provider_s_is_refused(
    pages: Served, provider: MadeUpProvider, answer: dict[str, str], message: str
) -> None:
    page = signed_in(pages, provider, **answer)
    assert (page.status_code, message in page.text) == (403, True), page.text


def test_what_the_provider_says_of_a_refusal_is_said_without_its_markup(
    pages: Served, provider: MadeUpProvider
) -> None:
    client = pages.client()
    location = client.get("/sign-in/oidc", follow_redirects=False).headers["Location"]
    state = parse_qs(urlsplit(location).query)["state"][0]
    page = client.get("/sign-in/oidc/answer", params={"state": state, "error": "<script>alert(1)</script>"})
    assert (page.status_code, "<script>alert" in page.text) == (403, False)
    assert "Hospital did not let you in" in page.text


@pytest.mark.parametrize(
    ("kind", "answer", "message"),
    [
        ("openid-configuration", Said(404), "Hospital answers HTTP 404; is [web.oidc] issuer right?"),
        ("openid-configuration", Said(503), "answers HTTP 503; local accounts can sign in meanwhile."),
        ("openid-configuration", Said(200, b"<html>"), "does not answer as a provider of OpenID Connect"),
        ("openid-configuration", Said(200, b"[]"), "does not answer as a provider of OpenID Connect"),
        ("openid-configuration", Said(302, b"", {"Location": "/elsewhere"}), "leads elsewhere"),
        ("openid-configuration", Said(200, b'{"issuer": "https://other"}'), "calls itself"),
    ],
)
def test_a_provider_that_answers_otherwise_is_named_on_the_login_page(
    pages: Served, provider: MadeUpProvider, kind: str, answer: Said, message: str
) -> None:
    provider.changes[kind] = answer
    page = pages.client().get("/sign-in/oidc")
    assert (message in page.text, "Password" in page.text) == (True, True), page.text


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"token_endpoint": "http://192.0.2.1/token"}, "has no token_endpoint over https"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "has no authorization_endpoint over https"),
        ({"code_challenge_methods_supported": ["plain"]}, "cannot do PKCE with S256"),
    ],
)
def test_a_provider_without_what_is_needed_is_not_used(
    pages: Served, provider: MadeUpProvider, metadata: dict[str, Any], message: str
) -> None:
    provider.metadata = metadata
    assert message in pages.client().get("/sign-in/oidc").text


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Said(401, b'{"error": "unauthorized_client"}'), "does not accept Willis&#39;s client secret"),
        (Said(400, b'{"error": "invalid_grant"}'), "was used already or is too old"),
        (Said(400, b'{"error": "invalid_scope"}'), "refused the sign-in (invalid_scope)"),
        (Said(400, b'{"error": {"code": 429}}'), "refused the sign-in ("),
        (Said(400, b'{"error": null}'), "Password"),
        (Said(200, b'{"id_token": 1}'), "gave no ID token"),
        (Said(502, b"gateway"), "answers HTTP 502"),
        (Said(200, b"no json"), "does not answer as a provider"),
    ],
)
def test_what_the_token_endpoint_refuses_is_said(
    pages: Served, provider: MadeUpProvider, answer: Said, message: str
) -> None:
    provider.changes["token"] = answer
    assert message in signed_in(pages, provider).text


def test_null_in_what_a_provider_says_of_itself_is_as_if_it_were_left_out(
    pages: Served, provider: MadeUpProvider
) -> None:
    provider.metadata = {"code_challenge_methods_supported": None, "token_endpoint_auth_methods_supported": None}
    assert "Sign out" in signed_in(pages, provider).text


def test_a_sign_in_counts_as_one_try(pages: Served, provider: MadeUpProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    pages.context.tries._times.clear()
    monkeypatch.setattr(pages.context.tries, "most", 1)
    assert "Sign out" in signed_in(pages, provider).text
    assert "Too many tries" in pages.client().get("/sign-in/oidc").text


def test_a_provider_that_is_away_or_hangs_hinders_no_local_account(
    sqlite_store: Store, files: Files, tmp_path: Path
) -> None:
    oidc: dict[str, Any] = {"name": "Hospital", "client_id": "willis", "default_role": "reader", "timeout_seconds": 0.3}
    away = oidc | {"issuer": f"http://127.0.0.1:{free_port()}"}
    with serving(web_context(sqlite_store, files, tmp_path, oidc=away)) as served:
        page = served.client().get("/sign-in/oidc")
        assert (page.status_code, "cannot be reached; local accounts can sign in meanwhile." in page.text) == (
            503,
            True,
        )
        served.signed_in("dr.a")
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        hangs = oidc | {"issuer": f"http://127.0.0.1:{deaf.getsockname()[1]}"}
        with serving(web_context(sqlite_store, files, tmp_path, oidc=hangs)) as served:
            page = served.client().get("/sign-in/oidc")
            assert (page.status_code, "does not answer within 0.3 s" in page.text) == (503, True)
            for _ in range(4):
                served.context.outside.acquire()
            assert "Too many are signing in at once" in served.client().get("/sign-in/oidc").text
            served.signed_in("dr.b")


def test_without_the_section_there_is_no_such_page(sqlite_store: Store, files: Files, tmp_path: Path) -> None:
    with serving(web_context(sqlite_store, files, tmp_path)) as served:
        assert served.client().get("/sign-in/oidc").status_code == 404
        assert "Sign in with" not in served.client().get("/sign-in").text


def test_the_pages_alone_import_nothing_of_providers() -> None:
    program = "import node.web.server, sys; print(*{'authlib', 'joserfc', 'ldap3'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
