"""Senders of a hospital's day: what they sent, what was acknowledged to them, and what each series has to become."""

import hashlib
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from random import Random

from pydicom import Dataset
from pydicom.uid import (
    UID,
    ComprehensiveSRStorage,
    EncapsulatedPDFStorage,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
)
from pynetdicom.dimse_primitives import C_ECHO, C_FIND, N_ACTION
from pynetdicom.sop_class import (
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from node.config.peer import Peer
from node.dicom import commitment
from node.dicom.commitment import CONTEXTS, INSTANCE_UID
from node.errors import NodeError
from node.net.requestor import Requestor
from node.runtime.clock import utc_now
from node.scu import dimse
from node.scu.source import identifier
from tests.corpus.images import ANEURYSM_HU, COUNT, FILLED_HU, cta, other
from tests.support.builders import encoded
from tests.support.dicom_factory import change
from tests.support.raw_scu import ABORT, RELEASE_RQ, RawScu, all_of, associate_rq, store_pdus

FIND = StudyRootQueryRetrieveInformationModelFind
IMPLICIT = "1.2.840.10008.1.2"
OTHERS = (MRImageStorage, PositronEmissionTomographyImageStorage, ComprehensiveSRStorage, EncapsulatedPDFStorage)
SHARES = {"cta": 0.6, "broken_off": 0.08, "other": 0.12, "query": 0.1, "commitment": 0.1}
"""What a sender does next, and how often."""
POSITIVE_SHARE, SPLIT_SHARE, REPEATED_SHARE, INTERRUPTED_SHARE = 0.25, 0.15, 0.1, 0.08


@dataclass
class SentSeries:
    """A series that a sender began."""

    uid: str
    kind: str
    """positive and negative angiographies, broken_off ones, other objects."""
    count: int
    is_whole: bool = False
    """Every instance of it was acknowledged, so that it has to be analysed."""


@dataclass
class Sent:
    """All that the senders know."""

    acknowledged: dict[str, tuple[str, str]] = field(default_factory=dict)
    """SOP Instance UID → its SOP class, and the SHA-256 of the dataset on the wire."""
    commitments: set[str] = field(default_factory=set)
    """The Transaction UIDs of what the node has taken on to commit to: all of it was acknowledged."""
    series: dict[str, SentSeries] = field(default_factory=dict)
    done: Counter[str] = field(default_factory=Counter)
    """How often something was done, and how often it failed and was tried again."""
    sendings: list[tuple[datetime, datetime]] = field(default_factory=list)
    """From when until when something was sent until all of it was acknowledged."""


class Load:
    """Senders in threads of this process, until they are stopped."""

    def __init__(
        self, node: Peer, requester: Peer, seconds_between: float, seed: int, senders: int = 3,
        shares: Mapping[str, float] = SHARES,
    ) -> None:  # fmt: skip
        """Studies begin `seconds_between` apart on average; `requester` is the peer as which commitment is asked for."""
        self.sent, self._shares = Sent(), shares
        self._node, self._requester, self._seconds = node, requester, seconds_between * senders
        self._stopping, self._lock = threading.Event(), threading.Lock()
        self._numbers = itertools.count(1)
        self._threads = [
            threading.Thread(target=self._run, args=(Random(seed + each),), daemon=True) for each in range(senders)
        ]

    def start(self) -> None:
        """They send."""
        for thread in self._threads:
            thread.start()

    def stop(self, seconds: float = 120.0) -> None:
        """Each has ended what it had begun: what is whole was acknowledged.  Raises TimeoutError."""
        self._stopping.set()
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.1, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in self._threads):
            raise TimeoutError(f"a sender had not ended {seconds:g} s after the last study")

    def _run(self, random: Random) -> None:
        tasks: dict[str, Callable[[Random], None]] = {
            "cta": self._angiography, "broken_off": self._broken_off, "other": self._other, "query": self._query,
            "commitment": self._commitment,
        }  # fmt: skip
        while not self._stopping.wait(random.expovariate(1 / self._seconds)):
            task = random.choices(list(self._shares), list(self._shares.values()))[0]
            try:
                tasks[task](random)
                self._note(task)
            except NodeError:
                self._note("question_not_answered")  # the node is away just now; what is stored is tried again

    def _note(self, what: str) -> None:
        with self._lock:
            self.sent.done[what] += 1

    # --- what is stored

    def _angiography(self, random: Random) -> None:
        kind = "positive" if random.random() < POSITIVE_SHARE else "negative"
        series, slices = self._made(kind, ANEURYSM_HU if kind == "positive" else FILLED_HU)
        random.shuffle(slices)
        if random.random() < INTERRUPTED_SHARE:
            self._send(slices[: random.randrange(1, COUNT)], then_aborts=True)
            self._stopping.wait(random.uniform(0.5, 10.0))  # the quiet timer may run out meanwhile
        half = COUNT // 2 if random.random() < SPLIT_SHARE else 0
        for part in filter(None, (slices[:half], slices[half:])):
            self._until_acknowledged(part, random)
        series.is_whole = True
        if random.random() < REPEATED_SHARE:
            self._stopping.wait(random.uniform(0.0, 20.0))
            self._until_acknowledged(slices, random)

    def _broken_off(self, random: Random) -> None:
        _, slices = self._made("broken_off", FILLED_HU)
        self._send(slices[: random.randrange(1, COUNT - 1)], then_aborts=True)

    def _other(self, random: Random) -> None:
        number, sop_class = next(self._numbers), random.choice(OTHERS)
        root = _root(number)
        made = other(
            sop_class, 1, SOPInstanceUID=f"{root}.3.1", SeriesInstanceUID=f"{root}.2", StudyInstanceUID=f"{root}.1",
            PatientID=f"P-{number}", Modality="MR" if sop_class == MRImageStorage else "OT",
        )  # fmt: skip
        self.sent.series[f"{root}.2"] = SentSeries(f"{root}.2", "other", 1)
        self._until_acknowledged([(made, encoded(made))], random)

    def _made(self, kind: str, hu: int) -> tuple[SentSeries, list[tuple[Dataset, bytes]]]:
        slices = angiography(next(self._numbers), hu)
        series = SentSeries(str(slices[0][0].SeriesInstanceUID), kind, len(slices))
        self.sent.series[series.uid] = series
        return series, slices

    def _until_acknowledged(self, slices: Sequence[tuple[Dataset, bytes]], random: Random) -> None:
        begun = utc_now()
        while not self._send(slices):
            self._note("tried_again")
            time.sleep(random.uniform(0.5, 3.0))
        self.sent.sendings.append((begun, utc_now()))

    def _send(self, slices: Sequence[tuple[Dataset, bytes]], then_aborts: bool = False) -> bool:
        """Whether all was acknowledged on one association; what was is known."""
        with suppress(OSError, AssertionError), self._association(slices[0][0]) as scu:
            for ds, dataset in slices:
                scu.send(all_of(store_pdus(ds.SOPClassUID, ds.SOPInstanceUID, dataset)))
                assert scu.status() == 0
                digest = hashlib.sha256(dataset).hexdigest()
                with self._lock:
                    self.sent.acknowledged[str(ds.SOPInstanceUID)] = (str(ds.SOPClassUID), digest)
            scu.send(ABORT if then_aborts else RELEASE_RQ)
            if not then_aborts:
                scu.pdu()
            return True
        return False

    def _association(self, ds: Dataset) -> RawScu:
        return RawScu(self._node.port, 60).associate(associate_rq(sop_class=ds.SOPClassUID))

    # --- what is asked

    def _query(self, random: Random) -> None:
        proposals = [(str(Verification), IMPLICIT), (str(FIND), IMPLICIT)]
        with self._asking("RAW", proposals) as assoc:
            echo = C_ECHO()
            echo.AffectedSOPClassUID = Verification
            list(assoc.ask(echo, assoc.contexts_of(Verification)[0]))
            find = C_FIND()
            find.AffectedSOPClassUID, find.Priority = FIND, 2
            root = _root(random.randrange(1, 1000))
            query = identifier("SERIES", StudyInstanceUID=f"{root}.1", SeriesInstanceUID="", Modality="")
            list(assoc.ask(find, assoc.contexts_of(FIND)[0], query))

    def _commitment(self, random: Random) -> None:
        with self._lock:
            known = list(self.sent.acknowledged.items())[-500:]
        if not known:
            return
        items = [(sop_class, uid) for uid, (sop_class, _) in random.sample(known, min(10, len(known)))]
        request = N_ACTION()
        request.RequestedSOPClassUID, request.RequestedSOPInstanceUID = StorageCommitmentPushModel, INSTANCE_UID
        request.ActionTypeID = commitment.REQUEST
        uid = f"2.25.{random.getrandbits(100)}"
        with self._asking(self._requester.ae_title, CONTEXTS) as assoc:
            [(answer, _)] = assoc.ask(
                request, assoc.contexts_of(StorageCommitmentPushModel)[0], commitment.request_dataset(uid, items)
            )
            if answer.Status == 0:
                self.sent.commitments.add(uid)

    def _asking(self, calling: str, proposals: Sequence[tuple[str, str]]) -> AbstractContextManager[Requestor]:
        return dimse.associate(dimse.Entity(calling, dimse.Timeouts(5, 30, 30)), self._node, proposals)


def angiography(number: int, hu: int) -> list[tuple[Dataset, bytes]]:
    """The slices of a small one, each with its bytes on the wire."""
    root = _root(number)
    slices = [
        change(ds, StudyInstanceUID=f"{root}.1", SeriesInstanceUID=f"{root}.2", FrameOfReferenceUID=f"{root}.4",
               SOPInstanceUID=UID(f"{root}.3.{position}"), PatientID=f"P-{root.rpartition('.')[2]}")
        for position, ds in enumerate(cta(hu), 1)
    ]  # fmt: skip
    return [(ds, encoded(ds)) for ds in slices]


def _root(number: int) -> str:
    """Of the UIDs of a study."""
    return f"2.25.77{number:07d}"
