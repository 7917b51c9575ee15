"""A node without its processes: a receiver on loopback, and a context for the verbs, over one store."""

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from node.audit.trail import Trail
from node.config.peer import Peer
from node.config.sections import Config
from node.runtime.clock import utc_now
from node.scp.receiver import Receiver
from node.simulated_pacs import SimulatedPeer
from node.workflow.context import Context
from storage.files.instances import Files
from storage.records import Delivery, ReportObject
from storage.store import Store
from tests.support.builders import FakeClock, claimed, finish
from tests.support.dicom_factory import ct_series, save
from tests.support.running import free_port

SiteFactory = Callable[..., "Site"]
PeerFactory = Callable[..., SimulatedPeer]
QUICK = {"acse_timeout_seconds": 2, "dimse_timeout_seconds": 2, "network_timeout_seconds": 4}


class Site:
    """The receiver listens until `close`."""

    def __init__(
        self, store: Store, files: Files, clock: FakeClock, trail: Trail | None = None, **sections: Any
    ) -> None:
        """`sections` of the configuration; [node] has short timeouts and a free port unless it says otherwise."""
        self.store, self.files, self.clock = store, files, clock
        clock.now = utc_now()  # the receiver's clock runs
        self.woken = 0
        node = QUICK | {"port": free_port()} | sections.pop("node", {})
        self.config = Config.model_validate(sections | {"node": node})
        self.context = Context(self.config, store, files, self._wake, clock, Random(0), trail=trail or Trail())
        self.receiver = Receiver(self.config, store, files, self._wake, trail)
        self.receiver.start()

    def _wake(self) -> None:
        self.woken += 1

    @property
    def address(self) -> Peer:
        """Where the node is reached."""
        return Peer(ae_title="WILLIS", host="127.0.0.1", port=self.config.node.port)

    def report(self, destinations: Sequence[str] = ("PACS",)) -> Path:
        """A report of a case waits in the outbox; returns its file."""
        claim = claimed(self.store, self.clock, series=f"2.25.{len(self.store.worklist.rows()) + 1}")
        [ds] = ct_series(1, SOPInstanceUID=f"2.25.77{claim.series.id}")
        [path] = save([ds], self.files.root.parent)
        written = self.files.write_report(ds.SOPInstanceUID, path.read_bytes())
        made = ReportObject(ds.SOPInstanceUID, written)
        assert finish(self.store, self.clock, claim, report=made, destinations=destinations)
        return self.files.path(written)

    def delivery(self, case: int = 1) -> Delivery:
        """The first delivery of the case."""
        return self.store.worklist.deliveries(case)[0]

    def row(self, case: int = 1) -> dict[str, Any]:
        """The case's row of the worklist."""
        row = self.store.worklist.case(str(case))
        assert row is not None
        return dict(row)

    def close(self) -> None:
        """Nothing listens any longer."""
        self.receiver.stop()


@pytest.fixture
def site(sqlite_store: Store, files: Files, clock: FakeClock) -> Iterator[SiteFactory]:
    """Makes sites over the test's one store; they are closed after it."""
    made: list[Site] = []

    def make(**sections: Any) -> Site:
        made.append(Site(sqlite_store, files, clock, **sections))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[PeerFactory]:
    """Starts simulated peers; they are gone after the test."""
    started: list[SimulatedPeer] = []

    def start(port: int = 0, **options: Any) -> SimulatedPeer:
        simulated = SimulatedPeer(tmp_path / f"peer{len(started)}", **options)
        simulated.start(port)
        started.append(simulated)
        return simulated

    yield start
    for simulated in started:  # each takes half a second, which nobody needs to wait for
        threading.Thread(target=simulated.stop, daemon=True).start()


def peers(port: int, **changes: Any) -> dict[str, Any]:
    """[peers.PACS] on loopback."""
    return {"PACS": {"ae_title": "PACS", "host": "127.0.0.1", "port": port} | changes}
