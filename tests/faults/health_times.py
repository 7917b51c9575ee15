"""`python -m tests.faults.health_times`: each fault, injected into a node that serves, and how soon health names its cause.

Prints a line for each: seconds from the fault (or from `willis serve`, where the node cannot start) to the first answer of
health with the words and the verdict, asked ten times a second as `willis status` asks; and the reason.  Status 1: one was
not named within the limit.  `--only PATTERN` takes those in whose name the regular expression is found.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from node.rules.health import Verdict, judge
from node.runtime.clock import utc_now
from node.runtime.heartbeat import PERIOD_SECONDS
from node.workflow.health import facts_of, health_of
from tests.conftest import running_postgresql
from tests.faults import health_faults as faults
from tests.support.certificates import Certificates
from tests.support.running import RunningNode, free_port, wait_until

LIMIT_SECONDS = 15.0
PATIENCE_SECONDS = 40.0
"""So long a late answer is waited for, to say how late it is."""
DOWN, DEGRADED = Verdict.DOWN, Verdict.DEGRADED
Injection = Callable[[RunningNode], AbstractContextManager[None]]
Site = Callable[[Path], AbstractContextManager[dict[str, str]]]


@contextmanager
def with_settings(_folder: Path, **settings: str) -> Iterator[dict[str, str]]:
    """A node of its own with these settings."""
    yield settings


@contextmanager
def reporting_all(_folder: Path) -> Iterator[dict[str, str]]:
    """A node of its own that soon reports whatever comes."""
    yield {"completion__quiet_seconds": "1", "report__not_analysed": '"always"'}


@contextmanager
def on_a_small_disk(folder: Path) -> Iterator[dict[str, str]]:
    """Its folder is a disk of 80 MiB, and its database is elsewhere."""
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "none", str(disk)], check=True)
    try:
        yield {
            "storage__directory": repr(str(disk)), "storage__database_url": repr(f"sqlite:///{folder / 'w.db'}"),
            "audit__file": '""',
        }  # fmt: skip
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


@contextmanager
def on_postgresql(_folder: Path, database: str = "migrated", user: str = "postgres") -> Iterator[dict[str, str]]:
    """Its database is on a server of its own, which asks `guarded` for the password "right"."""
    with running_postgresql() as server:
        server.run("CREATE ROLE guarded LOGIN PASSWORD 'right'")
        rules = server.folder / "data" / "pg_hba.conf"
        rules.write_text("local all guarded scram-sha-256\n" + rules.read_text())
        server.run("SELECT pg_reload_conf()")
        yield {"storage__database_url": repr(server.url(database).replace("postgres@", f"{user}@"))}


@contextmanager
def with_tls(folder: Path, certificate: str, key: str) -> Iterator[dict[str, str]]:
    """It has these of the certificates that openssl makes."""
    made = Certificates(folder)
    names = {"certificate": f"{certificate}.pem", "key": f"{key}.key", "ca": "ca.pem"}
    paths = {f"node__tls__{key}": repr(str(made.folder / name)) for key, name in names.items()}
    yield {"node__tls__port": str(free_port()), **paths}


@dataclass(frozen=True)
class Fault:
    """`words`: what a reason of health has to say; `site`: of a node of its own, without one that which others share."""

    name: str
    words: str
    verdict: Verdict
    inject: Injection
    site: Site | None = None

    @property
    def starts(self) -> bool:
        """Whether the node runs before the fault; else its start brings it about."""
        return self.inject is not faults.started and getattr(self.inject, "func", None) is not faults.port_taken


FAULTS = (
    Fault("kill -9 of the worker", "`willis work`", DEGRADED, partial(faults.killed, role="work")),
    Fault("kill -9 of the receiver", "`willis receive`", DOWN, partial(faults.killed, role="receive")),
    Fault("kill -9 of the pages", "`willis web`", DEGRADED, partial(faults.killed, role="web")),
    Fault("kill -9 of the supervisor", "`willis serve`", DOWN, partial(faults.killed, role="serve")),
    Fault("kill -9 of all at once", "`willis serve`", DOWN, faults.all_killed),
    Fault("the node was stopped", "no node runs on", DOWN, faults.ended),
    Fault("the worker hangs", "`willis work`", DEGRADED, partial(faults.stopped, role="work")),
    Fault("the receiver hangs", "`willis receive`", DOWN, partial(faults.stopped, role="receive")),
    Fault("the pages hang", "`willis web`", DEGRADED, partial(faults.stopped, role="web")),
    Fault("the supervisor hangs", "`willis serve`", DOWN, partial(faults.stopped, role="serve")),
    Fault("two nodes on one folder", "2 nodes on", DEGRADED, faults.second_node),
    Fault("reload with a bundle that is none", "could not reload", DEGRADED, faults.broken_reload),
    Fault("PACS away, connection refused", "nothing listens on that port", DEGRADED, faults.pacs_away),
    Fault("PACS takes connections and is silent", "PACS does not answer", DEGRADED, faults.pacs_hangs),
    Fault("PACS rejects associations", "rejected the association", DEGRADED, faults.pacs_rejects),
    Fault("an instance that cannot be read", "refused, the last at", DEGRADED, faults.unreadable_instance),
    Fault("receiver out of file descriptors", "refused, the last at", DEGRADED, faults.no_descriptors),
    Fault("another program locks SQLite", "is locked by the program", DOWN, faults.locked_database),
    Fault("clock set back by an hour (a stand-in)", "clock was set back", DEGRADED, faults.clock_set_back),
    Fault("SQLite's file is overwritten", "no SQLite database", DOWN, faults.damaged_database, with_settings),
    Fault("PACS refuses a report for good", "refused or given up", DEGRADED, faults.pacs_refuses, reporting_all),
    Fault("disk full", "instances are refused; free some", DOWN, faults.full_disk, on_a_small_disk),
    Fault("disk full: what it cost", "no space left on the disk", DEGRADED, faults.full_disk, on_a_small_disk),
    Fault("disk turned read-only", "instances were refused", DEGRADED, faults.read_only, on_a_small_disk),
    Fault("PostgreSQL stopped", "start the server", DOWN, faults.postgresql_stopped, on_postgresql),
    Fault("PostgreSQL takes connections and is silent", "the server does not answer", DOWN, faults.postgresql_hangs, on_postgresql),
    Fault("start: no such PostgreSQL database", "no database of that name", DOWN, faults.started,
          partial(on_postgresql, database="nowhere")),
    Fault("start: wrong password", "wrong user or password", DOWN, faults.started,
          partial(on_postgresql, user="guarded:wrong")),
    Fault("start: a URL with postgres://", "postgresql+psycopg://", DOWN, faults.started,
          partial(with_settings, storage__database_url='"postgres://a@127.0.0.1/x"')),
    Fault("start: cuda without a GPU", "there is no CUDA GPU", DOWN, faults.started, partial(with_settings, ai__device='"cuda"')),
    Fault("start: the bundle is missing", "nowhere", DOWN, faults.started, partial(with_settings, ai__bundle='"nowhere"')),
    Fault("start: port taken", "[node] port", DOWN, partial(faults.port_taken, section="node")),
    Fault("start: port of the pages taken", "[web] port", DEGRADED, partial(faults.port_taken, section="web")),
    Fault("start: own certificate expired", "expired on", DEGRADED, faults.started,
          partial(with_tls, certificate="expired", key="expired")),
    Fault("start: key of another certificate", "not the one that the certificate was made for", DOWN, faults.started,
          partial(with_tls, certificate="node", key="ct1")),
    Fault("start: PACS's host name does not resolve", "cannot be resolved", DEGRADED, faults.started,
          partial(with_settings, peers__PACS__host='"pacs.invalid"')),
)  # fmt: skip
SHARED = {"node__allowed_calling_ae": '["RAW"]', "web__enabled": "true", "log__level": '"error"'}


starts: list[float] = []
"""The seconds that each start took until the node was well: what a fault of a start is to be seen beside."""


def is_well(node: RunningNode) -> bool:
    """Whether nothing is wrong but what stays for an hour, and the room on this machine's disk, and all was lately heard of."""
    facts = facts_of(node.config, now := utc_now())
    is_fresh = all((now - each.beat_at).total_seconds() < 2 * PERIOD_SECONDS for each in facts.processes)
    return is_fresh and all(each.about in ("disk", "instances") for each in judge(facts).reasons)


def running(node: RunningNode) -> RunningNode:
    """It runs and is well."""
    begun, is_to_start = time.monotonic(), node.process is None or node.process.poll() is not None
    if is_to_start:
        node.start()
    wait_until(lambda: is_well(node), 120, "the node is well")
    if is_to_start:
        starts.append(time.monotonic() - begun)
    return node


def noticed(node: RunningNode, fault: Fault) -> tuple[float, str]:
    """Seconds from the fault to the reason, and the reason; raises AssertionError where it never comes."""
    known = {each.message for each in health_of(node.config, utc_now()).reasons} if fault.starts else set()
    begun = time.monotonic()
    with fault.inject(node):
        while True:
            health = health_of(node.config, utc_now())
            for each in health.reasons if health.verdict.exit_status >= fault.verdict.exit_status else ():
                if fault.words in each.message and each.message not in known:
                    return time.monotonic() - begun, f"{health.verdict}: {each.message}"
            assert time.monotonic() - begun < PATIENCE_SECONDS, f"not named: {fault.name}"
            time.sleep(0.1)


def measured(fault: Fault, shared: RunningNode, folder: Path) -> tuple[float, str]:
    """As `noticed`, of the node that it concerns."""
    if fault.site is None and fault.starts:
        return noticed(running(shared), fault)
    folder.mkdir()
    with ExitStack() as stack:
        site = fault.site or with_settings
        settings = {**SHARED, "web__port": str(free_port()), **stack.enter_context(site(folder))}
        node = RunningNode(folder, **settings)
        stack.callback(node.close)
        if fault.starts:
            running(node)
        return noticed(node, fault)


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    late = 0
    print("| fault | seconds | what health says first |\n|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="willis-health-") as named:
        folder = Path(named)
        (folder / "shared").mkdir()
        shared = RunningNode(folder / "shared", **SHARED, web__port=str(free_port()))
        try:
            for number, fault in enumerate(FAULTS):
                if not re.search(options.only, fault.name):
                    continue
                try:
                    seconds, said = measured(fault, shared, folder / str(number))
                except (AssertionError, OSError, subprocess.SubprocessError) as error:
                    seconds, said = float("inf"), f"not measured: {str(error)[:200]}"
                late += seconds > LIMIT_SECONDS
                print(f"| {fault.name} | {seconds:.1f} | {said.replace(named, '…').replace('|', '/')} |", flush=True)
        finally:
            shared.close()
    if starts:
        print(f"\n{len(starts)} starts without a fault: well after {min(starts):.1f} to {max(starts):.1f} s")
    print(f"\n{late} not named within {LIMIT_SECONDS:g} s" if late else f"\nall named within {LIMIT_SECONDS:g} s")
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
