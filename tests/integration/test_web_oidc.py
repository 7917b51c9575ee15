"""Signing in at a real OpenID Connect provider, over real sockets, with forms filled in as a browser would."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from node.runtime.clock import utc_now
from storage.files.instances import Files
from storage.queries.accounts import Provider, Role
from storage.store import Store
from tests.support.builders import FakeClock
from tests.support.openid_provider import PERSON_PASSWORD, OpenIdProvider, running_provider
from tests.support.pages import PASSWORD, Served, account_changes, post, serving, web_context

_HIDDEN = re.compile(r'name="?(csrfmiddlewaretoken|next)"? value="([^"]*)"')


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenIdProvider]:
    with running_provider(tmp_path_factory.mktemp("provider")) as running:
        yield running


@pytest.fixture
def clock() -> FakeClock:
    """It stands still now, as a provider's clock is real."""
    return FakeClock(utc_now())


@pytest.fixture
def pages(
    sqlite_store: Store, files: Files, tmp_path: Path, clock: FakeClock, provider: OpenIdProvider
) -> Iterator[Served]:
    with serving(web_context(sqlite_store, files, tmp_path, clock, oidc=provider.settings())) as served:
        yield served


def brought_back(client: httpx.Client, name: str, goal: str = "/") -> str:
    """The address that the provider sends the browser back to, after the person has signed in there."""
    answer = client.get("/sign-in/oidc", params={"next": goal}, follow_redirects=False)
    while not answer.headers.get("Location", "").startswith("http://127.0.0.1"):
        if answer.is_redirect:
            answer = client.get(str(answer.url.join(answer.headers["Location"])), follow_redirects=False)
            continue
        assert "Hospital login" in answer.text, answer.text
        values = {"username": name, "password": PERSON_PASSWORD, **dict(_HIDDEN.findall(answer.text))}
        values["next"] = values["next"].replace("&amp;", "&")
        answer = client.post(str(answer.url), data=values, follow_redirects=False)
    return str(answer.headers["Location"])


def trail(served: Served) -> str:
    served.context.trail.close()
    return (served.context.config.storage.directory / "audit.log").read_text("utf-8")


def test_a_person_of_the_provider_gets_an_account_a_session_and_the_page_he_wanted(
    pages: Served, provider: OpenIdProvider
) -> None:
    client = pages.client()
    assert 'href="/sign-in/oidc?next=%2Fstatistics">Sign in with Hospital' in client.get("/statistics").text
    page = client.get(brought_back(client, "dr.kim", "/statistics"))
    assert page.url.path == "/statistics" and "dr.kim" in page.text
    [account] = pages.context.store.accounts.all()
    assert (account.name, account.role, account.provider) == ("dr.kim", Role.READER, Provider.OIDC)
    assert (account.subject or "").startswith(f"{provider.issuer} ")
    [line] = [line for line in trail(pages).splitlines() if "110122" in line]
    assert 'UserID="dr.kim"' in line and 'EventOutcomeIndicator="0"' in line


def test_the_role_is_taken_anew_at_each_sign_in_and_a_disabled_account_stays_out(pages: Served) -> None:
    client, accounts = pages.client(), pages.context.store.accounts
    client.get(brought_back(client, "dr.lead"))
    assert [each.role for each in accounts.all()] == [Role.LEAD]
    with pages.context.store.transactions.writing_plainly() as connection:
        connection.exec_driver_sql("UPDATE account SET role = 'reader'")
    again = pages.client()
    assert again.get(brought_back(again, "dr.lead")).status_code == 200
    assert [each.role for each in accounts.all()] == [Role.LEAD]
    accounts.change("dr.lead", disabled_at=pages.context.clock())
    page = again.get(brought_back(again, "dr.lead"))
    assert (page.status_code, "The account dr.lead is disabled; an administrator can enable it." in page.text) == (
        403,
        True,
    )
    by_himself = ("dr.lead", "dr.lead")
    assert account_changes(pages) == [(*by_himself, "made, lead by OIDC"), (*by_himself, "role lead by OIDC")]


def test_a_local_account_of_the_same_name_stays_what_it_is(pages: Served) -> None:
    pages.account("dr.kim", Role.ADMINISTRATOR)
    client = pages.client()
    assert "dr.kim-2" in client.get(brought_back(client, "dr.kim")).text
    assert [(each.name, each.role) for each in pages.context.store.accounts.all()] == [
        ("dr.kim", Role.ADMINISTRATOR),
        ("dr.kim-2", Role.READER),
    ]
    local = post(pages.client(), "/sign-in", "/sign-in", name="dr.kim", password=PASSWORD)
    assert "Accounts" in local.text
    assert "Password" in post(pages.client(), "/sign-in", "/sign-in", name="dr.kim-2", password="").text


def test_who_is_in_no_group_with_a_role_is_not_let_in_and_gets_no_account(pages: Served) -> None:
    client = pages.client()
    page = client.get(brought_back(client, "clerk"))
    message = (
        "No group of clerk has a role in Willis; an administrator gives one to a group of Hospital in [web.oidc] roles."
    )
    assert (page.status_code, message in page.text) == (403, True)
    assert pages.context.store.accounts.all() == []
    assert message in trail(pages)


def test_an_answer_counts_once_and_in_the_browser_that_asked(pages: Served) -> None:
    client, thief = pages.client(), pages.client()
    address = brought_back(client, "dr.kim")
    thief.get("/sign-in")
    stolen = thief.get(address)
    assert (stolen.status_code, "belongs to no sign-in that this browser began" in stolen.text) == (403, True)
    address = brought_back(client, "dr.kim")
    assert client.get(address).status_code == 200
    replayed = pages.client()
    replayed.cookies.update({"willis_form": client.cookies["willis_form"]})
    again = replayed.get(address)
    assert (again.status_code, "This answer was used already" in again.text) == (403, True)


def test_a_code_that_another_sign_in_got_is_refused_by_the_provider(pages: Served) -> None:
    client, other = pages.client(), pages.client()
    stolen = parse_qs(urlsplit(brought_back(other, "dr.lead")).query)["code"][0]
    address = brought_back(client, "dr.kim")
    page = client.get(re.sub("code=[^&]+", f"code={stolen}", address))  # PKCE: its verifier is the other browser's
    assert (page.status_code, "was used already or is too old; sign in again" in page.text) == (403, True)


@pytest.mark.parametrize(("ahead_seconds", "way"), [(-600, "ahead of"), (600, "behind")])
def test_clocks_that_differ_are_named_as_the_cause(
    pages: Served, clock: FakeClock, ahead_seconds: float, way: str
) -> None:
    clock.advance(ahead_seconds)
    client = pages.client()
    page = client.get(brought_back(client, "dr.kim"))
    assert page.status_code == 403
    assert re.search(rf"The clock of Hospital is (59\d|60\d) s {way} Willis&#39;s, more than the 60 s", page.text), (
        page.text
    )


def test_a_small_difference_of_clocks_is_no_obstacle(pages: Served, clock: FakeClock) -> None:
    clock.advance(-40)
    client = pages.client()
    assert client.get(brought_back(client, "dr.kim")).status_code == 200


def test_a_wrong_client_secret_is_named_and_local_accounts_go_on(
    sqlite_store: Store, files: Files, tmp_path: Path, provider: OpenIdProvider
) -> None:
    (tmp_path / "wrong").write_text("not the secret")
    settings = provider.settings(client_secret_file=tmp_path / "wrong")
    with serving(web_context(sqlite_store, files, tmp_path, oidc=settings)) as served:
        client = served.client()
        page = client.get(brought_back(client, "dr.kim"))
        assert page.status_code == 403
        assert "Hospital does not accept Willis&#39;s client secret; local accounts can sign in meanwhile." in page.text
        assert "[web.oidc] client_secret_file" in page.text
        served.signed_in("dr.local")
