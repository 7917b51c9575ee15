"""The site of a soak: a whole node, a PACS, a mail server, a modality that asks for commitment, and what happens to them."""

import os
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification

from node.config.peer import Peer
from node.dicom import commitment
from node.dicom.commitment import Result
from node.simulated_pacs import Fault
from tests.soak import stub_node
from tests.support.receivers import Mailbox
from tests.support.running import RunningNode, free_port, wait_until

ROLES = ("serve", "receive", "work", "web")


@dataclass(frozen=True)
class Planned:
    """What happens at an hour of the simulated day, for so many of its minutes."""

    hour: float
    name: str
    minutes: float = 0.0


DAY = (
    Planned(0.5, "kill work"), Planned(1.0, "PACS away", 20), Planned(2.0, "kill receive"),
    Planned(2.5, "mail away", 30), Planned(3.5, "kill node"), Planned(4.0, "database locked", 6),
    Planned(4.5, "PACS refuses", 10), Planned(5.0, "kill work"), Planned(5.3, "kill receive"), Planned(5.6, "kill web"),
    Planned(6.0, "kill node"), Planned(6.5, "PACS aborts", 10), Planned(7.0, "kill serve"), Planned(7.5, "restart"),
    # nothing is killed from here: what grows shows
    Planned(10.0, "PACS away", 60), Planned(12.5, "mail away", 60), Planned(15.0, "database locked", 6),
    Planned(16.0, "PACS refuses", 20), Planned(17.5, "PACS does not commit", 20), Planned(19.0, "PACS aborts", 20),
    Planned(20.5, "PACS slow", 30),
    # the end of the day
    Planned(22.8, "kill node"), Planned(23.2, "kill work"),
)  # fmt: skip
"""The whole day."""
FAULTS = {
    "PACS refuses": Fault.REFUSE,
    "PACS aborts": Fault.ABORT,
    "PACS does not commit": Fault.UNCOMMITTED,
    "PACS slow": Fault.SLOW,
}


@dataclass(frozen=True)
class Happened:
    """What happened from when to when, in seconds since the beginning."""

    name: str
    begun: float
    ended: float


class StubNode(RunningNode):
    """The node whose network is the corpus's stand-in: a worker with the shipped bundle in it all the same.

    What CPython would do once at some time, its processes do soon: `tests.soak.stub_node`.
    """

    module = stub_node.MODULE


class SoakSite:
    """All of it, until `close`."""

    def __init__(self, folder: Path, with_pages: bool = True) -> None:
        """The node runs."""
        self.mailbox, modality = Mailbox(), free_port()
        self.node = StubNode(
            folder,
            node__allowed_calling_ae='["RAW"]', node__dimse_timeout_seconds="20", web__enabled=str(with_pages).lower(),
            web__port=str(free_port()), web__open_metrics="true", completion__quiet_seconds="3",
            completion__open_association_quiet_seconds="10", eligibility__minimum_slices="20",
            eligibility__sibling_wait_seconds="3", report__not_analysed='"always"',
            delivery__default_destination='"PACS"', delivery__first_retry_seconds="1",
            delivery__maximum_retry_seconds="20", delivery__commitment_timeout_seconds="30",
            peers__PACS__storage_commitment="true", log__level='"warning"', peers__CT1__ae_title='"CT1"',
            peers__CT1__host='"127.0.0.1"', peers__CT1__port=str(modality), peers__CT1__destination='"PACS"',
        )  # fmt: skip
        self.node.pacs.delay_seconds = 1.0
        target = {"name": "on-call", "kind": "apprise", "url": self.mailbox.start()}
        with self.node.path.open("a", encoding="utf-8") as config:
            config.write("[[notifications]]\n" + "".join(f'{key} = "{value}"\n' for key, value in target.items()))
        self.modality = Peer(ae_title="CT1", host="127.0.0.1", port=modality)
        self.results: dict[str, Result] = {}
        """Of the commitments that the modality asked for, by their Transaction UID."""
        self._listening = self._listen(modality)
        self.happened: list[Happened] = []
        self.kills: Counter[str] = Counter()
        self.node.start()

    def _listen(self, port: int) -> Any:
        ae = AE(ae_title="CT1")
        ae.add_supported_context(Verification)
        ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)

        def take(event: Any) -> tuple[int, None]:
            result = commitment.read_result(event.event_information)
            self.results[result.transaction_uid] = result
            return 0x0000, None

        return ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, take)])

    def processes(self) -> dict[str, int]:
        """Role → process id, of those that run."""
        found: dict[str, int] = {}
        assert self.node.process is not None
        with suppress(OSError):
            for pid in [self.node.process.pid, *self.node.children()]:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                found |= {role: pid for role in ROLES if role.encode() in words}
        return found

    def happen(self, planned: Planned, seconds: float, began: float) -> None:
        """It has happened, and is over after `seconds`.  `began`: the monotonic time of the beginning."""
        start = time.monotonic() - began
        act, subject = planned.name.split(" ", 1) if " " in planned.name else (planned.name, "")
        with suppress(StopIteration):
            if act == "kill":
                self._kill(subject)
            elif planned.name == "restart":
                self.node.stop()
                self.node.start()
            else:
                self._away(planned.name, seconds)
        self.happened.append(Happened(planned.name, start, time.monotonic() - began))

    def _kill(self, role: str) -> None:
        pids = self.processes()
        self.kills[role] += 1
        if role == "node":
            self.node.kill()
        else:
            os.kill(pids[role], signal.SIGKILL)
        if role in ("node", "serve"):
            assert self.node.process is not None
            self.node.process.wait(10)
            wait_until(lambda: not any(_runs(pid) for pid in pids.values()), 30, "the killed node's processes are gone")
            self.node.start()
        else:
            wait_until(lambda: self.processes().get(role, pids[role]) != pids[role], 90, f"{role} runs again")

    def _away(self, name: str, seconds: float) -> None:
        for begin, end in self._outage(name):
            begin()
            try:
                threading.Event().wait(seconds)
            finally:
                end()

    def _outage(self, name: str) -> Iterator[tuple[Callable[[], object], Callable[[], object]]]:
        node, pacs = self.node, self.node.pacs
        if name == "PACS away":
            yield pacs.stop, node.pacs_returns
        elif name == "mail away":
            yield self.mailbox.stop, self.mailbox.start
        elif name == "database locked":
            lock = sqlite3.connect(node.config.storage.directory / "willis.db", isolation_level=None, timeout=60)
            yield lambda: lock.execute("BEGIN IMMEDIATE"), lock.close
        else:
            yield (lambda: setattr(pacs, "fault", FAULTS[name])), (lambda: setattr(pacs, "fault", Fault.NONE))

    def close(self) -> None:
        """Nothing runs any longer."""
        self.node.close()
        self.mailbox.stop()
        self._listening.shutdown()


def _runs(pid: int) -> bool:
    try:
        return b"--config" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
