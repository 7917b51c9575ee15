"""A browser, and the pages on a socket before it."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Dialog, Page, expect, sync_playwright

from node.runtime.clock import utc_now
from storage.files.instances import Files
from storage.queries.accounts import Role
from storage.store import Store
from tests.support.absent import absent
from tests.support.builders import FakeClock
from tests.support.pages import PASSWORD, Served, serving, web_context
from tests.support.unmeasured import unmeasured  # noqa: F401  fixture

PICTURES = Path("var/browser")
SLOWEST_MS = 20_000
"""Until something is taken not to come: a machine of two cores may be busy."""
expect.set_options(timeout=SLOWEST_MS)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, without a window."""
    program = shutil.which("chromium")
    if program is None:
        absent("no chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def pages(sqlite_store: Store, files: Files, tmp_path: Path) -> Iterator[Served]:
    with serving(web_context(sqlite_store, files, tmp_path)) as served:
        yield served


@pytest.fixture
def clock() -> FakeClock:
    """It stands still a few minutes ago."""
    clock = FakeClock(utc_now())
    clock.advance(-300)
    return clock


class People:
    """Opens windows of people who have signed in, and keeps what went wrong in them."""

    def __init__(self, browser: Browser, served: Served) -> None:
        self._browser, self._served = browser, served
        self.wrong: list[str] = []
        self.expected: list[str] = []
        """What the browser may note besides, such as `410 (Gone)`."""

    def window(self, **options: Any) -> Page:
        """A window of its own, of nobody."""
        context = self._browser.new_context(viewport={"width": 1360, "height": 860}, **options)
        context.set_default_timeout(SLOWEST_MS)
        page = context.new_page()
        page.on(
            "console", lambda message: self.wrong.append(message.text) if message.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("dialog", self._dismiss)
        page.on("request", lambda asked: self._check(asked.url))
        return page

    def _dismiss(self, dialog: Dialog) -> None:
        self.wrong.append("a dialog")
        dialog.dismiss()

    def _check(self, url: str) -> None:
        if not url.startswith(self._served.url):
            self.wrong.append(f"asked {url}")

    def sign_in(self, name: str, role: Role = Role.READER, **options: Any) -> Page:
        """The worklist, live, before a person of this name."""
        self._served.account(name, role)
        page = self.window(**options)
        page.goto(self._served.url)
        page.get_by_label("Name").fill(name)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        page.locator("#live[data-state=live]").wait_for()
        return page


@pytest.fixture
def people(chromium: Browser, pages: Served) -> Iterator[People]:
    """Nothing has gone wrong in any of their windows when the test ends."""
    made = People(chromium, pages)
    yield made
    for context in chromium.contexts:
        context.close()
    assert [message for message in made.wrong if not any(each in message for each in made.expected)] == []


def picture(page: Page, name: str) -> None:
    """What the page looks like is in `var/browser`, for people to look at."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png")
