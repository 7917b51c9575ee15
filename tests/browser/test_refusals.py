"""What is refused, not answered, or asked for twice: the page says so, and nothing is done that nobody wanted."""

from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from storage.files.instances import Files
from tests.browser.conftest import People
from tests.browser.test_triage_page import GONE, drawn
from tests.support.builders import FakeClock, reported
from tests.support.case_with_masks import with_masks
from tests.support.pages import Served
from tests.support.running import wait_until

REFUSED = ["403 (Forbidden)", "500 (Internal Server Error)", "Error Code 403", "Error Code 500"]
"""What browser and htmx note of such answers."""

DRAWN = """
!document.querySelector('.htmx-request')
    && [...document.querySelectorAll('form.acknowledge')].every((each) => each['htmx-internal-data'])
"""


def open_list(page: Page, pages: Served) -> None:
    """The page has the list as the first events have had it drawn, whose forms are the script's."""
    page.goto(pages.url)
    page.wait_for_load_state("networkidle")
    wait_until(lambda: page.evaluate(DRAWN), 20, "the list is drawn anew")


def two_cases(pages: Served, clock: FakeClock) -> None:
    for number, name in enumerate(("Calm^Carl", "Doe^Jane"), start=1):
        reported(pages.context.store, clock, series=f"2.25.{number}", patient_name=name)


def test_a_decision_that_is_refused_is_said_not_to_be_done(
    people: People,
    pages: Served,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    people.expected = [GONE, *REFUSED]
    two_cases(pages, clock)
    page = people.sign_in("dr.a")
    open_list(page, pages)

    def with_another_key(route: Route) -> None:
        route.continue_(post_data=(route.request.post_data or "").replace("form_key=", "form_key=old"))

    page.route("**/cases/1/review", with_another_key)
    page.locator('tr[data-case="1"] form.acknowledge button').click()
    expect(page.locator("#notice")).to_contain_text("Not done: This form is not from a page of this sign-in")
    page.unroute("**/cases/1/review")
    page.goto(f"{pages.url}/cases/1")
    page.wait_for_load_state("networkidle")

    def broken(*_: Any) -> None:
        raise ValueError

    with monkeypatch.context() as patched:
        patched.setattr(pages.context.store.reviews, "change", broken)
        page.keyboard.press("a")
        expect(page.locator("#notice")).to_contain_text("Not done: That went wrong")
    page.keyboard.press("a")
    expect(page.locator("#review .decide")).to_contain_text("Acknowledged by dr.a")


def test_a_list_that_cannot_be_had_anew_is_not_called_live(
    people: People,
    pages: Served,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    people.expected = [GONE, *REFUSED]
    page = people.sign_in("dr.a")
    with monkeypatch.context() as patched:
        patched.setattr(pages.context.board, "deliveries", lambda _: 1 // 0)
        reported(pages.context.store, clock)
        expect(page.locator("#live")).to_contain_text("Update failed, this list may be old")
    reported(pages.context.store, clock, series="2.25.2")
    expect(page.locator("#live")).to_contain_text("Live")
    expect(page.locator("tr[data-case]")).to_have_count(2)


def test_a_held_key_and_a_double_click_decide_once(people: People, pages: Served, clock: FakeClock) -> None:
    people.expected = [GONE]
    for number in range(1, 6):
        reported(pages.context.store, clock, series=f"2.25.{number}")
    page, store = people.sign_in("dr.a"), pages.context.store

    def acknowledged() -> int:
        return sum(row["acknowledged_at"] is not None for row in store.worklist.rows())

    open_list(page, pages)
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


def test_a_slice_that_cannot_be_shown_leaves_no_other_on_the_canvas_and_is_asked_for_again(
    people: People,
    pages: Served,
    files: Files,
    clock: FakeClock,
) -> None:
    people.expected = [*REFUSED, "503 (Service Unavailable)", GONE]
    with_masks(pages.context.store, files, clock)
    page = people.sign_in("dr.a")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/images/7" in request.url else None)
    answers = {"/images/7": (503, "Busy."), "/images/8": (410, "It is gone.")}

    def refuse(route: Route) -> None:
        status, words = next(answer for part, answer in answers.items() if part in route.request.url)
        route.fulfill(status=status, body=words, content_type="text/plain")

    for part in answers:
        page.route(f"**{part}?*", refuse)
    page.goto(f"{pages.url}/cases/1")
    drawn(page, 5)
    page.keyboard.press("ArrowUp")
    drawn(page, 6)
    page.keyboard.press("ArrowUp")
    expect(page.locator("#viewer-message")).to_have_text("Slice 8 cannot be shown: Busy.")
    black = "[...document.getElementById('slices').getContext('2d').getImageData(300, 300, 1, 1).data].join()"
    assert page.evaluate(black) == "0,0,0,255"
    page.keyboard.press("ArrowUp")
    expect(page.locator("#viewer-message")).to_have_text("Slice 9 cannot be shown: It is gone.")
    page.keyboard.press("ArrowUp")
    drawn(page, 9)
    expect(page.locator("#viewer-message")).to_be_hidden()
    page.unroute("**/images/7?*")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    drawn(page, 7)
    assert len(asked) > 1


def test_what_was_opened_on_a_case_stays_open_when_an_earlier_study_appears(
    people: People,
    pages: Served,
    clock: FakeClock,
) -> None:
    people.expected = [GONE]
    study: dict[str, Any] = {"study_instance_uid": "2.25.12", "issuer_of_patient_id": "HERE"}
    reported(pages.context.store, clock, **study)
    page = people.sign_in("dr.a")
    page.goto(f"{pages.url}/cases/1")
    page.locator("#live[data-state=live]").wait_for()
    page.get_by_text("Timeline").click()
    before = {**study, "study_instance_uid": "2.25.11", "study_date": "20250301"}
    reported(pages.context.store, clock, series="2.25.1", **before)
    expect(page.get_by_text("Earlier studies")).to_be_visible()
    opened = page.locator("#review details.more[open] summary")
    expect(opened).to_contain_text(["Earlier studies", "Timeline"])
