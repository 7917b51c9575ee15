"""The triage page in a real browser, as people use it.  Pictures are left in `var/browser`."""

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import text

from node.web import board
from storage.files.instances import Files
from storage.queries.accounts import Role
from storage.stages import Outcome
from tests.browser.conftest import People, picture
from tests.support.builders import (
    FakeClock,
    add,
    claimed,
    finish,
    header,
    received,
    reported,
)
from tests.support.case_with_masks import with_masks
from tests.support.pages import Served

AXE = Path(__file__).parent / "axe-4.14.1.min.js"
HOSTILE = "<script>alert(1)</script>^\"'><img src=x onerror=alert(1)>"
GONE = "410 (Gone)"
"""Of cases whose files a test has not written."""
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


def names(page: Page) -> list[str]:
    return page.locator("tr[data-case] .name").all_inner_texts()


def drawn(page: Page, slice_: int) -> None:
    """The viewer shows this slice, counted from 0."""
    page.locator(f'#viewer[data-drawn="{slice_}"]').wait_for()


def test_a_case_arrives_on_the_open_page_and_is_acknowledged_with_the_keyboard(
    people: People, pages: Served, clock: FakeClock
) -> None:
    people.expected = [GONE]
    store = pages.context.store
    reported(store, clock, Outcome.NEGATIVE, series="2.25.1", patient_name="Calm^Carl")
    page = people.sign_in("dr.a")
    assert names(page) == ["Calm, Carl"]
    reported(store, clock, series="2.25.2", patient_name="Urgent^Uwe")
    expect(page.locator("tr[data-case] .name")).to_have_text(["Urgent, Uwe", "Calm, Carl"])
    expect(page.locator('tr[data-case="2"] form.acknowledge')).to_be_visible()  # it stood there while in work too
    page.keyboard.press("j")
    expect(page.locator('tr[data-case="2"] .open')).to_be_focused()
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("a")
    expect(page.locator("tr[data-case] .name")).to_have_text(["Calm, Carl"])
    expect(page.locator("#notice")).to_contain_text("Acknowledged: Urgent, Uwe")
    expect(page.locator('tr[data-case="1"] .open')).to_be_focused()
    page.keyboard.press("u")
    expect(page.locator("tr[data-case] .name")).to_have_text(["Urgent, Uwe", "Calm, Carl"])
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Suspected aneurysm")).to_be_visible()
    page.wait_for_load_state()  # its keys work from then on
    page.keyboard.press("Escape")
    page.wait_for_url(f"{pages.url}/")


def test_only_a_page_that_shows_the_case_in_work_asks_again_when_more_slices_come(
    people: People, pages: Served, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board, "GROWTH_SECONDS", 0.0)
    store = pages.context.store
    received(store, clock, closed=None)
    page, other = people.sign_in("dr.a"), people.sign_in("dr.b")
    other.goto(f"{pages.url}/?q=nobody")
    other.locator("#live[data-state=live]").wait_for()
    other.wait_for_load_state("networkidle")
    asked: list[str] = []
    other.on("request", lambda request: asked.append(request.url))
    expect(page.locator('tr[data-case="1"]')).to_contain_text("3 slices")
    add(store, clock, header(4))
    expect(page.locator('tr[data-case="1"]')).to_contain_text("4 slices")
    assert asked == []
    reported(store, clock, series="2.25.2")
    expect(other.locator(".summary")).to_contain_text("1 suspected aneurysm")


def test_of_two_people_the_second_sees_what_the_first_did(people: People, pages: Served, clock: FakeClock) -> None:
    people.expected = [GONE, "409 (Conflict)"]
    reported(pages.context.store, clock)
    one, other = people.sign_in("dr.a"), people.sign_in("dr.b")
    for page in (one, other):
        page.goto(f"{pages.url}/cases/1")
        page.locator("#live[data-state=live]").wait_for()
    one.keyboard.press("a")
    expect(other.locator("#review .decide")).to_contain_text("Acknowledged by dr.a")
    late = other.locator("#review")
    other.evaluate("document.querySelector('#review').dataset.version = '0'")
    other.evaluate(
        "htmx.ajax('POST', '/cases/1/review', {target: '#review', swap: 'outerHTML', "
        "values: {version: 0, action: 'acknowledged'}, source: '#review'})"
    )
    expect(late).to_contain_text("dr.a was faster: acknowledged the case")
    assert [entry.account for entry in pages.context.store.reviews.entries(1)] == ["dr.a"]


def test_findings_are_shown_on_their_slices_accepted_and_rejected_with_the_keyboard(
    people: People, pages: Served, files: Files, clock: FakeClock
) -> None:
    with_masks(pages.context.store, files, clock)
    page = people.sign_in("dr.a")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    drawn(page, 5)
    page.keyboard.press("ArrowUp")
    drawn(page, 6)
    page.keyboard.press("j")
    drawn(page, 17)
    page.keyboard.press("3")
    expect(page.locator("#window-words")).to_have_text("L 75  W 215")
    page.keyboard.press("m")
    expect(page.locator("#window-words")).to_contain_text("MIP")
    page.keyboard.press("m")
    page.keyboard.press("s")
    expect(page.locator("#viewer[data-masked]")).not_to_have_attribute("data-masked", "0")
    page.keyboard.press("v")
    page.locator('#viewer[data-view="coronal"][data-drawn="20"]').wait_for()
    expect(page.locator("#slice-words")).to_have_text("coronal 21 / 64")
    expect(page.locator(".side")).to_have_text(["R", "L", "H", "F"])
    picture(page, "case-coronal")
    page.keyboard.press("v")
    page.locator('#viewer[data-view="sagittal"][data-drawn="30"]').wait_for()
    page.keyboard.press("v")
    page.locator('#viewer[data-view="oblique"][data-drawn="60"]').wait_for()
    expect(page.locator("#window-words")).to_contain_text("MIP 10 mm")
    middle = page.locator("#viewer").get_attribute("data-circle2")
    for key in ("ArrowRight", "ArrowRight", "ArrowUp"):
        page.keyboard.press(key)
    expect(page.locator("#slice-words")).to_have_text("oblique 10° 5°  61 / 121")
    assert page.locator("#viewer").get_attribute("data-circle2") == middle, "it turns about the finding"
    expect(page.locator("#viewer[data-masked]")).not_to_have_attribute("data-masked", "0")
    picture(page, "case-oblique")
    page.keyboard.press("v")
    page.keyboard.press("1")
    drawn(page, 17)
    expect(page.locator(".side")).to_have_text(["R", "L", "A", "P"])
    picture(page, "case")
    page.keyboard.press("r")
    page.get_by_role("button", name="Infundibulum").click()
    expect(page.locator('.found[data-finding="2"]')).to_contain_text("rejected: infundibulum by dr.a")
    page.keyboard.press("k")
    drawn(page, 5)
    page.keyboard.press("y")
    expect(page.locator('.found[data-finding="1"]')).to_contain_text("accepted by dr.a")
    page.keyboard.press("u")
    expect(page.locator('.found[data-finding="1"] .decision')).to_have_count(0)
    expect(page.locator('.found[data-finding="2"]')).to_contain_text("rejected")


def test_the_page_says_that_it_is_old_and_catches_up_when_the_server_is_back(
    people: People, pages: Served, clock: FakeClock
) -> None:
    lost = ["ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_EMPTY_RESPONSE"]
    people.expected = [*lost, "htmx:", "[object Event]"]  # the last: what htmx writes of a stream that ended
    received(pages.context.store, clock, series="2.25.1", patient_name="First^Fay")
    page = people.sign_in("dr.a")
    pages.stop()
    expect(page.locator("#live")).to_contain_text("this list may be old")
    reported(pages.context.store, clock, series="2.25.2", patient_name="Meanwhile^Max")
    pages.start()
    expect(page.locator("#live[data-state=live]")).to_be_visible(timeout=15_000)
    expect(page.locator("tr[data-case] .name")).to_have_text(["Meanwhile, Max", "First, Fay"])


def test_a_page_without_its_database_says_so_and_recovers_by_itself(
    people: People, pages: Served, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    people.expected = ["500 (Internal Server Error)", "Error Code 500"]  # rows asked for just when it goes away
    page = people.sign_in("dr.a")
    with monkeypatch.context() as patched:
        patched.setattr(pages.context.store.changes, "stamp", lambda: 1 // 0)
        expect(page.locator("#live")).to_contain_text("Database away")
        reported(pages.context.store, clock, series="2.25.2", patient_name="Meanwhile^Max")
    expect(page.locator("#live")).to_contain_text("Live")
    expect(page.locator("tr[data-case] .name")).to_have_text(["Meanwhile, Max"])


def test_hostile_names_are_only_text(people: People, pages: Served, files: Files, clock: FakeClock) -> None:
    people.expected = [GONE]
    hostile: dict[str, Any] = dict.fromkeys(("patient_id", "accession_number", "series_description"), HOSTILE)
    store = pages.context.store
    received(store, clock, series="2.25.1", patient_name=HOSTILE, **hostile)
    received(store, clock, series="2.25.2", patient_name="\u202etxet desrever^" + "x" * 3000)
    page = people.sign_in("dr.a")
    expect(page.locator('tr[data-case="1"]')).to_contain_text("<script>alert(1)</script>")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    picture(page, "hostile")
    page.goto(f"{pages.url}/cases/1")
    expect(page.locator("h1")).to_contain_text("<script>alert(1)</script>")
    page.goto(f"{pages.url}/?q=%3Cscript%3Ealert(1)%3C/script%3E&show=%22onload=alert(1)")
    expect(page.get_by_role("searchbox")).to_have_value("<script>alert(1)</script>")


def test_filters_are_in_the_address_and_survive_a_reload(people: People, pages: Served, clock: FakeClock) -> None:
    for number, name in enumerate(("Alpha^Ann", "Beta^Bea")):
        received(pages.context.store, clock, series=f"2.25.{number}", patient_name=name)
    page = people.sign_in("dr.a")
    page.keyboard.press("/")
    page.keyboard.type("bea")
    expect(page.locator("tr[data-case] .name")).to_have_text(["Beta, Bea"])
    page.wait_for_url(lambda url: url.endswith("/?q=bea"))
    page.reload()
    assert names(page) == ["Beta, Bea"]
    page.get_by_label("Outcome").select_option("negative")
    expect(page.get_by_text("No case fits.")).to_be_visible()
    page.wait_for_url(lambda url: url.endswith("/?outcome=negative&q=bea"))


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_nothing_stands_in_the_way_of_anybody(
    people: People, pages: Served, files: Files, clock: FakeClock, colours: str
) -> None:
    store = pages.context.store
    with_masks(store, files, clock, SeriesDescription="CTA 0.75")
    reported(store, clock, series="2.25.9", study_instance_uid="2.25.8", study_date="20250301", patient_name="Doe^Jane")
    reported(store, clock, Outcome.NOT_ANALYSED, series="2.25.2", patient_name="Gap^Gerda")
    reported(store, clock, Outcome.NEGATIVE, series="2.25.3", patient_name="Calm^Carl")
    received(store, clock, series="2.25.4", patient_name="New^Nora")
    page = people.sign_in("lead", Role.LEAD, color_scheme=colours)
    no_violations(page)
    picture(page, f"worklist-{colours}")
    page.keyboard.press("?")
    no_violations(page)
    page.keyboard.press("Escape")
    page.goto(f"{pages.url}/cases/1")
    drawn(page, 5)
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    no_violations(page)
    picture(page, f"case-{colours}")
    page.set_viewport_size({"width": 390, "height": 844})
    no_violations(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    picture(page, f"case-phone-{colours}")
    page.goto(pages.url)
    no_violations(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    picture(page, f"worklist-phone-{colours}")
    stranger = people.window(color_scheme=colours)
    stranger.goto(f"{pages.url}/sign-in")
    no_violations(stranger)


def no_violations(page: Page) -> None:
    """axe-core finds nothing against WCAG 2.2 AA on the page as it is."""
    page.evaluate(AXE.read_text("utf-8") + "\n;undefined")
    found = page.evaluate("tags => axe.run({ runOnly: tags })", TAGS)
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]] == []


def test_ten_thousand_cases_are_a_page_like_any_other(people: People, pages: Served, clock: FakeClock) -> None:
    store = pages.context.store
    claim = claimed(store, clock, series="2.25.1", patient_name="Many^Mary")
    assert finish(store, clock, claim)
    with store.transactions.writing() as session:
        [first] = session.execute(text("SELECT * FROM series")).mappings()
        columns = [name for name in first if name not in ("id", "priority", "p_absent", "series_instance_uid")]
        session.execute(
            text(
                "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 9999) "
                f"INSERT INTO series (series_instance_uid, {', '.join(columns)}) "
                f"SELECT '2.25.7' || n.x, {', '.join('s.' + name for name in columns)} FROM n, series s"
            )
        )
    page = people.sign_in("dr.a")
    expect(page.locator("tr[data-case]")).to_have_count(50)
    expect(page.locator(".pages")).to_contain_text("1–50 of 10000")
    page.keyboard.press("j")
    page.keyboard.press("a")
    expect(page.locator(".pages")).to_contain_text("of 9999")
    page.get_by_role("link", name="Next").click()
    expect(page.locator(".pages")).to_contain_text("51–100 of 9999")
