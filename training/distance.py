"""How far each cell lies from the nearest artery: a network may be taught it beside what it is asked, and loses it when exported.

Aneurysms sit on arteries, and a label says "artery" of a few cells only; the distance says where they are of all around.
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

    Cells count whose distance the patch tells: an artery beyond its edge might be nearer to the others.  Where nobody
    labelled vessels none does, and the loss is 0.
    """
    truth = distance_to_arteries(vessel)
    sides = (torch.arange(side, device=vessel.device) for side in vessel.shape[1:])
    edge = torch.stack(torch.meshgrid(*(torch.minimum(line, line.flip(0)) for line in sides), indexing="ij")).amin(0)
    told = ((truth <= edge) & (vessel != UNKNOWN_VESSEL)).float()
    error = (distance[:, 0] - truth / FARTHEST_CELLS).abs()
    return (told * error).sum() / told.sum().clamp_min(1.0)


def distance_to_arteries(vessel: Tensor) -> Tensor:
    """In cells, the longest of the three offsets, `FARTHEST_CELLS` at most; `vessel` and the answer N×D×H×W."""
    reached = ((vessel > 0) & (vessel < VEIN)).float()
    away = torch.zeros_like(reached)
    for _ in range(FARTHEST_CELLS):
        away += 1.0 - reached
        reached = F.max_pool3d(reached, 3, stride=1, padding=1)
    return away
