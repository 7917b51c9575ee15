import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ai.bundle import Bundle, load_bundle, save_bundle
from ai.decode import Candidate, Platt
from ai.inference import Tiling
from ai.locations import Location
from ai.parts import SecondStage
from ai.predict import found_candidates
from ai.preprocess import Preprocessing
from ai.second_stage import ShapeNet, ShapeSettings
from ai.unet import Outputs, UNet
from tests.support.made_up_scan import scan
from training import dataset, losses, mine
from training.calibrate import averaged
from training.calibrate import main as calibrate
from training.config import ConfigError, Data, Loss, Optimisation, TrainConfig, read_config
from training.evaluate import ScanSet, Score, Scored, is_hit, measure, score_scans
from training.export import export, platt
from training.phantom.scan import TrueLesion
from training.scans import validation_scans
from training.train import CHECKPOINT, HARD_CELLS, averaged_network, hard_cells, joined, learning_rate, main, train


def weights(config: TrainConfig) -> dict[str, torch.Tensor]:
    return averaged_network(config)[0].state_dict()


def quiet(line: str) -> None:
    pass


def test_a_run_ends_with_a_checkpoint_of_its_last_step(config: TrainConfig) -> None:
    assert train(config, report=quiet)
    assert averaged_network(config)[1] == 6
    assert [path.name for path in Path(config.folder).glob("*.tmp")] == []


def test_a_run_in_pieces_ends_where_an_unbroken_one_does(config: TrainConfig) -> None:
    whole = replace(config, folder=config.folder + "-whole")
    train(whole, report=quiet)
    lines: list[str] = []
    pieces = 0
    while not train(config, stop_after_seconds=0.0, report=lines.append):
        pieces += 1
    assert pieces >= 3 and any("continuing at step" in line for line in lines)
    for name, tensor in weights(whole).items():
        assert torch.allclose(tensor, weights(config)[name], atol=1e-5), name


def test_weights_that_are_not_the_network_s_begin_no_run(config: TrainConfig, tmp_path: Path) -> None:
    weights = tmp_path / "other.safetensors"
    save_file({"model.conv.weight": torch.zeros(3)}, weights)
    with pytest.raises(ConfigError, match=r"initial_weights: no weight of .*other\.safetensors is one of this network"):
        train(replace(config, initial_weights=str(weights)))
    assert not (Path(config.folder) / CHECKPOINT).exists()


def test_weights_of_another_shape_begin_no_run(config: TrainConfig, tmp_path: Path) -> None:
    weights = tmp_path / "wide.safetensors"
    save_file(UNet(replace(config.network, widths=(8, 16, 32))).state_dict(), weights)
    wanted = r"initial_weights: decoders\.0\.narrow\.weight of .*wide\.safetensors is \[16, 32, .* there and \[16, 16, .* here: give"
    with pytest.raises(ConfigError, match=wanted):
        train(replace(config, initial_weights=str(weights)), report=quiet)


def test_weights_that_are_missing_or_too_many_are_named(config: TrainConfig, tmp_path: Path) -> None:
    weights, lines = tmp_path / "some.safetensors", list[str]()
    state = {name: tensor.contiguous() for name, tensor in UNet(config.network).state_dict().items()}
    lost = next(iter(state))
    save_file({name: tensor for name, tensor in state.items() if name != lost} | {"more": torch.zeros(1)}, weights)
    train(replace(config, initial_weights=str(weights)), stop_after_seconds=0.0, report=lines.append)
    assert f"initial_weights: missing, and drawn at random: {lost}" in lines
    assert "initial_weights: not of this network, and left out: more" in lines
    save_file(state, weights)
    quiet: list[str] = []
    fresh = replace(config, folder=str(tmp_path / "fresh"), initial_weights=str(weights))
    train(fresh, stop_after_seconds=0.0, report=quiet.append)
    assert not any("initial_weights" in line for line in quiet)


def test_scans_join_over_the_first_steps_and_are_painted_no_earlier(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.train.FIRST_SCANS", 1)
    slowly = replace(config, data=replace(config.data, joining_steps=4))
    assert [joined(slowly, step) for step in range(6)] == [1, 2, 3, 4, None, None]
    assert joined(config, 0) is None
    cache = Path(config.data.cache)
    assert not train(slowly, stop_after_seconds=0.0, report=quiet)
    assert {path.name for path in cache.iterdir()} <= {
        "0",
        "1",
    }  # those of step 0, and of step 1, which is prepared meanwhile
    while not train(slowly, stop_after_seconds=0.0, report=quiet):
        pass
    whole = replace(slowly, folder=config.folder + "-whole")
    train(whole, report=quiet)
    for name, tensor in weights(whole).items():
        assert torch.allclose(tensor, weights(slowly)[name], atol=1e-5), name


@pytest.mark.parametrize(("channels_last", "compiled"), [(False, False), (True, True)])
def test_how_a_network_is_run_changes_nothing_else(
    channels_last: bool, compiled: bool, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def compiling(network: torch.nn.Module) -> torch.nn.Module:
        asked.append(network)
        return network

    monkeypatch.setattr(torch, "compile", compiling)
    other = replace(config, folder=config.folder + "-other", channels_last=channels_last, compiled=compiled)
    for run in (config, other):
        train(replace(run, optimisation=replace(run.optimisation, steps=2)), report=quiet)
    assert len(asked) == compiled
    for name, tensor in weights(config).items():
        assert torch.allclose(tensor, weights(other)[name], atol=1e-3), name


def test_training_teaches(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    real = losses.total_loss

    def watched(*arguments: object) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        total, parts = real(*arguments)  # type: ignore[arg-type]
        seen.append(float(total.detach()))
        return total, parts

    monkeypatch.setattr("training.train.total_loss", watched)
    train(replace(config, optimisation=Optimisation(steps=25, warmup_steps=2, checkpoint_every=100)), report=quiet)
    assert np.mean(seen[-5:]) < np.mean(seen[:5])


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(replace(config, optimisation=replace(config.optimisation, steps=2)), report=quiet)
    before = (Path(config.folder) / CHECKPOINT).read_bytes()
    nan = torch.tensor(float("nan"))
    monkeypatch.setattr("training.train.total_loss", lambda *_: (nan.clone().requires_grad_(), {"bce": nan}))
    with pytest.raises(FloatingPointError, match="not finite at step 2"):
        train(config, report=quiet)
    assert (Path(config.folder) / CHECKPOINT).read_bytes() == before


def test_the_learning_rate_warms_up_and_decays(config: TrainConfig) -> None:
    rates = [learning_rate(config, step) for step in range(6)]
    assert rates[0] < rates[1] == config.optimisation.learning_rate
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_a_checkpoint_becomes_a_bundle_that_loads(config: TrainConfig, tmp_path: Path) -> None:
    train(config, report=quiet)
    figures = export([config], tmp_path / "bundle", "0.1", Tiling(size=64))
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.manifest.version == "0.1" and "phantoms" in bundle.manifest.trained_on
    assert figures["scans"] == 4 and bundle.manifest.calibration.present.slope > 0
    assert all(torch.equal(tensor, weights(config)[name]) for name, tensor in bundle.networks[0].state_dict().items())


def test_a_bundle_is_calibrated_anew_with_the_same_weights(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(config, report=quiet)
    export([config], tmp_path / "bundle", "0.1", Tiling(size=64))
    made = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    old = made | {
        "format": 1,
        "threshold": 0.9,
        "calibration": {name: {"slope": 9.0, "intercept": 9.0} for name in made["calibration"]},
    }
    (tmp_path / "bundle" / "manifest.json").write_text(json.dumps(old))
    monkeypatch.setattr("training.calibrate.read_config", lambda _path: config)
    assert calibrate(["run.toml", "0.1.1", str(tmp_path / "anew"), str(tmp_path / "bundle")]) == 0
    anew = json.loads((tmp_path / "anew" / "manifest.json").read_text())
    calibration, wanted = anew.pop("calibration"), made.pop("calibration")
    for name in wanted:  # rounding moves the optimum of scores that separate
        assert calibration[name] == pytest.approx(wanted[name], rel=0.05)
    assert anew == made | {"version": "0.1.1"}


def test_a_bundle_keeps_its_second_stage_when_it_is_calibrated_anew(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(config, report=quiet)
    export([config], tmp_path / "first", "0.1", Tiling(size=64))
    first = load_bundle(tmp_path / "first")
    stage = SecondStage(ShapeSettings(hidden=4), 0.2, 0.8, {"unsaved.safetensors": ""})
    manifest = replace(first.manifest, second_stage=stage, threshold=0.5, notify_threshold=0.95)
    save_bundle(tmp_path / "two", manifest, first.networks, (ShapeNet(stage.shape),))
    asked: list[tuple[int, ...]] = []

    def from_regions(bundle: Bundle, scans: ScanSet, _cache: Path, _device: str, _workers: int) -> Score:
        asked.append(scans.seeds)
        return lambda _seeds: iter(score_scans(bundle, validation_scans(config, quiet)))

    monkeypatch.setattr("training.calibrate.read_config", lambda _path: config)
    monkeypatch.setattr("training.export.box_scorer", from_regions)
    assert calibrate(["run.toml", "0.2", str(tmp_path / "anew"), str(tmp_path / "two")]) == 0
    anew, before = load_bundle(tmp_path / "anew"), load_bundle(tmp_path / "two")
    assert anew.manifest.second_stage == before.manifest.second_stage and anew.manifest.version == "0.2"
    assert all(
        torch.equal(*pair) for pair in zip(anew.second[0].parameters(), before.second[0].parameters(), strict=True)
    )
    assert anew.manifest.notify_threshold is not None and [len(seeds) for seeds in asked] == [4]
    with pytest.raises(ConfigError, match="second stage"):
        averaged([first, before])


def test_of_several_bundles_the_weights_are_averaged(config: TrainConfig, tmp_path: Path) -> None:
    train(config, report=quiet)
    export([config], tmp_path / "bundle", "0.1", Tiling(size=64))
    two = [load_bundle(tmp_path / "bundle") for _ in range(2)]
    was = two[1].networks[0].lesion.weight.clone()
    with torch.no_grad():
        two[0].networks[0].lesion.weight += 1.0
    assert torch.allclose(averaged(two).networks[0].lesion.weight, was + 0.5)
    other = replace(two[0], networks=two[0].networks * 2)
    with pytest.raises(ConfigError, match="one network each"):
        averaged([other, two[1]])


def test_without_a_checkpoint_there_is_nothing_to_export(config: TrainConfig) -> None:
    with pytest.raises(FileNotFoundError):
        averaged_network(config)


def test_the_shipped_config_reads_and_leaves_no_seed_in_both_sets() -> None:
    config = read_config(Path(__file__).parents[3] / "training" / "configs" / "willis.toml")
    assert config.network.in_channels == config.preprocessing.channel_count
    with pytest.raises(ValueError, match="overlap"):
        Data(first_seed=0, scans=10, validation_first_seed=5)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('folder = "x"\nspeed = 3', "unknown key speed"),
        ('folder = "x"\n[data]\nscan = 3', "unknown key data.scan"),
        ("folder = ", "config.toml"),
        ("seed = 1", "folder"),
        ('folder = "x"\n[preprocessing]\nspacing_mm = 9.0', "spacing_mm"),
        ('folder = "x"\nprecision = "float16"', "precision"),
    ],
)
def test_a_config_that_cannot_be_used_names_its_key(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(ConfigError, match=named):
        read_config(tmp_path / "config.toml")


def test_a_missing_config_is_named_and_wrong_usage_is_status_two(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere.toml"):
        read_config(tmp_path / "nowhere.toml")
    assert main([]) == 2


def test_hardest_voxels_decide_the_entropy() -> None:
    logits, target = torch.full((1, 4, 4, 4), -10.0), torch.zeros(1, 4, 4, 4)
    target[0, 0, 0, 0] = 1.0
    assert losses.hardest_bce(logits, target, 1 / 64) == pytest.approx(10.0, abs=1e-3)
    assert losses.hardest_bce(logits, target, 1.0) == pytest.approx(10.0 / 64, abs=1e-3)


def test_small_lesions_weigh_more_and_what_is_no_lesion_weighs_one() -> None:
    lesion, log_mm = torch.tensor([1.0, 1.0, 1.0, 0.0]), torch.log(torch.tensor([2.5, 5.0, 15.0, 2.5]))
    small, median, large, outside = losses.lesion_weight(lesion, log_mm, 1.0).tolist()
    assert (small, median, large, outside) == pytest.approx((2.0, 1.0, 0.5, 1.0), rel=0.02)
    assert losses.lesion_weight(lesion, log_mm, 0.0).tolist() == [1.0] * 4


def test_a_perfect_answer_costs_next_to_nothing_and_a_patch_without_lesion_is_no_special_case() -> None:
    lesion = torch.zeros(1, 8, 8, 8)
    lesion[0, 2:5, 2:5, 2:5] = 1.0
    vessel = (lesion * 3).long()
    outputs = Outputs(
        (lesion[:, None] * 2 - 1) * 20,
        torch.nn.functional.one_hot(vessel, 16).movedim(-1, 1).float() * 40,
        torch.zeros(1, 13, 8, 8, 8),
        torch.full((1, 1, 8, 8, 8), 1.5),
    )
    where = torch.zeros(1, 8, 8, 8).long()
    total, parts = losses.total_loss(outputs, lesion, vessel, where, torch.full((1, 8, 8, 8), 1.5), Loss(location=0.0))
    assert float(total) < 0.05 and set(parts) == {"vessel", "bce", "tversky", "location", "diameter"}
    empty, parts = losses.total_loss(outputs, torch.zeros_like(lesion), vessel, where, lesion, Loss())
    assert torch.isfinite(empty) and float(parts["location"]) == float(parts["diameter"]) == 0.0


def test_missing_a_lesion_costs_more_than_a_false_alarm_of_the_same_size() -> None:
    lesion = torch.zeros(1, 8, 8, 8)
    lesion[0, :3, :3, :3] = 1.0
    half = torch.full((1, 8, 8, 8), -20.0)
    half[0, 0:2, :3, :3] = 20.0
    double = torch.full((1, 8, 8, 8), -20.0)
    double[0, 0:4, :3, :3] = 20.0
    missed, alarmed = (losses.focal_tversky(logits, lesion, 0.3, 0.7, 0.75) for logits in (half, double))
    assert missed > alarmed


def test_platt_s_curve_is_monotone_and_finite_even_when_scores_separate() -> None:
    curve = platt([-5.0, -4.0, 2.0, 3.0], [False, False, True, True])
    assert curve(-5.0) < 0.5 < curve(3.0) and curve(-5.0) > 0.0 and curve(3.0) < 1.0
    assert isinstance(curve, Platt)


def test_figures_count_hits_within_the_radius(config: TrainConfig, tmp_path: Path) -> None:
    lesion = TrueLesion(Location.ACOM, (0.0, 0.0, 0.0), 8.0)
    assert is_hit((3.9, 0.0, 0.0), lesion) and not is_hit((4.1, 0.0, 0.0), lesion)
    train(replace(config, optimisation=replace(config.optimisation, steps=2)), report=quiet)
    export([config], tmp_path / "bundle", "0.1", Tiling(size=64))
    bundle = load_bundle(tmp_path / "bundle")
    bundle = replace(bundle, manifest=replace(bundle.manifest, calibration=type(bundle.manifest.calibration)()))
    shares = np.eye(13)[6]
    found = Candidate(3.0, (1.0, 0.0, 0.0), 7.5, shares)
    away = Candidate(2.0, (30.0, 0.0, 0.0), 7.5, shares)
    figures = measure([Scored(1, (lesion,), (found, away)), Scored(2, (), ())], bundle)
    assert figures["sensitivity"] == figures["specificity"] == figures["auc_present"] == 1.0
    assert figures["lesion_sensitivity_from_4mm"] == 1.0 and figures["false_positives_per_scan"] == 0.5
    assert figures["median_centre_error_mm"] == 1.0 and figures["median_diameter_error_mm"] == 0.5


def test_mined_mistakes_are_cells_without_a_lesion_and_the_next_run_reads_them(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(replace(config, optimisation=replace(config.optimisation, steps=2)), report=quiet)
    export([config], tmp_path / "bundle", "0.1", Tiling(size=64))
    shares = np.eye(13)[6]
    on_lesion = Candidate(3.0, (12.0, -14.0, 130.0), 6.0, shares)  # of odd seeds
    elsewhere = Candidate(2.0, (-20.0, -30.0, 110.0), 4.0, shares)
    unsure = Candidate(-4.0, (-20.0, -30.0, 140.0), 4.0, shares)
    monkeypatch.setattr(mine, "found_candidates", lambda *_: (on_lesion, elsewhere, unsure))
    assert mine.mine(config, load_bundle(tmp_path / "bundle")) == 2 * 2 + 2  # even seeds have no lesion
    cells = json.loads((Path(config.data.cache) / HARD_CELLS).read_text())
    assert cells["1"] == [[5, 5, 6]] and len(cells["0"]) == 2
    train(config, report=quiet)


def test_a_second_round_replaces_the_mistakes_on_its_scans_and_keeps_those_on_others(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = replace(config, optimisation=replace(config.optimisation, steps=2))
    train(quick, report=quiet)
    export([quick], tmp_path / "first", "0.1", Tiling(size=64))
    found: dict[str, tuple[Candidate, ...]] = {"now": (Candidate(2.0, (-20.0, -30.0, 110.0), 4.0, np.eye(13)[6]),)}
    monkeypatch.setattr(mine, "found_candidates", lambda *_: found["now"])
    assert mine.mine(quick, load_bundle(tmp_path / "first")) == 4

    start = str(next((tmp_path / "first").glob("*.safetensors")))
    second = replace(quick, folder=config.folder + "-2", initial_weights=start, data=replace(config.data, scans=3))
    train(second, report=quiet)
    export([second], tmp_path / "second", "0.2", Tiling(size=64))
    found["now"] = (Candidate(2.0, (-10.0, -30.0, 120.0), 4.0, np.eye(13)[6]),)
    assert mine.mine(second, load_bundle(tmp_path / "second")) == 3
    assert hard_cells(second) == {0: [(10, 5, 11)], 1: [(10, 5, 11)], 2: [(10, 5, 11)], 3: [(5, 5, 6)]}

    found["now"] = ()  # a model that makes no mistake any more leaves none on its scans
    assert mine.mine(second, load_bundle(tmp_path / "second")) == 0 and set(hard_cells(second)) == {3}


def test_a_bundle_of_another_spacing_cannot_mine(config: TrainConfig, tmp_path: Path) -> None:
    train(replace(config, optimisation=replace(config.optimisation, steps=1)), report=quiet)
    export([config], tmp_path / "bundle", "0.1", Tiling(size=64))
    coarse = replace(config, preprocessing=replace(config.preprocessing, spacing_mm=1.2))
    with pytest.raises(ConfigError, match="reads 1 mm and the scans are at 1.2 mm"):
        mine.mine(coarse, load_bundle(tmp_path / "bundle"))


def test_two_runs_become_one_ensemble_that_loads_and_finds(config: TrainConfig, tmp_path: Path) -> None:
    runs = [replace(config, folder=f"{config.folder}-{seed}", seed=seed) for seed in (1, 2)]
    for run in runs:
        train(replace(run, optimisation=replace(run.optimisation, steps=2)), report=quiet)
    export(runs, tmp_path / "bundle", "0.1", Tiling(size=64))
    bundle = load_bundle(tmp_path / "bundle")
    assert len(bundle.networks) == 2
    with pytest.raises(ConfigError, match="same"):
        export([runs[0], replace(runs[1], preprocessing=Preprocessing())], tmp_path / "none", "0.1")
    for network, run in zip(bundle.networks, runs, strict=True):
        assert all(torch.equal(tensor, weights(run)[name]) for name, tensor in network.state_dict().items())
    prepared = dataset.prepare(scan(1))
    both = found_candidates(prepared.region, bundle, "cpu")
    alone = found_candidates(prepared.region, replace(bundle, networks=bundle.networks[:1]), "cpu")
    assert both and [each.score for each in both] != [each.score for each in alone]


def test_the_same_seed_gives_the_same_weights(config: TrainConfig) -> None:
    again = replace(config, folder=config.folder + "-again")
    for run in (config, again):
        train(run, report=quiet)
    assert all(torch.equal(tensor, weights(again)[name]) for name, tensor in weights(config).items())
