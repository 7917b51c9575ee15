"""The network that places the circle of Willis: right where it says that it is sure, and refused where it is not."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from ai import circle
from ai.circle import Circle, CircleNet, cells, locate, located_extent, steady_centre, window_about
from ai.coverage import require_coverage
from ai.errors import BundleError, NotAnalysable, Reason
from ai.volume import Volume
from tests.support.absent import absent
from tests.support.made_up_head import affine, head
from training.circle_heads import CircleHead, draw_circle_head
from training.phantom.frame import rotation_matrix

DATA = Path(__file__).parents[4] / "shared" / "data"


@cache
def painted() -> CircleHead:
    return draw_circle_head(7)  # training paints none below 1000


def turned(drawn: CircleHead, degrees_xyz: tuple[float, float, float], step_mm: float = 3.0) -> Volume:
    """The head as a series on a straight grid of its own after it was turned about its circle."""
    rotation = rotation_matrix(degrees_xyz)
    centre = drawn.centre_lps_mm
    grid = affine((step_mm,) * 3, (float(centre[0]) - 110.0, float(centre[1]) - 110.0, float(centre[2]) - 70.0))
    back = np.eye(4)
    back[:3, :3], back[:3, 3] = rotation.T, centre - rotation.T @ centre
    mapping = np.linalg.solve(drawn.affine_lps, back @ grid)
    hu = ndimage.affine_transform(
        drawn.filled_hu_DHW.astype(np.float32),
        mapping[:3, :3],
        mapping[:3, 3],
        output_shape=(round(165 / step_mm), round(230 / step_mm), round(220 / step_mm)),
        order=1,
        cval=-1000,
    )
    return Volume(hu.astype(np.int16), grid)


@pytest.mark.parametrize("degrees", [(0, 0, 0), (25, 0, 0), (-25, 0, 0), (0, 20, 0), (0, 0, -25), (15, -15, 20)])
def test_the_circle_is_placed_in_a_head_turned_any_way(degrees: tuple[float, float, float]) -> None:
    found = locate(turned(painted(), degrees))
    assert np.linalg.norm(np.subtract(found.centre_lps_mm, painted().centre_lps_mm)) < 8.0
    assert found.elsewhere < 0.5


def test_a_head_cut_off_above_its_circle_is_refused() -> None:
    whole = turned(painted(), (0, 0, 0))
    above = whole.affine_lps.copy()
    above[:3, 3] += above[:3, 0] * 32
    with pytest.raises(NotAnalysable) as caught:
        located_extent(Volume(whole.hu_DHW[32:], above))
    assert caught.value.reason in {Reason.COVERAGE, Reason.NOT_A_HEAD}


def test_a_network_that_does_not_know_is_no_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    unsure = CircleNet().eval()
    monkeypatch.setattr(circle, "shipped", lambda: unsure)
    with pytest.raises(NotAnalysable) as caught:
        located_extent(head())
    assert caught.value.reason is Reason.COVERAGE
    assert located_extent(head(), sure=False).spread_mm > circle.MOST_SPREAD_MM


@pytest.mark.parametrize("spacing", [(0.5, 0.9, 0.9), (1.0, 1.0, 1.0), (5.0, 2.0, 2.0)])
def test_cells_are_averages_that_lie_where_they_were(spacing: tuple[float, float, float]) -> None:
    matrix = affine(spacing, (10.0, 20.0, 30.0))
    hu = np.full(tuple(round(120 / each) for each in spacing), 0, np.int16)
    lps = np.array([70.0, 80.0, 90.0])
    at = np.linalg.solve(matrix, np.append(lps, 1.0))[:3]
    hu[
        tuple(slice(int(index - 6 / step), int(index + 6 / step) + 1) for index, step in zip(at, spacing, strict=True))
    ] = 1000
    shares, grid = cells(Volume(hu, matrix))
    assert shares.shape[0] == 4 and all(side % circle.DIVISOR == 0 for side in shares.shape[1:])
    weight = shares[1] / shares[1].sum()
    middle = [(weight.sum(axis=tuple({0, 1, 2} - {axis})) * np.arange(weight.shape[axis])).sum() for axis in range(3)]
    assert np.linalg.norm((grid @ np.array([*middle, 1.0]))[:3] - lps) < 3.0


def test_a_wall_thinner_than_a_voxel_still_counts() -> None:
    hu = np.zeros((60, 60, 60), np.int16)
    hu[:, 31] = 700  # one voxel of 1 mm
    shares, _ = cells(Volume(hu, affine((1.0, 1.0, 1.0), (0.0, 0.0, 0.0))))
    assert shares[1].max() > 0.1


def test_weights_that_were_exchanged_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in circle.WEIGHTS.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "circle.safetensors").write_bytes((tmp_path / "circle.safetensors").read_bytes()[:-1] + b"\x7f")
    monkeypatch.setattr(circle, "WEIGHTS", tmp_path)
    with pytest.raises(BundleError, match="sha256"):
        circle.shipped.__wrapped__()


def test_a_real_scanner_s_skull_phantom_has_its_circle_above_the_clinoids_or_is_refused() -> None:
    folder = DATA / "philips-head-study" / "S2020"
    if not folder.exists():
        absent(f"the scanner's study is not at {folder}")
    import pydicom

    from ai.volume import volume_from_datasets

    datasets = [pydicom.dcmread(path) for path in sorted(folder.glob("I*"))]
    volume = volume_from_datasets([ds for ds in datasets if "PixelData" in ds])
    found = locate(volume)
    near = np.linalg.norm(np.subtract(found.centre_lps_mm, (-3.0, 85.0, 743.0))) < 8.0
    assert near or found.spread_mm > circle.MOST_SPREAD_MM or found.elsewhere > 0.5


def test_a_series_of_1200_slices_from_chest_to_vertex_shows_the_same_circle() -> None:
    short = turned(painted(), (0, 0, 0))
    slices = np.concatenate([np.repeat(short.hu_DHW[:1], 870, axis=0), np.repeat(short.hu_DHW, 6, axis=0)])
    matrix = affine((0.5, 3.0, 3.0), tuple(short.affine_lps[:3, 3] - [0.0, 0.0, 435.0 + 1.25]))
    found = locate(Volume(slices, matrix))
    assert len(slices) == 1200
    assert np.linalg.norm(np.subtract(found.centre_lps_mm, painted().centre_lps_mm)) < 8.0


def test_a_child_s_head_is_placed_like_a_grown_up_s() -> None:
    grown = turned(painted(), (0, 0, 0))
    small = grown.affine_lps.copy()
    small[:3, :3] *= 0.8
    small[:3, 3] = 0.8 * (small[:3, 3] - painted().centre_lps_mm) + painted().centre_lps_mm
    found = locate(Volume(grown.hu_DHW, small))
    assert np.linalg.norm(np.subtract(found.centre_lps_mm, painted().centre_lps_mm)) < 8.0


def test_a_head_filled_with_metal_is_not_analysed() -> None:
    made = head()
    made.hu_DHW[made.hu_DHW > 0] = 3071
    with pytest.raises(NotAnalysable):
        located_extent(made)


def test_a_volume_that_ends_at_the_circle_is_not_analysed() -> None:
    whole = turned(painted(), (0, 0, 0))
    with pytest.raises(NotAnalysable) as caught:
        require_coverage(located_extent(Volume(whole.hu_DHW[:25], whole.affine_lps)))
    assert caught.value.reason in {Reason.COVERAGE, Reason.NOT_A_HEAD}


def part_of(whole: Volume, first: int, last: int) -> Volume:
    affine_lps = whole.affine_lps.copy()
    affine_lps[:3, 3] += first * affine_lps[:3, 0]
    return Volume(whole.hu_DHW[first : last + 1], affine_lps)


@pytest.mark.parametrize(("degrees", "tilt"), [((0, 0, 0), 0.0), ((15, -15, 20), 0.3)])
def test_the_second_look_does_not_depend_on_slices_far_from_the_circle(
    degrees: tuple[float, float, float], tilt: float
) -> None:
    straight = turned(painted(), degrees, step_mm=3.7)
    sheared = straight.affine_lps.copy()
    sheared[1, 0] = tilt
    whole = Volume(straight.hu_DHW, sheared)
    first_look = locate(whole).centre_lps_mm
    window = window_about(whole, first_look)
    assert window.missing == (0, 0) and 26 <= window.last - window.first <= 29
    centre = steady_centre(whole, first_look)
    assert np.linalg.norm(np.subtract(centre, first_look)) < circle.SAME_PLACE_MM
    for first, last in ((0, window.last + 1), (window.first - 1, len(whole.hu_DHW) - 1), (window.first, window.last)):
        part = part_of(whole, first, last)
        assert window_about(part, first_look).missing == (
            (1, 1) if (first, last) == (window.first, window.last) else (0, 0)
        )
        moved = (first_look[0] + 0.9, first_look[1] - 0.9, first_look[2])
        assert steady_centre(part, moved) == centre


def test_a_window_that_slices_end_in_is_not_shown() -> None:
    whole = turned(painted(), (0, 0, 0), step_mm=4.0)
    window = window_about(whole, locate(whole).centre_lps_mm)
    top = len(whole.hu_DHW) - 1
    for first, last, missing in (
        (0, window.last, (0, 1)),
        (window.first, top, (1, 0)),
        (window.first + 5, top, (6, 0)),
        (window.first + 2, window.last - 5, (3, 6)),
    ):
        part = part_of(whole, first, last)
        shown = window_about(part, locate(whole).centre_lps_mm)
        assert shown.missing == missing
        assert (shown.first, shown.last) == (max(0, window.first - first), min(window.last, last) - first)


def test_a_second_look_that_is_elsewhere_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = turned(painted(), (0, 0, 0), step_mm=4.0)
    first_look = locate(whole).centre_lps_mm
    far = (first_look[0], first_look[1] + 7.0, first_look[2])
    monkeypatch.setattr(circle, "locate", lambda _volume: Circle(far, 5.0, 0.0))
    assert steady_centre(whole, first_look) == tuple(round(each, 2) for each in first_look)
