"""What the command line imports before it answers: time that a person waits for."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from node.cli.main import COMMANDS, called
from node.runtime.clock import utc_now
from node.runtime.heartbeat import Heartbeat
from storage.database.plain import reading_sqlite
from storage.queries.health import processes
from storage.store import Store
from tests.support.builders import FakeClock, reported

HEAVY = {
    "alembic", "apscheduler", "authlib", "dicomweb_client", "highdicom", "joserfc", "ldap3", "numpy",
    "PIL", "pydicom", "pynetdicom", "requests", "scipy",
    "skimage", "sqlalchemy", "structlog", "torch",
}  # fmt: skip
NOT_FOR_HELP = HEAVY | {"pydantic", "sqlite3"}


def imported_by(folder: Path, *arguments: str, status: int = 0) -> set[str]:
    """The packages that are imported when `willis` with these arguments has ended with this exit status."""
    program = "import sys; from node.cli.main import app\ntry: app()\nfinally: sys.stderr.write(' '.join(sys.modules))"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("WILLIS_", "COV"))}
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == status, ended.stderr[-2000:]
    return {name.split(".")[0] for name in ended.stderr.split()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a configuration and the database of a node that runs, with one reported case."""
    (tmp_path / "config.toml").write_text(f"[storage]\ndirectory = {str(tmp_path)!r}\n")
    store = Store.open(f"sqlite:///{tmp_path / 'willis.db'}")
    reported(store, FakeClock(utc_now()))  # of now: what waits for long is no node that is well
    for role in ("serve", "receive", "work", "web"):  # this process stands for the node's, so that `status` ends with 0
        Heartbeat(store.processes, role, tmp_path, lambda: {"model": "0.6.0", "device": "cpu"})._beat()
    store.close()
    return tmp_path


@pytest.mark.parametrize("arguments", [("--help",), ("--version",)])
def test_help_imports_nothing_but_the_command_line(folder: Path, arguments: tuple[str, ...]) -> None:
    assert imported_by(folder, *arguments) & NOT_FOR_HELP == set()


@pytest.mark.parametrize("arguments", [("status",), ("worklist",), ("worklist", "--json"), ("show", "1")])
def test_what_only_reads_imports_no_heavy_package(folder: Path, arguments: tuple[str, ...]) -> None:
    assert imported_by(folder, *arguments) & HEAVY == set()


def test_what_keeps_a_node_from_starting_is_said_and_kept_before_the_packages_that_take_seconds(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        text = f"[storage]\ndirectory = 'var'\n[node]\nhost = '127.0.0.1'\nport = {taken.getsockname()[1]}\n"
        (tmp_path / "config.toml").write_text(text)
        imported = imported_by(tmp_path, "serve", status=2)
    assert imported & {"apscheduler", "highdicom", "pynetdicom", "torch"} == set()
    reading = reading_sqlite(f"sqlite:///{tmp_path / 'var' / 'willis.db'}")
    assert reading is not None
    [said] = processes(reading)
    assert (said.role, said.details["trouble"][:13]) == ("serve", "[node] port =")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_has_the_first_line_of_each_commands_help(name: str) -> None:
    command = called(name)
    assert command.help.split("\n\n")[0].replace("\n", " ") == COMMANDS[name][1]
    assert command.hidden == (name in ("receive", "work"))


def test_the_table_names_every_command() -> None:
    from node.cli.app import app

    for name in COMMANDS:
        called(name)
    functions = [str(each.callback.__name__) for each in app.registered_commands if each.callback]
    groups = [str(each.name) for each in app.registered_groups]
    assert sorted([*functions, *groups]) == sorted(COMMANDS)


def test_a_command_that_is_not_in_the_table_is_none() -> None:
    assert isinstance(called("config"), typer.core.TyperGroup)
    with pytest.raises(KeyError):
        called("nothing")
