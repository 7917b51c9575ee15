"""What is refused, not answered, or asked for twice: the page says so, and nothing is done that nobody wanted."""

from playwright.sync_api import expect

from tests.browser.conftest import People
from tests.browser.test_triage_page import GONE, clock  # noqa: F401  clock: a fixture
from tests.support.builders import FakeClock, reported
from tests.support.pages import Served


def test_a_held_key_and_a_double_click_decide_once(people: People, pages: Served, clock: FakeClock) -> None:  # noqa: F811
    people.expected = [GONE]
    for number in range(1, 6):
        reported(pages.context.store, clock, series=f"2.25.{number}")
    page, store = people.sign_in("dr.a"), pages.context.store

    def acknowledged() -> int:
        return sum(row["acknowledged_at"] is not None for row in store.worklist.rows())

    page.keyboard.press("j")
    page.keyboard.down("a")
    for left in (4, 4, 4):
        expect(page.locator("tr[data-case]")).to_have_count(left)
        page.keyboard.down("a")  # as a key that is held repeats itself
    page.keyboard.up("a")
    expect(page.locator("#notice")).to_contain_text("Acknowledged:")
    page.locator("form.acknowledge button").first.dblclick(delay=60)
    expect(page.locator("tr[data-case]")).to_have_count(3)
    page.wait_for_load_state("networkidle")
    assert acknowledged() == 2
    assert "faster" not in page.locator("#notice").inner_text()
