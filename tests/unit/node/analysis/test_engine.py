"""A claimant that its engine does not answer, and the library's ways."""

import logging
import threading
from pathlib import Path

import pytest

from node.analysis import engine as module
from node.analysis.cluster import configure_library
from node.analysis.engine import Engine
from node.config.sections import Config
from node.runtime.backoff import Backoff
from tests.support.absent import absent
from tests.support.running import free_port, wait_until

try:
    import distributed  # noqa: F401
except ImportError:
    absent("distributed is not installed: pip install --constraint constraints.txt '.[engine]'")


def test_tries_in_vain_leave_no_thread_and_no_descriptor_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AWAY", Backoff(0.01, 0.01))
    monkeypatch.setattr(module, "REACHED_WITHIN_SECONDS", 0.2)
    tries: list[object] = []

    def reached(settings: object) -> str:
        tries.append(settings)
        return ""

    monkeypatch.setattr(module, "why_not_reached", reached)
    address = f"tcp://127.0.0.1:{free_port()}"
    config = Config.model_validate({"ai": {"engine": "dask", "engine_address": address}})
    engine = Engine(config, "Willis 1 with model 2", lambda: None)
    engine.start()
    wait_until(lambda: len(tries) > 4, 20)
    threads, descriptors = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
    wait_until(lambda: len(tries) > 44, 60)  # each asks once before, and once why
    assert threading.active_count() <= threads + 1
    assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors + 3
    engine.stop()
    assert not [each.name for each in threading.enumerate() if each.name in ("engine", "engine's loop", "IO loop")]


def test_the_library_prints_nothing() -> None:
    configure_library()
    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] in ("distributed", "tornado")]
    assert "distributed.client" in names
    assert [name for name in names if logging.getLogger(name).isEnabledFor(logging.CRITICAL)] == []
