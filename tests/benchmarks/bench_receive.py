"""How fast instances are received, beside real peers in the same minutes: `make bench-receive`.

Every receiver listens on 127.0.0.1 with storage of its own in a temporary folder; every peer has TCP_NODELAY=1 and
may send PDUs of 131,072 bytes where the receiver allows it.  Times begin when the first sender starts its association
and end when the last sender has exited.  Rounds of all receivers alternate; the table shows medians.  Only ratios
mean anything on a shared machine.  "disk" is no receiver: the same files written and flushed, each in its turn, by one thread
for each association, without any network.  Who flushes each instance can hardly be faster.

`--beside FOLDER` adds the Willis whose source lies there, under the name "before".  Processor time is that of our
process alone, user and system, without what the kernel does for it elsewhere.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.uid import UID, CTImageStorage

from tests.support.builders import encoded
from tests.support.dicom_factory import ct_series, save
from tests.support.raw_scu import RELEASE_RQ, RawScu, associate_rq, store_pdus
from tests.support.running import free_port

ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}
LIMIT_SECONDS = 180
OURS = ("willis", "before")


@dataclass
class Receiver:
    """A running receiver."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    folder: Path

    def peak_mib(self) -> float:
        """The largest resident set of its process so far, MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024

    def processor_seconds(self) -> float:
        """User and system time of its process so far."""
        of_process = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(of_process[11]) + int(of_process[12])) / os.sysconf("SC_CLK_TCK")

    def kept(self) -> int:
        """How many instances it says it has."""
        if self.name in OURS:
            with sqlite3.connect(self.folder / "willis.db") as database:
                return int(database.execute("SELECT count(*) FROM instance").fetchone()[0])
        return sum(1 for path in self.folder.rglob("*") if path.is_file() and path.name.startswith("CT."))


@dataclass
class Measured:
    """The rounds of one receiver at one task."""

    per_second: list[float] = field(default_factory=list)
    peak_mib: float = 0.0
    lost: int = 0
    processor_ms: list[float] = field(default_factory=list)
    """Of each instance; only of ours."""


def command(name: str, port: int, folder: Path, fork: bool) -> list[str]:
    """What starts the receiver."""
    if name == "storescp":
        return ["storescp", *(["--fork"] if fork else []), "--max-pdu", "131072", "-od", str(folder), str(port)]
    if name == "orthanc":
        settings = {
            "StorageDirectory": str(folder), "IndexDirectory": str(folder), "DicomPort": port,
            "HttpServerEnabled": False, "DicomAlwaysAllowStore": True, "DicomCheckCalledAet": False, "Plugins": [],
        }  # fmt: skip
        (folder / "orthanc.json").write_text(json.dumps(settings))
        return ["Orthanc", str(folder / "orthanc.json")]
    (folder / "willis.toml").write_text(
        f'[node]\nport = {port}\nmaximum_associations = 200\n[storage]\ndirectory = "{folder}"\n[log]\nlevel = "error"\n'
    )
    return [sys.executable, "-m", "node", "receive", "--config", str(folder / "willis.toml")]


@contextmanager
def running(name: str, root: Path, fork: bool = False, source: Path | None = None) -> Iterator[Receiver]:
    """The receiver listens, and is gone afterwards.  `source`: where ours lies, if not here.

    What it stored stays until all are measured: ext4 without a journal is slow to make files where many were just removed.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=root))
    port = free_port()
    environment = ENVIRONMENT if source is None else {**ENVIRONMENT, "PYTHONPATH": str(source)}
    with (folder / "output").open("wb") as output:
        # Our receiver ends when its standard input does.
        process = subprocess.Popen(
            command(name, port, folder, fork), cwd=source, stdin=subprocess.PIPE, stdout=output, stderr=output,
            env=environment,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        else:
            raise SystemExit(f"{name} does not listen:\n{(folder / 'output').read_text()[-2000:]}")
        time.sleep(0.3)
        yield Receiver(name, port, process, folder)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdin is not None:
            process.stdin.close()


def send(port: int, folders: list[Path]) -> float:
    """Seconds that one `dcmsend` for each folder took, all at once."""
    began: list[float] = []
    processes = [
        subprocess.Popen(
            ["dcmsend", "-v", "-nuc", "+sd", "127.0.0.1", str(port), str(folder)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=ENVIRONMENT, text=True,
        )
        for folder in folders
    ]  # fmt: skip

    def watch(process: subprocess.Popen[str]) -> None:
        for line in process.stdout or ():
            if "starting association" in line:
                began.append(time.monotonic())

    watchers = [threading.Thread(target=watch, args=(process,)) for process in processes]
    for watcher in watchers:
        watcher.start()
    for process in processes:
        if process.wait(LIMIT_SECONDS):
            print(f"  dcmsend exit status {process.returncode}", file=sys.stderr)
    ended = time.monotonic()
    for watcher in watchers:
        watcher.join()
    return ended - min(began)


def write_and_flush(folders: list[Path], into: Path) -> float:
    """Seconds that one thread for each folder took to write its files and to flush each of them."""

    def write(folder: Path) -> None:
        for source in folder.iterdir():
            with (into / f"{folder.name}-{source.name}").open("wb") as target:
                target.write(source.read_bytes())
                target.flush()
                os.fsync(target.fileno())

    writers = [threading.Thread(target=write, args=(folder,)) for folder in folders]
    began = time.monotonic()
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    return time.monotonic() - began


def make(folder: Path, count: int, pixels: int, series: int) -> Path:
    """A folder with `count` slices of `pixels` × `pixels` of a series of its own."""
    folder.mkdir(parents=True)
    uid = f"2.25.77{series:05d}"
    slices = ct_series(1, rows=pixels, columns=pixels, SeriesInstanceUID=uid, StudyInstanceUID=f"{uid}.1")
    for index in range(count):
        ds = slices[0]
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = UID(f"{uid}.{index + 1}")
        ds.ImagePositionPatient = [0, 0, index]
        save([ds], folder)
    return folder


def raw_messages(count: int, pixels: int) -> list[bytes]:
    """The bytes of `count` C-STORE requests, each of another instance of one series."""
    (ds,) = ct_series(1, rows=pixels, columns=pixels, SeriesInstanceUID="2.25.7799999")
    messages = []
    for index in range(count):
        ds.SOPInstanceUID = f"2.25.7799999.{index + 1}"
        messages.append(b"".join(store_pdus(CTImageStorage, ds.SOPInstanceUID, encoded(ds), 131_000)))
    return messages


def one_each(port: int, messages: list[bytes]) -> float:
    """Seconds for one association for each message, one after the other."""
    request = associate_rq(131_072)
    began = time.monotonic()
    for message in messages:
        with RawScu(port, 60).associate(request) as scu:
            scu.send(message)
            assert scu.status() == 0
            scu.send(RELEASE_RQ)
            scu.pdu()
    return time.monotonic() - began


def measure(
    name: str, root: Path, task: str, folders: list[Path], messages: list[bytes], into: Measured, beside: Path | None
) -> None:
    """One round in a fresh receiver."""
    expected = len(messages) or sum(len(list(folder.iterdir())) for folder in folders)
    if name == "disk":
        written = Path(tempfile.mkdtemp(prefix="disk-", dir=root))
        into.per_second.append(expected / write_and_flush(folders, written))
        print(f"  {task}: {name} {into.per_second[-1]:.0f}/s", file=sys.stderr)
        return
    source = beside if name == "before" else None
    with running(name, root, len(folders) > 1 or bool(messages), source) as receiver:
        before = receiver.processor_seconds()
        seconds = one_each(receiver.port, messages) if messages else send(receiver.port, folders)
        time.sleep(0.2)
        into.per_second.append(expected / seconds)
        into.peak_mib = max(into.peak_mib, receiver.peak_mib())
        if name in OURS:
            into.processor_ms.append((receiver.processor_seconds() - before) / expected * 1000)
        if name != "orthanc":
            into.lost += expected - receiver.kept()
    print(f"  {task}: {name} {into.per_second[-1]:.0f}/s, peak {into.peak_mib:.0f} MiB", file=sys.stderr)


def main() -> None:
    """Prints the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--slices", type=int, default=400)
    arguments.add_argument("--only", default="", help="tasks to run, by their first letters, comma-separated")
    arguments.add_argument("--receivers", default="disk,storescp,orthanc,willis")
    arguments.add_argument("--beside", type=Path, help="a folder with the source of another Willis")
    options = arguments.parse_args()
    root = Path(tempfile.mkdtemp(prefix="willis-bench-"))
    names = options.receivers.split(",") + (["before"] if options.beside else [])
    quick = [name for name in names if name in ("storescp", *OURS)]
    try:
        count = options.slices
        whole = make(root / "in" / "one", count, 512, 1)
        quarters = [make(root / "in" / f"four{n}", count // 4, 512, 10 + n) for n in range(4)]
        small = [make(root / "in" / f"small{n}", 50, 64, 100 + n) for n in range(100)]
        tasks: list[tuple[str, list[Path], int, int, list[str]]] = [
            (f"one association, {count} × 0.5 MB", [whole], 0, options.rounds, names),
            (f"four associations, {count // 4} × 0.5 MB each", quarters, 0, options.rounds, names),
            ("100 associations at once, 50 × 8 kB each", small, 0, 2, quick),
            ("1,000 associations of one slice, 0.5 MB", [], 1000, 2, quick),
        ]
        rows = []
        for task, folders, raw, rounds, receivers in tasks:
            if options.only and not any(task.startswith(begin) for begin in options.only.split(",")):
                continue
            messages = raw_messages(raw, 512) if raw else []
            measured = {name: Measured() for name in receivers}
            for _ in range(rounds):
                for name in receivers:
                    measure(name, root, task, folders, messages, measured[name], options.beside)
            rows.append((task, measured))
        print_table(rows)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def print_table(rows: list[tuple[str, dict[str, Measured]]]) -> None:
    """Markdown: medians, their range, and the ratio of willis to each."""
    print(
        "| task | receiver | instances/s, median (range) | willis ÷ it | processor ms | lost | peak RSS |\n"
        "|---|---|---|---|---|---|---|"
    )
    for task, measured in rows:
        ours = statistics.median(measured["willis"].per_second) if "willis" in measured else float("nan")
        for name, of in measured.items():
            middle = statistics.median(of.per_second)
            lost = str(of.lost) if name in ("storescp", *OURS) else "not counted"
            processor = f"{statistics.median(of.processor_ms):.2f}" if of.processor_ms else "–"
            print(
                f"| {task} | {name} | {middle:.0f} ({min(of.per_second):.0f}–{max(of.per_second):.0f}) "
                f"| {ours / middle:.2f} | {processor} | {lost} | {of.peak_mib:.0f} MiB |"
            )


if __name__ == "__main__":
    main()
