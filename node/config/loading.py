"""The configuration: one TOML file, each key overridable by `WILLIS_SECTION__KEY`, checked before anything starts."""

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from node.config import peer as peer_rules
from node.config.peer import Peer
from node.config.relative import beside
from node.config.sections import Config
from node.errors import ConfigError

PREFIX = "WILLIS_"


def load(path: Path | None, environment: Mapping[str, str] = os.environ) -> Config:
    """The configuration in `path` (None: the defaults), with what `environment` overrides.

    A path in it that is not absolute is relative to the file's folder; without a file, to the working directory.
    Raises ConfigError: one line that names the key, the value and the remedy.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text("utf-8-sig"))
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}; name the file with --config") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not TOML: {error}") from None
    _override(values, environment)
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path or 'configuration'}: {_first_line(error)}") from None
    return config if path is None else beside(config, path.absolute().parent)


def _override(values: dict[str, Any], environment: Mapping[str, str]) -> None:
    for name, text in sorted(environment.items()):
        if not name.startswith(PREFIX) or "__" not in name:
            continue
        *sections, key = name.removeprefix(PREFIX).split("__")
        table: Any = values
        for section in sections:
            table = table.setdefault(_matching(table, section), {})
            if not isinstance(table, dict):
                raise ConfigError(f"{name}: {section.lower()!r} is not a section")
        table[_matching(table, key)] = _toml_value(text)


def _matching(table: Mapping[str, Any], name: str) -> str:
    """The key of `table` that `name` means, whatever its case (peers keep theirs)."""
    return next((key for key in table if key.lower() == name.lower()), name.lower())


def _toml_value(text: str) -> Any:
    """`text` as a TOML value where it is one (numbers, booleans, lists), else the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _first_line(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    location = [str(part) for part in first["loc"]]
    key = ".".join(location)
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(location[-1], _keys(location[:-1]), n=1, cutoff=0.4)
        return f"unknown key {key}{f'; did you mean {near[0]}?' if near else ''}"
    if first["type"] == "missing":
        return f"{key} is missing"
    if first["type"] == peer_rules.WRONG:
        return f"[{key}] {first['msg']}"
    if not location:
        return str(first["ctx"]["error"])
    if location[0] == "notifications":  # a URL in it may hold a secret
        return f"{key}: {first['msg'][0].lower()}{first['msg'][1:]}"
    return f"{key} = {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}"


def _keys(path: list[str]) -> Iterator[str]:
    """The keys that the section at `path` knows."""
    section: type[BaseModel] = Config
    for part in path:
        section = Peer if section is Config and part == "peers" else _section_type(section, part)
    yield from section.model_fields


def _section_type(section: type[BaseModel], part: str) -> type[BaseModel]:
    field = section.model_fields.get(part)
    kinds = [field.annotation, *get_args(field.annotation)] if field else []
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), section)
