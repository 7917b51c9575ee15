from dataclasses import replace

import numpy as np
import pytest
import torch

from ai import device
from ai.inference import MIRRORED_LOCATIONS, Tiling, infer, output_affine
from ai.locations import LOCATIONS
from ai.preprocess import Preprocessing, Region
from ai.unet import UNet, UNetSettings
from tests.support.made_up_head import affine

TINY = UNetSettings(widths=(8, 8, 16), convolutions=(1, 1, 1), groups=4)
SETTINGS = Preprocessing(size_DHW=(48, 48, 64))
CPU = torch.device("cpu")


def region(seed: int = 0) -> Region:
    hu = np.random.default_rng(seed).normal(40, 60, SETTINGS.size_DHW).astype(np.int16)
    return Region(hu, affine((0.7, 0.7, 0.7), (-22.05, -16.0, -16.0)), (0.0, 0.0, 0.0))


def network(settings: UNetSettings = TINY) -> UNet:
    torch.manual_seed(0)
    return UNet(settings).eval()


def test_the_shipped_shape_has_about_two_million_parameters_and_answers_at_half_resolution() -> None:
    net = UNet(UNetSettings())
    assert 2.0e6 < net.parameter_count < 2.6e6
    out = net(torch.zeros(1, 6, 32, 32, 48))
    assert out.lesion.shape == (1, 1, 16, 16, 24)
    assert out.vessel.shape == (1, 16, 16, 16, 24)
    assert out.location.shape == (1, 13, 16, 16, 24)
    assert out.log_diameter.shape == (1, 1, 16, 16, 24)


def test_an_analysis_joins_the_levels_as_training_does_only_with_fewer_multiplications() -> None:
    net = network()
    channels = torch.randn(1, 6, 32, 48, 32)
    learned_from = net.finding_maps(channels)
    with torch.inference_mode():
        torch.testing.assert_close(net.finding_maps(channels), learned_from.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("precision", "is_able"), [("float32", True), ("auto", False), ("auto", True)])
def test_a_pass_is_in_bfloat16_where_the_processor_multiplies_it_and_nobody_asks_for_float32(
    precision: str, is_able: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "_multiplies_bfloat16", lambda: is_able)
    cut, net = region(), network()
    exact = infer([net], cut, SETTINGS, Tiling(size=64), CPU)
    maps = infer([net], cut, SETTINGS, Tiling(size=64), CPU, None, precision)
    apart = np.abs(maps.lesion_DHW - exact.lesion_DHW)
    assert (apart.max() > 0) == (precision == "auto" and is_able)
    assert apart.max() < 0.05 and apart.mean() < 0.01
    assert maps.lesion_DHW.dtype == np.float32


def test_what_adds_up_to_a_logit_is_not_rounded_to_bfloat16() -> None:
    net = network()
    with torch.inference_mode():
        maps = net.finding_maps(torch.randn(1, 6, 32, 32, 32), bfloat16=True)
    assert maps.dtype == torch.float32 and not torch.equal(maps, maps.bfloat16().float())


def test_attention_gates_are_a_setting() -> None:
    gated = UNet(UNetSettings(widths=(8, 8, 16), convolutions=(1, 1, 1), groups=4, attention=True))
    assert gated.parameter_count > network().parameter_count
    assert gated(torch.zeros(1, 6, 16, 16, 16)).lesion.shape == (1, 1, 8, 8, 8)


@pytest.mark.parametrize("wrong", [{"widths": (8, 8)}, {"widths": (8, 8, 12), "groups": 8}, {"convolutions": (1, 1)}])
def test_a_shape_that_cannot_be_built_is_refused(wrong: dict) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError):
        UNetSettings(**{"widths": (8, 8, 16), "convolutions": (1, 1, 1), **wrong})


def test_one_tile_equals_the_plain_forward_pass() -> None:
    from ai.preprocess import channels, coordinates

    cut, net = region(), network()
    whole = infer([net], cut, SETTINGS, Tiling(size=64), CPU)
    read = channels(torch.from_numpy(cut.hu_DHW), coordinates(cut, SETTINGS), SETTINGS).permute(3, 0, 1, 2)[None]
    with torch.inference_mode():
        plain = net(read)
    assert np.allclose(whole.lesion_DHW, plain.lesion[0, 0].numpy(), atol=1e-4)
    assert np.allclose(whole.log_diameter_DHW, plain.log_diameter[0, 0].numpy(), atol=1e-4)


def test_tiles_cover_everything_and_stay_near_the_whole() -> None:
    cut, net = region(), network()
    whole, tiled = (infer([net], cut, SETTINGS, Tiling(size=size, overlap=8), CPU) for size in (64, 32))
    assert whole.lesion_DHW.shape == tiled.lesion_DHW.shape == (24, 24, 32)
    assert np.isfinite(tiled.lesion_DHW).all()
    assert np.abs(whole.lesion_DHW - tiled.lesion_DHW).mean() < 0.2  # GroupNorm sees each tile's own statistics


@pytest.mark.parametrize("settings", [SETTINGS, replace(SETTINGS, coordinates=False)])
def test_a_mirrored_region_gives_mirrored_maps_when_both_images_are_read(settings: Preprocessing) -> None:
    cut, net = region(), network(replace(TINY, in_channels=settings.channel_count))
    mirror = Region(np.ascontiguousarray(cut.hu_DHW[:, :, ::-1]), cut.affine_lps, cut.circle_centre_lps_mm)
    one, other = (infer([net], each, settings, Tiling(size=64, flip=True), CPU) for each in (cut, mirror))
    assert np.allclose(one.lesion_DHW, other.lesion_DHW[:, :, ::-1], atol=1e-3)
    swapped = other.location_CDHW[list(MIRRORED_LOCATIONS)][..., ::-1].astype(np.float32)
    assert np.allclose(one.location_CDHW.astype(np.float32), swapped, atol=2e-2)


def test_an_ensemble_is_the_mean_of_its_networks() -> None:
    cut, one = region(), network()
    torch.manual_seed(1)
    two = UNet(TINY).eval()
    each = [infer([net], cut, SETTINGS, Tiling(size=64), CPU).lesion_DHW for net in (one, two)]
    both = infer([one, two], cut, SETTINGS, Tiling(size=64), CPU).lesion_DHW
    assert np.allclose(both, np.mean(each, axis=0), atol=1e-4)


def test_an_answer_that_is_no_number_is_an_error_and_not_one_without_an_aneurysm() -> None:
    broken = network()
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="no number"):
        infer([broken], region(), SETTINGS, Tiling((48, 48, 64), 8), CPU)


def test_progress_ends_at_one_and_may_cancel() -> None:
    shares: list[float] = []
    infer([network()], region(), SETTINGS, Tiling(size=32), CPU, shares.append)
    assert shares == sorted(shares) and shares[-1] == 1.0
    assert shares.count(0.0) == 1, "whoever gives way before anything is computed is asked no more often"

    def cancel(share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        infer([network()], region(), SETTINGS, Tiling(size=32), CPU, cancel)


def test_one_tile_is_cancelled_between_two_levels_of_the_network() -> None:
    net, calls = network(), 0

    def cancel(share: float) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        infer([net], region(), SETTINGS, Tiling(size=64), CPU, cancel)
    maps = infer([net], region(), SETTINGS, Tiling(size=64), CPU)  # the network is as it was, and no longer asks
    assert calls == 3 and np.isfinite(maps.lesion_DHW).all()


@pytest.mark.parametrize("wrong", [{"size": 60}, {"overlap": 0}, {"overlap": 52}, {"overlap": 6}])
def test_a_tiling_that_would_leave_seams_is_refused(wrong: dict) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match="overlap"):
        Tiling(**wrong)


def test_an_output_cell_lies_in_the_middle_of_its_eight_voxels() -> None:
    fine = affine((0.7, 0.7, 0.7), (1.0, 2.0, 3.0))
    corners = [(fine @ [2 * 4 + a, 2 * 5 + b, 2 * 6 + c, 1])[:3] for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    assert np.allclose((output_affine(fine) @ [4, 5, 6, 1])[:3], np.mean(corners, axis=0))


def test_mirroring_twice_changes_nothing() -> None:
    assert [MIRRORED_LOCATIONS[i] for i in MIRRORED_LOCATIONS] == list(range(len(LOCATIONS)))


def test_what_findings_are_read_from_equals_the_heads_one_by_one() -> None:
    net = network()
    read = torch.randn(1, 6, 16, 16, 32)
    with torch.inference_mode():
        out, maps = net(read), net.finding_maps(read)
    assert torch.allclose(maps, torch.cat((out.lesion, out.log_diameter, out.location), dim=1), atol=1e-5)


def test_maps_that_are_kept_keep_no_others_in_memory() -> None:
    maps = infer([network()], region(), SETTINGS, Tiling(size=64), CPU)
    for each in (maps.lesion_DHW, maps.location_CDHW, maps.log_diameter_DHW):
        assert isinstance(each.base, torch.Tensor)
        assert each.base.untyped_storage().nbytes() == each.nbytes


def test_tiles_need_not_be_cubes() -> None:
    cut, net = region(), network()
    whole, exact = (infer([net], cut, SETTINGS, Tiling(size=size, overlap=8), CPU) for size in (64, (48, 48, 64)))
    assert np.allclose(whole.lesion_DHW, exact.lesion_DHW, atol=1e-5)
    assert Tiling((64, 96, 160)).halved == Tiling((32, 48, 80)) and Tiling(96).halved == Tiling(48)
    flat = infer([net], cut, SETTINGS, Tiling(size=(32, 48, 32), overlap=8), CPU)
    assert np.isfinite(flat.lesion_DHW).all()
