"""How the supervisor looks after its children."""

import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from node.config import Config
from node.processes import CONFIG_ERROR, Child
from node.serve import Supervisor


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    made = Supervisor(Config.model_validate({"storage": {"directory": tmp_path}}), [])
    yield made
    made._store.close()


@pytest.fixture
def ended(supervisor: Supervisor) -> Callable[..., Child]:
    """Makes children that have ended after so many starts and so many seconds."""

    def make(code: int = CONFIG_ERROR, starts: int = 1, seconds: float = 1.0) -> Child:
        child = Child("receive", [], {}, starts=starts, started_at=time.monotonic() - seconds)
        child.process = subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"])
        child.process.wait()
        return child

    return make


def test_a_child_that_never_ran_for_its_configuration_ends_the_node(
    supervisor: Supervisor, ended: Callable[..., Child]
) -> None:
    assert not supervisor._look_after(ended())


@pytest.mark.parametrize("history", [{"starts": 2}, {"seconds": 60.0}, {"code": 1}, {"code": -9}])
def test_a_child_that_has_run_is_started_again_after_a_pause_whatever_ended_it(
    supervisor: Supervisor, ended: Callable[..., Child], history: dict[str, float]
) -> None:
    child = ended(**history)
    assert supervisor._look_after(child)
    assert child.process is None
    assert 0 < child.start_at - time.monotonic() <= 1


def test_a_database_that_is_away_when_a_child_ends_does_not_end_the_node(
    supervisor: Supervisor, ended: Callable[..., Child], tmp_path: Path
) -> None:
    with sqlite3.connect(tmp_path / "willis.db") as database:
        database.execute("ALTER TABLE series RENAME TO away")
    child = ended(code=-9)
    assert supervisor._look_after(child)
    assert child.process is None
