"""How much a finding has grown since an earlier study: by location label, with the uncertainty of two measurements.  Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

MEDIAN_DIAMETER_ERROR_MM = 0.49
"""Median absolute error of a diameter on held-out phantoms: the model card's figure; on patients nobody has measured it."""
_SIGMA_MM = MEDIAN_DIAMETER_ERROR_MM / 0.6745  # half of a normal distribution lies within 0.6745 sigma
GROWTH_ERROR_MM = 1.96 * sqrt(2.0) * _SIGMA_MM
"""95 % of the differences between two measurements of an aneurysm that has not changed are smaller."""


@dataclass(frozen=True)
class Growth:
    """The diameter at one location then and now.  `diameter_then_mm`: None where nothing was reported there."""

    location: str
    diameter_now_mm: float
    diameter_then_mm: float | None

    @property
    def change_mm(self) -> float | None:
        """Positive where it is larger now; None where there was nothing to compare with."""
        return None if self.diameter_then_mm is None else self.diameter_now_mm - self.diameter_then_mm

    @property
    def exceeds_error(self) -> bool:
        """Whether the change is more than measuring twice would explain."""
        return self.change_mm is not None and abs(self.change_mm) > GROWTH_ERROR_MM


def growths(now: Sequence[tuple[str, float]], then: Sequence[tuple[str, float]]) -> list[Growth]:
    """Each (location, diameter) of now beside the one of then at the same location.

    Where a location has two findings, now or then, nobody can tell by the label which is which: it is left out.
    """
    found = []
    for location, diameter_mm in now:
        here_then = [size for place, size in then if place == location]
        if len(here_then) < 2 and sum(place == location for place, _ in now) == 1:
            found.append(Growth(location, diameter_mm, here_then[0] if here_then else None))
    return found
