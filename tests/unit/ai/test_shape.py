import numpy as np
import pytest
from numpy.typing import NDArray

from ai.shape import NAMES, SIDE, SPACING_MM, measured

LINE = (np.arange(SIDE) - (SIDE - 1) / 2) * SPACING_MM
Z, Y, X = np.meshgrid(LINE, LINE, LINE, indexing="ij")


def ball(radius: float, z: float = 0.0, y: float = 0.0, x: float = 0.0) -> NDArray[np.float64]:
    return np.asarray(np.sqrt((Z - z) ** 2 + (Y - y) ** 2 + (X - x) ** 2) - radius)


def along_x(radius: float) -> NDArray[np.float64]:
    return np.asarray(np.sqrt(Z**2 + Y**2) - radius)


def cube(*solids: NDArray[np.float64], hu: float = 350.0) -> NDArray[np.int16]:
    inside = np.clip(0.5 - np.minimum.reduce(solids) / SPACING_MM, 0.0, 1.0)
    return np.asarray(np.rint(30.0 + inside * (hu - 30.0)), np.int16)


def measures_of(hu_DHW: NDArray[np.int16]) -> dict[str, float]:
    return dict(zip(NAMES, measured(hu_DHW).tolist(), strict=True))


def test_every_number_has_one_name() -> None:
    assert len(set(NAMES)) == len(NAMES) == len(measured(cube(ball(3.0))))


def test_a_vessel_has_two_exits_as_wide_as_itself() -> None:
    vessel = measures_of(cube(along_x(1.5)))
    assert vessel["radius"] == pytest.approx(1.5, abs=0.35)
    assert vessel["exits_near"] == vessel["exits_8mm"] == 2.0
    assert vessel["angle_12_near"] == pytest.approx(-1.0, abs=0.05)
    assert vessel["over_usual_elsewhere"] < 1.0


def test_a_sac_at_the_end_of_a_vessel_is_wider_than_it_and_closed_but_for_one_exit() -> None:
    terminal = measures_of(cube(ball(3.0), np.maximum(along_x(1.0), -X)))
    assert terminal["radius"] == pytest.approx(3.0, abs=0.5)
    assert terminal["exits_near"] == terminal["exits_8mm"] == 1.0
    assert terminal["over_usual_elsewhere"] > 1.5
    assert terminal["closed_cap"] > measures_of(cube(along_x(1.5)))["closed_cap"] + 0.2


def test_a_sac_beside_a_vessel_leaves_both_its_exits_on_one_side() -> None:
    beside = measures_of(cube(ball(2.0), np.sqrt(Z**2 + (Y - 2.8) ** 2) - 1.2))
    assert beside["exits_far"] == beside["exits_8mm"] == 2.0
    assert beside["one_sided_middle"] > measures_of(cube(along_x(1.5)))["one_sided_middle"] + 0.15
    assert beside["open_to_one_side"] > 0.7


def test_a_fork_has_three_exits() -> None:
    branches = [
        np.where(X * c + Y * s > 0, np.sqrt(Z**2 + (X * s - Y * c) ** 2) - 1.3, 9.0)
        for c, s in ((1.0, 0.0), (-0.5, 0.866), (-0.5, -0.866))
    ]
    assert measures_of(cube(*branches))["exits_far"] == 3.0


def test_it_does_not_matter_how_the_cube_is_turned() -> None:
    hu = cube(ball(2.5), np.maximum(np.sqrt(Z**2 + (Y - 1.5) ** 2) - 1.1, -X))
    upright = measured(hu)
    for turned in (hu[::-1], hu[:, :, ::-1], hu.transpose(1, 0, 2), hu.transpose(2, 0, 1)):
        other = measured(np.ascontiguousarray(turned))
        np.testing.assert_allclose(other[:-3], upright[:-3], atol=0.25)  # the longest way may miss a thin vessel


def test_contrast_is_measured_but_does_not_change_the_shape() -> None:
    weak, strong = (
        measures_of(cube(ball(2.5), along_x(1.2), hu=220.0)),
        measures_of(cube(ball(2.5), along_x(1.2), hu=450.0)),
    )
    assert strong["density"] > 1.8 * weak["density"]
    assert strong["radius"] == pytest.approx(weak["radius"], abs=0.3)


def test_bone_is_no_lumen() -> None:
    wall = cube(ball(2.5))
    wall[:, :8] = 1200
    beside_bone, free = measures_of(wall), measures_of(cube(ball(2.5)))
    assert beside_bone["bone_8mm"] > 0.02 and free["bone_8mm"] == 0.0
    assert beside_bone["exits_near"] == free["exits_near"] == 0.0


@pytest.mark.parametrize("hu", [-1000, 40, 3000])
def test_a_cube_with_one_material_gives_finite_numbers(hu: int) -> None:
    assert np.isfinite(measured(np.full((SIDE,) * 3, hu, np.int16))).all()
