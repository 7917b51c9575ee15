"""`make scale-demo`: two hosts, PostgreSQL, an S3 object store, HAProxy and a Dask engine of two workers on this machine.

Three hospitals send small synthetic studies (24 slices of 32 x 32) through the balancer.  A worker of the engine is
killed in the middle of an analysis, then a host while it receives.  Status 0 if every study has exactly one report in the
PACS, of the right kind, and every acknowledged slice is there bit for bit.

What stands in for something: the network (it finds what the voxels say, at once), the PACS, and moto for an object store.
"""

import shutil
import signal
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

from node.cli.app import console
from tests.conftest import running_postgresql
from tests.scale_demo.kills import DRAINED_SECONDS
from tests.scale_demo.sending import Sending
from tests.scale_demo.shown import Clock, Watch, summary, table, waits
from tests.scale_demo.site import Site, running_site
from tests.soak.proof import Verdict, of_cases, waiting
from tests.support.object_store import running_object_store
from tests.support.running import wait_until

HOST_AWAY_SECONDS = 3.0
"""Until the killed host is started again, as by its service manager."""
WAIT_SECONDS = 120.0
BROKEN_OFF = 128 + signal.SIGINT
PROGRAMS = {
    "openssl": ("openssl", "/usr/bin:/usr/local/bin", "makes the engine's certificates"),
    "haproxy": ("haproxy", "/usr/sbin:/usr/bin", "is the balancer"),
    "postgresql": ("initdb", "/usr/lib/postgresql/*/bin", "is of the database of both hosts"),
}
"""Debian package → a program of it, where that is looked for, and what it does."""


def missing() -> list[str]:
    """What this machine lacks, and what to do."""
    return [
        f"{program} was not found in {path}: it {duty}; apt-get install {package}"
        for package, (program, path, duty) in PROGRAMS.items()
        if not any(found for folder in path.split(":") for found in Path("/").glob(f"{folder[1:]}/{program}"))
    ]


def demonstrate(site: Site, clock: Clock) -> Verdict:
    """The studies were sent, a worker and a host were killed, and every report has come; what is wrong with it."""
    sending, watch = Sending(site, clock), Watch(site, clock)
    watch.start()
    try:
        clock.say("three hospitals send two studies each")
        _reported(site, sending, sending.wave(2))
        clock.say("three more studies; the first worker that begins one will be killed in the middle of it")
        senders = sending.wave(1)
        clock.say(f"kill -9: {site.kill_a_busy_worker().folder.name}, in the middle of an analysis")
        _reported(site, sending, senders)
        clock.say("three more studies, slowly; host b will be killed while it receives")
        before = site.hosts.nodes["b"].received()
        senders = sending.wave(1, 0.1)
        wait_until(lambda: site.hosts.nodes["b"].received() >= before + 3, 30, "host b receives")
        clock.say("kill -9: every process of host b")
        site.kill_host("b", HOST_AWAY_SECONDS)
        clock.say("host b is started again, as by its service manager")
        _reported(site, sending, senders)
        with suppress(AssertionError):  # the verdict says what has no end by then
            wait_until(lambda: not any(waiting(site.hosts.store).values()), DRAINED_SECONDS, "nothing is under way")
    finally:
        watch.stop()
    found = of_cases(site.hosts.store, site.hosts.where, sending.sent, site.hosts.pacs.folder)
    console.print(table(site, sending.senders, sending.sent.series, watch))
    for line in summary(found, len(sending.senders), waits(site, sending.senders)):
        console.print(line, highlight=False, soft_wrap=True)
    return found


def _reported(site: Site, sending: Sending, senders: list[threading.Thread]) -> None:
    """The senders have ended, and every report is in the PACS."""
    for sender in senders:
        sender.join(WAIT_SECONDS)
    wait_until(lambda: len(waits(site, sending.senders)) == len(sending.senders), WAIT_SECONDS, "every report has come")


def main() -> int:
    """What happens, in lines; at the end a table."""
    if lacking := missing():
        for line in lacking:
            print(line, file=sys.stderr)
        return 2
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="willis-scale-demo-", dir="/tmp"))
    status = 1
    try:
        status = _run(folder)
    except KeyboardInterrupt:
        console.print("broken off; nothing of it runs any longer")
        status = BROKEN_OFF
    except AssertionError as error:
        console.print(f"failed: {error}", highlight=False, soft_wrap=True)
    finally:
        if status == 1:
            console.print(f"the logs of every part are in {folder}", highlight=False, soft_wrap=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return status


def _run(folder: Path) -> int:
    clock = Clock()
    clock.say("starting PostgreSQL, an S3 object store, an engine and two hosts; two idle cores take half a minute")
    with running_postgresql() as postgresql, running_object_store() as s3:
        clock.say("PostgreSQL and the object store run")
        with running_site(folder, postgresql, s3, clock.say) as site:
            found = demonstrate(site, clock)
            clock.say("stopping all of it")
    clock.say("nothing of it runs any longer")
    return 1 if found.lost or found.doubled else 0


if __name__ == "__main__":
    sys.exit(main())
