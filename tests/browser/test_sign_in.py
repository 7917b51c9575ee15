"""Signing in at an identity provider in a real browser: policy, cookies and redirects are the browser's."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from storage.files.instances import Files
from storage.store import Store
from tests.browser.conftest import People, picture
from tests.browser.test_triage_page import no_violations
from tests.support.openid_provider import PERSON_PASSWORD, OpenIdProvider, running_provider
from tests.support.pages import Served, serving, web_context


@pytest.fixture
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenIdProvider]:
    with running_provider(tmp_path_factory.mktemp("provider")) as running:
        yield running


@pytest.fixture
def pages(sqlite_store: Store, files: Files, tmp_path: Path, provider: OpenIdProvider) -> Iterator[Served]:
    with serving(web_context(sqlite_store, files, tmp_path, oidc=provider.settings())) as served:
        yield served


def test_a_person_signs_in_at_the_hospital_s_provider_and_a_clerk_does_not(
    people: People, pages: Served, provider: OpenIdProvider
) -> None:
    people.expected = [f"asked {provider.issuer.removesuffix('/o')}/", "404 (Not Found)", "403 (Forbidden)"]
    page = people.window()
    page.goto(f"{pages.url}/statistics")
    expect(page.get_by_label("Password")).to_be_visible()
    no_violations(page)
    picture(page, "sign-in")
    page.get_by_role("link", name="Sign in with Hospital").click()
    expect(page).to_have_title("Hospital login")
    page.get_by_label("Username").fill("dr.kim")
    page.get_by_label("Password").fill(PERSON_PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(f"{pages.url}/statistics")
    expect(page.locator(".who .name")).to_have_text("dr.kim reader")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("link", name="Sign in with Hospital")).to_be_visible()

    clerk = people.window()
    clerk.goto(pages.url)
    clerk.get_by_role("link", name="Sign in with Hospital").click()
    clerk.get_by_label("Username").fill("clerk")
    clerk.get_by_label("Password").fill(PERSON_PASSWORD)
    clerk.get_by_role("button", name="Log in").click()
    expect(clerk.get_by_role("alert")).to_contain_text("No group of clerk has a role in Willis")
    expect(clerk.get_by_label("Password")).to_be_visible()
    no_violations(clerk)
    picture(clerk, "sign-in-refused")
