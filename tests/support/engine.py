"""A Dask scheduler and a worker of ours in processes of their own, over TLS on loopback, and claimants in this one."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import Dataset

from node.analysis.engine import Engine
from node.analysis.worker import Worker
from node.config.sections import Config
from storage.files.instances import Files
from storage.stages import Event
from storage.store import Store
from tests.corpus.images import cta
from tests.support.builders import FakeClock, keep
from tests.support.certificates import Certificates
from tests.support.engine_parts import Part, as_toml, settings
from tests.support.running import START_SECONDS, free_port, wait_until


@dataclass
class Cluster:
    """A scheduler and a worker, in processes of their own, and what a claimant needs of them."""

    folder: Path
    address: str
    certificates: Certificates
    scheduler: Part
    worker: Part
    worker_port: int

    @property
    def hold(self) -> Path:
        """While this file is there, the worker's network waits."""
        return self.worker.hold

    def held_by(self) -> int:
        """The process that waits for the file to go."""
        return self.worker.held_by()


@contextmanager
def running_cluster(
    folder: Path, certificates: Certificates, module: str = "tests.support.held_worker"
) -> Iterator[Cluster]:
    """A scheduler and a worker; the bundle is that of the folder, or the shipped one."""
    address, port = f"tls://127.0.0.1:{free_port()}", free_port()
    (folder / "config.toml").write_text(as_toml(settings(folder, address, certificates)))
    listening = ("--port", str(port))
    with Part("scheduler", folder, module) as scheduler, Part("worker", folder, module, listening) as worker:
        wait_until(lambda: b"worker_started" in worker.log.read_bytes(), START_SECONDS, "the worker has joined")
        yield Cluster(folder, address, certificates, scheduler, worker, port)


class Claimant:
    """A worker process of a node, in this process, with its database; `here`: how often it analysed by itself."""

    def __init__(self, cluster: Cluster, url: str, who: str = "node", **of_ai: Any) -> None:
        values = settings(cluster.folder, cluster.address, cluster.certificates, who, **of_ai)
        values["storage"]["database_url"] = url
        self.config = Config.model_validate(values)
        self.store, self.files = Store.open(url), Files(self.config.storage.directory)
        self.here = 0
        self.worker = Worker(self.config)
        assert self.worker._engine is not None
        self.engine: Engine = self.worker._engine

    def close(self) -> None:
        self.engine.stop()
        self.store.close()

    def ready(self, clock: FakeClock, *hu: int) -> None:
        """A series for each of these brightnesses waits for its analysis."""
        for number, each in enumerate(hu, start=1):
            self.waits(clock, cta(each, count=6, series=number))

    def waits(self, clock: FakeClock, slices: Sequence[Dataset]) -> None:
        """The series waits for its analysis."""
        series = keep(self.store, self.files, clock, slices)
        assert self.store.settling.leave(series, Event.SETTLED, "count", clock())

    def rows(self, *keys: str) -> list[tuple[Any, ...]]:
        rows = sorted(self.store.worklist.rows(), key=lambda row: row["case_id"])
        return [tuple(row[key] for key in keys) for row in rows]

    def works(self) -> threading.Thread:
        """It works, in a thread, until nothing waits."""
        thread = threading.Thread(target=self.worker._work, daemon=True)
        thread.start()
        return thread
