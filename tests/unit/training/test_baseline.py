import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ai.volume import Volume
from tests.support.made_up_head import affine
from tests.support.made_up_scan import scan
from training import baseline
from training.baseline import CHECKPOINT, SIZE_DHW, BaselineConfig, WholeVolumeNet, main, squeezed, train, truths
from training.config import ConfigError, read_config, read_settings
from training.scans import drawn_scans

CONFIGS = Path(baseline.__file__).parent / "configs"
WILLIS = 'folder = "run"\n[data]\nfirst_seed = 0\nscans = 4\n[sampling]\npatch = 32\n[optimisation]\nsteps = 64\n'


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[int, dict[str, Any]]:
    """The phantoms that were painted, with their arguments."""
    asked: dict[int, dict[str, Any]] = {}

    def noted(seed: int, **options: Any) -> Any:
        asked[seed] = options
        return scan(seed if options.get("positive", True) else 2 * seed)  # odd seeds have a lesion

    monkeypatch.setattr(baseline, "make_scan", noted)
    return asked


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BaselineConfig:
    monkeypatch.setattr(baseline, "SIZE_DHW", (16, 16, 16))
    (tmp_path / "willis.toml").write_text(WILLIS)
    return BaselineConfig(
        folder=str(tmp_path / "baseline"),
        compared_with=(str(tmp_path / "willis.toml"),),
        cache=str(tmp_path / "cache"),
        device="cpu",
        threads=1,
        widths=(8, 8, 8),
        convolutions=(1, 1, 1),
        steps=4,
        checkpoint_every=1,
    )


def weights(config: BaselineConfig) -> dict[str, torch.Tensor]:
    state = torch.load(Path(config.folder) / CHECKPOINT, weights_only=True)
    return dict(state["network"])


def quiet(_: str) -> None:
    pass


def test_the_network_has_about_two_and_a_half_million_parameters_and_fourteen_outputs() -> None:
    network = WholeVolumeNet(BaselineConfig.widths, BaselineConfig.convolutions)
    assert 2.3e6 < sum(parameter.numel() for parameter in network.parameters()) < 2.6e6
    assert WholeVolumeNet((8, 8, 8), (1, 1, 1))(torch.zeros(2, 1, 8, 16, 16)).shape == (2, 14)


def test_the_budget_is_the_voxels_of_the_runs_it_is_compared_with(config: BaselineConfig) -> None:
    voxels = 64 * 2 * 32**3
    assert replace(config, steps=0).total_steps == voxels / (2 * 16**3)
    twice = replace(config, steps=0, compared_with=config.compared_with * 2)
    assert twice.total_steps == 2 * voxels / (2 * 16**3) and config.total_steps == 4
    assert config.training_seeds == range(4)


def test_the_shipped_configuration_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONFIGS.parents[1])
    shipped = read_settings(CONFIGS / "baseline.toml", BaselineConfig)
    willis = shipped.runs[0]
    read = sum(run.optimisation.steps * run.sampling.batch * run.sampling.patch**3 for run in shipped.runs)
    whole = replace(shipped, scans=0, steps=0)
    assert whole.total_steps * whole.batch * np.prod(SIZE_DHW) == pytest.approx(read, rel=0.01)
    assert whole.training_seeds == range(willis.data.first_seed, willis.data.first_seed + willis.data.scans)
    assert shipped.total_steps >= whole.total_steps  # no comparison with a method that had less
    assert len(shipped.training_seeds) <= willis.data.scans


def test_the_whole_volume_is_squeezed_and_nothing_is_moved() -> None:
    hu = np.full((100, 256, 192), -500, np.int16)
    hu[40:60, 100:140, 120:160] = 500
    small = squeezed(Volume(hu, affine((1.0, 0.5, 0.5), (-48.0, -64.0, 10.0))))
    assert small.shape == SIZE_DHW
    centre = np.argwhere(small > 0).mean(axis=0)
    assert (centre + 0.5) / SIZE_DHW == pytest.approx((50 / 100, 120 / 256, 140 / 192), abs=0.01)
    assert small.mean() == pytest.approx(hu.mean(), abs=8.0)


def test_a_run_in_pieces_ends_where_an_unbroken_one_does(config: BaselineConfig, made: Any) -> None:
    whole = replace(config, folder=config.folder + "-whole")
    assert train(whole, report=quiet)
    lines: list[str] = []
    while not train(config, stop_after_seconds=0.0, report=lines.append):
        pass
    assert sum("continuing" in line for line in lines) >= 2
    for name, tensor in weights(whole).items():
        assert torch.allclose(tensor, weights(config)[name], atol=1e-5), name


def test_it_learns_what_it_is_shown(config: BaselineConfig, made: Any) -> None:
    losses: list[float] = []
    steps = replace(config, steps=30, learning_rate=5e-3)
    train(steps, report=lambda line: losses.append(float(line.split()[-1])))
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:3])


def test_it_learns_from_the_scans_that_the_run_learns_from(
    config: BaselineConfig, made: dict[int, dict[str, Any]], tmp_path: Path
) -> None:
    run = tmp_path / "willis.toml"
    run.write_text(WILLIS.replace("scans = 4", "scans = 4\nlesions_per_scan = [0, 2, 3, 4]\nlike_people = true"))
    assert train(replace(config, scans=3, steps=1), report=quiet)
    wanted = drawn_scans(read_config(run), range(3), validation=False)
    assert list(made) == list(wanted) == [20_000_000, 20_000_001, 20_000_002]
    assert {seed: {"lesions": one["lesions"], "like_people": True} for seed, one in made.items()} == wanted


def test_phantoms_are_whole_series_painted_once(config: BaselineConfig, made: dict[int, dict[str, Any]]) -> None:
    drawn = {1: {"positive": True, "held_out": True}}
    first = list(truths(config, [1, 2], drawn))
    assert made[1] == {"extent": "full", "matrix": 256, "positive": True, "held_out": True}
    made.clear()
    again = list(truths(config, [1, 2], drawn))
    assert made == {} and again == first and [len(one.lesions) for one in first] == [1, 0]
    assert not list(Path(config.cache).glob("*.tmp*"))


def test_its_report_is_that_of_every_method_without_places(
    config: BaselineConfig, made: dict[int, dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="train the baseline first"):
        baseline.evaluate(config, tmp_path / "report")
    train(config, report=quiet)
    found = baseline.evaluate(config, tmp_path / "report", count=4)
    assert found["scans"] == 4 and found["model"] == "baseline after 4 steps" and "froc" not in found
    assert set(made) >= {5_000_004, 5_000_001} and made[5_000_004]["held_out"] is True
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["competition_score"] is None or 0 <= report["competition_score"] <= 1


def test_wrong_usage_and_a_wrong_configuration_are_status_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([]) == main(["train"]) == main(["evaluate", "a"]) == 2
    assert "python -m training.baseline train" in capsys.readouterr().err
    assert main(["train", str(tmp_path / "nowhere.toml")]) == 2
    (tmp_path / "b.toml").write_text('folder = "x"\ncompared_with = []\n')
    assert main(["train", str(tmp_path / "b.toml")]) == 2
    assert "compared_with must name" in capsys.readouterr().err


def test_the_command_line_says_when_there_is_more_to_do(config: BaselineConfig, made: Any, tmp_path: Path) -> None:
    safe_message = {"folder": config.folder, "cache": config.cache, "device": "cpu", "threads": 1, "steps": 2}
    lines = [f"{key} = {value!r}" for key, value in safe_message.items()]
    lines += [f"compared_with = {list(config.compared_with)!r}", "widths = [8, 8, 8]", "convolutions = [1, 1, 1]"]
    (tmp_path / "b.toml").write_text("\n".join(lines))
    assert main(["train", str(tmp_path / "b.toml"), "0"]) == 3
    assert main(["train", str(tmp_path / "b.toml")]) == 0
    assert main(["evaluate", str(tmp_path / "b.toml"), str(tmp_path / "report"), "4"]) == 0
