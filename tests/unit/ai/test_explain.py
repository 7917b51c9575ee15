import numpy as np
import pytest
import torch

from ai.bundle import Bundle
from ai.errors import NotAnalysable
from ai.explain import explain, grad_cam
from ai.inference import Tiling, infer
from ai.preprocess import Preprocessing, Region
from ai.unet import UNet
from tests.support.made_up_head import affine, head
from tests.unit.ai.test_bundle import TINY, manifest

CPU = torch.device("cpu")
SETTINGS = Preprocessing(size_DHW=(112, 32, 48))
HEAD = head(spacing_mm_DHW=(3.0, 3.0, 3.0))
CENTRE = (5.0, -3.0, 2.0)


def bundle_of(*seeds: int, threshold: float = 0.5) -> Bundle:
    networks = []
    for seed in seeds:
        torch.manual_seed(seed)
        networks.append(UNet(TINY).eval())
    return Bundle(manifest(preprocessing=SETTINGS, threshold=threshold), tuple(networks))


def region() -> Region:
    hu = np.random.default_rng(0).normal(40, 60, SETTINGS.size_DHW).astype(np.int16)
    return Region(hu, affine((0.7, 0.7, 0.7), (-16.45, -10.85, -39.0)), (0.0, 0.0, 0.0))


def apart_mm(made: Region, centre: tuple[float, float, float]) -> np.ndarray:
    d, h, w = np.indices(made.hu_DHW.shape)
    lps = np.einsum("ij,jdhw->idhw", made.affine_lps, np.stack([d, h, w, np.ones_like(d)]))[:3]
    apart: np.ndarray = np.linalg.norm(lps - np.array(centre)[:, None, None, None], axis=0)
    return apart


def test_the_map_lies_on_the_region_s_grid_and_is_warm_around_the_place_asked_for() -> None:
    made, bundle = region(), bundle_of(0)
    heat = grad_cam(bundle, made, CENTRE, CPU)
    assert heat.heat_DHW.shape == made.hu_DHW.shape and heat.heat_DHW.dtype == np.float32
    assert np.array_equal(heat.affine_lps, made.affine_lps)
    assert heat.heat_DHW.min() == 0.0 and heat.heat_DHW.max() == pytest.approx(1.0)
    apart = apart_mm(made, CENTRE)
    assert heat.heat_DHW[apart < 6.0].mean() > 3.0 * heat.heat_DHW[apart > 12.0].mean()
    assert not heat.heat_DHW[:4].any()  # the tile of 96 does not reach there


def test_at_the_last_stage_the_map_is_the_lesion_logit_above_its_bias_where_it_is_scored() -> None:
    made, bundle = region(), bundle_of(0)
    with torch.no_grad():
        bundle.networks[0].lesion.weight.abs_()  # the activations are mostly positive: so is the sum
    small = Region(made.hu_DHW[:96], made.affine_lps, made.circle_centre_lps_mm)
    heat = grad_cam(bundle, small, CENTRE, CPU, stage=-1).heat_DHW
    maps = infer(bundle.networks, small, SETTINGS, Tiling(size=96), CPU)
    above = maps.lesion_DHW - bundle.networks[0].state_dict()["lesion.bias"].item()
    cells = np.einsum("ij,jdhw->idhw", maps.affine_lps, np.stack([*np.indices(above.shape), np.ones(above.shape)]))[:3]
    scored = np.linalg.norm(cells - np.array(CENTRE)[:, None, None, None], axis=0) <= 2.5
    expected = torch.from_numpy(np.where(scored, np.maximum(above, 0.0), 0.0).astype(np.float32))
    fine = torch.nn.functional.interpolate(expected[None, None], scale_factor=2.0, mode="trilinear")[0, 0].numpy()
    assert scored.sum() > 10 and np.allclose(heat, fine / fine.max(), atol=1e-4)


def test_an_ensemble_s_map_is_the_mean_of_its_networks() -> None:
    made = region()
    one, other, both = (grad_cam(bundle_of(*seeds), made, CENTRE, CPU).heat_DHW for seeds in ((0,), (1,), (0, 1)))
    assert np.allclose(both, (one + other) / 2.0, atol=1e-6)


def test_a_place_outside_the_region_is_refused() -> None:
    with pytest.raises(ValueError, match="outside"):
        grad_cam(bundle_of(0), region(), (500.0, 0.0, 0.0), CPU)


def test_every_listed_finding_is_explained() -> None:
    bundle = Bundle(manifest(threshold=1e-6), bundle_of(0).networks)
    explanation = explain(HEAD, bundle, "cpu")
    assert len(explanation.findings.lesions) > 1
    assert [shown.lesion for shown in explanation.shown] == list(explanation.findings.lesions)
    assert all(shown.listed for shown in explanation.shown)


def test_without_a_finding_the_best_candidate_is_explained_and_called_what_it_is() -> None:
    bundle = Bundle(manifest(threshold=0.999), bundle_of(0).networks)
    explanation = explain(HEAD, bundle, "cpu")
    (shown,) = explanation.shown
    assert not explanation.findings.positive and not shown.listed
    assert shown.lesion.probability == explanation.findings.present


def test_what_cannot_be_analysed_cannot_be_explained() -> None:
    with pytest.raises(NotAnalysable):
        explain(head(contrast_hu=None, spacing_mm_DHW=(3.0, 3.0, 3.0)), bundle_of(0), "cpu")
