"""What a scanner's analyses measured is compared with what they did: an hourly look, kept in the database for health."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from node.rules.drift import BLOCK, LEAST_BASELINE, Shift, ends_of, shifts, threshold
from node.runtime import log
from node.workflow.context import Context
from storage.queries.drift import Drifted
from storage.records import Measured


def look(context: Context) -> int:
    """What has drifted now is in the database; returns how much.

    Of each scanner what is compared is read, and not all that it ever measured.
    """
    store, weeks = context.store.drift, context.config.drift.baseline_weeks
    scanners = store.scanners(weeks)
    if sum(each.count for each in scanners) < LEAST_BASELINE + BLOCK:
        return 0
    compared = dict[tuple[str, str], list[Measured]]()
    for each in scanners:
        first, last = ends_of(each.count, each.within)
        if first:
            compared[each.site, each.scanner] = store.first_and_last(each, first, last)
    found = shifts(compared, weeks, threshold((each.count, each.first_at, each.last_at) for each in scanners))
    now = context.clock()
    drifted = [
        Drifted(site, scanner, shift.what, in_words(shift), now)
        for (site, scanner), of_scanner in sorted(found.items())
        for shift in of_scanner
    ]
    store.notice(drifted)
    if drifted:
        log.get().warning("drift", count=len(drifted))
    return len(drifted)


def by_scanner(measured: Sequence[Measured]) -> Mapping[tuple[str, str], list[Measured]]:
    """The cases of each (site, scanner), in the order of time."""
    found = defaultdict[tuple[str, str], list[Measured]](list)
    for each in measured:
        found[each.site, each.scanner].append(each)
    return found


def in_words(shift: Shift) -> str:
    """From what to what."""
    return f"{shift.what} from {shift.before:.3g} to {shift.now:.3g} (p = {shift.p:.1g}, last {BLOCK} cases)"
