"""A context for the worker's verb over a real store; the network's findings are made up."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydicom import Dataset, dcmread

import ai
from ai.bundle import Bundle
from ai.findings import Findings, Lesion
from ai.locations import Location
from node.analysis.analysis import AnalysisContext
from node.config.sections import Config
from node.results.document import Algorithm
from storage.files.instances import Files
from storage.records import Claim
from storage.stages import Event
from storage.store import Store
from tests.support.builders import LEASE, PROBABILITIES, FakeClock, keep, series_now
from tests.support.dicom_factory import ct_series

NEGATIVE = Findings((0.02,) * 14, (), 0.5)
POSITIVE = Findings(PROBABILITIES, (Lesion(Location.LEFT_MCA, 0.9, (-18.4, -28.5, 103.0), 4.2),), 0.5)


@pytest.fixture
def store(sqlite_store: Store) -> Store:
    """The queue's SQL is tested on both databases elsewhere."""
    return sqlite_store


@dataclass
class Workshop:
    """A context, and the findings that the network will have."""

    context: AnalysisContext
    clock: FakeClock
    seen: list[Any]

    def claim(self, series: Sequence[Dataset] | None = None, **changes: Any) -> Claim:
        """A claimed series of these slices."""
        kept = keep(self.context.store, self.context.files, self.clock, series or ct_series(6, **changes))
        return self.claim_again(str(kept.series_instance_uid))

    def claim_again(self, uid: str = "2.25.1002", **options: Any) -> Claim:
        store, series = self.context.store, series_now(self.context.store, uid)
        assert store.settling.leave(series, Event.SETTLED, "count", self.clock(), **options)
        claim = store.queue.claim("worker:1", self.clock(), LEASE, 3)
        assert claim is not None
        return claim

    def exhausted(self, claim: Claim) -> Claim:
        """The claim on the same series after its last attempt failed."""
        self.context.store.queue.give_back("worker:1", refund=False)
        last = self.context.store.queue.claim_exhausted("worker:1", self.clock(), LEASE, claim.series.attempts)
        assert last is not None
        return last

    def row(self, case: int = 1) -> dict[str, Any]:
        row = self.context.store.worklist.case(str(case))
        assert row is not None
        return dict(row)

    def report(self, case: int = 1) -> Dataset:
        """The latest report of the case."""
        found = self.context.store.queue.predecessor(case)
        assert found is not None
        self.context.files.verify(found[1])
        return dcmread(BytesIO(self.context.files.read(found[1])))


@pytest.fixture
def workshop(store: Store, files: Files, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Workshop]:
    """Makes a workshop whose network finds `findings` or raises it, with these sections of the configuration."""

    def make(findings: Findings | Exception = NEGATIVE, **sections: Any) -> Workshop:
        seen: list[Any] = []

        def network(
            volume: Any, _bundle: Any, device: str, *, require_contrast: bool, progress: Any, **_: Any
        ) -> Findings:
            seen.append((volume.hu_DHW.shape, device, require_contrast))
            progress(0.5)
            if isinstance(findings, Exception):
                raise findings
            return findings

        monkeypatch.setattr(ai, "analyse", network, raising=False)
        peers = {"PACS": {"ae_title": "PACS", "host": "127.0.0.1", "port": 104}}
        config = Config.model_validate({"peers": peers} | sections)
        algorithm = Algorithm("Willis", "0.1.0+weights", "0.1.0", "2.25.5")
        context = AnalysisContext(config, files, cast(Bundle, SimpleNamespace()), algorithm, clock, store=store)
        return Workshop(context, clock, seen)

    return make


def words(ds: Dataset) -> str:
    """All text of a report."""
    return "\n".join(str(element.value) for element in ds.iterall() if element.VR in ("UT", "LO", "SH", "ST"))
