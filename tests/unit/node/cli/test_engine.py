"""`willis worker` and `willis scheduler`: what they refuse before anything of the engine runs."""

import socket
from pathlib import Path

import pytest

from tests.support.command_line import Run, one_line

OF_TLS = "[ai.engine_tls]\ncertificate = 'a.pem'\nkey = 'a.key'\nca = 'ca.pem'\n"
ENGINE = "[ai]\nengine = 'dask'\nengine_address = 'tcp://127.0.0.1:8786'\n"


@pytest.fixture
def of_engine(config: Path) -> Path:
    with config.open("a") as file:
        file.write(ENGINE)
    return config


def test_a_worker_is_told_where_nobody_can_listen(run: Run, of_engine: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = one_line(run("worker", "--config", of_engine, "--port", port), 2)
    assert f"--host 127.0.0.1 --port {port}: another program holds it; " in line


def test_a_worker_that_is_to_listen_on_another_machine_is_told_so(run: Run, of_engine: Path) -> None:
    of_engine.write_text(of_engine.read_text().replace("tcp://127.0.0.1", "tls://10.1.2.3") + OF_TLS)
    line = one_line(run("worker", "--config", of_engine, "--host", "203.0.113.7", "--port", "8787"), 2)
    assert "--host 203.0.113.7 --port 8787: " in line
    assert "this host has no such address" in line


def test_without_tls_a_worker_listens_on_this_machine_alone(run: Run, of_engine: Path) -> None:
    line = one_line(run("worker", "--config", of_engine, "--host", "10.1.2.4"), 2)
    assert "--host 10.1.2.4: without TLS whoever reaches it could run programs here; give a tls:// address" in line
