"""What the network is taught: dense lesion supervision first, vessels as the auxiliary task."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ai.unet import Outputs
from training.config import Loss
from training.dataset import UNKNOWN_VESSEL
from training.distance import Taught, distance_loss

MEDIAN_LOG_MM = 1.6
"""Logarithm of the median diameter of an aneurysm, 5 mm."""


def hardest_bce(logits: Tensor, target: Tensor, share: float, weight: Tensor | None = None) -> Tensor:
    """Mean binary cross-entropy of the `share` of voxels where it, times `weight`, is largest."""
    each = F.binary_cross_entropy_with_logits(logits, target, weight, reduction="none").flatten()
    return each.topk(max(1, int(share * each.numel()))).values.mean()


def lesion_weight(lesion: Tensor, log_diameter: Tensor, exponent: float) -> Tensor:
    """One outside lesions; inside, the median diameter over the lesion's to the `exponent`, within 0.5..4.

    A lesion of 3 mm has 5 voxels and one of 10 mm has 190: unweighted, only the large ones would be learned.  One whose
    size nobody measured (nan) weighs one.
    """
    weight = torch.exp((MEDIAN_LOG_MM - log_diameter) * exponent).clamp(0.5, 4.0).nan_to_num(1.0)
    return torch.where(lesion > 0, weight, torch.ones_like(weight))


def focal_tversky(logits: Tensor, target: Tensor, alpha: float, beta: float, gamma: float) -> Tensor:
    """(1 - Tversky index) ** gamma over the whole batch (arXiv:1810.07842); `alpha` weighs false positives, `beta` misses."""
    probability = torch.sigmoid(logits)
    hit = (probability * target).sum()
    false = (probability * (1.0 - target)).sum()
    missed = ((1.0 - probability) * target).sum()
    index = (hit + 1.0) / (hit + alpha * false + beta * missed + 1.0)
    return (1.0 - index).clamp_min(1e-6) ** gamma


def focal(logits: Tensor, target: Tensor) -> Tensor:
    """Sum of (1 - probability of the truth)² · cross-entropy, divided by the voxels of lesions (arXiv:1708.02002)."""
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    each = (1.0 - torch.exp(-entropy)) ** 2 * entropy
    return each.sum() / target.sum().clamp_min(1.0)


def dice(logits: Tensor, target: Tensor) -> Tensor:
    """1 - soft Dice over the whole batch; 0 where there is no lesion and none is seen."""
    probability = torch.sigmoid(logits)
    return 1.0 - (2.0 * (probability * target).sum() + 1.0) / (probability.sum() + target.sum() + 1.0)


def vessel_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy with the background held down, plus soft Dice of all vessels together; logits N×16×D×H×W, target N×D×H×W.

    Cells that are `UNKNOWN_VESSEL` count for nothing; where all are, the loss is 0.
    """
    known = (target != UNKNOWN_VESSEL).float()
    weight = torch.where(target == 0, 0.1, known)
    entropy = F.cross_entropy(logits, target, ignore_index=UNKNOWN_VESSEL, reduction="none")
    any_vessel = (1.0 - torch.softmax(logits, dim=1)[:, 0]) * known
    truth = known * (target > 0)
    dice = (2.0 * (any_vessel * truth).sum() + 1.0) / (any_vessel.sum() + truth.sum() + 1.0)
    return (entropy * weight).sum() / weight.sum().clamp_min(1e-6) + 1.0 - dice


def total_loss(
    outputs: Outputs | Taught, lesion: Tensor, vessel: Tensor, location: Tensor, log_diameter: Tensor, settings: Loss
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the weighted sum and its parts by name, none of which was waited for.

    `lesion`: N×D×H×W float 0 or 1.  `vessel`, `location`: N×D×H×W int64.  `log_diameter`: N×D×H×W float,
    nan where it is not known.
    """
    logits = outputs.lesion[:, 0]
    parts = {}
    if settings.vessel:
        parts["vessel"] = settings.vessel * vessel_loss(outputs.vessel, vessel)
    if isinstance(outputs, Taught):
        parts["distance"] = settings.distance * distance_loss(outputs.distance, vessel)
    if settings.bce:
        weight = lesion_weight(lesion, log_diameter, settings.small)
        parts["bce"] = settings.bce * hardest_bce(logits, lesion, settings.hardest, weight)
    if settings.tversky:
        parts["tversky"] = settings.tversky * focal_tversky(
            logits, lesion, settings.alpha, settings.beta, settings.gamma
        )
    if settings.focal:
        parts["focal"] = settings.focal * focal(logits, lesion)
    if settings.dice:
        parts["dice"] = settings.dice * dice(logits, lesion)
    inside = (lesion > 0).float()
    entropy = F.cross_entropy(outputs.location, location, reduction="none")
    parts["location"] = settings.location * _mean_where(inside, entropy)
    sized = inside * torch.isfinite(log_diameter)
    error = (outputs.log_diameter[:, 0] - log_diameter.nan_to_num(0.0)).abs()
    parts["diameter"] = settings.diameter * _mean_where(sized, error)
    total = torch.stack(list(parts.values())).sum()
    return total, {name: part.detach() for name, part in parts.items()}


def _mean_where(there: Tensor, each: Tensor) -> Tensor:
    """The mean where `there` is 1; 0 where it is nowhere."""
    return (there * each).sum() / there.sum().clamp_min(1.0)
