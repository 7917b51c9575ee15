"""`willis demo`: the main job from end to end, on this machine, with a simulated PACS."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer

from ai.locations import Location
from ai.wording import counted
from node.cli.app import app, console, one_line_errors
from node.cli.worklist import worklist_table
from node.config.loading import load
from node.config.peer import Peer
from node.config.sections import Config
from node.errors import NodeError, Unavailable
from node.runtime import log
from node.runtime.clock import utc_now
from node.scu import dimse
from node.scu.dimse import Entity, Timeouts
from node.scu.storage_scu import send_files
from node.simulated_pacs import SimulatedPeer
from storage.queries.worklist import Row
from storage.store import Store

SEEDS = {"positive": 9_000_001, "negative": 9_000_002}
"""Training draws its seeds elsewhere; see `training/configs`."""


@app.command(epilog="Example: willis demo --folder var/demo")
def demo(
    folder: Annotated[Path, typer.Option(help="Emptied, then everything of the run is in it.")] = Path("var/demo"),
    wait_seconds: Annotated[float, typer.Option(help="Give up when the reports are not back after this long.")] = 240,
    keep: Annotated[bool, typer.Option("--keep", help="Leave node and triage page open until Ctrl-C.")] = False,
) -> None:
    """Send two synthetic studies from a simulated PACS through a node, and show the reports that come back."""
    log.configure(level="error")
    with one_line_errors():
        shutil.rmtree(folder, ignore_errors=True)
        studies = {name: _study(folder / "studies" / name, name) for name in SEEDS}
        pacs = SimulatedPeer(folder / "pacs", "PACS")
        pacs_port = pacs.start(0)
        config_path = _write_config(folder, pacs_port, keep)
        config = load(config_path)
        with _node(config_path, folder / "node.log"):
            node = Peer(ae_title=config.node.ae_title, host=config.node.host, port=config.node.port)
            _wait_for(node)
            for name, paths in studies.items():
                _send(node, name, paths)
            rows = _wait_for_reports(config, len(studies), wait_seconds)
            _show(rows, pacs.folder)
            if keep:
                _keep_open(config)
        pacs.stop()
        if sorted(row["outcome"] for row in rows) != sorted(studies):
            raise NodeError("the outcomes are not the expected ones; the table above says what was found")


def _study(folder: Path, name: str) -> list[Path]:
    from training.phantom import make_scan, write_series

    positive = name == "positive"
    with console.status(f"painting a synthetic study, {name}"):
        location, diameter_mm = (Location.LEFT_MCA, 8.0) if positive else (None, None)
        scan = make_scan(
            SEEDS[name], positive=positive, location=location, diameter_mm=diameter_mm, matrix=384, spacing_mm=0.7
        )
        paths = write_series(
            scan,
            folder,
            patient_name=f"Phantom^{name.title()}",
            patient_id=f"DEMO-{name[:3].upper()}",
            accession_number=name[:3].upper(),
        )
    console.print(f"painted a synthetic study, {name}: {len(paths)} slices")
    return paths


def _write_config(folder: Path, pacs_port: int, pages: bool) -> Path:
    path = folder / "config.toml"
    path.write_text(
        f"[node]\nport = {_free_port()}\n\n[storage]\ndirectory = {str((folder / 'node').absolute())!r}\n\n"
        f"[web]\nenabled = {str(pages).lower()}\nport = {_free_port()}\n\n"
        f'[peers.PACS]\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {pacs_port}\n',
        "utf-8",
    )
    return path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _node(config: Path, log_file: Path) -> Iterator[None]:
    """A node of its own processes runs inside, its log in a file."""
    with log_file.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "node", "serve", "--config", str(config)], stderr=output, env=dict(os.environ)
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(15)


def _wait_for(node: Peer, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    with console.status("starting the node"):
        while True:
            try:
                dimse.echo(Entity("PACS", Timeouts(acse=2)), node)
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return


def _send(node: Peer, name: str, paths: list[Path]) -> None:
    start = time.perf_counter()
    with console.status(f"the PACS sends the {name} study"):
        errors = [sent.error for sent in send_files(Entity("PACS"), node, paths) if sent.error]
    if errors:
        raise NodeError(f"the node refused {counted(len(errors), 'slice')}: {errors[0]}")
    seconds = time.perf_counter() - start
    console.print(f"the PACS sent the {name} study: {len(paths)} slices in {seconds:.1f} s")


def _wait_for_reports(config: Config, count: int, seconds: float) -> list[Row]:
    """The worklist once every report is in the PACS."""
    store, deadline = Store.open(config.storage.url), time.monotonic() + seconds
    with console.status("waiting for the reports") as line:
        while True:
            rows = store.worklist.rows()
            line.update(
                "waiting for the reports: " + ", ".join(f"case {row['case_id']} {row['stage']}" for row in rows)
            )
            if sum(row["delivery"] in ("delivered", "committed") for row in rows) == count:
                return rows
            if time.monotonic() > deadline:
                raise NodeError(
                    f"the reports were not back after {seconds:g} s; the node's log is in the demo's folder"
                )
            time.sleep(0.1)


def _keep_open(config: Config) -> None:
    """Node and pages run on until Ctrl-C, and what is printed lets one in."""
    from node.web.passwords import Passwords
    from storage.queries.accounts import Role

    password, store = secrets.token_hex(5), Store.open(config.storage.url)
    store.accounts.add("demo", Role.LEAD, Passwords().hashed(password), utc_now())
    store.close()
    console.print(f"\nthe triage page: {config.web.address}   name: demo   password: {password}", highlight=False)
    console.print("Ctrl-C ends it", highlight=False)
    with suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)


def _show(rows: list[Row], received: Path) -> None:
    console.print(worklist_table(rows))
    for row in rows:
        seconds = (row["delivered_at"] - row["last_instance_at"]).total_seconds()
        console.print(f"case {row['case_id']}: {seconds:.1f} s from the last slice to the report in the PACS")
        console.print(f"  {received / row['report_uid']}.dcm", soft_wrap=True)
