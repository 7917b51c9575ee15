"""A whole node in one process that starts within a second: it is to be killed, often.

The receiver, the verbs and the analysis are those of `willis serve`; only torch and the supervisor are missing, so its series
are small, end as "not eligible", and are reported as that.
"""

import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from node.analysis.analysis import AnalysisContext, analyse
from node.config.sections import Config
from node.results.document import Algorithm
from node.results.identity import derive_uid
from node.runtime import log
from node.runtime.clock import utc_now
from node.runtime.processes import worker_name
from node.scp.receiver import Receiver
from node.scu import dimse, storage_scu
from node.scu.outgoing import Outgoing
from node.workflow import delivery, recovery, settling
from node.workflow.context import Context
from storage.files.instances import Files
from storage.records import Received
from storage.store import Store
from tests.support.running import ROOT, START_SECONDS, wait_until

ALGORITHM = Algorithm("Willis aneurysm detection", "test", "test", derive_uid("device", "test"))


def configuration(folder: Path, port: int, pacs_port: int) -> Config:
    """Short timers, and a report on every series."""
    return Config.model_validate(
        {
            "node": {
                "port": port,
                "maximum_associations": 200,
                "network_timeout_seconds": 1,
                "allowed_calling_ae": ["RAW"],
                "failed_associations": 0,
            },
            "storage": {"directory": folder},
            "completion": {"quiet_seconds": 0.5, "open_association_quiet_seconds": 5},
            "report": {"not_analysed": "always"},
            "delivery": {"first_retry_seconds": 0.1, "default_destination": "PACS"},
            "log": {"level": "error"},
            "peers": {"PACS": {"ae_title": "PACS", "host": "127.0.0.1", "port": pacs_port}},
        }
    )


class SmallNode:
    """The node, in this process."""

    def __init__(self, config: Config) -> None:
        """The receiver accepts associations."""
        self.config = config
        self.files = Files(config.storage.directory)
        self.store = Store.open(config.storage.url)
        self.context = Context(config, self.store, self.files, lambda: None)
        bundle: Any = None  # no series of ours is analysed
        self.analysis_context = AnalysisContext(config, self.files, bundle, ALGORITHM, utc_now, store=self.store)
        self.receiver = Receiver(config, self.store, self.files, lambda: None)
        self.receiver.start()

    def step(self) -> None:
        """Each verb has run once."""
        recovery.rescue(self.context)
        settling.settle(self.context)
        lease = timedelta(seconds=30)
        while claim := self.store.queue.claim(worker_name(os.getpid()), utc_now(), lease, 1000):
            analyse(self.analysis_context, claim)
        delivery.deliver(self.context)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.receiver.stop()
        self.store.close()


class Killable:
    """The same in a process of its own."""

    def __init__(self, folder: Path, port: int, pacs_port: int, kill_at: str = "", broken: str = "") -> None:
        """It is started.  `broken` names a guarantee in `BREAKS` that it does not keep."""
        environment = {**os.environ, "WILLIS_KILL_AT": kill_at}
        self._told = (folder.parent / "listens").with_suffix(f".{port}")
        self._told.unlink(missing_ok=True)
        arguments = [str(folder), str(port), str(pacs_port), str(self._told), broken]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.small_node", *arguments], cwd=ROOT, env=environment
        )
        self.port = port

    def wait(self) -> Self:
        """It listens, or has died already; killed where it does neither in time."""
        try:
            wait_until(
                lambda: self._told.exists() or self.process.poll() is not None, START_SECONDS, "the small node listens"
            )
        except BaseException:
            self.kill()  # whoever waits in vain leaves nothing running
            raise
        return self

    def kill(self) -> None:
        """It is dead, as by `kill -9`."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Self:
        return self.wait()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def break_commit() -> None:
    """An instance is acknowledged before it is committed."""
    from storage.queries.group_commit import GroupCommit, Offer
    from storage.records import Added, Change

    as_it_is = GroupCommit.offer

    def offer(self: GroupCommit, change: Change) -> Offer:
        if not isinstance(change, Received):
            return as_it_is(self, change)
        made = Offer(change)
        made.complete(Added.STORED)
        return made

    GroupCommit.offer = offer  # type: ignore[method-assign]


def break_file() -> None:
    """An instance is acknowledged and its file loses its end."""
    from storage.files.instances import InstanceWriter

    flush = InstanceWriter.flush

    def flushed(self: InstanceWriter) -> None:
        os.truncate(self._temporary, self._temporary.stat().st_size - 1)
        flush(self)

    InstanceWriter.flush = flushed  # type: ignore[method-assign]


def break_uid() -> None:
    """Each attempt to report has a UID of its own."""
    import secrets

    from node.results import objects

    vars(objects)["derive_uid"] = lambda *_: f"2.25.{secrets.randbits(100)}"


def break_outbox() -> None:
    """A delivery counts as accepted before it is sent."""

    def deliver(context: Context) -> int:
        while delivery := context.store.outbox.due.claim(context.clock(), timedelta(seconds=3)):
            context.store.outbox.accepted(delivery, context.clock())
            storage_scu.deliver(
                dimse.Entity("WILLIS", dimse.Timeouts()),
                context.config.peers[delivery.destination],
                Outgoing.read(context.files.path(delivery.file)),
            )
        return 0

    delivery.deliver = deliver


def break_decoder() -> None:
    """A codec crashes on every frame: nothing but the analysis of an eligible series may decode."""
    from ai import frames

    def crash(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    vars(frames)["decoded"] = vars(frames)["unpacked"] = crash


BREAKS = {
    "": lambda: None,
    "commit": break_commit,
    "file": break_file,
    "uid": break_uid,
    "outbox": break_outbox,
    "decoder": break_decoder,
}


def main(folder: str, port: str, pacs_port: str, safe_message: str, broken: str) -> None:
    """The node until it is killed."""
    BREAKS[broken]()
    log.configure("json", "critical")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    node = SmallNode(configuration(Path(folder), int(port), int(pacs_port)))
    Path(safe_message).touch()
    while True:
        node.step()
        signal.sigtimedwait([], 0.02)


if __name__ == "__main__":
    main(*sys.argv[1:])
