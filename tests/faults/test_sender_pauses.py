"""A sender that pauses in mid-series, by a clock that the test moves: in the end one case, whole, and no "negative" before.

Real sockets, real files, and a real network that calls every head negative which it is given: what is wrong to call so
must be kept from it.
"""

import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from pydicom import Dataset, dcmread
from sqlalchemy import select

from ai.bundle import Bundle
from ai.unet import UNet
from node.config.sections import Config
from node.simulated_pacs import SimulatedPeer
from storage.database.schema import AssociationRow
from tests.faults.proof import violations
from tests.faults.senders import send
from tests.faults.small_node import SmallNode, configuration
from tests.support.builders import FakeClock, encoded
from tests.support.dicom_factory import ct_series
from tests.support.made_up_head import head
from tests.support.raw_scu import RawScu, associate_rq
from tests.support.running import free_port, wait_until
from tests.unit.ai.test_bundle import TINY, manifest

pytestmark = pytest.mark.faults
Slices = list[tuple[Dataset, bytes]]


def always_negative() -> Bundle:
    """A network that finds no aneurysm in anything."""
    network = UNet(TINY).eval()
    torch.nn.init.zeros_(network.lesion.weight)
    network.lesion.bias = torch.nn.Parameter(torch.tensor([-20.0]))
    return Bundle(manifest(), (network,))


@pytest.fixture(scope="module")
def whole_head() -> Slices:
    """400 slices of a head, from its lower end up: each dataset and its bytes on the wire."""
    volume = head(spacing_mm_DHW=(185 / 400, 4.0, 4.0))
    made = ct_series(
        400, spacing_mm=185 / 400, rows=volume.hu_DHW.shape[1], columns=volume.hu_DHW.shape[2],
        pixel_spacing_mm=(4.0, 4.0), origin_mm=tuple(volume.affine_lps[:3, 3]), hu=lambda index: volume.hu_DHW[index],
    )  # fmt: skip
    return [(ds, encoded(ds)) for ds in made]


class Case:
    """A node with the usual timers, its PACS, and one series on its way."""

    def __init__(self, folder: Path, clock: FakeClock, network_timeout_seconds: float) -> None:
        self.clock = clock
        self.peer = SimulatedPeer(folder / "pacs")
        self.port = free_port()
        usual = configuration(folder / "node", self.port, self.peer.start(0))
        node = usual.node.model_copy(update={"network_timeout_seconds": network_timeout_seconds})
        fields = {name: getattr(usual, name) for name in ("storage", "delivery", "log", "peers")}
        self.node = SmallNode(Config(node=node, **fields))
        self.node.context.clock = self.node.analysis_context.clock = clock
        self.node.analysis_context.bundle = always_negative()
        self.acknowledged: dict[str, bytes] = {}

    def send(self, slices: Slices) -> None:
        """They came on one association that was released."""
        assert send(self.port, slices, self.acknowledged)
        self.wait_until_closed()

    def wait_until_closed(self) -> None:
        """The database knows the end of every association, which waits a little for company."""

        def open_ones() -> int:
            with self.node.store.transactions.reading() as session:
                return len(session.scalars(select(AssociationRow).where(AssociationRow.closed.is_(None))).all())

        wait_until(lambda: not open_ones(), 10)

    def pass_seconds(self, seconds: float) -> None:
        """So much later, after 24 runs within the first minute; then nothing can happen."""
        for _ in range(24):
            self.clock.advance(min(seconds, 60) / 24)
            self.node.step()
        self.clock.advance(max(0, seconds - 60))
        self.node.step()

    def said(self) -> list[str]:
        """The outcome of every report so far, oldest first."""
        return [str(report["outcome"]) for report in self.node.store.worklist.reports(1)]

    def check_ended(self) -> None:
        """One case of 400 slices, called negative, and each report in the PACS names the one before."""
        self.wait_until_closed()
        self.node.step()
        (row,) = self.node.store.worklist.rows()
        assert (row["stage"], row["outcome"], row["instance_count"]) == ("reported", "negative", 400)
        uids = [report["sop_instance_uid"] for report in self.node.store.worklist.reports(1)]
        assert self.peer.requests == uids
        assert [self.predecessor(uid) for uid in uids] == ["", *uids[:-1]]
        assert violations(self.node.store, self.node.files, self.acknowledged) == []

    def predecessor(self, uid: str) -> str:
        """What the report in the PACS says that it takes the place of."""
        items = dcmread(self.peer.folder / f"{uid}.dcm").get("PredecessorDocumentsSequence")
        return (
            str(items[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID) if items else ""
        )


@pytest.fixture
def case(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
    """A case that is gone after the test; receiver, verbs and analysis share its clock.  The network's is the real one."""
    clock = FakeClock(datetime.now(UTC))
    monkeypatch.setattr("node.scp.receiver._now", clock)
    memory = Path("/dev/shm")  # what a disk keeps is tested elsewhere, and 400 slices wait for it 400 times
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        made = Case(Path(folder), clock, getattr(request, "param", 60.0))
        with made.node:
            yield made
        made.peer.stop()


@pytest.mark.parametrize("upwards", [True, False])
def test_who_releases_after_100_of_400_slices_and_is_back_in_5_s_gets_one_report_of_the_whole(
    case: Case, whole_head: Slices, upwards: bool
) -> None:
    series = whole_head if upwards else whole_head[::-1]
    case.send(series[:100])
    case.pass_seconds(5)
    assert case.said() == []
    case.send(series[100:])
    case.check_ended()
    assert case.said() == ["negative"]


def test_who_is_back_in_5_min_reads_that_100_slices_are_not_enough_and_then_the_result(
    case: Case, whole_head: Slices
) -> None:
    case.send(whole_head[:100])
    case.pass_seconds(300)
    (row,) = case.node.store.worklist.rows()
    assert (row["outcome"], row["delivery"]) == ("not_analysed", "delivered")
    assert row["reason"] in ("not_a_head", "coverage")
    case.send(whole_head[100:])
    case.check_ended()
    assert case.said() == ["not_analysed", "negative"]


def test_ten_minutes_between_slices_on_one_association_end_in_one_whole_case(case: Case, whole_head: Slices) -> None:
    with RawScu(case.port, 10).associate(associate_rq()) as scu:
        for begin, end in ((0, 99), (99, 100), (100, 101), (101, 400)):
            for ds, dataset in whole_head[begin:end]:
                assert scu.store(ds, dataset) == 0
                case.acknowledged[str(ds.SOPInstanceUID)] = dataset
            if end < 400:
                case.pass_seconds(600)
        scu.release()
    case.check_ended()
    assert case.said() == ["not_analysed", "not_analysed", "not_analysed", "negative"]


@pytest.mark.parametrize("case", [1.0], indirect=True)
def test_who_is_silent_for_longer_than_the_network_timeout_is_dropped_and_goes_on_where_he_was(
    case: Case, whole_head: Slices
) -> None:
    with RawScu(case.port, 10).associate(associate_rq()) as scu:
        for ds, dataset in whole_head[:100]:
            assert scu.store(ds, dataset) == 0
            case.acknowledged[str(ds.SOPInstanceUID)] = dataset
        assert scu.ended() == 7, "aborted"
    case.pass_seconds(15)
    assert case.said() == []
    case.send(whole_head[100:])
    case.pass_seconds(21)
    case.check_ended()
    assert case.said() == ["negative"]
