"""A node in this process: instances come over real associations, rules and analysis are the node's own.

Only the network is a stand-in, which finds what the voxels say (`tests.corpus.images`).
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from unittest.mock import patch

from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom.dimse_primitives import C_STORE

import ai
from ai.bundle import Bundle
from node.analysis.analysis import AnalysisContext, analyse
from node.config.sections import Config
from node.results.document import Algorithm
from node.runtime.clock import utc_now
from node.scu.dimse import Entity, Timeouts, associate
from node.workflow.settling import settle
from storage.files.instances import Files
from storage.store import Store
from tests.corpus.network import fullest, network
from tests.corpus.situation import End, Sending, Situation, end_of, of_its_own
from tests.support.builders import LEASE, FakeClock
from tests.support.running import wait_until
from tests.support.site import Site

TIMEOUTS = Timeouts(acse=30, dimse=60)


class Hospital:
    """Plays one situation after the other on one node."""

    def __init__(self, folder: Path) -> None:
        """`folder` is the node's own."""
        self._store = Store.open(f"sqlite:///{folder / 'willis.db'}")
        self._clock = FakeClock()
        files = Files(folder / "files")
        peers = {"PACS": {"ae_title": "PACS", "host": "127.0.0.1", "port": 104}}
        self._site = Site(self._store, files, self._clock, peers=peers, eligibility={"minimum_slices": 20})
        algorithm = Algorithm("Willis", "0.1.0+weights", "0.1.0", "2.25.5")
        bundle = cast(Bundle, SimpleNamespace())
        self._analysis = AnalysisContext(self._site.config, files, bundle, algorithm, self._clock, store=self._store)
        self._played = 0

    @property
    def config(self) -> Config:
        """The node's."""
        return self._site.config

    def close(self) -> None:
        """Nothing listens any longer."""
        self._site.close()
        self._store.close()

    def play(self, situation: Situation) -> End:
        """What was sent, and how it ended."""
        start = time.perf_counter()
        self._played += 1
        known = {row["case_id"] for row in self._store.worklist.rows(10_000)}
        for sending in situation.made():
            self._send(sending)
            if sending.then_ends:
                self._finish()
        self._finish()
        rows = [row for row in self._store.worklist.rows(10_000) if row["case_id"] not in known]
        rows.sort(key=lambda row: row["case_id"])
        return End(
            tuple(end_of(row) for row in rows),
            tuple(str(row["detail"]) for row in rows),
            time.perf_counter() - start,
        )

    def _send(self, sending: Sending) -> None:
        instances = of_its_own(sending.instances, self._played)
        classes = dict.fromkeys(str(ds.SOPClassUID) for ds in instances)
        proposals = [(sop_class, str(ExplicitVRLittleEndian)) for sop_class in classes]
        with associate(Entity("PACS", TIMEOUTS), self._site.address, proposals) as assoc:
            for ds in instances:
                for context in assoc.contexts_of(
                    ds.SOPClassUID
                ):  # none for a class that is refused, as senders do that go on
                    list(assoc.ask(_request(ds), context, ds))
            if sending.aborted:
                assoc.abort()

    def _associations_have_ended(self) -> bool:
        receiving = self._store.settling.receiving()
        return all(part.closed for each in receiving for part in self._store.settling.contributions(each.id))

    def _finish(self) -> None:
        """Every series that was sent has ended; the quiet timers have run out."""
        wait_until(self._associations_have_ended, what="the ends of associations are recorded")
        self._clock.now = max(self._clock.now, utc_now())
        for _ in range(4):
            self._clock.advance(100)
            settle(self._site.context)
            while claim := self._store.queue.claim("corpus", self._clock(), LEASE, 3):
                analyse(self._analysis, claim)


def _request(ds: Dataset) -> C_STORE:
    request = C_STORE()
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID, request.Priority = ds.SOPClassUID, ds.SOPInstanceUID, 0
    return request


@contextmanager
def open_hospital(folder: Path) -> Iterator[Hospital]:
    """A hospital for as long as it is wanted."""
    with patch.object(ai, "analyse", network, create=True), patch.object(ai, "fullest", fullest, create=True):
        hospital = Hospital(folder)
        try:
            yield hospital
        finally:
            hospital.close()
