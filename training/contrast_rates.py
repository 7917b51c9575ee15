"""How often contrast is seen where there is some, and where there is none: `python -m training.contrast_rates [HEADS] [TURNS] [FIRST]`.

Each of HEADS regions about the circle of Willis, from the FIRST on, is painted once without contrast (thin bone of 200 to 310 HU,
marrow of 300 to 450 HU, calcified carotids, bone islands) and once as weakly filled CT angiography (150 to 200 HU), then turned
TURNS ways by up to 30° about each axis, with noise of its own.  A third of the filled ones holds a metal clip with streaks.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from rich.progress import track

from ai.contrast import Tubes, enhanced_tubes
from ai.volume import Volume
from training.circle_heads import middle_of, put_in, rounded
from training.phantom.confounders import Blob, Scene, add_background, plaques
from training.phantom.frame import (
    Float32Array,
    FloatArray,
    Grid,
    Pose,
    covering,
    draw_pose,
    rotation_matrix,
    smooth_noise,
)
from training.phantom.head import Head, draw_head, with_drawn_base
from training.phantom.painting import segments_of, voxel_points
from training.phantom.scanner import draw_scanner
from training.phantom.tissues import draw_tissues
from training.phantom.veins import draw_veins
from training.phantom.vessels import draw_arteries

STEP_MM = 1.1
FIRST_SEED = 9_400_000
CENTRE_ERROR_MM = 3.0
"""Standard deviation along each axis of where the circle is taken to be."""


@dataclass(frozen=True, eq=False)
class Painted:
    """A region before noise.  `kind`: plain, weak or clip."""

    kind: str
    hu_DHW: Float32Array
    grid: Grid
    centre_lps_mm: FloatArray


def painted(seed: int) -> Iterator[Painted]:
    """The plain and the filled region of a seed."""
    rng = np.random.default_rng([seed, 50])
    head = _hard(with_drawn_base(draw_head(np.random.default_rng([seed, 51]))), rng)
    drawn = draw_pose(rng, held_out=False)
    pose = Pose(drawn.scale, np.eye(3), np.zeros(3), drawn.bends)
    tree = draw_arteries(head, rng, tortuosity=float(rng.uniform(0.5, 1.6)))
    centre = middle_of(tree, pose)
    grid = covering(centre - [72, 84, 52], centre + [72, 62, 74], STEP_MM)
    tissues = draw_tissues(head, pose, grid)
    image = tissues.soft_hu.copy()
    for distance, hu in ((tissues.bone_mm, tissues.bone_hu), (tissues.air_mm, np.float32(-1000))):
        image += np.clip(np.float32(0.5) - distance / np.float32(STEP_MM), 0, 1) * (hu - image)
    scene = Scene(tree, [], draw_scanner(rng, held_out=False))
    add_background(scene, rng)
    for side in "LR":
        if rng.uniform() < 0.7:
            scene.blobs += plaques(tree.tubes[f"{side}_ICA_infra"], rng, int(rng.integers(2, 7)))
            scene.blobs += plaques(tree.tubes[f"{side}_ICA_supra"], rng, int(rng.integers(0, 3)))
    blobs = [blob.posed(pose) for blob in scene.blobs]
    tubes = [tube.posed(pose) for tube in tree.tubes.values()]
    veins = [tube.posed(pose) for tube in draw_veins(head, rng)]
    clipped = rng.uniform() < 1 / 3
    for kind in ("plain", "clip" if clipped else "weak"):
        out = image.copy()
        blood = float(rng.uniform(38, 52))
        arterial = 0.0 if kind == "plain" else float(rng.uniform(150, 200)) - blood
        put_in(out, grid, segments_of(veins, [blood + arterial * rng.uniform(0.05, 0.7) for _ in veins]))
        put_in(out, grid, segments_of(tubes, [blood + arterial] * len(tubes)))
        for blob in blobs:
            if kind != "plain" or blob.over or blob.hu >= 350 or blob.hu < 120:
                _blend(out, grid, blob)
        if kind == "clip":
            _clip(out, grid, centre, rng)
        yield Painted(kind, out, grid, centre)


def _hard(head: Head, rng: np.random.Generator) -> Head:
    """The head with what is most easily taken for arteries."""
    return replace(
        head,
        enhancement=-0.4,
        roof_hu=float(rng.uniform(200, 310)) if rng.uniform() < 0.7 else 0.0,
        wing_marrow_hu=float(rng.uniform(300, 450)) if rng.uniform() < 0.6 else 0.0,
        sinus_wall_hu=float(rng.uniform(150, 700)),
        recesses=bool(rng.uniform() < 0.5),
    )


def _blend(image: Float32Array, grid: Grid, blob: Blob) -> None:
    reach = float(blob.radii.max()) + 1.5
    where = grid.box(blob.centre - reach, blob.centre + reach)
    if min(part.stop - part.start for part in where) > 0:
        cover = np.clip(0.5 - blob.distance(voxel_points(grid, where)) / STEP_MM, 0, 1).astype(np.float32)
        image[where] += cover * (np.float32(blob.hu) - image[where])


def _clip(image: Float32Array, grid: Grid, centre: FloatArray, rng: np.random.Generator) -> None:
    """A clip of about 8 mm near the circle, and the rays it casts in its slices."""
    at = centre + rng.uniform(-18, 18, 3) * [1.0, 0.6, 0.5]
    _blend(image, grid, Blob(at, np.array([4.5, 1.2, 1.2]), np.eye(3), 9000.0))
    zs, ys, xs = (grid.axis(axis) for axis in range(3))
    for row in np.flatnonzero(np.abs(zs - at[2]) < 3.5):
        rays = np.convolve(np.repeat(rng.standard_normal(90), 8), np.hanning(11) / 5.0, "same")
        dy, dx = ys[:, None] - at[1], xs[None, :] - at[0]
        angle = ((np.arctan2(dy, dx) + np.pi) * (719.0 / (2 * np.pi))).astype(int)
        image[row] += (350.0 * rays[angle] / (1 + np.hypot(dy, dx) / 7.0)).astype(np.float32)


def turned(region: Painted, seed: int, turn: int) -> tuple[Volume, FloatArray]:
    """The region as a series that is turned about its circle, with noise, and where its circle is taken to be."""
    rng = np.random.default_rng([seed, 52, turn])
    rotation = rotation_matrix(tuple(rng.uniform(-30, 30, 3)))
    noise = smooth_noise(region.grid, STEP_MM, rng) * np.float32(rng.uniform(5, 18))
    affine = region.grid.affine_lps()
    affine[:3, :3] = rotation @ affine[:3, :3]
    affine[:3, 3] = rotation @ (affine[:3, 3] - region.centre_lps_mm) + region.centre_lps_mm
    return Volume(rounded(region.hu_DHW + noise), affine), region.centre_lps_mm + rng.normal(0, CENTRE_ERROR_MM, 3)


def interval(hits: int, of: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    share, z = hits / of, 1.96
    middle = share + z * z / (2 * of)
    half = z * float(np.sqrt(share * (1 - share) / of + z * z / (4 * of * of)))
    return (middle - half) / (1 + z * z / of), (middle + half) / (1 + z * z / of)


def main(arguments: list[str]) -> int:
    """Print both rates with their 95 % intervals, and the lengths of tubes that they rest on."""
    heads = int(arguments[0]) if arguments else 20
    turns = int(arguments[1]) if len(arguments) > 1 else 12
    first = FIRST_SEED + (int(arguments[2]) if len(arguments) > 2 else 0)
    found: dict[str, list[Tubes]] = {"plain": [], "weak": [], "clip": []}
    for seed in track(range(first, first + heads), "heads"):
        for region in painted(seed):
            for turn in range(turns):
                volume, centre = turned(region, seed, turn)
                found[region.kind].append(enhanced_tubes(volume, (centre[0], centre[1], centre[2])))
        print(f"phantom figures; {seed - first + 1} heads, each turned {turns} ways")
        for line in summary(found):
            print(line, flush=True)
    return 0


def summary(found: dict[str, list[Tubes]]) -> list[str]:
    """A line for each kind."""
    lines = []
    for kind, tubes in found.items():
        if tubes:
            filled = sum(each.filled for each in tubes)
            low, high = interval(filled, len(tubes))
            quantiles = np.quantile([each.length_mm for each in tubes], [0, 0.05, 0.5, 0.95, 1])
            mm = ", ".join(f"{value:.0f}" for value in quantiles)
            lines.append(
                f"{kind}: contrast seen in {filled} of {len(tubes)} ({low:.3f} to {high:.3f}); mm at 0, 5, 50, 95, 100 %: {mm}"
            )
    return lines


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
