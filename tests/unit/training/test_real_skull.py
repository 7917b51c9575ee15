"""Arteries are painted into a dry skull as a real scanner saw it: a made-up one stands for it, the shared study where it is present."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ai.preprocess import Preprocessing
from tests.support.absent import absent
from tests.support.dicom_factory import PHILIPS_STUDY, ct_series
from tests.support.made_up_tree import write_arteries
from training.config import ConfigError
from training.held_out import real_tree_scans, real_tree_set
from training.paint import region_from, undivided
from training.phantom import make, make_scan
from training.phantom.frame import Grid
from training.phantom.real_skull import RealSkull, read_skull

GRID = Grid((-70.0, -80.0, -90.0), (2.0, 1.0, 1.0), (70, 160, 180))
SKULL = RealSkull(
    np.random.default_rng(0).normal(38.0, 8.0, GRID.shape_DHW).astype(np.float32), GRID, np.array([3.0, 1.0, 2.0])
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_arteries(tmp_path_factory.mktemp("anatomy"))


def test_a_box_is_of_the_skulls_own_voxels_about_a_place_and_no_larger_than_is_shown() -> None:
    box = SKULL.box(np.array([0.2, -0.3, 0.9]), (60.0, 50.0, 50.0))
    assert vars(box) == vars(Grid((-30.0, -25.0, -25.0), GRID.spacing_DHW, (31, 51, 51)))
    assert np.array_equal(SKULL.within(box), SKULL.hu_DHW[20:51, 55:106, 65:116])
    near_the_end = SKULL.box(np.array([0.0, 0.0, -50.0]), (60.0, 50.0, 500.0))
    assert vars(near_the_end) == vars(Grid((-70.0, -25.0, -89.0), GRID.spacing_DHW, (21, 51, 179)))


def test_a_region_lies_about_the_circle_although_the_skull_ends_below(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    low = replace(SKULL, circle_lps=np.array([3.0, 1.0, -40.0]))
    monkeypatch.setattr(make, "read_skull", lambda _folder: low)
    off = []
    for seed in range(6_200_000, 6_200_004):
        asked: dict[str, Any] = {
            "anatomy": str(folder),
            "unseen": True,
            "positive": False,
            "confounders": (),
            "skull": "there",
        }
        scan = undivided(make_scan(seed, extent="native", **asked))
        region = region_from(scan, replace(Preprocessing(), size_DHW=(16, 16, 16))).region
        off.append(np.array(region.circle_centre_lps_mm) - scan.region.circle_centre_lps_mm)
    assert np.abs(np.mean(off, axis=0)).max() < 5.0


def test_mirrored_left_is_right() -> None:
    hu = np.zeros(GRID.shape_DHW, np.float32)
    hu[36, 81, 93] = 1.0  # at the circle
    there = replace(SKULL, hu_DHW=hu).mirrored()
    [at] = np.argwhere(there.hu_DHW)
    assert np.allclose([there.grid.axis(2 - axis)[at[2 - axis]] for axis in range(3)], there.circle_lps)


def test_arteries_are_all_that_is_put_into_the_skull(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make, "read_skull", lambda _folder: SKULL)
    scan = make_scan(
        6_200_000, extent="native", anatomy=str(folder), unseen=True, positive=True, confounders=(), skull="there"
    )
    assert np.allclose(np.linalg.norm(scan.volume.affine_lps[:3, :3], axis=0), GRID.spacing_DHW)
    assert scan.settings["slice_spacing_mm"] == 2.0 and scan.vessel_DHW.any()
    filled, rest = (scan.volume.hu_DHW[where] for where in (scan.vessel_DHW == 6, scan.vessel_DHW == 0))
    assert np.median(rest) == pytest.approx(38.0, abs=6.0) and (np.abs(rest - 38.0) < 60.0).mean() > 0.95
    assert np.median(filled) > 120.0
    [lesion] = scan.lesions
    assert np.linalg.norm(np.array(lesion.centre_lps_mm) - SKULL.circle_lps) < 60.0


def test_a_real_skull_has_voxels_of_its_own() -> None:
    with pytest.raises(ValueError, match='give extent="native"'):
        make_scan(1, extent="roi", skull="there")


def test_the_set_in_a_skull_has_seeds_of_its_own() -> None:
    others = {seed for lookalikes in (False, True) for seed in real_tree_scans("somewhere", lookalikes=lookalikes)}
    third = real_tree_scans("somewhere", skull="there")
    assert len(third) >= 100 and not others & set(third)
    assert all(one["skull"] == "there" and one["lookalikes"] and one["unseen"] for one in third.values())
    assert real_tree_set("somewhere", 4, skull="there").description == "4 real-tree phantoms in a real skull"


def test_a_folder_without_a_skull_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is not a folder with one CT series of a dry skull .*: name another"):
        read_skull(tmp_path)
    for number, ds in enumerate(ct_series(4, orientation=(1, 0, 0, 0, 0.995, 0.0998))):
        ds.save_as(tmp_path / str(number), enforce_file_format=True)
    with pytest.raises(ConfigError, match="is not of axial slices"):
        read_skull(tmp_path)


def test_air_and_plastic_in_the_shared_skull_become_tissue_and_bone_stays() -> None:
    if not PHILIPS_STUDY.exists():
        absent(f"the scanner's study is not at {PHILIPS_STUDY}")
    skull = read_skull(PHILIPS_STUDY / "S2020")
    d, h, w = np.rint((skull.circle_lps[::-1] - skull.grid.origin_DHW) / skull.grid.spacing_DHW).astype(int)
    brain = skull.hu_DHW[d + 20 : d + 50, h - 20 : h + 60, w - 50 : w + 50]
    assert np.quantile(np.abs(brain - 38.0), [0.99, 0.999]) == pytest.approx(
        [0.0, 0.0], abs=50.0
    )  # specks of plastic are left
    assert (skull.hu_DHW > 700.0).mean() > 0.02
