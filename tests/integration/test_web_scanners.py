"""What the page of statistics says of scanners that have changed, over a real socket."""

from dataclasses import replace
from datetime import timedelta
from html import unescape
from pathlib import Path
from re import findall
from statistics import median
from urllib.parse import quote
from xml.etree.ElementTree import fromstring

import httpx
import numpy as np

from node.workflow.drift import by_scanner
from storage.files.instances import Files
from storage.queries.accounts import Role
from storage.queries.drift import Drifted
from storage.records import Measured
from storage.store import Store
from tests.integration.test_web_statistics import text_of
from tests.integration.web_pages import HOSTILE
from tests.support.builders import START, FakeClock
from tests.support.pages import Served, serving, web_context
from tests.support.simulated_scanner import CASES_A_DAY, SCANNER, SITE, cases


def measured(scanner: str, count: int, sharper: bool = False, after: int = 0, site: str = SITE) -> list[Measured]:
    found = cases(np.random.default_rng(3 + after), START + timedelta(days=after / 12), count, sharper=sharper)
    return [replace(each, scanner=scanner, site=site) for each in found]


def pictures_of(page: httpx.Response) -> list[tuple[str, str]]:
    """Address and text of each plot."""
    return [
        (unescape(a), unescape(t))
        for a, t in findall(r'<img class="drawn"[^>]* src="([^"]*)" alt="([^"]*)"', page.text)
    ]


def test_each_scanner_has_its_verdict_and_what_changed_from_what_to_what_since_when(quick: Served) -> None:
    drift = quick.context.store.drift
    known = [*measured(SCANNER, 400), *measured(SCANNER, 60, sharper=True, after=400)]
    baseline, block = known[: 4 * 7 * CASES_A_DAY], known[426:456]
    then, now = (f"{median(each.noise_hu or 0 for each in part):.3g}" for part in (baseline, block))
    others, of_block = (
        f"{sum(each.kernel != 'H40s' for each in part) / len(part) * 100:.0f} %" for part in (baseline, block)
    )
    assert (float(then) < 13 < 15 < float(now), of_block) == (True, "100 %")
    drift.add([*known, *measured("Same", 400), *measured("New", 34), *measured("Same", 1, site="ANNEX")])
    since = START + timedelta(days=39)
    drift.notice(
        [
            Drifted(SITE, SCANNER, "noise HU", "noise HU from 12 to 17", since),
            Drifted(SITE, SCANNER, "share of other kernels", "share of other kernels from 0.05 to 1", since),
        ]
    )
    page = quick.signed_in("head", Role.LEAD).get("/statistics")
    words = text_of(page)
    numbers = {key: number for number, key in enumerate(sorted(by_scanner(drift.measured())), 1)}
    assert f"type willis drift --accept {numbers[SITE, SCANNER]} on" in words, "the number that the command means"
    assert words.count("do not measure as in its first weeks") == 1
    assert f"Noise (HU) {then} {now} {since:%d %b %Y}" in words
    assert f"Cases with another kernel than the usual one {others} {of_block} {since:%d %b %Y}" in words
    assert f"Its images measure as in its first weeks: 336 cases from {START:%d %b %Y} on." in words
    assert words.count("Not known yet: its first 4 weeks, at least 60 cases, and 30 more are needed.") == 2
    shown = {text.split(" from ")[0]: text for _, text in pictures_of(page)}
    assert f"Noise (HU) {then} then, {now} now" in shown[f"What {SCANNER}"]
    assert len(pictures_of(page)) == 4


def test_a_plot_is_drawn_when_asked_for_and_has_another_address_with_other_cases(quick: Served) -> None:
    store = quick.context.store
    store.drift.add(measured(SCANNER, 400))
    client = quick.signed_in("head", Role.LEAD)
    [(address, _)] = pictures_of(client.get("/statistics"))
    drawn = client.get(address)
    assert (drawn.status_code, drawn.headers["content-type"]) == (200, "image/svg+xml")
    assert "max-age" in drawn.headers["cache-control"]
    picture = fromstring(drawn.text)
    assert len(list(picture.iter("{http://www.w3.org/2000/svg}circle"))) == 8 * (400 // 30)
    store.drift.add(measured(SCANNER, 1, after=400))
    [(with_one_more, _)] = pictures_of(client.get("/statistics"))
    store.drift.accept(SITE, SCANNER, START + timedelta(days=10))
    [(accepted, _)] = pictures_of(client.get("/statistics"))
    assert len({address, with_one_more, accepted}) == 3
    assert client.get("/statistics/scanner.svg?site=PACS&scanner=none").status_code == 404


def test_readers_are_told_nothing_of_scanners(quick: Served) -> None:
    quick.context.store.drift.add(measured(SCANNER, 40))
    client = quick.signed_in("reader")
    assert "Scanners" not in client.get("/statistics").text
    assert client.get(f"/statistics/scanner.svg?site={SITE}&scanner={quote(SCANNER)}").status_code == 403
    assert "Scanners" in quick.signed_in("chief", Role.ADMINISTRATOR).get("/statistics").text


def test_what_a_header_calls_a_scanner_is_text_on_the_page_and_in_the_plot(quick: Served) -> None:
    drift, name = quick.context.store.drift, f"{HOSTILE}\x1b&"
    drift.add(measured(name, 90))
    drift.notice([Drifted(SITE, name, HOSTILE, HOSTILE, START)])
    client = quick.signed_in("head", Role.LEAD)
    page = client.get("/statistics")
    assert "<script>alert" not in page.text and "<img src=x" not in page.text
    [(address, text)] = pictures_of(page)
    assert HOSTILE in text
    drawn = client.get(address)
    assert drawn.status_code == 200
    assert f"{HOSTILE}?&" in "".join(fromstring(drawn.text).itertext())


def test_where_there_is_nothing_to_see_the_page_says_so(
    sqlite_store: Store, files: Files, tmp_path: Path, clock: FakeClock
) -> None:
    made = web_context(sqlite_store, files, tmp_path, clock)
    with serving(made) as served:
        page = text_of(served.signed_in("head", Role.LEAD).get("/statistics"))
    assert "Scanners Nothing to see yet" in page
    sqlite_store.drift.add(measured(SCANNER, 40))
    off = made.config.model_copy(update={"drift": made.config.drift.model_copy(update={"baseline_weeks": 0})})
    with serving(replace(made, config=off)) as served:
        client = served.signed_in("other", Role.LEAD)
        assert "Scanners are not compared here" in text_of(client.get("/statistics"))
        assert client.get(f"/statistics/scanner.svg?site={SITE}&scanner={quote(SCANNER)}").status_code == 404
