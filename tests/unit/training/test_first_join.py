"""A first stage that went on to learn takes its place in a bundle."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ai.bundle import Bundle, load_bundle, save_bundle
from ai.manifest import DEFAULT_BUNDLE
from ai.parts import Fusion, SecondStage
from ai.second_stage import FusionNet, FusionSettings, ShapeNet, ShapeSettings
from training.config import TrainConfig
from training.export import export
from training.first_join import main
from training.train import CHECKPOINT, train

RUN = """
folder = "{folder}"
{initial_weights}
[network]
widths = {widths}
convolutions = [1, 1, 1]
groups = 4
[preprocessing]
spacing_mm = 1.0
size_DHW = [64, 64, 64]
"""
UNSAVED = {"unsaved.safetensors": ""}


def run_of(folder: Path, shift: float, like: Path, widths: str = "[8, 16, 16]", initial_weights: str = "w") -> Path:
    """A run whose averaged weights are by so much higher than those of another one."""
    folder.mkdir()
    state = torch.load(like, weights_only=True)
    state["average"] = {name: values + shift for name, values in state["average"].items()}
    torch.save(state, folder / CHECKPOINT)
    begun = f'initial_weights = "{initial_weights}"' if initial_weights else ""
    (config := folder / "run.toml").write_text(RUN.format(folder=folder, widths=widths, initial_weights=begun))
    return config


@pytest.fixture
def before(config: TrainConfig, tmp_path: Path) -> Bundle:
    train(config, report=lambda _: None)
    export([config], tmp_path / "first", "0.1")
    first = load_bundle(tmp_path / "first")
    stage = SecondStage(ShapeSettings(hidden=4), 0.2, 0.8, UNSAVED)
    two = replace(first.manifest, second_stage=stage, figures={"AUC": 0.5, "steps": 6.0})
    save_bundle(tmp_path / "before", two, first.networks, (ShapeNet(stage.shape),))
    return load_bundle(tmp_path / "before")


def test_the_mean_of_runs_joins_and_the_second_stage_stays(before: Bundle, config: TrainConfig, tmp_path: Path) -> None:
    checkpoint = Path(config.folder) / CHECKPOINT
    runs = [run_of(tmp_path / name, shift, checkpoint) for name, shift in (("a", 1.0), ("b", 3.0))]
    assert main([str(tmp_path / "before"), "0.2", str(tmp_path / "after"), *map(str, runs)]) == 0
    after = load_bundle(tmp_path / "after")
    for was, now in zip(before.networks[0].parameters(), after.networks[0].parameters(), strict=True):
        assert torch.allclose(now, was + 2.0)
    assert torch.equal(after.second[0].mean, before.second[0].mean)
    said = after.manifest
    assert said.version == "0.2" and said.second_stage == before.manifest.second_stage
    assert said.figures == {"steps": 12.0}, "those of another first stage say nothing of this one"
    assert "Begun from the weights w" in said.trained_on and "Second stage: drawn cubes" in said.trained_on


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"widths": "[8, 16, 32]"}, "must have the [network] and [preprocessing] of 0.1"),
        ({"initial_weights": "other"}, "did not begin with the same weights"),
        ({"initial_weights": ""}, "did not begin with the same weights"),
    ],
)
def test_runs_that_have_no_mean_are_refused(
    before: Bundle,
    config: TrainConfig,
    tmp_path: Path,
    changes: dict[str, str],
    refusal: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    checkpoint = Path(config.folder) / CHECKPOINT
    runs = [run_of(tmp_path / "a", 0.0, checkpoint), run_of(tmp_path / "b", 0.0, checkpoint, **changes)]
    assert main([str(tmp_path / "before"), "0.2", str(tmp_path / "after"), *map(str, runs)]) == 2
    assert refusal in capsys.readouterr().err and not (tmp_path / "after").exists()


def test_a_bundle_that_learned_from_candidates_is_refused(
    before: Bundle, config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = FusionSettings(4)
    assert before.manifest.second_stage
    stage = replace(before.manifest.second_stage, fusion=Fusion(settings, UNSAVED))
    fused = replace(before.manifest, second_stage=stage)
    save_bundle(tmp_path / "fused", fused, before.networks, before.second, (FusionNet(settings),))
    run = run_of(tmp_path / "a", 0.0, Path(config.folder) / CHECKPOINT)
    for folder in (tmp_path / "fused", DEFAULT_BUNDLE):
        assert main([str(folder), "0.2", str(tmp_path / "after"), str(run)]) == 2
        assert "name a bundle of before training.tuning" in capsys.readouterr().err
    assert main([str(tmp_path / "before"), "0.2", str(tmp_path / "after"), str(tmp_path / "none.toml")]) == 2


def test_runs_that_learned_from_different_scans_or_have_another_s_checkpoint_are_refused(
    before: Bundle, config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = Path(config.folder) / CHECKPOINT
    one, other = (run_of(tmp_path / name, 0.0, checkpoint) for name in "ab")
    other.write_text(f'{other.read_text()}[data]\nrsna = "there"\n')
    asked = [str(tmp_path / "before"), "0.2", str(tmp_path / "after")]
    assert main([*asked, str(one), str(other)]) == 2
    said = capsys.readouterr().err
    assert "the runs learned from different scans" in said and "RSNA" in said and "Synthetic phantoms" in said
    state = torch.load(checkpoint, weights_only=True)
    state["average"].popitem()
    torch.save(state, one.parent / CHECKPOINT)
    assert main([*asked, str(one)]) == 2
    assert (
        "has a checkpoint that is damaged or of another [network]" in capsys.readouterr().err
        and not (tmp_path / "after").exists()
    )
