"""The node dies at every boundary of the path, as by `kill -9`; nothing acknowledged is lost, one report arrives."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.simulated_pacs import Fault, SimulatedPeer
from storage.queries.intake import GROUP_NAMES
from tests.faults.proof import unreported, violations
from tests.faults.senders import send, small_series
from tests.faults.small_node import ALGORITHM, Killable, SmallNode, configuration
from tests.support.running import ROOT, free_port, wait_until

pytestmark = pytest.mark.faults

POINTS = (
    "before_commit_of_opening", "after_commit_of_opening", "after_temporary", "after_publish", "after_flush",
    "before_commit_of_instances", "after_commit_of_instances", "before_answer", "after_answer",
    "before_commit_of_closing", "after_commit_of_closing", "before_commit_of_settling", "after_commit_of_settling",
    "before_commit_of_claim", "after_commit_of_claim", "in_analysis", "after_report_file",
    "before_commit_of_report", "after_commit_of_report", "before_commit_of_attempt", "after_commit_of_attempt",
    "before_send", "after_acceptance", "before_commit_of_delivery", "after_commit_of_delivery",
)  # fmt: skip
"""In the order of a slice's journey."""
FULL = "WILLIS_KILLS" in os.environ
"""Set by `make test-faults`; without it, the points at which most is at stake."""
SHORT = ("after_publish", "after_commit_of_instances", "after_answer", "after_report_file", "after_acceptance")
ONCE_AN_INSTANCE = POINTS[2:9]
BEYOND_THE_SMALL_NODE = {
    "in_inference", "in_early_inference", "before_commit_of_review", "after_commit_of_review", "before_commit_of_uploads",
    "after_commit_of_uploads", "after_upload", "before_commit_of_upload", "after_commit_of_upload",
}  # fmt: skip
"""Of an analysis with torch: tests/faults/test_kills.py kills that.  Of a review: tests/unit/node/workflow/test_reviews.py.
Of an upload: tests/integration/test_object_store.py."""


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[tuple[SimulatedPeer, int]]:
    """A PACS and its port."""
    peer = SimulatedPeer(tmp_path / "pacs")
    yield peer, peer.start(0)
    peer.stop()


def found_after(
    tmp_path: Path, pacs: tuple[SimulatedPeer, int], kill_at: str, broken: str = "", held: bool = False
) -> list[str]:
    """What is wrong after a node died at this point, was started again, and got the series once more.

    `held`: the PACS has the report but no answer was given when the node dies.
    """
    peer, pacs_port = pacs
    folder, port = tmp_path / "node", free_port()
    acknowledged: dict[str, bytes] = {}
    series = small_series(1)
    with Killable(folder, port, pacs_port, kill_at, broken) as killed:
        send(port, series, acknowledged)
        if held:
            wait_until(lambda: peer.requests, 20, "the report is being sent")
        else:
            wait_until(lambda: killed.process.poll() is not None, 20, f"it dies at {kill_at}")
            assert killed.process.returncode == -signal.SIGKILL
    with SmallNode(configuration(folder, port, pacs_port)) as node:
        found = violations(node.store, node.files, acknowledged)
        assert send(port, series, acknowledged)

        def ended() -> bool:
            node.step()
            rows = node.store.worklist.rows()
            return [row["delivery"] for row in rows] == ["delivered"]

        wait_until(ended, 20, "the report is delivered")
        return [
            *found,
            *violations(node.store, node.files, acknowledged),
            *unreported(node.store, peer.folder, ALGORITHM.version),
        ]


@pytest.mark.parametrize("point", POINTS if FULL else SHORT)
def test_a_node_that_dies_at_any_point_has_lost_nothing_and_reports_once(
    tmp_path: Path, pacs: tuple[SimulatedPeer, int], point: str
) -> None:
    second = ":2" if point in ONCE_AN_INSTANCE else ""  # so that one slice was acknowledged before
    assert found_after(tmp_path, pacs, point + second) == []


def test_a_node_that_dies_while_the_pacs_has_not_answered_sends_the_same_report_again(
    tmp_path: Path, pacs: tuple[SimulatedPeer, int]
) -> None:
    pacs[0].fault, pacs[0].delay_seconds = Fault.SLOW, 0.5
    assert found_after(tmp_path, pacs, "nowhere", held=True) == []
    assert len(pacs[0].requests) == 2
    assert len(set(pacs[0].requests)) == 1


@pytest.mark.parametrize(
    ("broken", "point", "said"),
    [
        ("commit", "after_answer:2", "is not known"),
        ("file", "after_answer:2", "not what came"),
        ("uid", "before_commit_of_delivery", "other reports"),
        ("outbox", "before_send", "the PACS lacks 1"),
    ],
)
def test_a_guarantee_that_is_broken_on_purpose_is_noticed(
    tmp_path: Path, pacs: tuple[SimulatedPeer, int], broken: str, point: str, said: str
) -> None:
    found = found_after(tmp_path, pacs, point, broken)
    assert any(said in line for line in found), found


def test_every_point_in_the_code_is_died_at() -> None:
    text = "".join(
        path.read_text("utf-8") for package in ("node", "storage") for path in sorted((ROOT / package).rglob("*.py"))
    )
    named = set(re.findall(r'\bkill_point\("(\w+)"\)', text))
    commits = set(re.findall(r'\b(?:writing(?:_plainly)?\(|change\(\w+, )"(\w+)"[,)]', text))
    commits |= set(GROUP_NAMES)
    named |= {f"{when}_commit_of_{commit}" for when in ("before", "after") for commit in commits}
    assert named == {*POINTS, *BEYOND_THE_SMALL_NODE}
