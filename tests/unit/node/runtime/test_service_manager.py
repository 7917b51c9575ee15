"""What a service manager on a real datagram socket hears."""

import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.runtime.service_manager import ServiceManager


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """The socket, and what NOTIFY_SOCKET says of it."""
    named = str(tmp_path / "notify") if request.param == "path" else f"@willis-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(named.replace("@", "\0", 1))
        listening.settimeout(5)
        yield listening, named


def test_each_thing_that_is_told_is_a_datagram_of_its_own(manager: tuple[socket.socket, str]) -> None:
    listening, named = manager
    us = ServiceManager({"NOTIFY_SOCKET": named})
    us.ready()
    us.watchdog()
    us.status("degraded: PACS does\nnot answer")
    us.stopping(9.5)
    heard = [listening.recv(1000).decode() for _ in range(4)]
    stopping = "STOPPING=1\nEXTEND_TIMEOUT_USEC=9500000"
    assert heard == ["READY=1", "WATCHDOG=1", "STATUS=degraded: PACS does not answer", stopping]


def test_without_a_service_manager_or_after_it_is_gone_nothing_happens(tmp_path: Path) -> None:
    assert not ServiceManager({}).listens
    ServiceManager({}).ready()
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()


@pytest.mark.parametrize(
    ("pid", "seconds"), [({}, 120.0), ({"WATCHDOG_PID": str(os.getpid())}, 120.0), ({"WATCHDOG_PID": "1"}, None)]
)
def test_a_watchdog_is_the_process_s_that_it_names(pid: dict[str, str], seconds: float | None) -> None:
    assert ServiceManager({"WATCHDOG_USEC": "120000000", **pid}).watchdog_seconds == seconds
    assert ServiceManager({}).watchdog_seconds is None
