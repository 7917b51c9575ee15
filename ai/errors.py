"""What can go wrong in this package.

WillisAIError
├── NotAnalysable(reason)   the series can never be analysed; trying again will not help
│   └── NotShownYet         of slices that are still coming: not yet
├── BundleError             the model bundle is missing, damaged or does not fit this version
├── DeviceError             the device that the settings name is not there
└── DeviceLost              it no longer answers this process; another process may have an answer
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why a series was not analysed.  A code, never text from the dataset; `explained` is for people."""

    MISSING_GEOMETRY = "missing_geometry"
    CONTRADICTORY_HEADER = "contradictory_header"
    MISSING_PIXELS = "missing_pixels"
    MISSING_RESCALE = "missing_rescale"
    NOT_HOUNSFIELD = "not_hounsfield"
    PIXELS_TRUNCATED = "pixels_truncated"
    PIXELS_UNDECODABLE = "pixels_undecodable"
    MIXED_PATIENTS = "mixed_patients"
    MIXED_STUDIES = "mixed_studies"
    MIXED_FRAMES_OF_REFERENCE = "mixed_frames_of_reference"
    MIXED_ORIENTATION = "mixed_orientation"
    SEVERAL_ACQUISITIONS = "several_acquisitions"
    MIXED_MATRIX = "mixed_matrix"
    NOT_AXIAL = "not_axial"
    GANTRY_TILT = "gantry_tilt"
    DUPLICATE_POSITION = "duplicate_position"
    GAP = "gap"
    WRONG_SPACING = "wrong_spacing"
    TOO_FEW_SLICES = "too_few_slices"
    TOO_LARGE = "too_large"
    INCOMPLETE = "incomplete"
    NOT_A_HEAD = "not_a_head"
    COVERAGE = "coverage"
    NO_CONTRAST = "no_contrast"
    MISSING_IDENTITY = "missing_identity"
    NOT_ELIGIBLE = "not_eligible"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"

    @property
    def explained(self) -> str:
        """One sentence for the radiologist: what is wrong and what would help."""
        return _EXPLAINED[self]


_EXPLAINED: dict[Reason, str] = {
    Reason.MISSING_GEOMETRY: "A slice has no usable position, orientation or pixel spacing; send the original axial images.",
    Reason.CONTRADICTORY_HEADER: "The header of a multi-frame image contradicts itself; send the images again.",
    Reason.MISSING_PIXELS: "A slice has no pixel data; send the images again.",
    Reason.MISSING_RESCALE: "A slice does not say how its pixel values become Hounsfield units; send the original CT images.",
    Reason.NOT_HOUNSFIELD: "The pixel values of a slice are not Hounsfield units, as its Rescale Type says; send the original CT images.",
    Reason.PIXELS_TRUNCATED: "The pixel data of a slice is shorter than its matrix; send the images again.",
    Reason.PIXELS_UNDECODABLE: "The pixel data could not be decoded; send the images uncompressed.",
    Reason.MIXED_PATIENTS: "Slices of different patients share one Series Instance UID; correct the study in the PACS.",
    Reason.MIXED_STUDIES: "Slices of different studies share one Series Instance UID; correct the study in the PACS.",
    Reason.MIXED_FRAMES_OF_REFERENCE: "The slices do not share one frame of reference.",
    Reason.MIXED_ORIENTATION: "The slices are not all oriented alike.",
    Reason.SEVERAL_ACQUISITIONS: "The series holds several acquisitions and none could be analysed; send each as a series of its own.",
    Reason.MIXED_MATRIX: "The slices differ in matrix or pixel spacing.",
    Reason.NOT_AXIAL: "The slices are not axial; send the axial series.",
    Reason.GANTRY_TILT: "The gantry tilt is too large to be resampled safely.",
    Reason.DUPLICATE_POSITION: "Two slices with different pixels lie at the same position; send the series without the wrong one.",
    Reason.GAP: "Slices are missing between the first and the last; send the missing slices.",
    Reason.WRONG_SPACING: "The spacing between slices is irregular or contradicts the slice positions.",
    Reason.TOO_FEW_SLICES: "The series has too few slices for a volume.",
    Reason.TOO_LARGE: "The series has more or larger slices than can be analysed; send the axial head series alone.",
    Reason.INCOMPLETE: "The sender reports more slices than have arrived; send the missing slices.",
    Reason.NOT_A_HEAD: "No head was recognised in the images.",
    Reason.COVERAGE: "The images do not cover the whole region around the circle of Willis.",
    Reason.NO_CONTRAST: "No contrast-filled arteries were found.",
    Reason.MISSING_IDENTITY: "The study or the patient is not identified well enough to report on.",
    Reason.NOT_ELIGIBLE: "The series is not of the kind that is analysed.",
    Reason.ATTEMPTS_EXHAUSTED: "The analysis failed repeatedly; the administrator has been told.",
}


class WillisAIError(Exception):
    """The root of this package's errors."""


class NotAnalysable(WillisAIError):
    """The series can never be analysed; trying again will not help."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        """`detail` may hold numbers and units (`"3 slices missing after z = -41.5 mm"`), never text from the dataset."""
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.detail = detail


class NotShownYet(NotAnalysable):
    """Of slices that are not all there: COVERAGE, until they reach about `missing_mm` further."""

    def __init__(self, missing_mm: float) -> None:
        super().__init__(Reason.COVERAGE, f"about {missing_mm:.0f} mm are not shown yet")
        self.missing_mm = missing_mm


class BundleError(WillisAIError):
    """The model bundle is missing, damaged or does not fit this version; the message names the file and the remedy."""


class DeviceError(WillisAIError):
    """The device that the settings name is not there; the message says what to do."""


class DeviceLost(WillisAIError):
    """A GPU failed: every further call of this process to it will, too.  The message is the driver's."""
