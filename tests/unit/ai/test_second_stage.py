import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import ai
from ai import predict, second_stage
from ai.bundle import Bundle, load_bundle, save_bundle
from ai.decode import Candidate, rescored
from ai.errors import BundleError
from ai.manifest import MANIFEST
from ai.parts import Fusion, SecondStage
from ai.preprocess import Region
from ai.second_stage import (
    LARGEST_LOGIT,
    FusionNet,
    FusionSettings,
    Place,
    ShapeNet,
    ShapeSettings,
    around,
    cube_around,
    fused,
    fusion_input,
    log_odds,
)
from ai.shape import NAMES, SIDE
from ai.surroundings import NAMES as PLACES
from ai.unet import UNet
from ai.volume import Volume
from tests.support.made_up_head import affine, head
from tests.unit.ai.test_bundle import TINY, manifest

SETTINGS = ShapeSettings(hidden=4, layers=2)
STAGE = SecondStage(SETTINGS, 0.5, 0.25, {"unsaved.safetensors": ""}, dict.fromkeys(PLACES, 0.0))
FUSION = Fusion(FusionSettings(hidden=4), {"unsaved.safetensors": ""})


def second() -> ShapeNet:
    torch.manual_seed(1)
    return ShapeNet(SETTINGS).requires_grad_(False).eval()


def fusion(seed: int = 2) -> FusionNet:
    torch.manual_seed(seed)
    return FusionNet(FUSION.network).requires_grad_(False).eval()


def with_fusion(bundle: Bundle, around: int = 0) -> Bundle:
    stage = replace(STAGE, first_weight=0.0, second_weight=1.0, around=around, fusion=FUSION)
    return replace(bundle, manifest=replace(bundle.manifest, second_stage=stage), fusion=(fusion(), fusion(3)))


@pytest.fixture
def bundle() -> Bundle:
    torch.manual_seed(0)
    return Bundle(manifest(second_stage=STAGE, notify_threshold=0.8), (UNet(TINY).eval(),), (second(),))


def candidate(score: float, x: float = 0.0) -> Candidate:
    return Candidate(score, (x, 0.0, 0.0), 5.0, np.full(13, 1 / 13))


def test_a_cube_has_the_place_in_its_middle() -> None:
    affine = np.array([[0, 0, 0.4, 10.0], [0, 0.4, 0, 20.0], [0.6, 0, 0, 30.0], [0, 0, 0, 1]])
    hu = np.zeros((60, 90, 90), np.int16)
    hu[30, 40, 50] = 3000
    cube = cube_around(Volume(hu, affine), (10 + 0.4 * 50, 20 + 0.4 * 40, 30 + 0.6 * 30))
    assert cube.shape == (SIDE,) * 3
    bright = np.array(np.unravel_index(int(cube.argmax()), cube.shape))
    assert np.abs(bright - (SIDE - 1) / 2).max() <= 0.5
    assert cube_around(Volume(hu, affine), (-50.0, 0.0, 0.0)).max() == -1024


def test_the_second_look_is_bounded_and_needs_no_candidates() -> None:
    odds = log_odds((second(),), np.full((3, len(NAMES)), 1e6, np.float32))
    assert len(odds) == 3 and all(abs(each) <= LARGEST_LOGIT for each in odds)
    assert log_odds((second(),), np.zeros((0, len(NAMES)), np.float32)) == []
    read = fusion_input((second(),), [], [], [])
    assert fused((fusion(),), read) == []
    assert max(fused((fusion(),), np.full((3, read.shape[1]), 1e6, np.float32))) <= LARGEST_LOGIT


def test_scores_are_the_weighted_sum_of_both_stages_and_the_place_best_first() -> None:
    found = rescored((candidate(4.0, x=1.0), candidate(2.0, x=2.0)), (-2.0, 6.0), 0.5, 0.25, (0.0, -1.5))
    assert [(one.score, one.centre_lps_mm[0]) for one in found] == [(1.5, 1.0), (1.0, 2.0)]


def test_an_analysis_looks_at_each_candidate_again(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    cta = head()
    asked: list[int] = []

    def nothing(_networks: object, measures: np.ndarray) -> list[float]:
        asked.append(len(measures))
        return [-LARGEST_LOGIT] * len(measures)

    alone = ai.analyse(cta, replace(bundle, manifest=replace(bundle.manifest, second_stage=None), second=()), "cpu")
    monkeypatch.setattr(second_stage, "log_odds", nothing)
    again = ai.analyse(cta, bundle, "cpu")
    assert asked and asked[0] > 0
    assert again.present < alone.present
    assert again.notify_threshold == 0.8


def places_as_measures(_volume: object, places: list[Place], _remembered: object = None) -> np.ndarray:
    """In place of what is measured there, x in all of it."""
    return np.array([[place[0]] * len(NAMES) for place in places], np.float32)


REGION = Region(np.full((96, 96, 96), 40, np.int16), affine((0.7,) * 3, (-33.0, -33.0, -33.0)), (0.0, 0.0, 0.0))


def test_the_best_candidates_are_looked_at_from_around_too_and_the_mean_counts(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def measured_at(volume: object, places: list[Place], _remembered: object) -> np.ndarray:
        asked.append(places)
        measures = places_as_measures(volume, places)
        if len(places) > 1:
            measures[:, 0] = (5.0, 5.0, 5.0, -5.0)
        return measures

    monkeypatch.setattr(predict, "measured_at", measured_at)
    monkeypatch.setattr(second_stage, "log_odds", lambda _networks, measures: measures[:, 0].tolist())
    stage = replace(STAGE, first_weight=0.0, second_weight=1.0, around=1)
    both = replace(bundle, manifest=replace(bundle.manifest, second_stage=stage))
    found = predict.looked_at_again((candidate(9.0, x=1.0), candidate(0.0, x=3.0)), REGION, head(), both)
    assert [(one.centre_lps_mm[0], one.score) for one in found] == [(3.0, pytest.approx(2.6)), (1.0, 1.0)]
    assert asked == [[(1.0, 0.0, 0.0)], [(3.0, 0.0, 0.0)], around((3.0, 0.0, 0.0))]
    apart = np.array(around((0.0, 0.0, 0.0)))
    assert np.linalg.norm(apart, axis=1) == pytest.approx(np.full(4, 0.52), abs=0.01)
    assert apart.sum(axis=0) == pytest.approx(np.zeros(3))


def test_a_fusion_reads_both_stages_and_of_the_best_candidates_all_five_places(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = with_fusion(bundle, around=1)
    candidates = (candidate(2.0, x=1.0), candidate(9.0, x=3.0))
    places = [[(1.0, 0.0, 0.0)], [(3.0, 0.0, 0.0)]]
    best = int(np.argmax([log_odds(both.second, places_as_measures(None, each)) for each in places]))
    places[best] += around(places[best][0])
    seen = [places_as_measures(None, each) for each in places]
    read = fusion_input(both.second, seen, [2.0, 9.0], [5.0, 5.0])
    odds = [float(np.mean(log_odds(both.second, each))) for each in seen]
    spread = np.zeros((2, len(NAMES)))
    spread[best] = 0.3 * np.sqrt(0.8)
    np.testing.assert_allclose(read[:, :5], [[odds[0], 2.0, 5.0, 1, -7.0], [odds[1], 9.0, 5.0, 0, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(read[:, 5 : 5 + len(NAMES)], [[1.0] * len(NAMES), [3.0] * len(NAMES)], rtol=1e-6)
    np.testing.assert_allclose(read[:, 5 + len(NAMES) :], spread, rtol=1e-5)
    expected = fused(both.fusion, read)
    assert expected[0] != expected[1] and expected != fused(both.fusion[:1], read)
    monkeypatch.setattr(predict, "measured_at", places_as_measures)
    found = predict.looked_at_again(candidates, REGION, head(), both)
    assert {one.centre_lps_mm[0]: one.score for one in found} == {1.0: expected[0], 3.0: expected[1]}
    assert predict.looked_at_again((), REGION, head(), both) == ()


def test_a_candidate_in_the_fat_of_an_orbit_loses_by_what_the_bundle_says_of_fat(bundle: Bundle) -> None:
    stage = replace(STAGE, place_weights=dict.fromkeys(PLACES, 0.0) | {"fat_near": -8.0}, place_limit=-1.0)
    in_fat = replace(bundle, manifest=replace(bundle.manifest, second_stage=stage))
    region = Region(np.full((96, 96, 96), -90, np.int16), affine((0.7,) * 3, (-33.0, -33.0, -33.0)), (0.0, 0.0, 0.0))
    before, after = (
        predict.looked_at_again((candidate(4.0),), region, head(), which)[0].score for which in (bundle, in_fat)
    )
    assert after == pytest.approx(before - 7.0)


def test_a_bundle_without_place_weights_still_loads(bundle: Bundle, tmp_path: Path) -> None:
    save_bundle(tmp_path, bundle.manifest, bundle.networks, bundle.second)
    document = json.loads((tmp_path / MANIFEST).read_text())
    del document["second_stage"]["place_weights"], document["second_stage"]["around"]
    (tmp_path / MANIFEST).write_text(json.dumps(document))
    stage = load_bundle(tmp_path).manifest.second_stage
    assert stage is not None and stage.place_weights == {} and stage.around == 0


def test_a_second_stage_of_before_has_one_hidden_layer(bundle: Bundle, tmp_path: Path) -> None:
    stage = replace(STAGE, shape=ShapeSettings(hidden=4))
    save_bundle(tmp_path, replace(bundle.manifest, second_stage=stage), bundle.networks, (ShapeNet(stage.shape),))
    document = json.loads((tmp_path / MANIFEST).read_text())
    del document["second_stage"]["shape"]["layers"]
    (tmp_path / MANIFEST).write_text(json.dumps(document))
    assert load_bundle(tmp_path).second[0].settings.layers == 1


def test_both_stages_come_back_from_a_bundle(bundle: Bundle, tmp_path: Path) -> None:
    saved = save_bundle(tmp_path, bundle.manifest, bundle.networks, bundle.second)
    loaded = load_bundle(tmp_path)
    assert loaded.manifest == saved and loaded.manifest.notify_from == 0.8
    measures = np.random.default_rng(0).normal(0, 1, (5, len(NAMES))).astype(np.float32)
    assert log_odds(loaded.second, measures) == log_odds(bundle.second, measures)
    save_bundle(tmp_path, replace(bundle.manifest, second_stage=None), bundle.networks)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1


def test_a_fusion_comes_back_from_a_bundle_and_older_ones_have_none(bundle: Bundle, tmp_path: Path) -> None:
    both = with_fusion(bundle)
    saved = save_bundle(tmp_path, both.manifest, both.networks, both.second, both.fusion)
    loaded = load_bundle(tmp_path)
    read = np.random.default_rng(0).normal(0, 1, (5, 5 + 2 * len(NAMES))).astype(np.float32)
    assert loaded.manifest == saved and fused(loaded.fusion, read) == fused(both.fusion, read)
    save_bundle(tmp_path, bundle.manifest, bundle.networks, bundle.second)
    assert not list(tmp_path.glob("fusion-*"))
    stage = json.loads((tmp_path / MANIFEST).read_text())["second_stage"]
    assert not {"fusion", "cubes"} & set(stage)  # as older bundles are, which an older Willis reads
    assert load_bundle(tmp_path).fusion == ()


def test_a_fusion_of_before_reads_ten_candidates_and_all_of_them_from_around(bundle: Bundle, tmp_path: Path) -> None:
    both = with_fusion(bundle, around=5)
    save_bundle(tmp_path, both.manifest, both.networks, both.second, both.fusion)
    document = json.loads((tmp_path / MANIFEST).read_text())
    del document["second_stage"]["candidates"]
    (tmp_path / MANIFEST).write_text(json.dumps(document))
    stage = load_bundle(tmp_path).manifest.second_stage
    assert stage is not None and (stage.candidates, stage.around) == (10, 10)


@pytest.mark.parametrize("kind", ["second-stage", "fusion"])
def test_an_altered_network_of_the_second_stage_is_refused_by_its_digest(
    bundle: Bundle, tmp_path: Path, kind: str
) -> None:
    both = with_fusion(bundle)
    save_bundle(tmp_path, both.manifest, both.networks, both.second, both.fusion)
    weights = next(tmp_path.glob(f"{kind}-*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(BundleError, match=f"{weights.name}.*sha256"):
        load_bundle(tmp_path)


def test_a_bundle_of_format_2_has_one_stage_and_one_operating_point(tmp_path: Path) -> None:
    save_bundle(tmp_path, manifest(threshold=0.6), (UNet(TINY),))
    document = json.loads((tmp_path / MANIFEST).read_text())
    del document["second_stage"], document["notify_threshold"]
    (tmp_path / MANIFEST).write_text(json.dumps(document | {"format": 2}))
    loaded = load_bundle(tmp_path)
    assert loaded.second == () and loaded.manifest.notify_from == 0.6


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda stage: stage.update(speed=1), "unknown key second_stage.speed"),
        (lambda stage: stage["shape"].update(colour=1), "unknown key second_stage.shape.colour"),
        (lambda stage: stage["shape"]["measures"].reverse(), "measures"),
        (lambda stage: stage["shape"].update(layers=0), "hidden and layers must be whole numbers from 1 on"),
        (lambda stage: stage.update(first_weight=-1.0), "weights must not be negative"),
        (lambda stage: stage["place_weights"].pop("bone_far"), "place_weights are not those of this version"),
        (lambda stage: stage["place_weights"].update(bone_far=float("nan")), "must be finite"),
        (lambda stage: stage.update(weights_sha256={"../x.safetensors": "0"}), "weights_sha256"),
        (lambda stage: stage["fusion"].update(speed=1), "unknown key second_stage.fusion.speed"),
        (lambda stage: stage["fusion"]["network"].update(hidden=0), "hidden must be a whole number from 1 on"),
        (lambda stage: stage["fusion"]["network"].update(hidden=64.0), "hidden must be a whole number from 1 on"),
        (lambda stage: stage["fusion"].update(weights_sha256=["a"]), "weights_sha256 names no file"),
        (lambda stage: stage["fusion"].update(weights_sha256={}), "weights_sha256 names no file"),
    ],
)
def test_a_second_stage_that_does_not_fit_is_refused(
    bundle: Bundle, tmp_path: Path, change: object, named: str
) -> None:
    both = with_fusion(bundle)
    save_bundle(tmp_path, both.manifest, both.networks, both.second, both.fusion)
    document = json.loads((tmp_path / MANIFEST).read_text())
    change(document["second_stage"])  # type: ignore[operator]
    (tmp_path / MANIFEST).write_text(json.dumps(document))
    with pytest.raises(BundleError, match=named):
        load_bundle(tmp_path)


def test_an_alert_never_needs_less_than_a_report() -> None:
    with pytest.raises(ValueError, match="notify_threshold"):
        manifest(threshold=0.6, notify_threshold=0.5)


def test_networks_without_their_description_are_refused() -> None:
    with pytest.raises(ValueError, match="second stage"):
        Bundle(manifest(), (UNet(TINY),), (second(),))
    with pytest.raises(ValueError, match="second stage"):
        Bundle(manifest(second_stage=STAGE), (UNet(TINY),), (second(),), (fusion(),))
