from pathlib import Path

import numpy as np
import pytest

from ai.locations import Location
from ai.second_stage import KINDS, ShapeSettings, log_odds
from ai.shape import NAMES
from training.cubes.drawing import draw_cube
from training.cubes.painting import GRID, SIDE, sac_distance, turned_axes
from training.cubes.real_tree import read_tree
from training.cubes.store import draw_shards, read_shards
from training.metrics import auc
from training.phantom.lesions import Sac
from training.second_stage import Shapes, label, save_trained, shapes_in, train, trained


def test_a_seed_gives_the_same_cube_again() -> None:
    one, again, other = draw_cube(3), draw_cube(3), draw_cube(4)
    assert np.array_equal(one.hu_DHW, again.hu_DHW) and one.kind == again.kind
    assert not np.array_equal(one.hu_DHW, other.hu_DHW)


def test_a_sac_fills_the_middle_of_its_cube() -> None:
    for seed in range(4):
        cube = draw_cube(seed, sac=True)
        assert cube.is_sac and cube.diameter_mm >= 1.8
        middle = cube.hu_DHW[(slice(SIDE // 2 - 3, SIDE // 2 + 3),) * 3]
        assert np.percentile(middle, 90) > 130


def test_what_is_no_sac_is_named_and_has_no_diameter() -> None:
    cubes = [draw_cube(seed, sac=False) for seed in range(6)]
    assert all(label(cube.kind) > 0 and cube.diameter_mm == 0.0 for cube in cubes)
    assert {label("origin"), label("crossing")} == {KINDS.index("infundibulum"), KINDS.index("vessel")}


def test_the_fast_distance_to_a_sac_is_that_of_the_phantoms() -> None:
    rng = np.random.default_rng(0)
    lobule, dent = ((np.array([0.0, 0.6, 0.8]), 0.5),), ((rng.normal(0, 2, 3), 0.1),)
    radii = np.array([2.0, 3.0, 4.0])
    sac = Sac(Location.ACOM, np.array([1.0, -2.0, 0.0]), 1.5, turned_axes(rng), radii, 1.2, 0.8, lobule, dent)
    where = GRID.box(sac.centre - sac.reach_mm, sac.centre + sac.reach_mm)
    z, y, x = np.meshgrid(*(GRID.axis(axis)[part] for axis, part in enumerate(where)), indexing="ij")
    np.testing.assert_allclose(sac_distance(sac)[where], sac.distance(np.stack([x, y, z], axis=-1)), atol=1e-4)


def test_a_file_of_cubes_is_drawn_once_and_measured_once(tmp_path: Path) -> None:
    draw_shards(tmp_path, 3, None, validation=False)
    written = (tmp_path / "0000000.npy").stat().st_mtime_ns
    draw_shards(tmp_path, 3, None, validation=False)
    assert (tmp_path / "0000000.npy").stat().st_mtime_ns == written
    (shard,) = read_shards(tmp_path)
    assert shard.hu.shape == (3, SIDE, SIDE, SIDE) and len(shard.kinds) == 3
    shapes = shapes_in(tmp_path)
    assert shapes.measures.shape == (3, len(NAMES))
    np.save(tmp_path / "0000000.measures.npy", shapes.measures + 1)
    assert np.array_equal(shapes_in(tmp_path).measures, shapes.measures + 1)


def made_up_shapes(count: int, seed: int) -> Shapes:
    """Sacs differ from the rest in two numbers."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, len(KINDS), count) * (rng.uniform(size=count) < 0.6)
    measures = rng.normal(0, 1, (count, len(NAMES))).astype(np.float32)
    measures[:, 0] += 2.0 * (kinds == 0)
    measures[:, 1] -= 30.0 * (kinds == 0)
    return Shapes(measures, kinds.astype(np.int64), np.where(kinds == 0, 4.0, 0.0))


def test_sacs_are_learned_from_their_measures_and_kept_in_a_file(tmp_path: Path) -> None:
    networks = [train(made_up_shapes(300, 0), ShapeSettings(hidden=8, layers=2), seed, epochs=200) for seed in range(2)]
    unseen = made_up_shapes(200, 1)
    odds = log_odds(networks, unseen.measures)
    assert auc(odds, unseen.is_sac) > 0.95
    save_trained(tmp_path / "run" / "second.safetensors", networks)
    assert log_odds(trained(tmp_path / "run" / "second.safetensors"), unseen.measures) == odds


def test_a_centreline_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tree.vtk").write_bytes(b"nothing of the sort")
    with pytest.raises(ValueError, match="not a binary VTK file"):
        read_tree(tmp_path / "tree.vtk")
