"""One scan as an evaluation sees it: the truth, the answer, and which marks hit which lesions."""

import math
from dataclasses import dataclass
from functools import cached_property

from ai.decode import Calibration, Candidate, findings, lesion_of
from ai.findings import Lesion
from ai.locations import LOCATIONS
from training.phantom.scan import TrueLesion

HIT_MM = 3.0
"""A mark this near a lesion's centre hits it, however small the lesion."""


@dataclass(frozen=True)
class Scored:
    """One scan: its true lesions and what a model answered, before calibration.

    `candidates`: what the network found.  `probabilities`: the 14 of a method that gives nothing else.  `reason`: why the
    scan could not be analysed; there is then no answer.  `sized`: whether the lesions' diameters are known.
    """

    seed: int
    lesions: tuple[TrueLesion, ...]
    candidates: tuple[Candidate, ...]
    confounders: tuple[str, ...] = ()
    probabilities: tuple[float, ...] | None = None
    reason: str = ""
    sized: bool = True


@dataclass(frozen=True)
class Case:
    """A scan that was analysed: the 14 probabilities and every mark, calibrated, the reported ones and the others.

    `marks` is None for a method that says nothing about where.  `sized`: whether the lesions' diameters are known; where they
    are not, no figure is told apart by them.
    """

    seed: int
    lesions: tuple[TrueLesion, ...]
    confounders: tuple[str, ...]
    probabilities: tuple[float, ...]
    marks: tuple[Lesion, ...] | None
    sized: bool = True

    @property
    def positive(self) -> bool:
        """Whether there is an aneurysm."""
        return bool(self.lesions)

    @property
    def present(self) -> float:
        """The probability of "Aneurysm Present"."""
        return self.probabilities[-1]

    def best_mark(self, lesion: TrueLesion, threshold: float = 0.0) -> Lesion | None:
        """The most probable mark at or above the threshold that hits a lesion."""
        hits = [
            mark for mark in self.marks or () if mark.probability >= threshold and is_hit(mark.centre_lps_mm, lesion)
        ]
        return max(hits, key=lambda mark: mark.probability, default=None)

    @cached_property
    def truth(self) -> tuple[bool, ...]:
        """What the 14 columns should say."""
        return (*(any(lesion.location is one for lesion in self.lesions) for one in LOCATIONS), self.positive)

    @cached_property
    def lesion_scores(self) -> tuple[float, ...]:
        """The probability of the best mark on each lesion; −inf without one."""
        best = [self.best_mark(lesion) for lesion in self.lesions]
        return tuple(mark.probability if mark else -math.inf for mark in best)

    @cached_property
    def false_marks(self) -> tuple[Lesion, ...]:
        """The marks that hit no lesion."""
        return tuple(
            mark for mark in self.marks or () if not any(is_hit(mark.centre_lps_mm, one) for one in self.lesions)
        )

    def false_positives(self, threshold: float) -> int:
        """How many marks at or above the threshold hit no lesion."""
        return sum(mark.probability >= threshold for mark in self.false_marks)


def is_hit(centre_lps_mm: tuple[float, float, float], lesion: TrueLesion) -> bool:
    """Whether a centre lies within the lesion's radius, at least 3 mm."""
    return math.dist(centre_lps_mm, lesion.centre_lps_mm) <= max(HIT_MM, lesion.diameter_mm / 2.0)


def case(scored: Scored, calibration: Calibration, threshold: float = 1.0) -> Case:
    """Return the calibrated answer, its probabilities as they are said at the threshold.

    Raises ValueError for a scan that was not analysed.
    """
    if scored.reason:
        raise ValueError(f"scan {scored.seed} was not analysed: {scored.reason}")
    if scored.probabilities is not None:
        return Case(scored.seed, scored.lesions, scored.confounders, scored.probabilities, None, scored.sized)
    answer = findings(scored.candidates, calibration, threshold)
    marks = tuple(
        sorted((lesion_of(one, calibration) for one in scored.candidates), key=lambda mark: -mark.probability)
    )
    return Case(scored.seed, scored.lesions, scored.confounders, answer.probabilities, marks, scored.sized)
