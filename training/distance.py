"""How far each cell lies from the nearest artery: a network may be taught it beside what it is asked, and loses it when exported.

Aneurysms sit on arteries.  A vessel label says so of few cells; the distance says of all around where the arteries are.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ai.unet import UNet, UNetSettings
from training.dataset import UNKNOWN_VESSEL
from training.phantom.scan import VEIN

FARTHEST_CELLS = 6
"""8.4 mm of cells of 1.4 mm; what lies farther off is as far as this."""
HEAD = "distance."
"""What the names of the head's weights begin with."""


class Taught(NamedTuple):
    """As `ai.unet.Outputs`.  distance: N×1×D×H×W, the distance to the nearest artery as a share of the farthest."""

    lesion: Tensor
    vessel: Tensor
    location: Tensor
    log_diameter: Tensor
    distance: Tensor


class DistanceTaught(UNet):
    """The network with one more head, which is not exported."""

    def __init__(self, settings: UNetSettings) -> None:
        super().__init__(settings)
        self.distance = nn.Conv3d(settings.widths[1], 1, 1)

    def forward(self, channels: Tensor) -> Taught:  # type: ignore[override]  # with one more
        x = self.features(channels)
        return Taught(*self.heads(x), self.distance(x))


def distance_loss(distance: Tensor, vessel: Tensor) -> Tensor:
    """The mean error of what the head says; `distance` N×1×D×H×W, `vessel` N×D×H×W labels.

    Cells count that have nothing unlabelled, and no border of the patch, nearer than the farthest distance.  Where there is
    none, the loss is 0.
    """
    counts = _known_around(vessel)
    error = (distance[:, 0] - distance_to_arteries(vessel) / FARTHEST_CELLS).abs()
    return (counts * error).sum() / counts.sum().clamp_min(1.0)


def distance_to_arteries(vessel: Tensor) -> Tensor:
    """The Chebyshev distance in cells, `FARTHEST_CELLS` at most; `vessel` and the answer N×D×H×W."""
    reached = ((vessel > 0) & (vessel < VEIN)).float()
    away = torch.zeros_like(reached)
    for _ in range(FARTHEST_CELLS):
        away += 1.0 - reached
        reached = F.max_pool3d(reached, 3, stride=1, padding=1)
    return away


def _known_around(vessel: Tensor) -> Tensor:
    """1.0 where the distance follows from the labels alone."""
    reach = FARTHEST_CELLS - 1
    unknown = F.pad((vessel == UNKNOWN_VESSEL).float(), (reach,) * 6, value=1.0)
    for _ in range(reach):
        unknown = F.max_pool3d(unknown, 3, stride=1)
    return 1.0 - unknown
