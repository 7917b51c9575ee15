"""What a manifest says of a bundle's second stage and of the parts of it, each with networks of its own."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ai.cube_net import TURNINGS, CubeSettings
from ai.decode import MOST_PEAKS
from ai.findings import MAX_LESIONS
from ai.naming import NamingSettings
from ai.second_stage import FusionSettings, ShapeSettings
from ai.surroundings import NAMES as PLACES


@dataclass(frozen=True)
class Fusion:
    """What a bundle says of the networks that make one answer of all that both stages say of a candidate."""

    network: FusionSettings
    weights_sha256: dict[str, str]

    def __post_init__(self) -> None:
        check_names(self.weights_sha256)


@dataclass(frozen=True)
class Cubes:
    """What a bundle says of the networks that look at the cube around a candidate themselves.

    `weight`: of their log odds in a candidate's score.  `views`: from so many sides each cube is looked at, and the mean counts.
    """

    network: CubeSettings
    weight: float
    views: int
    weights_sha256: dict[str, str]

    def __post_init__(self) -> None:
        if not (np.isfinite(self.weight) and self.weight > 0.0):
            raise ValueError(f"the weight of cubes must be a number above 0, got {self.weight}")
        if type(self.views) is not int or self.views not in range(1, len(TURNINGS) + 1):
            raise ValueError(f"views must be a whole number from 1 to {len(TURNINGS)}, got {self.views}")
        check_names(self.weights_sha256)


@dataclass(frozen=True)
class Naming:
    """What a bundle says of the networks that name the location of a candidate."""

    network: NamingSettings
    weights_sha256: dict[str, str]

    def __post_init__(self) -> None:
        check_names(self.weights_sha256)


@dataclass(frozen=True)
class SecondStage:
    """What a bundle's second stage reads of a cube, and what its log odds and those of the first stage weigh in a candidate's
    score.

    `place_weights`: what each of `ai.surroundings.NAMES` adds, by name; none in older bundles.  `place_limit`: what their sum
    must reach for a place to take nothing from the score.  `candidates`: so many of the first stage's are looked at at most; 10
    in older bundles.  `around`: so many of these, the best ones, are looked at from four more places about their centres, and the
    mean counts; none in older bundles.  `fusion`: it answers in place of the mean; none in older bundles.
    `cubes`: what looks at the cubes themselves; none in older bundles.  `naming`: what names locations in place of the first stage, which
    0.16.0 alone of the shipped bundles has.
    """

    shape: ShapeSettings
    first_weight: float
    second_weight: float
    weights_sha256: dict[str, str]
    place_weights: dict[str, float] = field(default_factory=dict)
    place_limit: float = 0.0
    candidates: int = MAX_LESIONS
    around: int = 0
    fusion: Fusion | None = None
    cubes: Cubes | None = None
    naming: Naming | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.around, int) and self.around >= 0):
            raise ValueError(f"around must be a whole number from 0 on, got {self.around}")
        if not (type(self.candidates) is int and 1 <= self.candidates <= MOST_PEAKS):
            raise ValueError(f"candidates must be a whole number from 1 to {MOST_PEAKS}, got {self.candidates}")
        if self.place_weights and tuple(self.place_weights) != PLACES:
            raise ValueError("place_weights are not those of this version of Willis: export the bundle again")
        if not all(np.isfinite(weight) for weight in (*self.place_weights.values(), self.place_limit)):
            raise ValueError(
                f"place_weights and place_limit must be finite, got {self.place_weights}, {self.place_limit}"
            )
        if not (
            self.first_weight >= 0.0 and self.second_weight >= 0.0 and self.first_weight + self.second_weight > 0.0
        ):
            raise ValueError(
                f"the stages' weights must not be negative nor both 0, got {self.first_weight} and {self.second_weight}"
            )
        check_names(self.weights_sha256)


def check_names(weights_sha256: dict[str, str]) -> None:
    """The names of files of weights in a bundle's folder.  Raises ValueError."""
    if not weights_sha256 or not isinstance(weights_sha256, dict):
        raise ValueError("weights_sha256 names no file")
    if any(Path(name).name != name or not name.endswith(".safetensors") for name in weights_sha256):
        raise ValueError(
            f"weights_sha256 must name .safetensors files in the bundle's folder, got {sorted(weights_sha256)}"
        )
