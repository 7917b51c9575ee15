"""Chosen situations end right through `willis serve`, by every sender.  `make corpus-senders` plays all of them."""

from collections.abc import Sequence

import pytest

from tests.corpus.situations import SITUATIONS
from tests.corpus.through_node import BY_EVERY_SENDER, Play, play

pytestmark = pytest.mark.interop
ONCE = frozenset({"broken off by an abort after 16 slices"})
"""What only storescu can do."""
CHOSEN = [each for each in SITUATIONS if each.name in BY_EVERY_SENDER | ONCE]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Play]:
    """All of them in one lifetime of one node: they are played together."""
    return play(tmp_path_factory.mktemp("corpus"), CHOSEN)


@pytest.mark.parametrize("name", [each.name for each in CHOSEN])
def test_it_ends_right_by_every_sender_that_can_send_it(played: Sequence[Play], name: str) -> None:
    mine = [each for each in played if each.situation.name == name]
    measured = {each.sender.name: each.end and each.end.measured for each in mine}
    senders = {"storescu"} if name in ONCE else {"storescu", "dcmsend", "Orthanc"}
    assert measured == dict.fromkeys(senders, mine[0].situation.expected)
    assert all(each.end is not None and each.end.is_right(each.situation) for each in mine), mine


def test_every_kind_of_end_is_among_them() -> None:
    def kinds(situations: Sequence[object]) -> set[str]:
        return {end.partition(":")[0] for each in SITUATIONS if each in situations for end in each.ends}

    assert kinds(CHOSEN) == kinds(SITUATIONS)
    assert {each.name for each in CHOSEN} == BY_EVERY_SENDER | ONCE


def test_a_report_is_read_by_itself() -> None:
    """What the report in the PACS says is not taken from the worklist."""
    from tests.corpus.through_node import verdict
    from tests.support.reports import NEGATIVE, NOT_ANALYSED, POSITIVE, report

    assert [verdict(report(outcome=each)) for each in (POSITIVE, NEGATIVE, NOT_ANALYSED)] == [
        "positive",
        "negative",
        "not_analysed: gap",
    ]
