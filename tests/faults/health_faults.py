"""Faults as a person meets them: how each is brought about in a node that serves, and what health has to say of it.

Each is a context manager: within it the fault is there.  `python -m tests.faults.health_times` injects them one by one.
"""

import os
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from sqlalchemy import make_url

from node.runtime.clock import utc_now
from node.simulated_pacs import Fault as Misbehaviour
from storage.queries import health as asked
from tests.support.builders import encoded
from tests.support.dicom_factory import ct_series, save
from tests.support.raw_scu import RawScu, associate_rq
from tests.support.running import ROOT, RunningNode, free_port

# --- processes


def pid_of(node: RunningNode, role: str) -> int:
    """Of the process of this role."""
    assert node.process is not None
    pids = [node.process.pid, *node.children()]
    return next(pid for pid in pids if role.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"))


@contextmanager
def killed(node: RunningNode, role: str) -> Iterator[None]:
    """By `kill -9`.  Whoever supervises starts it again, which is no part of the fault."""
    os.kill(pid_of(node, role), signal.SIGKILL)
    if role == "serve" and node.process is not None:
        node.process.wait(10)  # its parent, which is this process, has heard of it
    yield


@contextmanager
def stopped(node: RunningNode, role: str) -> Iterator[None]:
    """As one that hangs in the kernel or in a library: it runs and does nothing."""
    pid = pid_of(node, role)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@contextmanager
def all_killed(node: RunningNode) -> Iterator[None]:
    """Every process at once, as when the machine's memory runs out."""
    node.kill()
    yield


@contextmanager
def ended(node: RunningNode) -> Iterator[None]:
    """As by `systemctl stop`."""
    node.stop()
    yield


@contextmanager
def second_node(node: RunningNode) -> Iterator[None]:
    """Another `willis serve` with the same folder and another port."""
    path = node.folder / "second.toml"
    port, text = node.config.node.port, node.path.read_text("utf-8")
    path.write_text(
        text.replace(f"port = {port}", f"port = {free_port()}").replace("enabled = true", "enabled = false")
    )
    process = _serve(node, path)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def started(node: RunningNode) -> Iterator[None]:
    """`willis serve` was typed, and the fault is why it cannot run."""
    node.process = _serve(node, node.path)
    yield


def _serve(node: RunningNode, path: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "node", "serve", "--config", str(path)]
    with node.log.open("ab") as output:
        return subprocess.Popen(command, cwd=ROOT, stderr=output, stdout=output)


@contextmanager
def port_taken(node: RunningNode, section: str) -> Iterator[None]:
    """Another program listens on the port of [node] or [web], and then the node starts."""
    port = node.config.node.port if section == "node" else node.config.web.port
    with socket.create_server(("127.0.0.1", port)), started(node):
        yield


@contextmanager
def broken_reload(node: RunningNode) -> Iterator[None]:
    """The configuration names a bundle that is none, and `willis reload` was typed."""
    before = node.path.read_text("utf-8")
    node.path.write_text(f'{before}\n[ai]\nbundle = "nowhere"\n', "utf-8")
    reload = [sys.executable, "-m", "node", "reload", "--config", str(node.path)]
    subprocess.run(reload, cwd=ROOT, capture_output=True, check=False)
    try:
        yield
    finally:
        node.path.write_text(before, "utf-8")
        subprocess.run(reload, cwd=ROOT, capture_output=True, check=True)


# --- peers


@contextmanager
def pacs_away(node: RunningNode) -> Iterator[None]:
    """Its host is up and nothing listens."""
    node.pacs.stop()
    try:
        yield
    finally:
        node.pacs_returns()


@contextmanager
def pacs_hangs(node: RunningNode) -> Iterator[None]:
    """Its port takes connections and nobody answers on them."""
    with pacs_away(node), socket.create_server(("127.0.0.1", node.pacs_port)):
        yield


@contextmanager
def pacs_rejects(node: RunningNode) -> Iterator[None]:
    """It no longer knows our AE title."""
    node.pacs.stop()
    node.pacs_returns(Misbehaviour.REJECT)
    try:
        yield
    finally:
        node.pacs.stop()
        node.pacs_returns()


@contextmanager
def pacs_refuses(node: RunningNode) -> Iterator[None]:
    """It answers the C-STORE of a report with a failure that will not pass, once there is a report."""
    node.pacs.fault, node.pacs.status = Misbehaviour.REFUSE, 0xA900
    assert not any(_sent(node))
    yield


def _sent(node: RunningNode) -> list[str]:
    """The error of each of two slices."""
    return [sent.error for sent in node.send(save(ct_series(2), node.folder))]


@contextmanager
def unreadable_instance(node: RunningNode) -> Iterator[None]:
    """A sender gives what is no dataset."""
    [ds] = ct_series(1)
    with RawScu(node.config.node.port).associate(associate_rq()) as scu:
        assert scu.store(ds, b"\x08\x00\x16\x00UI\xff\xffgarbage") != 0
    yield


# --- disk, descriptors, database, clock


@contextmanager
def full_disk(node: RunningNode) -> Iterator[None]:
    """The disk of [storage] directory has no room."""
    folder = node.config.storage.directory
    room = os.statvfs(folder)
    (folder / "filler").write_bytes(b"x" * (room.f_bavail * room.f_frsize))
    assert all(_sent(node))
    yield


@contextmanager
def read_only(node: RunningNode) -> Iterator[None]:
    """The disk of [storage] directory was mounted anew for reading, as the kernel does after an error."""
    subprocess.run(["mount", "-o", "remount,ro", str(node.config.storage.directory)], check=True)
    assert all(_sent(node))
    yield


@contextmanager
def no_descriptors(node: RunningNode) -> Iterator[None]:
    """The receiver may open no further file."""
    [ds] = ct_series(1)
    with RawScu(node.config.node.port).associate(associate_rq()) as scu:
        pid = pid_of(node, "receive")
        usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        held = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (held, usual[1]))
        try:
            assert scu.store(ds, encoded(ds)) == 0xA700
            yield
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)


@contextmanager
def locked_database(node: RunningNode) -> Iterator[None]:
    """Another program holds SQLite's write lock."""
    lock = sqlite3.connect(node.config.storage.directory / "willis.db", isolation_level=None, timeout=60)
    lock.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        lock.close()


@contextmanager
def damaged_database(node: RunningNode) -> Iterator[None]:
    """The first page of SQLite's file was overwritten."""
    with (node.config.storage.directory / "willis.db").open("r+b") as file:
        file.write(os.urandom(4096))
    yield


@contextmanager
def clock_set_back(node: RunningNode) -> Iterator[None]:
    """By an hour: what stands for it is a process that was heard of in an hour."""
    known = asked.processes(node.store.transactions.reading_plainly)
    serve = next(each for each in known if each.role == "serve")
    beat = replace(serve, beat_at=utc_now() + timedelta(hours=1), name="serve:before:1", host="before", pid=1)
    node.store.processes.beat(beat)
    try:
        yield
    finally:
        node.store.processes.end(beat.name)


def _postgresql(node: RunningNode) -> int:
    """The process id of its database server."""
    folder = Path(str(make_url(node.config.storage.database_url).query["host"]))
    return int((folder / "data" / "postmaster.pid").read_text().split()[0])


@contextmanager
def postgresql_stopped(node: RunningNode) -> Iterator[None]:
    """Its processes end at once."""
    os.kill(_postgresql(node), signal.SIGQUIT)
    yield


@contextmanager
def postgresql_hangs(node: RunningNode) -> Iterator[None]:
    """It takes connections and does not answer on them."""
    pid = _postgresql(node)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
