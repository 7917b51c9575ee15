"""A candidate is named after one of the 13 locations by what the first stage says of it and by where it lies.

    the first stage's shares, the place relative to the circle of Willis ─ linear ─ shares

A network that sees a few centimetres takes the anterior communicating artery for an anterior cerebral one, and of two sides that
touch the midline always the same: its mistakes are alike, so that a logistic regression undoes many of them.
Of the shipped bundles 0.16.0 alone has one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ai.decode import Candidate, on_its_side
from ai.locations import LOCATIONS

_PLACE = (
    "left",
    "back",
    "up",
    "left_squared",
    "back_squared",
    "up_squared",
    "left_back",
    "back_up",
    "aside",
    "side",
)
READ: tuple[str, ...] = (*(f"log_share_{each.name.lower()}" for each in LOCATIONS), *_PLACE)
"""What each number is, in order: natural logarithms of shares, then centimetres from the middle of the circle of Willis in the
patient's frame, their products, the distance from the midline, and the side, from −1 (right) to 1.
"""
_LEAST_SHARE = 1e-3
_FARTHEST_CM = 4.5
"""Places further off along an axis count as these: nothing was learned from beyond."""
_MIDLINE_CM = 0.2


@dataclass(frozen=True)
class NamingSettings:
    """What the weights depend on; kept in a bundle's manifest.  `reads`: `READ`."""

    reads: tuple[str, ...] = READ

    def __post_init__(self) -> None:
        if self.reads != READ:
            raise ValueError("candidates are not named as this version of Willis does: export the bundle again")


class NamingNet(nn.Module):
    """N×len(`READ`) in, N×13 logits of `LOCATIONS` out."""

    def __init__(self, settings: NamingSettings) -> None:
        super().__init__()
        self.settings = settings
        self.locations = nn.Linear(len(settings.reads), len(LOCATIONS))

    def forward(self, read: Tensor) -> Tensor:
        logits: Tensor = self.locations(read)
        return logits


def naming_input(found: Sequence[Candidate], circle_centre_lps_mm: tuple[float, float, float]) -> NDArray[np.float32]:
    """What `READ` names, of each candidate; N×len(`READ`)."""
    shares = np.array([one.location_shares for one in found], float).reshape(-1, len(LOCATIONS))
    places = np.array([one.centre_lps_mm for one in found], float).reshape(-1, 3) - circle_centre_lps_mm
    cm = np.clip(places / 10.0, -_FARTHEST_CM, _FARTHEST_CM)
    left, back, up = cm.T
    more = np.stack([left * back, back * up, np.abs(left), np.tanh(left / _MIDLINE_CM)], axis=1)
    read = np.concatenate([np.log(np.maximum(shares, _LEAST_SHARE)), cm, cm**2, more], axis=1)
    return read.astype(np.float32)


@torch.inference_mode()
def named(
    found: tuple[Candidate, ...], circle_centre_lps_mm: tuple[float, float, float], networks: Sequence[NamingNet]
) -> tuple[Candidate, ...]:
    """The candidates with the shares that the networks give them; as they are without networks.

    Raises FloatingPointError when the networks' answer is no number.
    """
    if not (networks and found):
        return found
    read = torch.from_numpy(naming_input(found, circle_centre_lps_mm))
    shares = torch.stack([network(read).double().softmax(dim=1) for network in networks]).mean(dim=0).numpy()
    if not np.isfinite(shares).all():
        raise FloatingPointError("the answer of a network that names locations is no number")
    return tuple(
        replace(one, location_shares=on_its_side(share, one.centre_lps_mm[0] - circle_centre_lps_mm[0]))
        for one, share in zip(found, shares, strict=True)
    )
