"""The command line in this process, with a configuration, a store and a model of the test's own."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from node.cli.main import app
from storage.store import Store

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logging_restored: None) -> Run:
    """Runs `willis` with these arguments in an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in [name for name in os.environ if name.startswith("WILLIS_")]:
        monkeypatch.delenv(name)

    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return invoke


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration whose folder is the test's own."""
    path = tmp_path / "willis.toml"
    path.write_text(f"[storage]\ndirectory = {str(tmp_path / 'var')!r}\n")
    (tmp_path / "var").mkdir()
    return path


@pytest.fixture
def store(config: Path) -> Any:
    """The store behind `config`."""
    opened = Store.open(f"sqlite:///{config.parent / 'var' / 'willis.db'}")
    yield opened
    opened.close()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A tiny model bundle."""
    from ai.bundle import save_bundle
    from ai.unet import UNet
    from tests.unit.ai.test_bundle import TINY, manifest

    save_bundle(tmp_path / "bundle", manifest(), (UNet(TINY),))
    return tmp_path / "bundle"


def one_line(result: Result, exit_code: int) -> str:
    """The one line of complaint with which a command ended."""
    assert result.exit_code == exit_code, result.output
    assert "Traceback" not in result.output
    [line] = [line for line in result.stderr.splitlines() if line]
    assert line.startswith("willis: ")
    return line
