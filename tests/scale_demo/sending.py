"""What the hospitals of the demonstration send through the balancer, each slice until it was acknowledged."""

import hashlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydicom import Dataset

from ai.wording import counted
from tests.corpus.images import ANEURYSM_HU, FILLED_HU
from tests.scale_demo.shown import Clock, slices_at
from tests.scale_demo.site import SITES, Site
from tests.soak.load import Sent, SentSeries, angiography
from tests.support.raw_scu import RawScu, associate_rq

FIRST_NUMBER = 9_000_001
"""Of the studies: other senders number theirs from 1."""


@dataclass
class Sending:
    """Studies of several hospitals at once; `sent` is what they know, `senders` who sent which series."""

    site: Site
    clock: Clock
    sent: Sent = field(default_factory=Sent)
    senders: dict[str, str] = field(default_factory=dict)

    def wave(self, studies: int, pause_seconds: float = 0.0) -> list[threading.Thread]:
        """Each hospital sends so many, one after the other, with such pauses between slices; returned while they do."""
        threads = []
        for name in SITES:
            made = [self._made(name) for _ in range(studies)]
            threads.append(threading.Thread(target=self._send_all, args=(name, made, pause_seconds), daemon=True))
        for thread in threads:
            thread.start()
        return threads

    def _made(self, name: str) -> list[tuple[Dataset, bytes]]:
        """A study, every other one with an aneurysm."""
        number = FIRST_NUMBER + len(self.senders)
        slices = angiography(number, ANEURYSM_HU if number % 2 else FILLED_HU)
        uid = str(slices[0][0].SeriesInstanceUID)
        self.sent.series[uid] = SentSeries(uid, "positive" if number % 2 else "negative", len(slices))
        self.senders[uid] = name
        return slices

    def _send_all(self, name: str, studies: Sequence[Sequence[tuple[Dataset, bytes]]], pause_seconds: float) -> None:
        for slices in studies:
            uid, began, tries = str(slices[0][0].SeriesInstanceUID), time.monotonic(), 1
            while not is_acknowledged(self.site.hosts.balancer.port, name, slices, self.sent, pause_seconds):
                self.clock.say(f"{name}'s association broke off; what was not acknowledged comes again")
                tries += 1
                time.sleep(0.5)
            self.sent.series[uid].is_whole = True
            at = " and ".join(f"{count} at {host}" for host, count in slices_at(self.site, uid).items() if count)
            again = f", {counted(tries, 'attempt')}" if tries > 1 else ""
            seconds = time.monotonic() - began
            self.clock.say(f"{name} sent a study: {counted(len(slices), 'slice')} in {seconds:.1f} s{again}; {at}")


def is_acknowledged(
    port: int, calling: str, slices: Sequence[tuple[Dataset, bytes]], sent: Sent, pause_seconds: float = 0.0
) -> bool:
    """Whether all was acknowledged on one association, with such pauses between; what was is known."""
    request = associate_rq(sop_class=slices[0][0].SOPClassUID, calling=calling)
    try:
        with RawScu(port, 30).associate(request) as scu:
            for ds, dataset in slices:
                assert scu.store(ds, dataset) == 0
                digest = hashlib.sha256(dataset).hexdigest()
                sent.acknowledged[str(ds.SOPInstanceUID)] = (str(ds.SOPClassUID), digest)
                time.sleep(pause_seconds)
            scu.release()
    except (OSError, AssertionError):
        return False
    return True
