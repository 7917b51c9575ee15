"""What in the images limits an answer: metal, motion, poor contrast, noise.  A negative under a limit is a limited one.

The thresholds separate heads with and without each fault (`tests/unit/ai/test_quality.py`); `ai.measures` measures.
"""

import math
from dataclasses import dataclass

LEAST_METAL_MM3 = 6.0
MOST_STREAK_HU = 15.0
"""By which slices with metal are more uneven than those without, after smoothing by 1.5 mm."""
MOST_STEP_MM = 1.0
LEAST_ARTERIAL_HU = 170.0
"""Of the brightest tenth of the tubes above the base, at 1 mm: arteries of 200 HU reach 165, of 220 HU 180."""
MOST_NOISE_HU = 30.0
LEAST_BELOW_MM = 45.0
"""So far below the circle the vertebral arteries and the inferior cerebellar arteries' origins reach."""
MOST_SPREAD_MM = 9.0
"""A region read about a circle placed worse than this is larger."""


@dataclass(frozen=True)
class Quality:
    """Measures of one series, and in `limits` what they mean.

    `noise_hu`: standard deviation in soft tissue of the slices.  `arterial_hu`: of the brightest filled tubes, nan without any.
    `metal_mm3`: as dense as metal within 40 mm of the circle.  `streak_hu`: unevenness that metal adds there.  `step_mm`: the
    largest sideways jump of the vault from one slice to the next.  `spread_mm`: how well the circle is placed.
    `unfilled_side`: "left" or "right" where arteries are filled on the other side only, else "".  `below_mm`: how far the
    images reach below the circle.
    """

    noise_hu: float
    arterial_hu: float
    metal_mm3: float = 0.0
    streak_hu: float = 0.0
    step_mm: float = 0.0
    spread_mm: float = 0.0
    unfilled_side: str = ""
    below_mm: float = math.inf

    def __post_init__(self) -> None:
        if self.unfilled_side not in ("", "left", "right"):
            raise ValueError(f"unfilled_side must be left, right or empty, got {self.unfilled_side!r}")
        for name in ("noise_hu", "metal_mm3", "step_mm", "spread_mm"):
            if not getattr(self, name) >= 0.0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")

    @property
    def limits(self) -> tuple[str, ...]:
        """What limits the answer, in words for the report; none as a rule."""
        found = []
        if self.metal_mm3 >= LEAST_METAL_MM3 or self.streak_hu > MOST_STREAK_HU:
            found.append("metal artefact at the circle of Willis")
        if self.step_mm > MOST_STEP_MM:
            found.append("motion between slices")
        if not self.arterial_hu >= LEAST_ARTERIAL_HU:
            found.append("poor opacification of the arteries")
        if self.noise_hu > MOST_NOISE_HU:
            found.append("noise")
        if self.unfilled_side:
            found.append(f"no filled arteries seen on the {self.unfilled_side}")
        if self.spread_mm > MOST_SPREAD_MM:
            found.append("uncertain position of the circle of Willis")
        if self.below_mm < LEAST_BELOW_MM:
            found.append(f"vertebral arteries not shown whole (images end {self.below_mm:.0f} mm below the circle)")
        return tuple(found)

    @property
    def text(self) -> str:
        """`limited: metal artefact at the circle of Willis; noise`, or nothing."""
        return "limited: " + "; ".join(self.limits) if self.limits else ""
