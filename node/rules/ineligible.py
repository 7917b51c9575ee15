"""Why a series is not one that we analyse: a code each, and its sentence."""

from enum import StrEnum


class Ineligible(StrEnum):
    """Why a series is not one that we analyse."""

    NO_IMAGE = "no_image"
    NOT_CT = "not_ct"
    SECONDARY_CAPTURE = "secondary_capture"
    LOCALIZER = "localizer"
    REFORMAT = "reformat"
    TOO_FEW_SLICES = "too_few_slices"
    SLICES_TOO_FAR_APART = "slices_too_far_apart"
    SLICES_TOO_THICK = "slices_too_thick"

    @property
    def explained(self) -> str:
        """One sentence for readers of the report."""
        return _EXPLAINED[self]


_EXPLAINED = {
    Ineligible.NO_IMAGE: "The series holds no images.",
    Ineligible.NOT_CT: "The series is not CT.",
    Ineligible.SECONDARY_CAPTURE: "The series holds secondary captures, not original images.",
    Ineligible.LOCALIZER: "The series is a localizer.",
    Ineligible.REFORMAT: "The series is a reformat or projection, not original axial images.",
    Ineligible.TOO_FEW_SLICES: "The series has too few slices.",
    Ineligible.SLICES_TOO_FAR_APART: "The slices lie too far apart to show aneurysms.",
    Ineligible.SLICES_TOO_THICK: "The slices are too thick to show aneurysms.",
}
