"""The triage page in real Chromium, with 10,000 open cases and 50 open pages: `make bench-web`.

A whole node runs (`willis serve`, SQLite).  One page is Chromium's; the others are streams of events that fetch the rows after
each event, as the page does, from a process of their own.  All share the machine's cores with the node: a figure is worth
what the machine is idle otherwise, so the load is printed.
"""

import argparse
import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Page, sync_playwright
from pydicom import dcmread
from sqlalchemy import text

from node.cli.demo import SEEDS
from node.results.identity import derive_uid
from node.runtime.clock import utc_now
from node.web.listing import ROWS_A_PAGE
from node.web.passwords import Passwords
from storage.files.instances import Files
from storage.queries.accounts import Role
from storage.queries.reviews import Action, Wanted
from storage.stages import Event
from storage.store import Store
from tests.support.builders import LEASE, FakeClock, claimed, finish, keep
from tests.support.dicom_factory import ct_series
from tests.support.running import ROOT, RunningNode, cached_phantom, free_port, wait_until

CASES, PAGES, SLICES, SIDE = 10_000, 50, 400, 512
NAME, PASSWORD = "dr.a", "correct horse"
WHEN_DRAWN = """
(() => {
  const look = () => {
    if (document.querySelector('#viewer[data-drawn]')) window.drawnMs = performance.now();
    else requestAnimationFrame(look);
  };
  addEventListener('DOMContentLoaded', look);
})();
"""
WHEN_CHANGED = """
() => {
  window.changedAt = 0;
  new MutationObserver(() => {
    const total = document.querySelector('.pages')?.textContent;
    if (total && total !== window.total) { window.total = total; window.changedAt = Date.now(); }
  }).observe(document.body, { childList: true, subtree: true });
  window.total = document.querySelector('.pages').textContent;
}
"""
FRAMES = """
async (key) => {
  const viewer = document.getElementById('viewer');
  const press = (name) => document.dispatchEvent(new KeyboardEvent('keydown', { key: name, bubbles: true }));
  const began = performance.now();
  let [frames, drawn, words] = [0, viewer.dataset.drawn, ''];
  while (performance.now() - began < 3000) {
    press(key);
    await new Promise(requestAnimationFrame);
    const now = `${viewer.dataset.drawn} ${document.getElementById('slice-words').textContent}`;
    if (now !== words) frames += 1;
    words = now;
  }
  return frames / ((performance.now() - began) / 1000);
}
"""
Row = tuple[str, str, str, bool | None]


def main() -> None:
    """Prints the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=10, help="of each figure but the node's")
    arguments.add_argument("--studies", type=int, default=4, help="sent without pages, and as many with 50, in turn")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="willis-bench-") as folder:
        port = free_port()
        node = RunningNode(Path(folder), web__enabled="true", web__port=str(port))
        print(f"{CASES} open cases, one of them with {SLICES} slices", file=sys.stderr)
        files = Files(node.config.storage.directory)
        case = filled(node.store, files)
        node.start()
        url = f"http://127.0.0.1:{port}"
        try:
            wait_until(lambda: _answers(url), 60, "the pages answer")
            rows = measured(node, url, case, options.rounds, options.studies, Path(folder))
        finally:
            node.close()
    load = os.getloadavg()[1]
    print(f"\n{os.cpu_count()} cores, load of the last 5 minutes {load:.1f} (all that is measured is in it)\n")
    print("| figure | goal | measured | met |\n|---|---|---|---|")
    for name, goal, found, met in rows:
        print(f"| {name} | {goal} | {found} | {'yes' if met else 'no'} |")


def filled(store: Store, files: Files) -> int:
    """The account and the cases are there; returns the number of the case with slices."""
    clock = FakeClock(utc_now())
    store.accounts.add(NAME, Role.LEAD, Passwords().hashed(PASSWORD), clock())
    claim = claimed(store, clock, series="2.25.1", patient_name="Many^Mary")
    assert finish(store, clock, claim, destinations=())
    with store.transactions.writing() as session:
        [first] = session.execute(text("SELECT * FROM series")).mappings()
        columns = [name for name in first if name not in ("id", "priority", "p_absent", "series_instance_uid")]
        session.execute(
            text(
                f"WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < {CASES - 2}) "
                f"INSERT INTO series (series_instance_uid, {', '.join(columns)}) "
                f"SELECT '2.25.7' || n.x, {', '.join('s.' + name for name in columns)} FROM n, series s"
            )
        )
    noise = np.random.default_rng(1).normal(0, 12, (SIDE, SIDE))

    def head(index: int) -> NDArray[np.int16]:
        row, column = np.mgrid[:SIDE, :SIDE] - SIDE / 2
        inside = np.hypot(row / 230, column / 190) <= 1
        return np.asarray(np.where(inside, 40 + index % 50, -1000) + noise, np.int16)

    slices = ct_series(
        SLICES, rows=SIDE, columns=SIDE, pixel_spacing_mm=(0.45, 0.45), step_mm=(0.0, 0.0, 0.5), hu=head,
        SeriesInstanceUID="2.25.9",
    )  # fmt: skip
    series = keep(store, files, clock, slices)
    store.settling.leave(series, Event.SETTLED, "count", clock())
    claim_ = store.queue.claim("worker:1", clock(), LEASE, 3)
    assert claim_ is not None
    assert finish(store, clock, claim_, destinations=())
    return series.id


def measured(node: RunningNode, url: str, case: int, rounds: int, studies: int, folder: Path) -> list[Row]:
    """The table's rows."""
    program = shutil.which("chromium")
    if program is None:
        raise SystemExit("no chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 1360, "height": 860})
        page = context.new_page()
        signed_in(page, url)
        cookie = "; ".join(f"{each['name']}={each['value']}" for each in context.cookies())
        with pages(url, cookie, PAGES - 1):
            paints = [first_paint(page, url) for _ in range(rounds)]
            print(f"first paint, ms: {_listed(paints)}", file=sys.stderr)
            updates = live_updates(page, node.store, rounds)
            print(f"live update, ms: {_listed(updates)}", file=sys.stderr)
            context.add_init_script(WHEN_DRAWN)
            slices = [first_slice(page, f"{url}/cases/{case}") for _ in range(rounds)]
            print(f"first slice, ms: {_listed(slices)}", file=sys.stderr)
            kib = web_memory_kib(node)
            print(f"web process, KiB: {kib}", file=sys.stderr)
            scrolled, turned = frames(page)
            print(f"frames a second: {scrolled:.0f} scrolled, {turned:.0f} turned", file=sys.stderr)
        page.goto("about:blank")
        seconds: dict[bool, list[float]] = {False: [], True: []}
        source = cached_phantom("negative", seed=SEEDS["negative"], positive=False, matrix=384, spacing_mm=0.7)
        last_slice_to_report(node, source, folder, 0)  # the worker is warm
        for number in range(1, 2 * studies + 1):
            is_open = number % 4 in (2, 3)  # without, with, with, without
            if is_open:
                page.goto(url)
                with pages(url, cookie, PAGES - 1):
                    seconds[True].append(last_slice_to_report(node, source, folder, number))
                page.goto("about:blank")
            else:
                seconds[False].append(last_slice_to_report(node, source, folder, number))
        browser.close()
    ratio = statistics.median(seconds[True]) / statistics.median(seconds[False])
    each = {key: ", ".join(f"{value:.1f}" for value in found) for key, found in seconds.items()}
    return [
        _row(f"worklist of {CASES:,} open cases, first paint", paints, 300),
        _row(f"live update after the commit, {PAGES} open pages", updates, 300),
        _row(f"first CT slice of {SLICES} visible", slices, 700),
        ("scrolling", "≥ 30 frames/s", f"{scrolled:.0f} frames/s", scrolled >= 30),
        ("oblique slab turned", "≥ 30 frames/s", f"{turned:.0f} frames/s", turned >= 30),
        (
            f"last slice → report, {PAGES} pages open beside none",
            "≤ 1.05 ×",
            f"{ratio:.2f} × ({each[True]} beside {each[False]} s)",
            ratio <= 1.05,
        ),
        (f"memory of the web process, {PAGES} pages", "≤ 200 MiB", f"{kib / 1024:.0f} MiB at most", kib <= 200 * 1024),
    ]


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.0f}" for value in values)


def _row(name: str, found_ms: Sequence[float], goal_ms: float) -> Row:
    median = statistics.median(found_ms)
    return name, f"≤ {goal_ms:.0f} ms", f"{median:.0f} ms (most {max(found_ms):.0f})", median <= goal_ms


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/sign-in", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def signed_in(page: Page, url: str) -> None:
    """The worklist is open."""
    page.goto(url)
    page.get_by_label("Name").fill(NAME)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.locator("#live[data-state=live]").wait_for()


def first_paint(page: Page, url: str) -> float:
    """Milliseconds from the navigation to the first contentful paint, which has the rows: the server sends them."""
    page.goto(url)
    page.locator("tr[data-case]").nth(ROWS_A_PAGE - 1).wait_for()
    script = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0"
    return float(wait_until(lambda: page.evaluate(script), 20, "the first paint"))


def live_updates(page: Page, store: Store, rounds: int) -> list[float]:
    """Milliseconds from each commit to the table that shows it."""
    page.evaluate(WHEN_CHANGED)
    found = []
    for case in range(10, 10 + rounds):
        time.sleep(2.5)
        page.evaluate("() => { window.changedAt = 0; }")
        store.reviews.change(Wanted(case, 0, Action.ACKNOWLEDGED, NAME), utc_now())
        committed_ms = time.time() * 1000
        found.append(float(wait_until(lambda: page.evaluate("() => window.changedAt"), 20, "the row")) - committed_ms)
    return found


def first_slice(page: Page, url: str) -> float:
    """Milliseconds from the navigation to the first drawn slice; nothing is in the browser's cache."""
    page.goto("about:blank")
    session = page.context.new_cdp_session(page)
    session.send("Network.clearBrowserCache")
    session.detach()
    page.goto(url)
    return float(wait_until(lambda: page.evaluate("() => window.drawnMs ?? 0"), 30, "the first slice"))


def frames(page: Page) -> tuple[float, float]:
    """Frames a second while slices are scrolled, and while an oblique slab is turned, when those around are loaded."""
    page.wait_for_timeout(3000)
    scrolled = page.evaluate(FRAMES, "ArrowUp")
    for _ in range(3):
        page.keyboard.press("v")
    page.locator('#viewer[data-view="oblique"]').wait_for()
    words = "() => document.getElementById('slice-words').textContent.includes('loaded')"
    wait_until(lambda: not page.evaluate(words), 120, "all slices are loaded")
    return float(scrolled), float(page.evaluate(FRAMES, "ArrowRight"))


def web_memory_kib(node: RunningNode) -> int:
    """The most that the web process has had in memory."""
    for pid in node.children():
        if b"web" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
            status = Path(f"/proc/{pid}/status").read_text()
            return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
    raise SystemExit("the node has no web process")


def last_slice_to_report(node: RunningNode, source: Sequence[Path], folder: Path, number: int) -> float:
    """Seconds for one more study of the same images."""
    uid = derive_uid("bench", str(number))
    paths = []
    for path in source:
        ds = dcmread(path)
        ds.SeriesInstanceUID, ds.StudyInstanceUID = uid, derive_uid("bench study", str(number))
        ds.SOPInstanceUID = derive_uid("bench", str(number), str(ds.SOPInstanceUID))
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        paths.append(folder / f"{number}-{path.name}")
        ds.save_as(paths[-1])
    assert not [sent for sent in node.send(paths) if sent.error]

    def delivered() -> float:
        row = node.store.worklist.case(uid)
        return (row["delivered_at"] - row["last_instance_at"]).total_seconds() if row and row["delivered_at"] else 0.0

    found = float(wait_until(delivered, 180, "the report is delivered"))
    for path in paths:
        path.unlink()
    return found


@contextmanager
def pages(url: str, cookie: str, count: int) -> Iterator[None]:
    """So many pages hear events, and fetch their rows after each."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", "from tests.benchmarks import bench_web as b; b.listen()", url, cookie, str(count)],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        yield
    finally:
        process.kill()
        process.wait()


def listen() -> None:
    """The process of `pages`."""
    url, cookie, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    asyncio.run(_listen(url, cookie, count))


async def _listen(url: str, cookie: str, count: int) -> None:
    """By plain sockets: in a hospital these pages are on other machines, and cost this one nothing but their requests.

    As in the browser, those that show the most urgent of 10,000 do not ask when another one has grown.
    """
    opened = asyncio.Semaphore(0)
    host, port = url.removeprefix("http://").split(":")

    async def ask(path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        return reader, writer

    async def one() -> None:
        events, _ = await ask("/events")
        while line := await events.readline():
            if line.strip() == b"event: changed":
                rows, writer = await ask("/rows")
                await rows.read()
                writer.close()
                opened.release()

    listening = [asyncio.create_task(one()) for _ in range(count)]
    for _ in listening:
        await opened.acquire()
    print("open", flush=True)
    await asyncio.gather(*listening)


if __name__ == "__main__":
    main()
