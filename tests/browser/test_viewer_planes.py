"""The viewer's geometry, as the browser runs it: lines of uneven slices, and what lies on an oblique plane."""

from typing import Any

import pytest

from tests.browser.conftest import People

CORONAL = [[1, 0, 0], [0, 0, -1], [0, 1, 0]]
UNEVEN_MM = [0, 1, 2, 3, 3.25, 3.5, 4, 5, 6, 7, 8]


def asked(people: People, script: str, name: str = "dr.a", **values: Any) -> Any:
    """What the function says, given the module and these values."""
    page = people.sign_in(name)
    return page.evaluate(
        f"async (values) => {{ const m = await import('/static/viewer/planes.js'); {script} }}", values
    )


def test_a_slice_that_is_on_no_line_has_its_place_between_the_lines(people: People) -> None:
    script = """
        const volume = { is_stack: true, positions_mm: values.at, slice_mm: 1, rows: 4, columns: 4, pixel_mm: [1, 1] };
        volume.slices = values.at.length;
        volume.levels = m.levelsOf(volume);
        const finding = { x: 1, y: 1, slice: 4 };
        return [volume.levels, m.lineOf(volume, 4), m.spot(volume, 'coronal', null, finding).y, m.lineOf(volume, 0)];
    """
    levels, line, y, lowest = asked(people, script, at=UNEVEN_MM)
    assert 4 not in levels  # the line at 3 mm is nearer to another
    assert (line, y, lowest) == (pytest.approx(4.75), pytest.approx(5.25), 8)


@pytest.mark.parametrize("turned", [{"yaw": 0, "pitch": 0}, {"yaw": 35, "pitch": -50}, {"yaw": -170, "pitch": 90}])
def test_an_oblique_slab_shows_a_bright_voxel_and_its_mask_where_its_circle_is(
    people: People, turned: dict[str, float]
) -> None:
    script = """
        const [rows, columns, slices] = [40, 60, 30];
        const positions = Array.from({ length: slices }, (_, i) => 10 + 2 * i);
        const volume = { is_stack: true, positions_mm: positions, slice_mm: 2, rows, columns, slices, pixel_mm: [0.8, 0.5] };
        volume.levels = m.levelsOf(volume);
        const kept = new Map(positions.map((_, i) => [i, new Int16Array(rows * columns).fill(-1000)]));
        const finding = { x: 25.5, y: 18.5, slice: 12 };
        kept.get(12)[18 * columns + 25] = 300;
        const turned = { ...values.turned, centre: m.millimetres(volume, { x: 30, y: 20, slice: 14 }) };
        const { x, y, at } = m.spot(volume, 'oblique', turned, finding);
        const half = m.halfSlab(volume, 'oblique', false);
        const found = m.valuesOn(volume, kept, 'oblique', turned, Math.round(at) - half, Math.round(at) + half);
        const bright = [...found.keys()].filter((i) => found[i] === 300).map((i) => [i % 256 + 0.5, Math.floor(i / 256) + 0.5]);
        const mean = [0, 1].map((axis) => bright.reduce((sum, each) => sum + each[axis], 0) / bright.length);
        const { maskedPixels } = await import('/static/viewer/drawing.js');
        volume.masks = { 12: [[1, 18, 25, 1]] };
        const masked = maskedPixels(volume, 'oblique', turned, 256, Math.round(at) - half, Math.round(at) + half);
        const beside = maskedPixels(volume, 'oblique', turned, 256, Math.round(at) + 4, Math.round(at) + 4 + 2 * half);
        const both = [...masked].filter((i) => found[i] === 300).length;
        return [bright.length, mean, [x, y], both, beside.size];
    """
    count, mean, circle, masked, beside = asked(people, script, turned=turned)
    assert count > 0
    assert mean == pytest.approx(circle, abs=1.5)  # pixels of 0.5 mm
    assert masked >= 0.6 * count, "the mask covers the voxel"
    assert beside == 0, "and is not shown in a slab that the voxel is not in"


def test_the_axes_of_an_oblique_plane_stand_upright_on_each_other(people: People) -> None:
    script = "return [[0, 0], [30, 40], [-120, -80]].map(([yaw, pitch]) => Object.values(m.axes({ yaw, pitch })));"
    for right, down, normal in asked(people, script):
        pairs = [(right, down), (right, normal), (down, normal)]
        assert [sum(a * b for a, b in zip(*pair, strict=True)) for pair in pairs] == pytest.approx([0, 0, 0], abs=1e-9)
        assert all(sum(value * value for value in axis) == pytest.approx(1) for axis in (right, down, normal))
    assert [[round(value) + 0 for value in axis] for axis in asked(people, script, name="dr.b")[0]] == CORONAL
