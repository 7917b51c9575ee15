"""The 13 vessel locations and the 14 output columns, in the order of the RSNA challenge's `train.csv`."""

from enum import StrEnum


class Location(StrEnum):
    """A vessel location; the value is the challenge's column title, letter for letter."""

    LEFT_INFRACLINOID_ICA = "Left Infraclinoid Internal Carotid Artery"
    RIGHT_INFRACLINOID_ICA = "Right Infraclinoid Internal Carotid Artery"
    LEFT_SUPRACLINOID_ICA = "Left Supraclinoid Internal Carotid Artery"
    RIGHT_SUPRACLINOID_ICA = "Right Supraclinoid Internal Carotid Artery"
    LEFT_MCA = "Left Middle Cerebral Artery"
    RIGHT_MCA = "Right Middle Cerebral Artery"
    ACOM = "Anterior Communicating Artery"
    LEFT_ACA = "Left Anterior Cerebral Artery"
    RIGHT_ACA = "Right Anterior Cerebral Artery"
    LEFT_PCOM = "Left Posterior Communicating Artery"
    RIGHT_PCOM = "Right Posterior Communicating Artery"
    BASILAR_TIP = "Basilar Tip"
    OTHER_POSTERIOR = "Other Posterior Circulation"

    @property
    def mirrored(self) -> "Location":
        """The location that this one becomes when left and right are exchanged."""
        side, _, rest = self.value.partition(" ")
        other = {"Left": "Right", "Right": "Left"}.get(side)
        return Location(f"{other} {rest}") if other else self


LOCATIONS: tuple[Location, ...] = tuple(Location)
PRESENT = "Aneurysm Present"
COLUMNS: tuple[str, ...] = (*(location.value for location in LOCATIONS), PRESENT)
