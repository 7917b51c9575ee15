"""Boxes are painted for a bundle's preprocessing, and a folder of candidates says whose they are."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ai.bundle import Bundle
from ai.inference import Tiling
from ai.preprocess import Preprocessing
from ai.shape import SIDE
from ai.unet import UNet
from tests.support.made_up_scan import scan
from tests.unit.ai.test_bundle import TINY, manifest
from training import candidates, drawn_candidates, paint
from training.candidates import claim, identity_of, load_marked
from training.config import ConfigError
from training.cube_net import LEFT_OUT_OF
from training.dataset import load_prepared
from training.evaluate import ScanSet, box_scorer
from training.paint import REGIONS, paint_boxes

SETTINGS = Preprocessing(spacing_mm=1.0, size_DHW=(64, 64, 64))


def bundle_of(settings: Preprocessing = SETTINGS, sha256: str = "ab") -> Bundle:
    torch.manual_seed(0)
    said = manifest(preprocessing=settings, tiling=Tiling(size=64), weights_sha256={"model.safetensors": sha256})
    return Bundle(said, (UNet(TINY).eval(),))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two boxes, with the regions that `bundle_of()` reads."""
    monkeypatch.setattr(paint, "make_scan", made_up)
    assert list(paint_boxes(tmp_path / "cache", [1, 2], {1: {}, 2: {}}, SETTINGS)) == [1, 2]
    return tmp_path / "cache"


def made_up(seed: int, **_: Any) -> Any:
    return scan(seed)


def use(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (candidates, drawn_candidates):
        monkeypatch.setattr(module, "load_bundle", lambda folder, **_: bundle)


def test_regions_are_those_that_a_bundle_of_another_spacing_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paint, "make_scan", made_up)
    bundle = bundle_of(Preprocessing(spacing_mm=2.0, size_DHW=(32, 32, 32)))
    [scored] = box_scorer(bundle, ScanSet("one", (1,)), tmp_path, "cpu")([1])
    assert scored.seed == 1
    region = load_prepared(tmp_path / REGIONS / "1").region
    assert region.hu_DHW.shape == (32, 32, 32) and np.abs(region.affine_lps[:3, :3]).max() == 2.0


def test_what_a_bundle_does_not_read_is_not_marked(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(bundle_of(Preprocessing(spacing_mm=0.7, size_DHW=(64, 64, 64))), monkeypatch)
    assert candidates.main(["bundle", str(cache), str(tmp_path / "marked")]) == 2
    assert "holds regions at 1 mm and the bundle reads 0.7 mm" in capsys.readouterr().err


def test_a_folder_of_candidates_is_for_one_first_stage(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, bundle = tmp_path / "marked", bundle_of()
    use(bundle, monkeypatch)
    assert candidates.main(["bundle", str(cache), str(folder), "--count", "1"]) == 0
    assert candidates.main(["bundle", str(cache), str(folder)]) == 0
    assert [scan.scored.seed for scan in load_marked(folder, bundle)] == [1, 2]
    later = replace(bundle, manifest=replace(bundle.manifest, version="9", threshold=0.9))  # with the same first stage
    assert len(load_marked(folder, later)) == 2
    other = bundle_of(sha256="cd")
    with pytest.raises(ConfigError, match=r"marked .* of another model \(first_stage\): .* another folder"):
        load_marked(folder, other)
    use(other, monkeypatch)
    assert candidates.main(["bundle", str(cache), str(folder)]) == 2
    monkeypatch.setattr(drawn_candidates, "read_arteries", lambda folder: None)
    assert drawn_candidates.main(["bundle", "anatomy", str(folder), "--count", "1"]) == 2
    assert capsys.readouterr().err.count("of another model") == 2


def test_other_measurements_or_another_number_are_others_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim(tmp_path, bundle_of())
    for name in ("MOST_MARKED", "MEASURED"):
        with monkeypatch.context() as changed:
            changed.setattr(candidates, name, 1000)
            with pytest.raises(ConfigError, match="most|measured"):
                claim(tmp_path, bundle_of())
    claim(tmp_path, bundle_of())
    assert identity_of(bundle_of()) == identity_of(bundle_of())


def test_a_folder_of_before_is_read_and_nothing_is_added_to_it(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "marked"
    use(bundle_of(), monkeypatch)
    candidates.main(["bundle", str(cache), str(folder), "--count", "1"])
    (folder / "identity.json").unlink()
    assert candidates.main(["bundle", str(cache), str(folder)]) == 2
    assert not (folder / "identity.json").exists() and len(load_marked(folder, bundle_of(sha256="cd"))) == 1


def test_every_fifteenth_seed_is_healthy_and_left_out_where_the_first_is() -> None:
    for kind, first in (("tree", 10), ("people", 5), ("plain", 10)):
        for seed in drawn_candidates.seeds_of(kind, first, 4, every=15):
            assert seed // 3 % LEFT_OUT_OF == 0 and not drawn_candidates.options_of(kind, seed, "there").get(
                "positive", True
            )
            assert drawn_candidates.kind_of(seed) == kind
    assert [drawn_candidates.kind_of(seed) for seed in (7_999_999, 9_000_000, 5_000_000)] == ["", "", ""]


def test_nothing_is_added_to_a_folder_that_kept_no_place_of_the_circle(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(bundle_of(), monkeypatch)
    asked = ["bundle", str(cache), str(tmp_path)]
    assert candidates.main([*asked, "--count", "1"]) == 0
    [path] = [path for path in tmp_path.glob("*.json") if path.stem.isdigit()]
    older = json.loads(path.read_text())
    assert len(older.pop("circle_lps_mm")) == 3
    path.write_text(json.dumps(older))
    assert candidates.main(asked) == 2
    assert "kept no place of the circle: mark the scans into another folder" in capsys.readouterr().err
    [read] = load_marked(tmp_path, bundle_of())
    assert read.circle_lps_mm is None


def test_drawn_scans_keep_the_cubes_of_their_candidates_and_of_their_aneurysms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(bundle_of(), monkeypatch)
    monkeypatch.setattr(drawn_candidates, "make_scan", made_up)
    monkeypatch.setattr(drawn_candidates, "read_arteries", lambda folder: None)
    assert drawn_candidates.main(["bundle", "anatomy", str(tmp_path), "--kind", "plain", "--count", "2"]) == 0
    assert "2 of 2 scans" in capsys.readouterr().out
    found = load_marked(tmp_path, bundle_of(), cubes=True)
    middles = [drawn_candidates.sacs_of(tmp_path, each) for each in found]
    for each, about in zip(found, middles, strict=True):
        assert each.cubes is not None and each.cubes.shape == (len(each.hits), SIDE, SIDE, SIDE)
        assert about.shape == (len(each.scored.lesions), SIDE, SIDE, SIDE)
    assert np.concatenate(middles)[:, 18:22, 18:22, 18:22].mean() > 200.0  # filled
