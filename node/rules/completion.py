"""Is this series whole?  Pure rules: evidence first, the quiet timer last.

A count that the sender confirms decides at once; it counts objects of every kind, so that the sender is asked of which
kind those are that have not come, and only slices are waited for.  So does release of every association that brought the series, when
the slices are evenly spaced and both ends are shown to be there: by the anatomy, or by a peer that sends a series on
one association.  Even spacing alone proves nothing: the first 100 of 400 slices are evenly spaced too.
Where the quiet timer would decide on what may be a part, a peer that gives again is first asked for the rest.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from node.config.sections import Completion
from node.rules.parts import lacking, was_asked_kinds
from storage.records import AssociationEnd, Contribution, Series


class Evidence(StrEnum):
    """Why a series was taken to be whole; kept with it."""

    COUNT = "count"
    MULTI_FRAME = "multi_frame"
    ONE_ASSOCIATION = "one_association"
    ANATOMY = "anatomy"
    QUIET = "quiet"


@dataclass(frozen=True)
class Whole:
    """The series is taken to be whole."""

    evidence: Evidence


@dataclass(frozen=True)
class Wait:
    """Not yet.

    `ask_count`: the sender should be asked how many instances the series has; `ask_kinds`: of which SOP classes those
    are that it counts and that are not here; `retrieve`: for those that are missing.
    """

    ask_count: bool = False
    retrieve: bool = False
    ask_kinds: bool = False


@dataclass(frozen=True)
class Geometry:
    """What the slices themselves show; each question may be expensive and is asked only when it decides."""

    is_multi_frame: Callable[[], bool]
    is_even: Callable[[], bool]
    shows_both_ends: Callable[[], bool]
    holds_ct: Callable[[], bool] = lambda: True
    """Any instance is of a class that slices are of.  Of a series of other objects nothing is asked."""


@dataclass(frozen=True)
class Sender:
    """What is known of the peer: whether it answers queries, sends a series on one association, and gives again."""

    answers_queries: bool
    series_on_one_association: bool
    retrieves: bool = False


ASK_AFTER = timedelta(seconds=0.25)
"""A sender in full flow is not asked: the count would be stale with the next slice."""
PAUSE_IN_GAPS, LONGEST_PAUSE = 4, timedelta(seconds=5)
"""A slow sender is not asked after every slice either, but when it has paused for so many times its mean gap."""
ASK_KINDS_AFTER = timedelta(seconds=2)
"""The answer has a line for each instance: whoever opens an association for each slice is not asked after each."""


def assess(
    series: Series,
    contributions: Sequence[Contribution],
    sender: Sender,
    geometry: Geometry,
    now: datetime,
    rules: Completion,
) -> Whole | Wait:
    """Whether the series, as read together with its contributions at `now`, is whole."""
    idle = now - series.last_instance_at
    open_ones = [part for part in contributions if part.closed is None]
    released = all(part.closed is AssociationEnd.RELEASED for part in contributions)

    if series.expected_count is not None and 0 in (lacking(series), series.expected_count - series.instance_count):
        return Whole(Evidence.COUNT)
    asked = series.count_asked_at is not None and series.count_asked_at > series.last_instance_at
    whole_parts = released and series.instance_count >= 2 * len(contributions)
    may_ask = sender.answers_queries and (whole_parts or idle >= _pause(series))
    if may_ask and not asked and geometry.holds_ct():
        return Wait(ask_count=True)
    more_expected = lacking(series) > 0
    if sender.answers_queries and more_expected and not was_asked_kinds(series) and idle >= ASK_KINDS_AFTER:
        return Wait(ask_kinds=True)
    if released and not more_expected and (evidence := _from_geometry(contributions, sender, geometry)):
        return Whole(evidence)
    limit_seconds = rules.open_association_quiet_seconds if open_ones else rules.quiet_seconds
    if idle < timedelta(seconds=limit_seconds):
        return Wait()
    if sender.retrieves and geometry.holds_ct() and (more_expected or _may_lack_slices(geometry)):
        if series.retrieve_until is not None and now < series.retrieve_until:
            return Wait()
        if series.retrievals < rules.retrieve_attempts:
            return Wait(retrieve=True)
    return Whole(Evidence.QUIET)


def _pause(series: Series) -> timedelta:
    """How long this sender must be idle before it is asked."""
    mean_gap = (series.last_instance_at - series.first_instance_at) / max(series.instance_count - 1, 1)
    return max(ASK_AFTER, min(PAUSE_IN_GAPS * mean_gap, LONGEST_PAUSE))


def _may_lack_slices(geometry: Geometry) -> bool:
    return not geometry.is_multi_frame() and not (geometry.is_even() and geometry.shows_both_ends())


def _from_geometry(contributions: Sequence[Contribution], sender: Sender, geometry: Geometry) -> Evidence | None:
    if geometry.is_multi_frame():
        return Evidence.MULTI_FRAME
    if not geometry.is_even():
        return None
    if sender.series_on_one_association and len(contributions) == 1:
        return Evidence.ONE_ASSOCIATION
    return Evidence.ANATOMY if geometry.shows_both_ends() else None


def is_habit(history: Sequence[tuple[int, int]], enough: int) -> bool:
    """Whether a peer's last series, as (revision, associations), show that it sends each whole on one association."""
    return 0 < enough <= len(history) and all(part == (1, 1) for part in history)
