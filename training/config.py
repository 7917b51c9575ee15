"""A training run as values, read once from TOML."""

import json
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from ai.errors import BundleError
from ai.preprocess import Preprocessing
from ai.unet import UNetSettings

T = TypeVar("T")
P = ParamSpec("P")


class ConfigError(Exception):
    """A training configuration that cannot be used; the message names the key."""


def exits_2(main: Callable[P, int]) -> Callable[P, int]:
    """A command that says a ConfigError or a BundleError and exits with 2 in place of raising it."""

    @wraps(main)
    def said(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            return main(*args, **kwargs)
        except (ConfigError, BundleError) as error:
            print(error, file=sys.stderr)
            return 2

    return said


@dataclass(frozen=True)
class Data:
    """Which scans, and where their prepared regions are kept.

    `cache`: a folder, made when missing.  Seeds are first and count; training, validation and test never overlap.
    `workers`: processes that build phantoms.  `joining_steps`: over so many steps the scans join one after the other, so
    that learning begins while others are painted; 0: all are there from the first step.  `lesions_per_scan`: a training
    scan has one of these numbers of lesions, at random; empty: as often as in patients, which teaches less, since most
    scans then show one lesion or none.
    `anatomy`: the folder of a real head's arteries (`training.anatomy`), which every other scan then follows; empty: none does.
    `like_people`: drawn arteries, sacs and noise vary as they do in people, which older phantoms do not.  `plain_every`: those
    without a real head's arteries whose seed is a multiple of it stay as older phantoms are; 0: none.
    `rsna`: the folder of the RSNA data, whose series of `rsna_modalities` then take the place of the phantoms; of `folds`
    folds, `fold` is for validation.
    """

    cache: str = "runs/cache"
    first_seed: int = 10_000
    scans: int = 300
    validation_first_seed: int = 900_000
    validation_scans: int = 40
    workers: int = 1
    joining_steps: int = 0
    lesions_per_scan: tuple[int, ...] = ()
    anatomy: str = ""
    like_people: bool = False
    plain_every: int = 0
    rsna: str = ""
    rsna_modalities: tuple[str, ...] = ("CTA",)
    folds: int = 5
    fold: int = 0

    def __post_init__(self) -> None:
        training = range(self.first_seed, self.first_seed + self.scans)
        validation = range(self.validation_first_seed, self.validation_first_seed + self.validation_scans)
        if self.scans < 1 or max(training.start, validation.start) < min(training.stop, validation.stop):
            raise ValueError("training and validation seeds overlap, or there are none")
        if self.plain_every < 0 or (self.plain_every and not self.like_people):
            raise ValueError(f"plain_every = {self.plain_every}: a number from 1 on where like_people is true, or 0")
        if self.folds < 2 or not 0 <= self.fold < self.folds:
            raise ValueError(f"fold must lie in 0..folds-1 of two or more folds, got {self.fold} of {self.folds}")


@dataclass(frozen=True)
class Sampling:
    """Which patches are cut: side in voxels and patches a step.

    `lesion_share` of them hold a lesion; of the others, `hard_share` are centred on mined mistakes, `vessel_share` on vessels.
    `turned_share` of all are from a head turned by up to `turned_degrees` about each axis, scaled by up to `scaled_share` and
    bent (see `drawn_bend`); of `emptied_share`, up to a half is filled with one tissue.
    """

    patch: int = 64
    batch: int = 2
    lesion_share: float = 0.6
    hard_share: float = 0.3
    vessel_share: float = 0.4
    coordinate_jitter_mm: float = 5.0
    turned_share: float = 0.5
    turned_degrees: float = 20.0
    scaled_share: float = 0.12
    bent_share: float = 0.0
    emptied_share: float = 0.2


@dataclass(frozen=True)
class Loss:
    """Weights of the parts; 0 leaves a part out.  `bce`, `focal`, `tversky` and `dice` all teach the lesion map: choose any.

    `hardest`: share of voxels that the BCE sees; `small`: how much more it sees of small lesions (see `lesion_weight`).
    Tversky: `alpha` weighs false positives, `beta` misses.  `distance` to the nearest artery: see `training.distance`.
    """

    bce: float = 1.0
    hardest: float = 0.2
    small: float = 1.5
    tversky: float = 1.0
    alpha: float = 0.3
    beta: float = 0.7
    gamma: float = 0.75
    focal: float = 0.0
    dice: float = 0.0
    vessel: float = 0.5
    distance: float = 0.0
    location: float = 0.2
    diameter: float = 0.2


@dataclass(frozen=True)
class Optimisation:
    """AdamW with warm-up and cosine decay; `ema` is the decay of the averaged weights that are exported."""

    steps: int = 3000
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    warmup_steps: int = 100
    clip: float = 5.0
    ema: float = 0.998
    checkpoint_every: int = 100


@dataclass(frozen=True)
class TrainConfig:
    """One training run.  `folder` holds its checkpoints and TensorBoard events.

    `precision`: with "auto" a network learns in bfloat16 on CUDA and on a CPU with instructions for it, with "float32" nowhere.
    `compiled`: let torch.compile fuse the network, which pays from a few thousand steps on.  `channels_last`: how activations lie
    in memory; the faster way on a CPU.
    """

    folder: str
    seed: int = 1
    device: str = "auto"
    precision: str = "auto"
    compiled: bool = False
    channels_last: bool = True
    threads: int = 2
    initial_weights: str = ""
    data: Data = field(default_factory=Data)
    network: UNetSettings = field(default_factory=UNetSettings)
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    sampling: Sampling = field(default_factory=Sampling)
    loss: Loss = field(default_factory=Loss)
    optimisation: Optimisation = field(default_factory=Optimisation)

    def __post_init__(self) -> None:
        if self.precision not in ("auto", "float32"):
            raise ValueError(f'precision must be "auto" or "float32", got {self.precision!r}')


def read_config(path: Path | str) -> TrainConfig:
    """Return the run that a TOML file describes.  Raises ConfigError, which names the file and the key."""
    return read_settings(path, TrainConfig)


def read_settings(path: Path | str, kind: type[T]) -> T:
    """Return the dataclass that a TOML file describes.  Raises ConfigError, which names the file and the key."""
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        return _built(kind, document, "")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error


def _built(kind: type[T], values: dict[str, Any], prefix: str) -> T:
    hints = get_type_hints(kind)
    known = {entry.name for entry in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - known):
        raise ValueError(f"unknown key {prefix}{unknown[0]}; known are {', '.join(sorted(known))}")
    built = {}
    for key, value in values.items():
        inner = hints[key]
        built[key] = (
            _built(inner, value, f"{prefix}{key}.")
            if is_dataclass(inner) and isinstance(inner, type)
            else _checked(inner, _tuples(value), f"{prefix}{key}", value)
        )
    return kind(**built)


def _checked(kind: Any, value: Any, key: str, written: Any) -> Any:
    """The value.  Raises ValueError, naming key, value and what is wanted, when it is not of the kind."""
    try:
        return TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        cause = error.errors(include_url=False)[0]["msg"]
        raise ValueError(f"{key} = {json.dumps(written, default=str)}: {cause[0].lower()}{cause[1:]}") from None


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
