"""Every rule of completion, and above all what is no evidence."""

from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from node.config.sections import Completion
from node.rules.completion import Evidence, Geometry, Sender, Wait, Whole, assess, is_habit
from storage.records import AssociationEnd, Contribution, Missing, Series
from storage.stages import Stage
from tests.support.builders import START

RELEASED, ABORTED, LOST, OPEN = AssociationEnd.RELEASED, AssociationEnd.ABORTED, AssociationEnd.LOST, None
EVEN, UNEVEN = {"even": True}, {"even": False}
BOTH_ENDS = {"even": True, "ends": True}
ONE_FRAME_PER_INSTANCE: dict[str, bool] = {}


@dataclass
class Case:
    """What is known of a series, and what is to be said of it."""

    said: Whole | Wait
    instances: int = 400
    parts: tuple[tuple[int, AssociationEnd | None], ...] = ((400, RELEASED),)
    expected: int | None = None
    asked_seconds_ago: float | None = None
    kinds_seconds_ago: float | None = None
    missing: Missing | None = None
    holds_ct: bool = True
    idle_seconds: float = 0.1
    came_over_seconds: float = 10
    queries: bool = False
    one_association: bool = False
    retrieves: bool = False
    retrievals: int = 0
    retrieval_ends_in_seconds: float | None = None
    shown: dict[str, bool] = field(default_factory=dict)


QUIET, COUNT, ANATOMY = Whole(Evidence.QUIET), Whole(Evidence.COUNT), Whole(Evidence.ANATOMY)
WAIT, ASK, RETRIEVE, ASK_KINDS = Wait(), Wait(ask_count=True), Wait(retrieve=True), Wait(ask_kinds=True)

CASES = {
    # What looks whole and is not.
    "the first 100 of 400 slices, released, evenly spaced": Case(WAIT, 100, ((100, RELEASED),), shown=EVEN),
    "the same, and idle for just less than the quiet timer": Case(
        WAIT, 100, ((100, RELEASED),), idle_seconds=19.9, shown=EVEN
    ),
    "an aborted association, though both ends are shown": Case(WAIT, parts=((400, ABORTED),), shown=BOTH_ENDS),
    "an association lost with its receiver, though both ends are shown": Case(
        WAIT, parts=((400, LOST),), shown=BOTH_ENDS
    ),
    "an open association, though both ends are shown": Case(WAIT, parts=((400, OPEN),), shown=BOTH_ENDS),
    "one of two associations aborted": Case(
        WAIT, parts=((200, RELEASED), (200, ABORTED)), shown=BOTH_ENDS, one_association=True
    ),
    "one association per slice, evenly spaced": Case(WAIT, 3, ((1, RELEASED),) * 3, shown=EVEN),
    "one association per slice from a peer said to send a series on one": Case(
        WAIT, 3, ((1, RELEASED),) * 3, shown=EVEN, one_association=True
    ),
    "a gap, released, from a peer that sends a series on one association": Case(
        WAIT, shown=UNEVEN, one_association=True
    ),
    "both ends shown and more expected": Case(WAIT, expected=401, shown=BOTH_ENDS, one_association=True),
    "both ends claimed but no even stack": Case(WAIT, shown={"even": False, "ends": True}),
    "a multi-frame instance of which more is expected": Case(
        WAIT, 1, ((1, RELEASED),), expected=2, shown={"multi": True}
    ),
    "a multi-frame instance on an association that is still open": Case(WAIT, 1, ((1, OPEN),), shown={"multi": True}),
    # Evidence.
    "the sender's count is reached": Case(COUNT, expected=400, shown=UNEVEN),
    "the sender's count is reached though the association is open": Case(COUNT, parts=((400, OPEN),), expected=400),
    "the sender's count is reached though an association was aborted": Case(
        COUNT, parts=((100, ABORTED), (300, RELEASED)), expected=400
    ),
    "one association from a peer that sends a series on one": Case(
        Whole(Evidence.ONE_ASSOCIATION), shown=EVEN, one_association=True
    ),
    "both ends are shown on one association": Case(ANATOMY, shown=BOTH_ENDS),
    "both ends are shown on several associations": Case(
        ANATOMY, parts=((399, RELEASED), (1, RELEASED)), shown=BOTH_ENDS, one_association=True
    ),
    "both ends are shown and the sender does not know the count": Case(
        ANATOMY, expected=None, asked_seconds_ago=0.05, queries=True, shown=BOTH_ENDS
    ),
    "both ends are shown and more came than the sender knew of": Case(ANATOMY, expected=399, shown=BOTH_ENDS),
    "a released multi-frame instance": Case(Whole(Evidence.MULTI_FRAME), 1, ((1, RELEASED),), shown={"multi": True}),
    # The quiet timer.
    "quiet, released": Case(QUIET, 100, ((100, RELEASED),), idle_seconds=20, shown=EVEN),
    "quiet, aborted": Case(QUIET, parts=((400, ABORTED),), idle_seconds=20),
    "quiet, lost": Case(QUIET, parts=((400, LOST),), idle_seconds=20),
    "quiet with a gap": Case(QUIET, idle_seconds=20, shown=UNEVEN),
    "quiet and more expected: the analysis will say incomplete": Case(QUIET, expected=401, idle_seconds=20),
    "an open association is quiet for longer": Case(WAIT, parts=((400, OPEN),), idle_seconds=59.9),
    "an open association that is quiet for very long": Case(QUIET, parts=((400, OPEN),), idle_seconds=60),
    "one open association among released ones is quiet for longer": Case(
        WAIT, parts=((399, RELEASED), (1, OPEN)), idle_seconds=59.9, shown=BOTH_ENDS
    ),
    # Asking for the count.
    "a released peer that answers queries is asked at once": Case(ASK, queries=True, idle_seconds=0, shown=EVEN),
    "a peer that does not answer queries is not asked": Case(WAIT, idle_seconds=5, shown=EVEN),
    "a peer in full flow is not asked": Case(WAIT, parts=((400, OPEN),), queries=True, idle_seconds=0.24),
    "a peer that pauses is asked": Case(ASK, parts=((400, OPEN),), queries=True, idle_seconds=0.25),
    "a peer that was asked since the last slice is not asked again": Case(
        WAIT, queries=True, idle_seconds=5, asked_seconds_ago=4, kinds_seconds_ago=4, expected=500, shown=EVEN
    ),
    # Its count counts objects of any kind.
    "a peer that counts more is asked of which kind they are": Case(
        ASK_KINDS, queries=True, idle_seconds=5, asked_seconds_ago=4, expected=401, shown=EVEN
    ),
    "not while it may open an association for each slice": Case(
        WAIT, queries=True, idle_seconds=1.9, asked_seconds_ago=1, expected=401, shown=EVEN
    ),
    "again when a slice came since": Case(
        ASK_KINDS, queries=True, idle_seconds=5, asked_seconds_ago=4, kinds_seconds_ago=6, expected=401, shown=EVEN
    ),
    "what is missing is no slice": Case(
        COUNT,
        queries=True,
        idle_seconds=5,
        asked_seconds_ago=4,
        kinds_seconds_ago=3,
        expected=401,
        missing=Missing(0, 1),
        shown=UNEVEN,
    ),
    "what was said before the last slice came holds no longer": Case(
        ASK,
        queries=True,
        idle_seconds=2,
        asked_seconds_ago=4,
        kinds_seconds_ago=3,
        expected=401,
        missing=Missing(0, 1),
        shown=UNEVEN,
    ),
    "a slice is missing too": Case(
        WAIT,
        queries=True,
        idle_seconds=5,
        asked_seconds_ago=4,
        kinds_seconds_ago=3,
        expected=402,
        missing=Missing(1, 1),
        shown=BOTH_ENDS,
    ),
    "the other objects came as well": Case(
        COUNT, 401, ((401, RELEASED),), expected=401, kinds_seconds_ago=60, missing=Missing(0, 1)
    ),
    "the peer does not say of what kind": Case(
        WAIT,
        queries=True,
        idle_seconds=5,
        asked_seconds_ago=4,
        kinds_seconds_ago=3,
        expected=401,
        missing=Missing(0, 0),
        shown=BOTH_ENDS,
    ),
    "of a series of other objects nothing is asked": Case(WAIT, 1, ((1, RELEASED),), queries=True, holds_ct=False),
    "nor is it retrieved": Case(QUIET, 1, ((1, RELEASED),), idle_seconds=20, retrieves=True, holds_ct=False),
    "a peer that gave no answer is not asked again": Case(
        WAIT, queries=True, idle_seconds=5, asked_seconds_ago=4, shown=EVEN
    ),
    "a peer is asked again when slices came since": Case(
        ASK, queries=True, idle_seconds=5, asked_seconds_ago=6, expected=500, shown=EVEN
    ),
    "a peer that was aborted is asked once it is idle": Case(
        ASK, parts=((400, ABORTED),), queries=True, idle_seconds=0.25
    ),
    "a slow sender, a slice a second, is not asked after each slice": Case(
        WAIT, 11, ((11, OPEN),), queries=True, idle_seconds=0.9
    ),
    "nor one that opens an association for each": Case(WAIT, 11, ((1, RELEASED),) * 11, queries=True, idle_seconds=0.9),
    "a slow sender is asked when it pauses for long": Case(ASK, 11, ((11, OPEN),), queries=True, idle_seconds=4),
    "a very slow sender is asked after five seconds": Case(
        ASK, 11, ((11, OPEN),), queries=True, idle_seconds=5, came_over_seconds=600
    ),
    # Asking for what is missing.
    "quiet with a gap, from a peer that gives again": Case(RETRIEVE, idle_seconds=20, retrieves=True, shown=UNEVEN),
    "quiet and no ends shown, from a peer that gives again": Case(
        RETRIEVE, idle_seconds=20, retrieves=True, shown=EVEN
    ),
    "quiet and more expected, from a peer that gives again": Case(
        RETRIEVE, expected=401, idle_seconds=20, retrieves=True, shown=BOTH_ENDS
    ),
    "not yet quiet, from a peer that gives again": Case(WAIT, idle_seconds=19.9, retrieves=True, shown=UNEVEN),
    "complete by count, from a peer that gives again": Case(COUNT, expected=400, retrieves=True, shown=UNEVEN),
    "quiet, aborted, and both ends shown, from a peer that gives again": Case(
        QUIET, parts=((400, ABORTED),), idle_seconds=20, retrieves=True, shown=BOTH_ENDS
    ),
    "a retrieval may still run": Case(
        WAIT, idle_seconds=20, retrieves=True, retrievals=1, retrieval_ends_in_seconds=0.1, shown=UNEVEN
    ),
    "the last retrieval may still run": Case(
        WAIT, idle_seconds=20, retrieves=True, retrievals=3, retrieval_ends_in_seconds=0.1, shown=UNEVEN
    ),
    "a retrieval is over and the series is as it was": Case(
        RETRIEVE, idle_seconds=20, retrieves=True, retrievals=2, retrieval_ends_in_seconds=0, shown=UNEVEN
    ),
    "every retrieval is over and the series is as it was": Case(
        QUIET, idle_seconds=20, retrieves=True, retrievals=3, retrieval_ends_in_seconds=0, shown=UNEVEN
    ),
}


def geometry(shown: dict[str, bool], holds_ct: bool = True) -> Geometry:
    return Geometry(
        lambda: shown.get("multi", False),
        lambda: shown.get("even", False),
        lambda: shown.get("ends", False),
        lambda: holds_ct,
    )


def series(case: Case) -> Series:
    now = START
    return Series(
        id=1,
        series_instance_uid="2.25.1",
        study_instance_uid="2.25.2",
        calling_ae="PACS",
        stage=Stage.RECEIVING,
        revision=1,
        instance_count=case.instances,
        expected_count=case.expected,
        count_asked_at=None if case.asked_seconds_ago is None else now - timedelta(seconds=case.asked_seconds_ago),
        conflicts=(),
        attempts=0,
        first_instance_at=now - timedelta(seconds=case.idle_seconds + case.came_over_seconds),
        last_instance_at=now - timedelta(seconds=case.idle_seconds),
        retrievals=case.retrievals,
        retrieve_until=None
        if case.retrieval_ends_in_seconds is None
        else now + timedelta(seconds=case.retrieval_ends_in_seconds),
        kinds_asked_at=None if case.kinds_seconds_ago is None else now - timedelta(seconds=case.kinds_seconds_ago),
        missing=case.missing,
    )


@pytest.mark.parametrize("name", CASES)
def test_completion_says_of(name: str) -> None:
    case = CASES[name]
    contributions = [Contribution(number, count, closed) for number, (count, closed) in enumerate(case.parts)]
    assert sum(part.instances for part in contributions) == case.instances, "the case contradicts itself"
    sender = Sender(case.queries, case.one_association, case.retrieves)
    said = assess(series(case), contributions, sender, geometry(case.shown, case.holds_ct), START, Completion())
    assert said == case.said


def test_the_timers_are_those_of_the_configuration() -> None:
    rules = Completion(quiet_seconds=3, open_association_quiet_seconds=5)
    idle = series(Case(WAIT, idle_seconds=4))
    quiet = [Contribution(1, 400, RELEASED)], [Contribution(1, 400, OPEN)]
    said = [assess(idle, parts, Sender(False, False), geometry({}), START, rules) for parts in quiet]
    assert said == [QUIET, WAIT]


def test_expensive_questions_are_asked_only_when_they_decide() -> None:
    def never() -> bool:
        raise AssertionError("asked")

    sender, rules = Sender(False, True), Completion()
    released, still_open = [Contribution(1, 400, RELEASED)], [Contribution(1, 400, OPEN)]
    counted = series(Case(COUNT, expected=400))
    assert assess(counted, released, sender, Geometry(never, never, never), START, rules) == COUNT
    assert assess(series(Case(WAIT)), still_open, sender, Geometry(never, never, never), START, rules) == WAIT
    cheap = Geometry(lambda: False, lambda: True, never)
    assert assess(series(Case(WAIT)), released, sender, cheap, START, rules) == Whole(Evidence.ONE_ASSOCIATION)


@pytest.mark.parametrize(
    ("history", "enough", "said"),
    [
        ([(1, 1)] * 5, 5, True),
        ([(1, 1)] * 4, 5, False),
        ([(1, 1)] * 4 + [(1, 2)], 5, False),
        ([(2, 1)] + [(1, 1)] * 4, 5, False),  # a late slice came, so release was no evidence
        ([(1, 1)], 1, True),
        ([(1, 1)] * 5, 0, False),
        ([], 0, False),
        ([], 5, False),
    ],
)
def test_a_habit_is_every_one_of_the_last_series_whole_on_one_association(
    history: list[tuple[int, int]], enough: int, said: bool
) -> None:
    assert is_habit(history, enough) is said
