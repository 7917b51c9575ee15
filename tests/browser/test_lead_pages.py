"""The pages of the lead and the administrator in a real browser."""

from datetime import timedelta

from playwright.sync_api import expect

from node.runtime.clock import utc_now
from storage.queries.accounts import Role
from storage.queries.reviews import Action, Wanted
from tests.browser.conftest import People, picture
from tests.browser.test_triage_page import no_violations
from tests.support.builders import FakeClock, reported
from tests.support.pages import PASSWORD, Served


def test_the_statistics_are_for_everybody_to_read_and_for_export(people: People, pages: Served) -> None:
    people.expected = ["410 (Gone)"]
    store, clock = pages.context.store, FakeClock(utc_now() - timedelta(days=60))
    for number in range(1, 13):
        reported(store, clock, series=f"2.25.{number}")
        clock.advance(20 + 25 * number)
        [delivery] = store.worklist.deliveries(number)
        store.outbox.accepted(delivery, clock())
        accepted = number % 3 > 0
        action, reason = (Action.ACCEPTED, "") if accepted else (Action.REJECTED, "infundibulum")
        store.reviews.change(Wanted(number, 0, action, "dr.a", 1, reason), clock())
        clock.advance(4 * 24 * 3600)
    page = people.sign_in("lead", Role.LEAD)
    page.get_by_role("link", name="Statistics").click()
    expect(page.get_by_role("heading", name="Findings that people accepted")).to_be_visible()
    expect(page.get_by_text("67 % (39–86)").first).to_be_visible()
    for colours in ("light", "dark"):
        page.emulate_media(color_scheme=colours)
        no_violations(page)
        page.set_viewport_size({"width": 1360, "height": 1000})
        picture(page, f"statistics-{colours}")
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    picture(page, "statistics-phone")
    with page.expect_download() as download:
        page.get_by_role("link", name="Export CSV").click()
    assert download.value.suggested_filename == "willis-findings.csv"


def test_an_administrator_makes_an_account_and_disables_it(people: People, pages: Served) -> None:
    pages.account("dr.a")
    page = people.sign_in("root", Role.ADMINISTRATOR)
    page.get_by_role("link", name="Accounts").click()
    page.get_by_label("Name").fill("dr.new")
    for label in ("Password, at least 10 characters", "Password again"):
        page.get_by_label(label).fill(PASSWORD)
    page.get_by_role("button", name="Make the account").click()
    new = page.locator('tr[data-account="dr.new"]')
    expect(new).to_contain_text("may sign in")
    new.get_by_text("no name").click()
    new.get_by_label("As on reports").fill("Doe^Jane")
    new.get_by_role("button", name="Set the person of dr.new").click()
    expect(new).to_contain_text("Doe^Jane")
    new.get_by_role("button", name="Disable dr.new").click()
    expect(new).to_contain_text("disabled")
    for colours in ("light", "dark"):
        page.emulate_media(color_scheme=colours)
        no_violations(page)
        picture(page, f"accounts-{colours}")
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    picture(page, "accounts-phone")
