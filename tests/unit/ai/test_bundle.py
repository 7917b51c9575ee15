import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ai.bundle import Manifest, load_bundle, read_manifest, save_bundle
from ai.decode import Calibration
from ai.errors import BundleError
from ai.inference import Tiling
from ai.manifest import DEFAULT_BUNDLE, MANIFEST, read_document, sha256_of
from ai.preprocess import Preprocessing
from ai.unet import UNet, UNetSettings

TINY = UNetSettings(widths=(8, 8, 16), convolutions=(1, 1, 1), groups=4)


def manifest(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "name": "tiny",
        "version": "0.1",
        "trained_on": "nothing",
        "network": TINY,
        "preprocessing": Preprocessing(size_DHW=(32, 32, 32)),
        "tiling": Tiling(size=32, overlap=8),
        "calibration": Calibration(),
        "threshold": 0.5,
        "weights_sha256": {"unsaved.safetensors": ""},
        "figures": {},
    }
    return Manifest(**(values | changes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_bundle(tmp_path, manifest(), (UNet(TINY),))
    return tmp_path


def edit(folder: Path, **changes: Any) -> None:
    document = json.loads((folder / MANIFEST).read_text())
    document.update(changes)
    (folder / MANIFEST).write_text(json.dumps(document))


def test_what_was_saved_is_what_is_loaded(folder: Path) -> None:
    bundle = load_bundle(folder)
    assert bundle.manifest == read_manifest(folder)
    assert bundle.manifest.preprocessing == manifest().preprocessing
    torch.manual_seed(0)
    fresh = UNet(TINY).state_dict()
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in bundle.networks[0].state_dict().items())
    assert not bundle.networks[0].training


def test_an_ensemble_keeps_every_weight_set(tmp_path: Path) -> None:
    saved = save_bundle(tmp_path, manifest(), (UNet(TINY), UNet(TINY)))
    assert len(saved.weights_sha256) == len(load_bundle(tmp_path).networks) == 2


def test_replacing_a_bundle_leaves_no_old_weights(folder: Path) -> None:
    torch.manual_seed(1)
    save_bundle(folder, manifest(version="0.2"), (UNet(TINY),))
    assert load_bundle(folder).manifest.version == "0.2"
    assert len(list(folder.iterdir())) == 2


def test_a_bundle_is_known_by_what_its_file_says_and_not_by_what_is_made_of_it(folder: Path) -> None:
    known = load_bundle(folder).sha256
    edit(folder)  # laid out anew
    assert load_bundle(folder, flip=True).sha256 == known == sha256_of(read_document(folder))
    document = read_document(folder)
    del document["notify_threshold"]
    (folder / MANIFEST).write_text(json.dumps(document))
    assert load_bundle(folder).manifest == manifest(weights_sha256=document["weights_sha256"])
    assert load_bundle(folder).sha256 != known, "the default that it now gets is this version's"


def test_altered_weights_are_refused_by_their_digest(folder: Path) -> None:
    weights = next(folder.glob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(BundleError, match=f"{weights.name}.*sha256"):
        load_bundle(folder)


def test_missing_weights_are_named(folder: Path) -> None:
    weights = next(folder.glob("*.safetensors"))
    weights.unlink()
    with pytest.raises(BundleError, match=weights.name):
        load_bundle(folder)


def test_weights_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    net = UNet(TINY)
    with torch.no_grad():
        net.lesion.weight[0, 0] = float("nan")
    save_bundle(tmp_path, manifest(), (net,))
    with pytest.raises(BundleError, match="lesion.weight"):
        load_bundle(tmp_path)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    other = UNetSettings(widths=(8, 16, 16), convolutions=(1, 1, 1), groups=4)
    save_bundle(tmp_path, manifest(), (UNet(other),))
    with pytest.raises(BundleError, match="does not fit"):
        load_bundle(tmp_path)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"colour": "blue"}, "unknown key colour"),
        ({"tiling": {"size": 32, "overlap": 8, "flip": False, "speed": 1}}, "unknown key tiling.speed"),
        ({"tiling": {"size": 32}}, "missing key tiling.flip"),
        ({"format": 99}, "format"),
        ({"format": 1}, "training.calibrate"),
        ({"threshold": 1.5}, "threshold"),
        ({"weights_sha256": {}}, "weights_sha256"),
        ({"weights_sha256": {"../elsewhere.safetensors": "0"}}, "weights_sha256"),
        (
            {"calibration": {"present": {"slope": -1, "intercept": 0}, "location": {"slope": 1, "intercept": 0}}},
            "slope",
        ),
        ({"network": None}, MANIFEST),
        ({"preprocessing": {"spacing_mm": 9.0}}, "preprocessing"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused_by_key(folder: Path, changes: dict[str, Any], named: str) -> None:
    edit(folder, **changes)
    with pytest.raises(BundleError, match=named):
        load_bundle(folder)


def test_a_manifest_from_before_coordinates_were_a_setting_has_them(folder: Path) -> None:
    before = json.loads((folder / MANIFEST).read_text())["preprocessing"]
    del before["coordinates"]
    edit(folder, preprocessing=before)
    assert load_bundle(folder).manifest.preprocessing.coordinates
    del before["spacing_mm"]
    edit(folder, preprocessing=before)
    with pytest.raises(BundleError, match="missing key preprocessing.spacing_mm"):
        load_bundle(folder)


def test_a_missing_or_broken_manifest_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="point .* at a folder"):
        load_bundle(tmp_path)
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(BundleError, match="not JSON"):
        load_bundle(tmp_path)
    (tmp_path / MANIFEST).write_text("[]")
    with pytest.raises(BundleError, match="JSON object"):
        load_bundle(tmp_path)


def test_channels_and_network_must_agree() -> None:
    with pytest.raises(ValueError, match="channels"):
        manifest(network=UNetSettings(in_channels=3))


def test_the_shipped_bundle_loads_and_says_what_it_was_trained_on() -> None:
    assert "phantoms" in load_bundle(DEFAULT_BUNDLE).manifest.trained_on
