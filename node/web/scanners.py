"""Whether each scanner's images measure as in its first weeks, in plain words, as the node's hourly look left it.

Nothing is tested here, so that the pages' process stays without scipy; cases are read of scanners that have drifted.
"""

from collections import defaultdict
from datetime import datetime, tzinfo
from typing import Any
from urllib.parse import urlencode

from node.results.drift_picture import drift_picture
from node.rules.drift import BLOCK, LEAST_BASELINE, SHARES, baseline_size, then_and_now
from node.web.requests import Asked
from storage.queries.accounts import Role
from storage.queries.drift import Drift, Drifted, ScannerCases

ADDRESS = "/statistics/scanner.svg"
MEASURES = {
    "probability": "Probability that the model gives",
    "arterial HU": "Brightness of the arteries (HU)",
    "noise HU": "Noise (HU)",
    "circle spread mm": "How unsure the place of the circle of Willis is (mm)",
    "dose mGy": "Dose, CTDIvol (mGy)",
    "share of positives": "Positive cases",
    "share of limited images": "Cases whose images limit the answer",
    "share of other kernels": "Cases with another kernel than the usual one",
}


def may_see(asked: Asked) -> bool:
    """Whether who asks is told of scanners: leads and administrators, who can ask a site what was changed."""
    return asked.account.may(Role.LEAD)


def section(asked: Asked) -> dict[str, Any] | None:
    """What the page says of all scanners; None for those who are not told."""
    weeks, drift = asked.context.config.drift.baseline_weeks, asked.context.store.drift
    if not may_see(asked):
        return None
    changed = defaultdict[tuple[str, str], list[Drifted]](list)
    for each in drift.drifted():
        changed[each.site, each.scanner].append(each)
    scanners = drift.scanners(weeks) if weeks else []
    return {
        "weeks": f"{weeks:g}" if weeks else "",
        "least": LEAST_BASELINE,
        "block": BLOCK,
        "scanners": [
            _scanner(number, each, changed[each.site, each.scanner], drift, weeks, asked.context.zone)
            for number, each in enumerate(scanners, 1)
        ],
    }


def _scanner(
    number: int, each: ScannerCases, changed: list[Drifted], drift: Drift, weeks: float, zone: tzinfo | None
) -> dict[str, Any]:
    """One of them.  `number`: that of `willis drift`.  The picture's address changes with the cases that it shows."""
    baseline = baseline_size(each.count, each.within)
    verdict = "changed" if changed else "same" if baseline and each.count - baseline >= BLOCK else "unknown"
    stamp = f"{each.count}.{each.first_at:%Y%m%d%H%M%S}.{weeks:g}"
    return {
        "number": number,
        "site": each.site,
        "name": each.scanner,
        "count": each.count,
        "baseline": baseline,
        "first": _day(each.first_at, zone),
        "last": _day(each.last_at, zone),
        "verdict": verdict,
        "changes": _changes(changed, drift, weeks, zone),
        "picture": f"{ADDRESS}?{urlencode({'site': each.site, 'scanner': each.scanner, 'of': stamp})}",
    }


def _changes(changed: list[Drifted], drift: Drift, weeks: float, zone: tzinfo | None) -> list[dict[str, str]]:
    """A line for each measure that is not as it was.  `message`: where its values cannot be had any longer."""
    cases = drift.measured(changed[0].site, changed[0].scanner) if changed else []
    lines = []
    for each in changed:
        values = then_and_now(each.what, cases, weeks)
        line = {"what": MEASURES.get(each.what, each.what), "since": _day(each.noticed_at, zone)}
        if values is None:
            lines.append(line | {"message": each.message})
        else:
            then, now = (f"{value * 100:.0f} %" if each.what in SHARES else f"{value:.3g}" for value in values)
            lines.append(line | {"then": then, "now": now})
    return lines


def _day(at: datetime, zone: tzinfo | None) -> str:
    return f"{at.astimezone(zone):%d %b %Y}"


def picture(asked: Asked) -> str | None:
    """An SVG of the scanner that the address names; None where it has no case."""
    named = asked.request.query_params
    site, scanner = named.get("site", ""), named.get("scanner", "")
    cases = asked.context.store.drift.measured(site, scanner)
    weeks = asked.context.config.drift.baseline_weeks
    return drift_picture(f"{site}, {scanner}", cases, weeks) if cases and weeks else None
