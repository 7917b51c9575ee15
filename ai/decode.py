"""The network's maps become candidates, and candidates become `Findings`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.feature import peak_local_max

from ai.affine import lps_of, starting_at
from ai.findings import MAX_LESIONS, Findings, Lesion
from ai.inference import Maps
from ai.lesion_mask import LesionMask, around_peak
from ai.locations import LOCATIONS

Float32Array = NDArray[np.float32]


@dataclass(frozen=True)
class Platt:
    """A logistic calibration: probability = 1 / (1 + exp(-(slope · score + intercept)))."""

    slope: float = 1.0
    intercept: float = 0.0

    def __post_init__(self) -> None:
        if not (self.slope > 0.0 and math.isfinite(self.slope) and math.isfinite(self.intercept)):
            raise ValueError(
                f"a calibration needs a positive slope and a finite intercept, got {self.slope} and {self.intercept}"
            )

    def __call__(self, score: float) -> float:
        """The calibrated probability of a score."""
        exponent = min(max(-(self.slope * score + self.intercept), -60.0), 60.0)
        return 1.0 / (1.0 + math.exp(exponent))


@dataclass(frozen=True)
class Calibration:
    """From scores to probabilities: `present` for a lesion and for the scan, `location` for the 13 columns."""

    present: Platt = Platt()
    location: Platt = Platt()


@dataclass(frozen=True, eq=False)
class Candidate:
    """A peak of the lesion map before calibration.

    `score`: mean lesion logit over the peak's core, or what all that is known of it comes to (`rescored`).
    `location_shares`: 13 float, sum 1.  `mask`: of the cells as near as the diameter is measured
    in, those connected to the peak with at least half of its probability.
    """

    score: float
    centre_lps_mm: tuple[float, float, float]
    diameter_mm: float
    location_shares: NDArray[np.float64]
    mask: LesionMask | None = None


NO_LESION_SCORE = -12.0
"""The score of a scan without a single candidate."""

MOST_PEAKS = 30
"""So many of the highest peaks are measured; the second stage looks at the best of them."""
_MIN_PEAK_LOGIT = -9.0
_CORE_CELLS = 5
_SMOOTHING_CELLS = 0.6
_MIN_APART_MM = 4.0
_CLEARLY_ASIDE_MM = 8.0
_LEAST_PROBABILITY = 1e-6


def candidates(maps: Maps, most: int = MAX_LESIONS) -> tuple[Candidate, ...]:
    """Return at most so many peaks of the lesion map, best first, none within another's radius."""
    logit_DHW = np.maximum(maps.lesion_DHW, -15.0)
    smooth_DHW = ndimage.gaussian_filter(logit_DHW, _SMOOTHING_CELLS)
    found: list[Candidate] = []
    for at in peak_local_max(smooth_DHW, min_distance=1, threshold_abs=_MIN_PEAK_LOGIT, exclude_border=False):
        centre = lps_of(maps.affine_lps, at)
        if any(_apart(centre, other.centre_lps_mm) < max(_MIN_APART_MM, 0.6 * other.diameter_mm) for other in found):
            continue
        found.append(_candidate(maps, logit_DHW, at))
        if len(found) == MOST_PEAKS:
            break
    return tuple(sorted(found, key=lambda candidate: -candidate.score)[:most])


def findings(
    found: tuple[Candidate, ...], calibration: Calibration, threshold: float, notify_threshold: float | None = None
) -> Findings:
    """Return the calibrated findings.

    "Aneurysm Present" is the most probable lesion's probability, and a location has at least that of each lesion listed
    there: one finding has one probability wherever it is shown.
    """
    lesions = [lesion_of(candidate, calibration) for candidate in found]
    present = max((lesion.probability for lesion in lesions), default=calibration.present(NO_LESION_SCORE))
    listed = sorted(
        (lesion for lesion in lesions if lesion.probability >= threshold), key=lambda lesion: -lesion.probability
    )
    located = [
        max([calibration.location(score), *(one.probability for one in listed if one.location is location)])
        for location, score in zip(LOCATIONS, location_scores(found, calibration), strict=True)
    ]
    return Findings((*located, present), tuple(listed), threshold, notify_threshold=notify_threshold)


def lesion_of(candidate: Candidate, calibration: Calibration) -> Lesion:
    """A candidate with its calibrated probability and its most likely location."""
    return Lesion(
        LOCATIONS[int(np.argmax(candidate.location_shares))],
        calibration.present(candidate.score),
        candidate.centre_lps_mm,
        candidate.diameter_mm,
        candidate.mask,
    )


def location_scores(found: tuple[Candidate, ...], calibration: Calibration) -> list[float]:
    """The log odds that a lesion lies at each of the 13 locations, before they are calibrated.

    A candidate's probability is divided by its shares, and candidates count independently.  Probabilities, not scores: the
    little that a certain lesion gives the other locations must not exceed what a doubtful one gives its own.
    """
    nothing = np.ones(len(LOCATIONS))
    for candidate in found:
        nothing *= 1.0 - calibration.present(candidate.score) * candidate.location_shares
    something = np.clip(1.0 - nothing, _LEAST_PROBABILITY, 1.0 - _LEAST_PROBABILITY)
    return [float(score) for score in np.log(something / (1.0 - something))]


def rescored(
    found: tuple[Candidate, ...],
    seconds: Sequence[float],
    first_weight: float,
    second_weight: float,
    added: Sequence[float],
) -> tuple[Candidate, ...]:
    """At most `MAX_LESIONS` candidates, best first: the score is the weighted sum of both stages' log odds, and what is added to it.

    Those of little probability that come behind would only blur where an aneurysm is said to lie.
    """
    scored = [
        replace(candidate, score=first_weight * candidate.score + second_weight * second + more)
        for candidate, second, more in zip(found, seconds, added, strict=True)
    ]
    return tuple(sorted(scored, key=lambda candidate: -candidate.score)[:MAX_LESIONS])


def present_score(found: tuple[Candidate, ...]) -> float:
    """The uncalibrated score of "Aneurysm Present"."""
    return max((candidate.score for candidate in found), default=NO_LESION_SCORE)


def _candidate(maps: Maps, logit_DHW: Float32Array, at: NDArray[np.intp]) -> Candidate:
    """Measure what lies around a peak: the network's diameter first, then everything within that radius."""
    cell_mm = float(np.linalg.norm(maps.affine_lps[:3, 0]))
    guess_mm = math.exp(float(maps.log_diameter_DHW[tuple(at)]))
    radius = int(np.clip(math.ceil(0.75 * guess_mm / cell_mm), 2, 8))
    box = tuple(slice(max(0, int(i) - radius), int(i) + radius + 1) for i in at)
    logit = logit_DHW[box]
    offsets = np.stack(
        np.meshgrid(
            *(np.arange(axis.start, axis.start + side) for axis, side in zip(box, logit.shape, strict=True)),
            indexing="ij",
        )
    )
    apart = np.linalg.norm(offsets - at[:, None, None, None], axis=0)
    weight = np.where(apart <= radius, 1.0 / (1.0 + np.exp(-logit)), 0.0)
    corner = np.array([axis.start for axis in box])
    d, h, w = (int(i) for i in at - corner)
    mask = around_peak(weight, (d, h, w), starting_at(maps.affine_lps, corner))
    weight = np.where(weight >= 0.25 * weight.max(), weight, 0.0)  # the lesion, not the slopes of its neighbours
    total = float(weight.sum())
    centre = lps_of(maps.affine_lps, (offsets * weight).sum(axis=(1, 2, 3)) / total)
    location = maps.location_CDHW[(slice(None), *box)].astype(np.float64)
    shares = np.exp(location - location.max(axis=0))
    shares = (shares / shares.sum(axis=0) * weight).sum(axis=(1, 2, 3)) / total
    midline_x_mm = lps_of(maps.affine_lps, (np.array(logit_DHW.shape) - 1) / 2.0)[0]
    shares = on_its_side(shares, float(centre[0] - midline_x_mm))
    core = np.sort(logit[apart <= 2.0])[-_CORE_CELLS:]
    diameter_mm = math.exp(float((maps.log_diameter_DHW[box] * weight).sum() / total))
    return Candidate(
        score=float(core.mean()),
        centre_lps_mm=(float(centre[0]), float(centre[1]), float(centre[2])),
        diameter_mm=float(np.clip(diameter_mm, 1.0, 40.0)),
        location_shares=shares / shares.sum(),
        mask=mask,
    )


def on_its_side(shares: NDArray[np.float64], left_of_midline_mm: float) -> NDArray[np.float64]:
    """`shares` with those of the other side given to their mirror images, for what lies clearly to one side.

    A small patch does not show which side it is from; the position in the patient does.
    """
    if abs(left_of_midline_mm) < _CLEARLY_ASIDE_MM:
        return shares
    wrong = "Right " if left_of_midline_mm > 0 else "Left "
    moved = shares.copy()
    for index, location in enumerate(LOCATIONS):
        if location.value.startswith(wrong):
            moved[LOCATIONS.index(location.mirrored)] += moved[index]
            moved[index] = 0.0
    return moved


def _apart(one: NDArray[np.float64], other: tuple[float, float, float]) -> float:
    return float(np.linalg.norm(one - np.array(other)))
