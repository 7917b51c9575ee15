import pytest
import torch

from ai.unet import Outputs
from training import losses
from training.config import Loss

LESION = torch.zeros(1, 8, 8, 8)
LESION[0, 2:5, 2:5, 2:5] = 1.0
LOGITS = (LESION * 2 - 1) * 20


@pytest.mark.parametrize("loss", [losses.focal, losses.dice])
def test_a_perfect_map_costs_nothing_and_a_wrong_one_more_than_a_better_one(loss) -> None:  # type: ignore[no-untyped-def]
    missed = LOGITS.clone()
    missed[0, 2] = -20.0
    assert float(loss(LOGITS, LESION)) < 1e-3
    assert loss(LOGITS, LESION) < loss(missed, LESION) < loss(-LOGITS, LESION)
    assert float(loss(torch.full_like(LESION, -20.0), torch.zeros_like(LESION))) < 1e-3


def test_the_focal_loss_looks_away_from_what_is_easy() -> None:
    one = torch.ones(1, 1, 1, 1)
    sure, unsure = (float(losses.focal(torch.full_like(one, logit), one)) for logit in (3.0, 0.0))
    assert unsure == pytest.approx(0.25 * 0.6931, abs=1e-3)
    assert sure / unsure < 0.1 * 0.0486 / 0.6931  # the cross-entropies' own ratio, tenfold less


@pytest.mark.parametrize("kind", ["bce", "tversky", "focal", "dice"])
def test_each_loss_of_the_lesion_map_can_be_chosen_alone(kind: str) -> None:
    logits = torch.zeros(1, 1, 8, 8, 8, requires_grad=True)
    outputs = Outputs(logits, torch.zeros(1, 16, 8, 8, 8), torch.zeros(1, 13, 8, 8, 8), torch.zeros(1, 1, 8, 8, 8))
    nothing = {"bce": 0.0, "tversky": 0.0, "vessel": 0.0}
    labels = torch.zeros(1, 8, 8, 8).long()
    total, parts = losses.total_loss(outputs, LESION, labels, labels, LESION, Loss(**{**nothing, kind: 1.0}))
    assert set(parts) == {kind, "location", "diameter"}
    total.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None and bool((logits.grad[0, 0][LESION[0] > 0] < 0.0).all())
