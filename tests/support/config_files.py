"""Configurations that are written for a test, and what is said of them."""

from pathlib import Path
from typing import Any

import pytest

from node.config.loading import load
from node.config.sections import Config
from node.errors import ConfigError

SHIPPED = Path(__file__).parents[2] / "config.toml"


def loaded(tmp_path: Path, content: str, **environment: str) -> Config:
    path = tmp_path / "config.toml"
    path.write_text(content, "utf-8")
    return load(path, environment)


def complaint(tmp_path: Path, content: str, **environment: str) -> str:
    """The one line that `content` is answered with."""
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, content, **environment)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{tmp_path}/", "")


def plain(value: Any) -> Any:
    """A value of the model as TOML has it."""
    return list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
