"""Heads for the network that finds the circle of Willis: painted coarsely, before and after contrast, from a seed.

Half of what such a network must learn is the base of the skull, so that varies more here than in the phantoms that vessels
are learned from: where it lies under the circle, how thin its walls are, how much of it is air.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ai.locations import Location
from training.phantom.frame import Float32Array, FloatArray, Grid, Pose, covering, draw_pose
from training.phantom.head import Head, draw_head, with_drawn_base
from training.phantom.painting import Segments, paint, segments_of, visibility
from training.phantom.tissues import Tissues, draw_tissues
from training.phantom.tree import Tree, label_of
from training.phantom.veins import draw_veins
from training.phantom.vessels import draw_arteries

STEP_MM = 2.2
LOW_MM, HIGH_MM = np.array([-92.0, -118.0, -112.0]), np.array([92.0, 118.0, 106.0])
"""Corners of the painted box about the circle, x to the left, y to the back, z to the head."""


@dataclass(frozen=True, eq=False)
class CircleHead:
    """A head about its circle of Willis.

    `plain_hu_DHW`, `filled_hu_DHW`: int16 on one grid, before and after contrast.  `affine_lps`: of that grid.
    `centre_lps_mm`: half way between the supraclinoid carotids.
    """

    plain_hu_DHW: NDArray[np.int16]
    filled_hu_DHW: NDArray[np.int16]
    affine_lps: FloatArray
    centre_lps_mm: FloatArray


def draw_circle_head(seed: int) -> CircleHead:
    """The head of a seed, upright: whoever learns from it turns it."""
    rng = np.random.default_rng([seed, 40])
    head = varied(with_drawn_base(draw_head(np.random.default_rng([seed, 41]))), rng)
    drawn = draw_pose(rng, held_out=False)
    pose = Pose(drawn.scale, np.eye(3), np.zeros(3), drawn.bends)
    tree = draw_arteries(head, rng, tortuosity=float(rng.uniform(0.5, 1.7)))
    grid = covering(LOW_MM, HIGH_MM, STEP_MM)
    plain = hu_of(draw_tissues(head, pose, grid))
    blood = float(rng.uniform(38, 52))
    arterial = float(rng.uniform(100, 450))
    tubes = [tube.posed(pose) for tube in tree.tubes.values()]
    veins = [tube.posed(pose) for tube in draw_veins(head, rng)]
    venous = rng.uniform(0.05, 0.95)
    filled = plain.copy()
    for vessels, hu in (
        (veins, [blood + arterial * venous * tube.filling for tube in veins]),
        (tubes, [blood + arterial] * len(tubes)),
    ):
        put_in(filled, grid, segments_of(vessels, hu))
    return CircleHead(rounded(plain), rounded(filled), grid.affine_lps(), middle_of(tree, pose))


def varied(head: Head, rng: np.random.Generator) -> Head:
    """A head whose base differs from others more than people's do."""
    return replace(
        head,
        pneumatised=float(rng.choice([0.0, 0.6, 0.9, 1.1, 1.3, 1.5])),
        base_shift_mm=(float(rng.uniform(-3, 9)), float(rng.uniform(-6, 3))),
        dorsum_mm=float(rng.uniform(0.7, 2.8)),
        sinus_wall_hu=float(rng.uniform(120, 1100)),
        recesses=bool(rng.uniform() < 0.5),
        roof_hu=float(rng.uniform(150, 350)) if rng.uniform() < 0.5 else 0.0,
        skull_mm=float(rng.uniform(3.0, 9.0)),
    )


def hu_of(tissues: Tissues) -> Float32Array:
    """HU of tissues on their own grid; an edge is as soft as a voxel is wide."""
    edge = np.float32(STEP_MM)
    image = tissues.soft_hu.copy()
    for distance, hu in ((tissues.bone_mm, tissues.bone_hu), (tissues.air_mm, np.float32(-1000))):
        image += np.clip(np.float32(0.5) - distance / edge, 0, 1) * (hu - image)
    return image


def put_in(image: Float32Array, grid: Grid, segments: Segments) -> None:
    """Blend vessels into an image on `grid`, in place, so that each keeps its mass."""
    distance, piece = paint(grid, segments)
    voxel = float(grid.spacing_DHW[0])
    at = (piece >= 0) & (distance < voxel / 2)
    which = piece[at]
    cover = np.clip(0.5 - distance[at] / np.float32(voxel), 0, 1) * visibility(segments, voxel)[which]
    image[at] += cover * (segments.hu[which] - image[at])


def middle_of(tree: Tree, pose: Pose) -> FloatArray:
    """Half way between the supraclinoid carotids of a tree, in LPS mm."""
    sides = []
    for location in (Location.LEFT_SUPRACLINOID_ICA, Location.RIGHT_SUPRACLINOID_ICA):
        own = [tube.points for tube in tree.tubes.values() if tube.label == label_of(location)]
        sides.append(pose.to_lps(np.concatenate(own)).mean(axis=0))
    middle: FloatArray = (sides[0] + sides[1]) / 2.0
    return middle


def rounded(image: Float32Array) -> NDArray[np.int16]:
    """HU as whole numbers that a scanner may give."""
    return np.rint(np.clip(image, -1024, 3071)).astype(np.int16)
