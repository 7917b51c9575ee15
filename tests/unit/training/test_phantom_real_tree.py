"""Phantoms on the arteries of a real head: a made-up tree stands for it, the shared data where it is present."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ai.locations import LOCATIONS, Location
from ai.preprocess import Preprocessing
from tests.support.absent import absent
from tests.support.made_up_tree import write_arteries
from training import paint
from training.anatomy import CENTRELINE, read_arteries
from training.config import ConfigError, Data, TrainConfig
from training.drawn_candidates import FIRST_SEEDS
from training.evaluate import real_tree_set
from training.held_out import held_out_scans, real_tree_scans
from training.paint import main, region_from, undivided
from training.phantom import PhantomScan, make_scan
from training.phantom.confounders import KINDS
from training.phantom.frame import Grid
from training.phantom.head import draw_head
from training.phantom.people import LOOKALIKES
from training.phantom.real_tree import draw_real_arteries
from training.phantom.scanner import draw_scanner, resampled_noise, with_grainy_noise
from training.phantom.tree import Tree
from training.scans import REAL_TREE_SEEDS, training_scans

SHARED = Path(__file__).parents[4] / "shared" / "data" / "anatomy"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_arteries(tmp_path_factory.mktemp("anatomy"))


@pytest.fixture(scope="module")
def scan(folder: Path) -> PhantomScan:
    return make_scan(
        4, extent="native", spacing_mm=2.0, anatomy=str(folder), location=Location.LEFT_MCA, diameter_mm=6.0
    )


def _tree(folder: Path, seed: int, *, unseen: bool = False) -> Tree:
    head = draw_head(np.random.default_rng(seed))
    return draw_real_arteries(head, np.random.default_rng(seed), read_arteries(folder), unseen=unseen)


def test_every_artery_that_a_site_of_aneurysms_needs_is_there(folder: Path) -> None:
    names = set(_tree(folder, 1).tubes)
    for kind in (
        "ICA_infra",
        "ICA_supra",
        "M1",
        "M2_superior",
        "M2_inferior",
        "A1",
        "A2",
        "callosomarginal",
        "P1",
        "P2",
    ):
        assert {f"L_{kind}", f"R_{kind}"} <= names
    assert {"ACOM", "L_PCOM", "basilar", "basilar_tip", "L_V4", "R_PICA", "L_SCA", "R_AICA"} <= names


def test_left_lies_left_unless_the_tree_is_unseen_and_its_communicating_artery_right(folder: Path) -> None:
    for unseen in (False, True):
        tubes = _tree(folder, 2, unseen=unseen).tubes
        assert tubes["L_M1"].points[:, 0].min() > 0 > tubes["R_M1"].points[:, 0].max()
    assert "L_PCOM" in _tree(folder, 2).tubes and "R_PCOM" in _tree(folder, 2, unseen=True).tubes


def test_branches_begin_on_the_vessel_that_they_leave(folder: Path) -> None:
    for seed in range(4):
        tubes = _tree(folder, seed, unseen=seed % 2 == 1).tubes
        for child, parent in (("L_M1", "L_ICA_supra"), ("R_A1", "R_ICA_supra"), ("L_A2", "L_A1"), ("R_P2", "R_P1")):
            gap = np.linalg.norm(tubes[parent].points - tubes[child].points[0], axis=1).min()
            assert gap < 1.0, f"seed {seed}: {child} begins {gap:.1f} mm from {parent}"


def test_calibres_are_those_of_people(folder: Path) -> None:
    radii: dict[str, list[float]] = {name: [] for name in ("ICA_infra", "M1", "A1", "P1")}
    for seed in range(20):
        tubes = _tree(folder, seed).tubes
        for name, found in radii.items():
            found.append(float(np.median(tubes[f"L_{name}"].radius)))
    for name, wanted in (("ICA_infra", 2.0), ("M1", 1.15), ("A1", 0.9), ("P1", 0.7)):
        assert np.median(radii[name]) == pytest.approx(wanted, rel=0.15), name


def test_the_same_seed_gives_the_same_scan_and_its_truth_matches_its_pixels(scan: PhantomScan, folder: Path) -> None:
    again = make_scan(
        4, extent="native", spacing_mm=2.0, anatomy=str(folder), location=Location.LEFT_MCA, diameter_mm=6.0
    )
    assert again.volume.hu_DHW.tobytes() == scan.volume.hu_DHW.tobytes()
    (truth,) = scan.lesions
    middle = scan.volume.affine_lps @ [*np.argwhere(scan.lesion_DHW).mean(axis=0), 1.0]
    assert np.linalg.norm(middle[:3] - truth.centre_lps_mm) < 0.7
    assert set(np.unique(scan.vessel_DHW)) >= {1 + LOCATIONS.index(one) for one in (Location.LEFT_MCA, Location.ACOM)}


def test_a_region_is_what_the_network_reads_of_the_box(scan: PhantomScan) -> None:
    settings = Preprocessing(spacing_mm=1.4, size_DHW=(80, 80, 80))
    whole = undivided(scan)
    region = region_from(whole, settings)
    assert region.region.hu_DHW.shape == (80, 80, 80) and region.lesion_DHW.shape == (40, 40, 40)
    assert (region.region.hu_DHW > -1000).mean() > 0.5
    (truth,) = region.lesions
    cells = np.argwhere(region.lesion_DHW == 1)
    middle = region.region.affine_lps @ [*(2 * cells.mean(axis=0) + 0.5), 1.0]
    assert np.linalg.norm(middle[:3] - truth.centre_lps_mm) < 1.5
    error = np.array(region.region.circle_centre_lps_mm) - whole.region.circle_centre_lps_mm
    assert 0 < np.abs(error).max() < 12


def test_the_validation_set_is_half_positive_and_of_seeds_that_nothing_else_has() -> None:
    drawn = real_tree_scans("somewhere")
    assert len(drawn) >= 200 and sum(one["positive"] for one in drawn.values()) * 2 == len(drawn)
    assert all(one["unseen"] for one in drawn.values())
    assert not set(drawn) & set(held_out_scans()) and min(drawn) > 5_999_999 and max(drawn) < REAL_TREE_SEEDS
    with pytest.raises(ConfigError, match="not 1000"):
        real_tree_set("somewhere", 1000)


def test_scans_with_lookalikes_name_them_and_the_others_have_none(folder: Path) -> None:
    asked: dict[str, Any] = {
        "extent": "native",
        "spacing_mm": 4.0,
        "anatomy": str(folder),
        "unseen": True,
        "positive": False,
    }
    seed = 6_100_001
    without, with_them = (make_scan(seed, **asked, lookalikes=given) for given in (False, True))
    assert not any(kind in str(without.settings["variants"]) for kind in ("infundibulum", "blunt", "three"))
    kinds = {name for name in with_them.confounders if name not in KINDS}
    assert kinds and kinds <= set(LOOKALIKES)
    assert with_them.confounders[: len(without.confounders)] == without.confounders
    assert without.volume.hu_DHW.tobytes() != with_them.volume.hu_DHW.tobytes()
    assert str(with_them.settings["variants"]).startswith(str(without.settings["variants"]))


def test_training_scans_have_lookalikes_without_calling_them_confounders(folder: Path) -> None:
    training = make_scan(3, extent="native", spacing_mm=4.0, anatomy=str(folder), confounders=())
    assert any(kind in str(training.settings["variants"]) for kind in ("infundibulum", "blunt", "three"))
    assert training.confounders == ()


def test_the_set_with_lookalikes_has_seeds_of_its_own() -> None:
    first, second = real_tree_scans("somewhere"), real_tree_scans("somewhere", lookalikes=True)
    assert len(second) == len(first) and sum(one["positive"] for one in second.values()) * 2 == len(second)
    assert not set(first) & set(second) and min(second) > max(first) and max(second) < min(FIRST_SEEDS.values())
    assert all(one == {"positive": seed % 2 == 0, "anatomy": "somewhere", "unseen": True, "lookalikes": True}
               for seed, one in second.items())  # fmt: skip
    assert not any("lookalikes" in one for one in first.values())
    assert real_tree_set("somewhere", 4, lookalikes=True).description == "4 real-tree phantoms with lookalikes"


def test_either_set_is_painted(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, bool]] = []

    def painted(
        _cache: Path,
        seeds: Sequence[int],
        drawn: Mapping[int, Mapping[str, Any]],
        _settings: Preprocessing,
        _workers: int,
    ) -> Iterator[int]:
        asked.extend((seed, drawn[seed].get("lookalikes", False)) for seed in seeds)
        return iter(())

    monkeypatch.setattr(paint, "paint_boxes", painted)
    assert main([str(folder), str(tmp_path), "--count", "1"]) == 0
    assert main([str(folder), str(tmp_path), "--count", "2", "--lookalikes"]) == 0
    assert asked == [(6_000_000, False), (6_100_000, True), (6_100_001, True)]


def test_unseen_needs_a_tree() -> None:
    with pytest.raises(ValueError, match="anatomy"):
        make_scan(1, unseen=True)


def test_lookalikes_are_asked_for_where_there_are_none_without() -> None:
    with pytest.raises(ValueError, match="unseen scans"):
        make_scan(1, like_people=True, lookalikes=True)


def test_a_missing_file_is_named_with_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), str(tmp_path / "cache"), "--count", "1"]) == 2
    assert f"{tmp_path / CENTRELINE} is missing" in capsys.readouterr().err
    config = TrainConfig(folder="x", data=Data(cache=str(tmp_path), anatomy=str(tmp_path), scans=1))
    with pytest.raises(ConfigError, match="is missing: put the anatomical data there"):
        next(training_scans(config))


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / CENTRELINE).write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="not a VTK file"):
        read_arteries(tmp_path)


def test_noise_is_as_coarse_as_a_scanners() -> None:
    correlations = []
    for seed in range(12):
        scanner = draw_scanner(np.random.default_rng([seed, 4]), held_out=False)
        scanner = with_grainy_noise(scanner, np.random.default_rng([seed, 13]))
        grid = Grid((0, 0, 0), (0.7, 0.7, 0.7), (12, 48, 48))
        noise = resampled_noise(scanner, scanner.field_of_view_mm / 512, grid, np.random.default_rng(seed))
        correlations.append(np.corrcoef(noise[:, :, 1:].ravel(), noise[:, :, :-1].ravel())[0, 1])
    assert np.median(correlations) == pytest.approx(0.54, abs=0.1)


def test_the_shared_arteries_are_read() -> None:
    if not (SHARED / CENTRELINE).is_file():
        absent(f"no anatomical data in {SHARED}: the real tree is not tested")
    branches = {branch.name: branch for branch in read_arteries(SHARED)}
    assert len(branches) > 100
    assert np.linalg.norm(branches["L_ICA_supra"].points[-1] - branches["L_M1"].points[0]) < 0.1
    lengths = {
        name: np.linalg.norm(np.diff(branches[name].points, axis=0), axis=1).sum() for name in ("L_M1", "basilar")
    }
    assert 15 < lengths["L_M1"] < 25 and 18 < lengths["basilar"] < 30
