"""Two hosts, an engine of two workers that read over S3, and what they share; each part in a folder of its own."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import make_url

from storage.queries import health as asked
from tests.conftest import PostgreSQL
from tests.support import held_worker
from tests.support.certificates import Certificates
from tests.support.engine_parts import Part, as_toml, settings
from tests.support.hosts import Hosts, in_bucket, running_hosts
from tests.support.object_store import ObjectStore
from tests.support.running import free_port, wait_until

SITES = ("NORTH", "EAST", "SOUTH")
"""AE titles of the hospitals that send."""
BUSY_WITHIN_SECONDS = 120.0
Say = Callable[[str], None]


class NoneBusy(AssertionError):
    """No worker of the engine began an analysis in time."""


@dataclass
class Site:
    """All of it, while it runs."""

    hosts: Hosts
    scheduler: Part
    workers: Sequence[Part]
    s3: ObjectStore
    postgresql: PostgreSQL

    def joined(self) -> bool:
        """Whether both hosts know of both workers."""
        return self._known_workers() == [len(self.workers)] * len(self.hosts.nodes)

    def serves(self) -> bool:
        """Whether a host knows of a worker."""
        return any(count for count in self._known_workers())

    def _known_workers(self) -> list[int]:
        known = asked.processes(self.hosts.store.transactions.reading_plainly)
        return [each.details.get("engine", {}).get("workers", 0) for each in known if each.role == "work"]

    def kill_a_busy_worker(self) -> Part:
        """A worker of the engine was killed in the middle of an analysis; something has to come for it.  Raises NoneBusy."""
        for worker in self.workers:
            worker.hold.with_suffix(".pid").unlink(missing_ok=True)
            worker.hold.touch()
        try:
            try:
                busy = wait_until(self._busy, BUSY_WITHIN_SECONDS, "a worker is at an analysis")
            except AssertionError as error:
                raise NoneBusy(str(error)) from None
            os.kill(busy.held_by(), signal.SIGKILL)
        finally:
            for worker in self.workers:
                worker.hold.unlink(missing_ok=True)
        assert isinstance(busy, Part)
        return busy

    def _busy(self) -> Part | None:
        return next((each for each in self.workers if each.hold.with_suffix(".pid").exists()), None)

    def kill_scheduler(self, away_seconds: float) -> None:
        """It was killed, and was started again after so long; what it knew is lost, and its workers end too."""
        self.scheduler.process.kill()
        self.scheduler.process.wait()
        time.sleep(away_seconds)
        self.scheduler.start()

    def kill_postgresql(self, away_seconds: float) -> None:
        """Every process of the database's server was killed at once, and was started again after so long."""
        self.postgresql.kill()
        time.sleep(away_seconds)
        self.postgresql.start()

    def take_store_away(self, away_seconds: float) -> None:
        """Nothing answered where the object store is, for so long."""
        self.s3.stop()
        time.sleep(away_seconds)
        self.s3.start()

    def kill_host(self, name: str, away_seconds: float) -> None:
        """Every process of the host was killed at once, and was started again after so long; it will listen."""
        node = self.hosts.nodes[name]
        node.kill()
        time.sleep(away_seconds)
        node.begin()


@contextmanager
def running_site(
    folder: Path, postgresql: PostgreSQL, s3: ObjectStore, say: Say = lambda _text: None, **more: str
) -> Iterator[Site]:
    """It runs inside, and nothing of it does afterwards.  `more` of the hosts' settings, as of `RunningNode`."""
    certificates = Certificates(_made(folder / "certificates"))
    address = f"tls://127.0.0.1:{free_port()}"
    with postgresql.database(template="migrated") as url, ExitStack() as running:
        # the tests' server answers a commit before it has written it: not to these hosts
        postgresql.run(f"ALTER DATABASE {make_url(url).database} SET synchronous_commit = on")
        scheduler, *workers = (
            Part(
                name.partition("-")[0], _part(folder / name, address, certificates, s3), held_worker.MODULE,
                WILLIS_TEST_HOST=f"host-{name}",
            )
            for name in ("scheduler", "worker-1", "worker-2")
        )  # fmt: skip
        for part in (scheduler, *workers):
            running.enter_context(part)
        say("a Dask scheduler and two workers start, each with a certificate of the engine's CA")
        engine = settings(folder, address, certificates)["ai"]
        hosts = running.enter_context(running_hosts(folder, url, s3, **_of_hosts(engine), **more))
        say("hosts a (127.0.0.2) and b (127.0.0.3) listen, and HAProxy has found both")
        site = Site(hosts, scheduler, workers, s3, postgresql)
        wait_until(site.joined, 120, "both hosts know of both workers")
        say("both hosts know of both workers, and the workers can read the object store")
        try:
            yield site
        finally:
            for part in (scheduler, *workers):
                part.process.terminate()


def _of_hosts(engine: dict[str, object]) -> dict[str, str]:
    tls = engine.pop("engine_tls")
    assert isinstance(tls, dict)
    of_engine = {f"ai__{key}": repr(str(value)) for key, value in engine.items()}
    of_engine |= {f"ai__engine_tls__{key}": repr(str(value)) for key, value in tls.items()}
    return of_engine | {
        "node__allowed_calling_ae": repr(["RAW", *SITES]),
        "completion__open_association_quiet_seconds": "5",
        "eligibility__minimum_slices": "20",
        "eligibility__sibling_wait_seconds": "3",
        "report__not_analysed": '"always"',
        "delivery__default_destination": '"PACS"',
        "delivery__first_retry_seconds": "1",
        "delivery__commitment_timeout_seconds": "30",
        "peers__PACS__storage_commitment": "true",
    }


def _part(folder: Path, address: str, certificates: Certificates, s3: ObjectStore) -> Path:
    """The folder of a part of the engine, with its configuration: files of its own, the bucket of all."""
    values = settings(_made(folder), address, certificates)
    values["storage"] |= in_bucket(folder, s3)
    (folder / "config.toml").write_text(as_toml(values | {"log": {"format": "json"}}), "utf-8")
    return folder


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
