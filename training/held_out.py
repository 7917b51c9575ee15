"""The fixed test set: which phantoms, and how they are made."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from training.config import ConfigError

HELD_OUT = Path(__file__).parent / "configs" / "held_out.toml"
REAL_TREE = Path(__file__).parent / "configs" / "real_tree.toml"
STRATA = ("positive_confounded", "negative_confounded", "positive_plain", "negative_plain")


def held_out_scans() -> dict[int, Mapping[str, Any]]:
    """Return the further arguments of `make_scan` by seed.  Any multiple of four scans from the start holds every kind
    alike.
    """
    seeds = tomllib.loads(HELD_OUT.read_text(encoding="utf-8"))
    rounds = zip(*(seeds[stratum] for stratum in STRATA), strict=True)
    positive = {seed for stratum in STRATA if stratum.startswith("positive") for seed in seeds[stratum]}
    return {seed: {"positive": seed in positive, "held_out": True} for seed in chain.from_iterable(rounds)}


def real_tree_scans(anatomy: str, *, lookalikes: bool = False, skull: str = "") -> dict[int, Mapping[str, Any]]:
    """Return the further arguments of `make_scan` by seed for the validation set on a real head's arteries.

    Every other scan has an aneurysm.  `anatomy`: the folder that `training.anatomy.read_arteries` reads.  `lookalikes`: those of
    the second set, of other seeds, which have harmless shapes like sacs as well.  `skull`: those of the third, which are painted
    into the dry skull of that folder, with such shapes too.
    """
    drawn = tomllib.loads(REAL_TREE.read_text(encoding="utf-8"))
    first, count = int(drawn["first_seed"]), int(drawn["scans"])
    common: dict[str, Any] = {"anatomy": anatomy, "unseen": True}
    if skull:
        first, count = int(drawn["skull_first_seed"]), int(drawn["skull_scans"])
        common |= {"lookalikes": True, "skull": skull}
    elif lookalikes:
        first = int(drawn["lookalikes_first_seed"])
        common |= {"lookalikes": True}
    return {seed: {"positive": seed % 2 == 0} | common for seed in range(first, first + count)}


@dataclass(frozen=True)
class ScanSet:
    """Which phantoms: their seeds, the further arguments of `make_scan` by seed, and what a report calls them."""

    description: str
    seeds: tuple[int, ...]
    drawn: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.seeds:
            raise ConfigError("there are no scans to evaluate on: ask for at least one")


def held_out_set(count: int | None = None) -> ScanSet:
    """The fixed test set, or its first scans.  Raises ConfigError when it has fewer."""
    drawn = held_out_scans()
    seeds = tuple(drawn)[:count]
    if count is not None and not 0 < count <= len(drawn):
        raise ConfigError(f"the held-out set has {len(drawn)} scans, not {count}")
    return ScanSet(f"{len(seeds)} held-out phantoms", seeds, drawn)


def real_tree_set(anatomy: str, count: int | None = None, *, lookalikes: bool = False, skull: str = "") -> ScanSet:
    """The validation set on a real head's arteries, without lookalikes or with, or in a real skull; or its first scans.

    Raises ConfigError when it has fewer.
    """
    drawn = real_tree_scans(anatomy, lookalikes=lookalikes, skull=skull)
    seeds = tuple(drawn)[:count]
    if count is not None and not 0 < count <= len(drawn):
        raise ConfigError(f"the real-tree set has {len(drawn)} scans, not {count}")
    kind = " in a real skull" if skull else " with lookalikes" * lookalikes
    return ScanSet(f"{len(seeds)} real-tree phantoms{kind}", seeds, drawn)
