"""What the network found, as values that cannot be wrong."""

from dataclasses import dataclass, field

from ai.lesion_mask import LesionMask
from ai.locations import COLUMNS, PRESENT, Location
from ai.quality import Quality

MAX_LESIONS = 10


@dataclass(frozen=True)
class Lesion:
    """One suspected aneurysm.

    `centre_lps_mm` is in the patient's LPS frame of reference; `diameter_mm` is the diameter of the sphere of equal
    volume; `probability` is calibrated, 0 to 1; `mask` is what the model took for it.
    """

    location: Location
    probability: float
    centre_lps_mm: tuple[float, float, float]
    diameter_mm: float
    mask: LesionMask | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError(f"probability must lie in 0..1, got {self.probability}")
        if not self.diameter_mm > 0.0:
            raise ValueError(f"diameter_mm must be positive, got {self.diameter_mm}")


@dataclass(frozen=True)
class Findings:
    """The 14 calibrated probabilities in the order of `COLUMNS`, and the lesions at or above `threshold`, most probable first.

    A positive result always has a lesion to show and a negative one never has: `positive` is the probability of
    "Aneurysm Present" reaching `threshold`.  `note`: what was unusual about the analysis, in our own words; "" as a rule.
    `quality`: what the images allow; None where nobody measured it.  `circle_centre_lps_mm`: the middle of the circle of
    Willis about which they were analysed, where it is known.
    `notify_threshold`: the probability from which the scan is worth an alert; None where that is `threshold`.
    """

    probabilities: tuple[float, ...]
    lesions: tuple[Lesion, ...]
    threshold: float
    note: str = ""
    notify_threshold: float | None = None
    quality: Quality | None = None
    circle_centre_lps_mm: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        if len(self.probabilities) != len(COLUMNS):
            raise ValueError(f"expected {len(COLUMNS)} probabilities, got {len(self.probabilities)}")
        if not all(0.0 <= p <= 1.0 for p in self.probabilities):
            raise ValueError(f"probabilities must lie in 0..1, got {self.probabilities}")
        if len(self.lesions) > MAX_LESIONS:
            raise ValueError(f"at most {MAX_LESIONS} lesions, got {len(self.lesions)}")
        if self.positive != bool(self.lesions):
            raise ValueError(
                f"{PRESENT} is {self.present:.3f} at threshold {self.threshold} but {len(self.lesions)} lesions are listed"
            )

    @property
    def present(self) -> float:
        """The probability of "Aneurysm Present"."""
        return self.probabilities[-1]

    @property
    def positive(self) -> bool:
        """Whether the scan is called positive."""
        return self.present >= self.threshold

    @property
    def limited(self) -> str:
        """`limited: ` and what in the images limits the answer, or nothing."""
        return "" if self.quality is None else self.quality.text

    @property
    def notify(self) -> bool:
        """Whether the scan is worth an alert."""
        return self.positive and (self.notify_threshold is None or self.present >= self.notify_threshold)
