import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import ai
from ai import predict
from ai.bundle import Bundle, load_bundle, save_bundle
from ai.cube_net import SIDE, TURNINGS, CubeNet, CubeSettings, channels, cube_odds, turned
from ai.errors import BundleError
from ai.manifest import MANIFEST
from ai.parts import Cubes
from ai.remembered import Remembered
from ai.second_stage import KINDS, LARGEST_LOGIT, cube_around
from ai.unet import UNet
from tests.support.made_up_head import head
from tests.unit.ai.test_bundle import TINY, manifest
from tests.unit.ai.test_second_stage import REGION, STAGE, candidate, second

SETTINGS = CubeSettings(widths=(4, 8))
READ = json.loads(json.dumps(asdict(SETTINGS)))
CUBES = Cubes(SETTINGS, 0.5, 2, {"unsaved.safetensors": ""})


def network(seed: int = 0) -> CubeNet:
    torch.manual_seed(seed)
    return CubeNet(SETTINGS).requires_grad_(False).eval()


def cube(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-100, 600, (SIDE,) * 3).astype(np.int16)


@pytest.fixture
def bundle() -> Bundle:
    torch.manual_seed(0)
    stage = replace(STAGE, cubes=CUBES)
    return Bundle(manifest(second_stage=stage), (UNet(TINY).eval(),), (second(),), cubes=(network(),))


def test_a_cube_has_an_answer_for_each_kind() -> None:
    answered = network()(torch.from_numpy(cube().astype(np.float32))[None])
    assert answered.shape == (1, len(KINDS)) and answered.dtype == torch.float32


def test_densities_are_read_as_they_are_and_relative_to_the_middle() -> None:
    hu = torch.full((2, SIDE, SIDE, SIDE), 300.0)
    hu[1] = 200.0
    hu[:, 0, 0, 0] = 150.0
    read = channels(hu)
    assert read.shape == (2, 4, SIDE, SIDE, SIDE)
    assert read[:, :3, 5, 5, 5].tolist() == pytest.approx(np.array([[1, 0, -2 / 15], [1, -1 / 3, -0.2]]), abs=1e-6)
    assert read[:, 3, 5, 5, 5].tolist() == pytest.approx([0.5, 0.5])  # the middle itself
    assert read[:, 3, 0, 0, 0].tolist() == pytest.approx([0.0, 0.25])


def test_the_turnings_are_all_ways_to_lay_a_cube_on_itself() -> None:
    hu = torch.from_numpy(cube().astype(np.float32))[None]
    seen = [turned(hu, turning) for turning in range(len(TURNINGS))]
    assert len(seen) == 48 and len({one.numpy().tobytes() for one in seen}) == 48
    assert all(torch.equal(one.flatten().sort().values, hu.flatten().sort().values) for one in seen)


def test_all_turnings_together_answer_however_a_cube_lies() -> None:
    hu = cube()
    lying = np.ascontiguousarray(hu.transpose(2, 0, 1)[::-1])
    assert cube_odds((network(),), hu, 48) == pytest.approx(cube_odds((network(),), lying, 48), abs=1e-4)
    assert cube_odds((network(),), hu, 1) != pytest.approx(cube_odds((network(),), lying, 1), abs=1e-4)


def test_several_networks_answer_their_mean_within_bounds() -> None:
    each = [cube_odds((network(seed),), cube(), 1) for seed in (0, 1)]
    assert cube_odds((network(0), network(1)), cube(), 1) == pytest.approx(np.mean(each), abs=1e-5)
    sure = network()
    with torch.no_grad():
        sure.kinds.bias[0] = 1e4
    assert cube_odds((sure,), cube(), 1) == LARGEST_LOGIT


def test_the_cubes_add_to_the_score_of_each_candidate(bundle: Bundle) -> None:
    found = (candidate(2.0, x=1.0), candidate(1.0, x=3.0))
    stage = bundle.manifest.second_stage
    assert stage is not None
    alone = replace(bundle, manifest=replace(bundle.manifest, second_stage=replace(stage, cubes=None)), cubes=())
    scores = {}
    for one in (bundle, alone):
        again = predict.looked_at_again(found, REGION, head(), one)
        scores[bool(one.cubes)] = {each.centre_lps_mm: each.score for each in again}
    for place, score in scores[True].items():
        odds = cube_odds(bundle.cubes, cube_around(head(), place, SIDE, 0.5), 2)
        assert score == pytest.approx(scores[False][place] + 0.5 * odds)


def test_what_was_seen_before_is_not_looked_at_again(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    known = Remembered()
    first = ai.analyse(head(), bundle, "cpu", remembered=known)
    monkeypatch.setattr("ai.cube_net.cube_odds", lambda *_: pytest.fail("looked again"))
    assert ai.analyse(head(), bundle, "cpu", remembered=known) == first


def test_a_bundle_keeps_its_cube_networks(tmp_path: Path, bundle: Bundle) -> None:
    saved = save_bundle(tmp_path, bundle.manifest, bundle.networks, bundle.second, cubes=bundle.cubes)
    read = load_bundle(tmp_path)
    assert read.manifest == saved and read.manifest.second_stage is not None
    assert cube_odds(read.cubes, cube(), 2) == cube_odds(bundle.cubes, cube(), 2)
    [name] = read.manifest.second_stage.cubes.weights_sha256  # type: ignore[union-attr]
    (tmp_path / name).write_bytes(b"altered")
    with pytest.raises(BundleError, match=f"{name} does not have the sha256"):
        load_bundle(tmp_path)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"weight": 0.0}, "the weight of cubes must be a number above 0, got 0.0"),
        (
            {"network": {"widths": [4, 8], "side": 30, "spacing_mm": 0.5, "windows_hu": []}},
            "cubes are not read as this version",
        ),
        ({"views": 0}, "views must be a whole number from 1 to 48, got 0"),
        ({"views": 49}, "views must be a whole number from 1 to 48, got 49"),
        ({"network": READ | {"widths": [4, 0]}}, r"widths must be whole numbers from 1 on, got \(4, 0\)"),
        ({"network": READ | {"widths": [4] * 5}}, "widths must name at most 4 levels"),
        ({"color": 1}, "unknown key second_stage.cubes.color"),
    ],
)
def test_a_manifest_that_cannot_be_meant_is_refused(
    tmp_path: Path, bundle: Bundle, changed: dict[str, object], said: str
) -> None:
    save_bundle(tmp_path, bundle.manifest, bundle.networks, bundle.second, cubes=bundle.cubes)
    document = json.loads((tmp_path / MANIFEST).read_text())
    document["second_stage"]["cubes"] |= changed
    (tmp_path / MANIFEST).write_text(json.dumps(document))
    with pytest.raises(BundleError, match=said):
        load_bundle(tmp_path)


def test_networks_and_manifest_go_together(bundle: Bundle) -> None:
    with pytest.raises(ValueError, match="need a manifest that describes them"):
        replace(bundle, cubes=())


def test_an_answer_that_is_no_number_is_none(tmp_path: Path, bundle: Bundle) -> None:
    broken = network()
    with torch.no_grad():
        broken.state_dict()["blocks.0.1.running_var"][0] = -1.0
    with pytest.raises(FloatingPointError, match="looks at cubes is no number"):
        cube_odds((broken,), cube(), 1)
    save_bundle(tmp_path, bundle.manifest, bundle.networks, bundle.second, cubes=(broken,))
    with pytest.raises(BundleError, match=r"variance below 0 in blocks.0.1.running_var"):
        load_bundle(tmp_path)


def test_whoever_waits_hears_of_each_cube_and_can_stop(bundle: Bundle) -> None:
    found, heard = (candidate(2.0, x=1.0), candidate(1.0, x=3.0)), [0]

    def count(_share: float) -> None:
        heard[0] += 1

    predict.looked_at_again(found, REGION, head(), bundle, count)
    with_cubes, heard[0] = heard[0], 0
    stage = bundle.manifest.second_stage
    assert stage is not None
    alone = replace(bundle, manifest=replace(bundle.manifest, second_stage=replace(stage, cubes=None)), cubes=())
    predict.looked_at_again(found, REGION, head(), alone, count)
    assert with_cubes == heard[0] + len(found)
