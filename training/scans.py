"""The scans of a run, phantoms or the RSNA data as its configuration says, prepared on disk."""

from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

from training.anatomy import read_arteries
from training.config import ConfigError, TrainConfig
from training.dataset import Prepared, build_cache, enriched_lesions, load_prepared
from training.provenance import ON_A_TREE, PHANTOMS_ONLY, RSNA_ONLY, begun_from
from training.rsna import read_tables
from training.rsna_regions import build_rsna_cache, outside_of

REAL_TREE_SEEDS, LIKE_PEOPLE_SEEDS = 10_000_000, 20_000_000
"""Added to the seed of a scan that follows a real head's arteries, or is drawn like people, so that a cache tells them apart."""


def training_scans(config: TrainConfig, report: Callable[[str], None] = print) -> Generator[Prepared, None, None]:
    """Yield the scans to learn from in the order of their numbers, built where the cache lacks them.  Raises ConfigError."""
    data = config.data
    return _scans(config, range(data.first_seed, data.first_seed + data.scans), False, report)


def validation_scans(config: TrainConfig, report: Callable[[str], None] = print) -> list[Prepared]:
    """The scans that calibration is fitted on: of other seeds, or of the fold that was left out.  Raises ConfigError."""
    data = config.data
    seeds = range(data.validation_first_seed, data.validation_first_seed + data.validation_scans)
    return list(_scans(config, seeds, True, report))


def trained_on(config: TrainConfig) -> str:
    """What a bundle of this run must say about its origin."""
    data = config.data
    said = ON_A_TREE if data.anatomy else PHANTOMS_ONLY
    if data.rsna:
        said = RSNA_ONLY.format(modalities=", ".join(data.rsna_modalities))
    return begun_from(said, config.initial_weights) if config.initial_weights else said


def _scans(
    config: TrainConfig, seeds: range, validation: bool, report: Callable[[str], None]
) -> Generator[Prepared, None, None]:
    data = config.data
    folders: Iterable[Path]
    if data.rsna:
        tables = read_tables(Path(data.rsna), data.rsna_modalities)
        chosen = [series for series in tables if (series.fold(data.folds) == data.fold) is validation]
        built = build_rsna_cache(Path(data.cache), Path(data.rsna), chosen, config.preprocessing, data.workers, report)
        folders = sorted(built, key=lambda folder: load_prepared(folder).seed)
        if not folders:
            raise ConfigError(f"no scan of {data.rsna} can be used: the lines above say why")
        _tell_outside(folders, report)
    else:
        drawn = drawn_scans(config, seeds, validation=validation)
        folders = build_cache(Path(data.cache), list(drawn), config.preprocessing, data.workers, drawn)
    spacing_mm = config.preprocessing.spacing_mm
    for folder in folders:
        scan = load_prepared(folder)
        if abs(float(scan.region.affine_lps[0, 2]) - spacing_mm) > 1e-6:
            raise ConfigError(
                f"{data.cache} holds regions that are not at {spacing_mm:g} mm: name another [data] cache"
            )
        yield scan


def _tell_outside(folders: Sequence[Path], report: Callable[[str], None]) -> None:
    """Say how many localizers a model cannot learn from, or find, wherever its regions lie."""
    outside, localizers = 0, 0
    for scan in (load_prepared(folder) for folder in folders):
        outside, localizers = outside + outside_of(scan), localizers + len(scan.lesions)
    if outside:
        report(
            f"localizers outside the region of their series: {outside} of {localizers}; such a series counts as its labels say"
        )


def drawn_scans(config: TrainConfig, seeds: range, *, validation: bool) -> dict[int, dict[str, Any]]:
    """The further arguments of `make_scan` by seed: every other scan follows a real head's arteries where there are some."""
    counts = () if validation else config.data.lesions_per_scan
    plain_every = config.data.plain_every
    if config.data.anatomy:
        read_arteries(Path(config.data.anatomy))  # what is missing is said before anything is painted
    drawn: dict[int, dict[str, Any]] = {}
    for seed in seeds:
        options: dict[str, Any] = {"lesions": enriched_lesions(seed, counts)} if counts else {}
        if config.data.anatomy and seed % 2 == 1:
            drawn[seed + REAL_TREE_SEEDS] = options | {"anatomy": config.data.anatomy}
        elif config.data.like_people and not (plain_every and seed % plain_every == 0):
            drawn[seed + LIKE_PEOPLE_SEEDS] = options | {"like_people": True}
        else:
            drawn[seed] = options
    return drawn
