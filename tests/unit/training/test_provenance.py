"""A bundle says what all of it was trained on, whatever was added to it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ai.bundle import Bundle, load_bundle, save_bundle
from ai.unet import UNet
from tests.unit.ai.test_bundle import TINY, manifest
from tests.unit.training.test_combine import SCANS, SECOND, SECONDS
from training.calibrate import averaged
from training.combine import joined
from training.config import Data, TrainConfig
from training.provenance import ON_A_TREE, PHANTOMS_AND_CUBES, PHANTOMS_ONLY, RESEARCH, calibrated_on, with_second_stage
from training.scans import trained_on

CITED = "PLOS Comput Biol 2019, e1007073, CC BY 4.0"
RSNA = TrainConfig(folder="x", data=Data(rsna="there"))
PLAIN = TrainConfig(folder="x")


def test_phantoms_on_a_real_head_s_arteries_cite_them() -> None:
    said = trained_on(TrainConfig(folder="x", data=Data(anatomy="there")))
    assert CITED in said and "no patient images" in said and said.endswith(RESEARCH)
    assert CITED not in trained_on(PLAIN) and trained_on(PLAIN) == PHANTOMS_ONLY


def test_weights_to_begin_with_are_named_with_what_they_learned_from(tmp_path: Path) -> None:
    torch.manual_seed(0)
    saved = save_bundle(tmp_path, manifest(name="other", version="7", trained_on=trained_on(RSNA)), (UNet(TINY),))
    weights = str(tmp_path / next(iter(saved.weights_sha256)))
    said = trained_on(replace(PLAIN, initial_weights=weights))
    assert said.startswith("Synthetic phantoms only") and said.count(RESEARCH) == 1 and said.endswith(RESEARCH)
    assert "Begun from the weights of other 7: RSNA 2025 Intracranial Aneurysm Detection data (CTA)." in said
    save_bundle(tmp_path, manifest(version="8", trained_on=PHANTOMS_ONLY), (UNet(TINY),))
    assert "Begun from the weights of tiny 8, trained likewise." in trained_on(replace(PLAIN, initial_weights=weights))
    said = trained_on(replace(RSNA, initial_weights=weights))
    assert "Begun from the weights of tiny 8, which learned from phantoms only." in said
    save_bundle(tmp_path, manifest(version="9", trained_on=PHANTOMS_AND_CUBES), (UNet(TINY),))
    said = trained_on(replace(PLAIN, data=Data(anatomy="there"), initial_weights=weights))
    assert said.removesuffix(RESEARCH).endswith("Begun from the weights of tiny 9, which learned from phantoms only. ")
    save_bundle(tmp_path, manifest(version="10", trained_on=with_second_stage(said)), (UNet(TINY),))
    assert trained_on(replace(PLAIN, data=Data(anatomy="there"), initial_weights=weights)) == said, (
        "and goes on once more"
    )
    calibrated = calibrated_on([PHANTOMS_ONLY], trained_on(RSNA))
    save_bundle(tmp_path, manifest(version="11", trained_on=calibrated), (UNet(TINY),))
    assert "Begun from the weights of tiny 11: Synthetic" in trained_on(replace(PLAIN, initial_weights=weights))
    save_bundle(tmp_path, manifest(version="10", trained_on=with_second_stage(said)), (UNet(TINY),))
    first = trained_on(replace(RSNA, initial_weights=weights))
    assert "Begun from the weights of tiny 10: Synthetic phantoms only, half of them on" in first
    assert "Second stage:" not in first and with_second_stage(first).count("Second stage:") == 1
    unknown = trained_on(replace(PLAIN, initial_weights="nowhere/some.safetensors"))
    assert "Begun from the weights some.safetensors, of which nothing is known." in unknown


@pytest.mark.parametrize("before", [trained_on(RSNA), "Something else. " + RESEARCH])
def test_a_second_stage_adds_to_what_the_first_was_trained_on(before: str) -> None:
    bundle = Bundle(manifest(trained_on=before), (UNet(TINY),))
    made, _ = joined(bundle, (SECOND,), "0.2", SCANS, SECONDS)
    said = made.manifest.trained_on
    assert said.startswith(before.removesuffix(RESEARCH)) and CITED in said and said.count(RESEARCH) == 1
    again, _ = joined(made, (SECOND,), "0.3", SCANS, SECONDS)
    assert again.manifest.trained_on == said


def test_the_shipped_sentences_name_every_source_once() -> None:
    assert with_second_stage(PHANTOMS_ONLY) == with_second_stage(PHANTOMS_AND_CUBES) == PHANTOMS_AND_CUBES
    first = f"{ON_A_TREE.removesuffix(RESEARCH)}Begun from the weights of willis 0.16.0, which learned from phantoms only. {RESEARCH}"
    said = load_bundle(Path("ai/models/willis")).manifest.trained_on
    assert said == with_second_stage(first) and said.count(CITED) == 1 and "half of them on the same arteries" in said


def test_a_calibration_says_what_it_was_fitted_to_where_that_is_something_else() -> None:
    assert calibrated_on([PHANTOMS_ONLY], trained_on(PLAIN)) == PHANTOMS_ONLY
    said = calibrated_on([PHANTOMS_ONLY], trained_on(RSNA))
    assert said.startswith("Synthetic phantoms only") and "Calibrated on: RSNA 2025" in said
    assert said.endswith(RESEARCH) and said.count(RESEARCH) == 1
    assert calibrated_on([said], trained_on(RSNA)) == said


def test_a_mean_says_what_each_was_trained_on() -> None:
    said = calibrated_on([PHANTOMS_ONLY, trained_on(RSNA), PHANTOMS_ONLY], trained_on(PLAIN))
    assert said.count("Synthetic phantoms only") == 1 and "RSNA 2025" in said and said.count(RESEARCH) == 1
    bundles = [Bundle(manifest(trained_on=each), (UNet(TINY),)) for each in (trained_on(RSNA), PHANTOMS_ONLY)]
    assert averaged(bundles).manifest.trained_on == PHANTOMS_ONLY  # `main` says the rest
