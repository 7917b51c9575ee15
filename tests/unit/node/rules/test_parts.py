"""What shows that something is only a part, and what does not."""

from dataclasses import replace
from datetime import timedelta

import pytest

from node.rules.parts import MOST_CLASSES_MEANT, classes_not_accepted, missing, part_of, shortfall
from storage.records import AssociationEnd, Ending, Missing
from tests.support.builders import START

RELEASED, ABORTED, LOST = AssociationEnd.RELEASED, AssociationEnd.ABORTED, AssociationEnd.LOST
MINUTE = timedelta(minutes=1)
CT, RAW, PRIVATE = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.66", "1.3.12.2.1107.5.9.1"
WHOLE = Ending(START, START + MINUTE, RELEASED, 50)
BROKEN = replace(WHOLE, closed=ABORTED)
AGAIN = Ending(START + 2 * MINUTE, START + 3 * MINUTE, RELEASED, 0)
OPEN = replace(WHOLE, closed=None, closed_at=None)


@pytest.mark.parametrize(
    ("endings", "is_short", "detail"),
    [
        ([WHOLE], True, ""),
        ([BROKEN], True, "50 slices came, then the association was aborted"),
        ([replace(WHOLE, closed=LOST)], True, "50 slices came, then the association was lost"),
        ([BROKEN], False, ""),
        ([BROKEN, AGAIN], True, ""),
        ([BROKEN, replace(AGAIN, opened_at=START)], True, "50 slices came, then the association was aborted"),
        ([BROKEN, replace(AGAIN, closed=ABORTED)], True, "50 slices came, then the association was aborted"),
        ([replace(WHOLE, refused=1)], False, "50 slices came, 1 was refused"),
        ([replace(WHOLE, refused=2), AGAIN], True, "50 slices came, 2 were refused"),
        (
            [replace(WHOLE, refused_classes=(PRIVATE,))],
            True,
            "50 slices came, then the sender ended, whose other objects are not all accepted",
        ),
        ([replace(WHOLE, refused_classes=(PRIVATE,), was_last=False)], True, ""),
        ([OPEN], True, ""),
    ],
)
def test_a_series_is_a_part(endings: list[Ending], is_short: bool, detail: str) -> None:
    part = part_of(endings, START + 5 * MINUTE, is_short)
    assert (part.detail if part else "") == detail


def test_an_association_that_never_ends_is_not_waited_for_for_ever() -> None:
    part = part_of([OPEN], START + timedelta(hours=2), True)
    assert part is not None and part.detail == "50 slices came, then the association did not end"


@pytest.mark.parametrize(
    ("how", "refused", "last_status", "classes", "said"),
    [
        (RELEASED, 0, 0, (), ""),
        (ABORTED, 0, 0, (), "the association was aborted (7 instances kept, 0 refused)"),
        (RELEASED, 1, 0xC000, (), "the caller ended right after an instance was refused with 0xC000"),
        (RELEASED, 1, 0, (), "the caller went on after what was refused (7 instances kept, 1 refused)"),
        (RELEASED, 0, 0, (PRIVATE, RAW), f"SOP class {PRIVATE} and 1 more was offered and is not accepted"),
    ],
)
def test_an_association_fell_short(
    how: AssociationEnd, refused: int, last_status: int, classes: tuple[str, ...], said: str
) -> None:
    short = shortfall(how, 7, refused, last_status, classes)
    assert short.startswith(said) and bool(short) == bool(said)
    assert not short or short.endswith("): more may not have come")


def test_only_storage_classes_of_who_proposes_what_it_has_count() -> None:
    worklist = "1.2.840.10008.5.1.4.31"
    assert classes_not_accepted([CT, PRIVATE, worklist], [PRIVATE, worklist]) == (PRIVATE,)
    everything = [f"2.25.{number}" for number in range(MOST_CLASSES_MEANT + 1)]
    assert classes_not_accepted(everything, everything) == ()


def test_what_is_missing_is_counted_by_kind() -> None:
    listed = {"1": CT, "2": CT, "3": RAW, "4": PRIVATE, "5": ""}
    assert missing(listed, {"1"}) == Missing(slices=1, others=2)
