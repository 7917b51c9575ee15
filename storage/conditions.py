"""What a query asks for: the values of PS3.4 C.2.2.2 as far as a database can answer them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Level(StrEnum):
    """Of what a query is."""

    STUDY = "STUDY"
    SERIES = "SERIES"
    IMAGE = "IMAGE"


@dataclass(frozen=True)
class Like:
    """A text with `*` for any characters and `?` for one."""

    pattern: str


@dataclass(frozen=True)
class Between:
    """Texts from `low` to `high`, both included, as they are sorted; an empty end is open."""

    low: str
    high: str


Condition = Sequence[str | int | Like | Between]
"""Any of these values."""


MODALITIES_IN_STUDY = "modalities_in_study"
"""The key of a study's modalities; any one of them counts."""


Found = Mapping[str, Any]
