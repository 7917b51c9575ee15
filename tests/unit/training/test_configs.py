import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from training.baseline import BaselineConfig
from training.config import ConfigError, read_config, read_settings
from training.held_out import held_out_scans

CONFIGS = Path(__file__).parents[3] / "training" / "configs"
ABLATIONS, FIRST_STAGE = CONFIGS / "ablations", CONFIGS / "first_stage"
DIFFERENCES = {
    "no_vessel_head": {"loss.vessel"},
    "coarse_1_2mm": {"preprocessing.spacing_mm", "preprocessing.size_DHW", "data.cache"},
    "no_coordinates": {"preprocessing.coordinates", "network.in_channels"},
    "no_mined_negatives": {"sampling.hard_share"},
    "attention": {"network.attention"},
    "wide": {"network.widths"},
    "second_seed": {"seed"},
}


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def test_every_run_in_the_repository_reads_and_its_network_fits_its_channels() -> None:
    runs = [*CONFIGS.glob("willis*.toml"), *ABLATIONS.glob("*.toml"), *FIRST_STAGE.glob("*.toml")]
    for path in runs:
        config = read_config(path)
        assert config.network.in_channels == config.preprocessing.channel_count, path.name
    assert read_settings(CONFIGS / "baseline.toml", BaselineConfig).batch and len(held_out_scans()) == 200
    others = {path.name for path in CONFIGS.glob("*.toml") if not path.name.startswith("willis")}
    assert others == {"baseline.toml", "held_out.toml", "real_tree.toml"}


def test_every_ablation_is_named_here_and_has_a_folder_of_its_own() -> None:
    assert {path.stem for path in ABLATIONS.glob("*.toml")} == {"reference", *DIFFERENCES}
    for path in ABLATIONS.glob("*.toml"):
        assert read_config(path).folder == f"runs/ablations/{path.stem}"


@pytest.mark.parametrize("name", DIFFERENCES)
def test_an_ablation_differs_from_the_reference_in_what_it_names_and_nothing_else(name: str) -> None:
    reference, ablation = (flat(asdict(read_config(ABLATIONS / f"{each}.toml"))) for each in ("reference", name))
    assert {key for key in reference if reference[key] != ablation[key]} == DIFFERENCES[name] | {"folder"}


def test_first_stages_that_go_on_differ_in_what_they_say() -> None:
    runs = {path.stem: flat(asdict(read_config(path))) for path in FIRST_STAGE.glob("*.toml")}
    went_on = runs["went_on"]
    differs = {name: {key for key in run if run[key] != went_on[key]} for name, run in runs.items()}
    assert differs == {
        "went_on": set(),
        "distance": {"folder", "loss.distance"},
        "true_centre": {"folder", "sampling.coordinate_jitter_mm"},
        "longer": (
            longer := {"folder", "seed", "initial_weights", "data.scans", "optimisation.steps", "loss.distance"}
        ),
        "longer_again": longer,
    }
    assert went_on["initial_weights"] == "runs/bundle-0.16.0/model-3a36af9f.safetensors"
    again = {key for key in runs["longer"] if runs["longer"][key] != runs["longer_again"][key]}
    assert again == {"folder", "seed", "optimisation.steps"}
    assert all(run["folder"] == f"runs/first-stage/{name}" for name, run in runs.items())


def test_an_ablation_reads_the_scans_that_the_shipped_run_has_in_the_same_cache() -> None:
    shipped, reference = (read_config(path).data for path in (CONFIGS / "willis.toml", ABLATIONS / "reference.toml"))
    assert (reference.cache, reference.first_seed, reference.lesions_per_scan) == (
        shipped.cache,
        shipped.first_seed,
        shipped.lesions_per_scan,
    )
    assert reference.scans <= shipped.scans


@pytest.mark.parametrize("name", ["reference", *DIFFERENCES])
def test_the_document_has_the_commands_of_every_ablation(name: str) -> None:
    text = (CONFIGS.parents[1] / "docs" / "ablations.md").read_text(encoding="utf-8")
    assert f"training/configs/ablations/{name}.toml" in text
    assert tomllib.loads((ABLATIONS / f"{name}.toml").read_text(encoding="utf-8"))["folder"] in text


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('[data]\nscans = "eight"', 'data.scans = "eight": input should be a valid integer'),
        ("[data]\nscans = 1.5", "data.scans = 1.5: input should be a valid integer"),
        (
            '[optimisation]\nlearning_rate = "fast"',
            'optimisation.learning_rate = "fast": input should be a valid number',
        ),
        ("[data]\nplain_every = 4", "plain_every = 4: a number from 1 on where like_people is true, or 0"),
        ("[data]\nlike_people = 1", "data.like_people = 1: input should be a valid boolean"),
    ],
)
def test_a_value_of_another_kind_is_named_with_its_key(tmp_path: Path, written: str, said: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text('folder = "runs/x"\n' + written + "\n")
    with pytest.raises(ConfigError) as raised:
        read_config(path)
    assert said in str(raised.value)
