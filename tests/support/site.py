"""A node without its processes: a context for the verbs, perhaps with a receiver on loopback, over one store."""

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from pydicom import Dataset

from node.audit.trail import Trail
from node.config.peer import Peer
from node.config.sections import Config
from node.runtime.clock import utc_now
from node.scp.receiver import Receiver
from node.simulated_pacs import SimulatedPeer
from node.workflow.context import Context
from node.workflow.settling import settle
from storage.files.instances import Files
from storage.records import Delivery, ReportObject, Series
from storage.store import Store
from tests.support.builders import FakeClock, claimed, finish, keep
from tests.support.dicom_factory import ct_series, save
from tests.support.running import free_port

SiteFactory = Callable[..., "Site"]
WorkflowFactory = Callable[..., "Workflow"]
PeerFactory = Callable[..., SimulatedPeer]
NO_TLS_FILES = {"certificate": "/nothing/node.pem", "key": "/nothing/node.key", "ca": "/nothing/ca.pem"}
QUICK = {"acse_timeout_seconds": 2, "dimse_timeout_seconds": 2, "network_timeout_seconds": 4}


class Workflow:
    """The workflow's verbs over a store, with no process and no receiver."""

    def __init__(
        self, store: Store, files: Files, clock: FakeClock, config: Config, trail: Trail | None = None
    ) -> None:
        self.store, self.files, self.clock, self.config = store, files, clock, config
        self.woken = 0
        self.context = Context(config, store, files, self._wake, clock, Random(0), trail=trail or Trail())

    def _wake(self) -> None:
        self.woken += 1

    def keep(self, datasets: Sequence[Dataset], **options: Any) -> Series:
        """The series of these instances, which have come."""
        return keep(self.store, self.files, self.clock, datasets, **options)

    def settle_after(self, seconds: float) -> int:
        """How many series left the stage of receiving after so many seconds."""
        self.clock.advance(seconds)
        return settle(self.context)

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


class Site(Workflow):
    """A node without its processes: its receiver listens until `close`."""

    def __init__(
        self, store: Store, files: Files, clock: FakeClock, trail: Trail | None = None, **sections: Any
    ) -> None:
        """`sections` of the configuration; [node] has short timeouts and a free port unless it says otherwise."""
        clock.now = utc_now()  # the receiver's clock runs
        node = QUICK | {"port": free_port()} | sections.pop("node", {})
        super().__init__(store, files, clock, Config.model_validate(sections | {"node": node}), trail)
        self.receiver = Receiver(self.config, store, files, self._wake, trail)
        self.receiver.start()

    @property
    def address(self) -> Peer:
        """Where the node is reached."""
        return Peer(ae_title="WILLIS", host="127.0.0.1", port=self.config.node.port)

    def close(self) -> None:
        """Nothing listens any longer."""
        self.receiver.stop()


@pytest.fixture
def workflow(sqlite_store: Store, files: Files, clock: FakeClock) -> WorkflowFactory:
    """Makes the verbs with these sections of the configuration; three slices 3 mm apart are enough for a series."""

    def make(**sections: Any) -> Workflow:
        rules = {"minimum_slices": 3, "maximum_spacing_mm": 3.0} | sections.pop("eligibility", {})
        return Workflow(sqlite_store, files, clock, Config.model_validate(sections | {"eligibility": rules}))

    return make


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
