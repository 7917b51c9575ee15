"""A host whose name another one has does not start; one that starts after a crash does."""

import os
import socket
import subprocess
import sys
from datetime import timedelta

import pytest

from node.errors import ConfigError
from node.workflow.namesakes import Look, require_own_name
from storage.queries.health import processes
from storage.running import Process
from storage.store import Store
from tests.support.builders import FakeClock


@pytest.fixture(scope="module")
def gone() -> int:
    """The id of a process that is not here."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def known(store: Store) -> Look:
    """Asks for the processes that say that they run."""
    return lambda: processes(store.transactions.reading_plainly)


def beats(store: Store, clock: FakeClock, pid: int, host: str = "") -> None:
    """A process of this host, or of another, says that it runs."""
    name = host or socket.gethostname()[:64]
    store.processes.beat(Process(f"work:{name}:{pid}", "work", name, pid, "/var/lib/willis", clock(), clock()))


def test_a_host_of_the_same_name_that_runs_is_named_with_the_remedy(store: Store, clock: FakeClock, gone: int) -> None:
    beats(store, clock, gone)

    def wait(seconds: float) -> None:
        clock.advance(seconds)
        beats(store, clock, gone)

    with pytest.raises(
        ConfigError, match=rf"another host is called '{socket.gethostname()}' too .*work:.*:{gone}\)"
    ) as said:
        require_own_name(known(store), wait)
    assert "hostnamectl set-hostname" in str(said.value)


def test_what_a_crash_left_here_and_hosts_of_other_names_keep_nobody_from_starting(
    store: Store, clock: FakeClock, gone: int
) -> None:
    beats(store, clock, gone)
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        clock.now += timedelta(seconds=seconds)
        beats(store, clock, gone, host="another")
        beats(store, clock, os.getpid())

    require_own_name(known(store), wait)
    assert len(waited) == 1


def test_a_host_that_ended_as_it_should_starts_at_once(store: Store, clock: FakeClock, gone: int) -> None:
    beats(store, clock, gone, host="another")
    beats(store, clock, os.getpid())
    require_own_name(known(store), lambda _seconds: pytest.fail("it waits"))


def test_what_beats_for_the_last_time_and_ends_meanwhile_keeps_nobody_from_starting(
    store: Store, clock: FakeClock, gone: int
) -> None:
    beats(store, clock, gone)
    waits = 0

    def wait(seconds: float) -> None:
        nonlocal waits
        waits += 1
        clock.advance(seconds)
        if waits == 1:
            beats(store, clock, gone)

    require_own_name(known(store), wait)
    assert waits == 2


def test_what_never_began_keeps_nobody_from_starting(store: Store, clock: FakeClock, gone: int) -> None:
    beats(store, clock, gone)

    def wait(seconds: float) -> None:
        clock.advance(seconds)
        host = socket.gethostname()[:64]
        said = {"trouble": "another host is called so too"}
        refused = Process(f"serve:{host}:{gone}", "serve", host, gone, "/var/lib/willis", clock(), clock(), said)
        store.processes.beat(refused)

    require_own_name(known(store), wait)
