"""Where the head is in a volume, and whether the region around the circle of Willis is shown whole.

Works on bone alone: in an axial slice through the vault the skull is a closed ring, and what it encloses is the
intracranial cavity.  Its area along the body axis falls to zero at the vertex.  Followed back along the midline, the
floor of the cavity falls off a cliff behind the sella (the dorsum sellae, then the clivus); the circle of Willis lies
just in front of that edge and a little above it.  Where the floor is not shown, the distance from the vertex must do.
numpy and scipy only: the node also asks this of a few subsampled slices while a series is still arriving.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai.errors import NotAnalysable, Reason
from ai.limits import check_coarse
from ai.volume import Volume

BONE_HU = 350
AIR_HU = -500
COARSE_MM_DHW = (4.0, 2.5, 2.5)
"""No finer grid than this is looked at."""

DORSUM_TO_CIRCLE_MM = (2.5, 12.5)
"""The circle lies so far above the top of the dorsum sellae and in front of the edge behind it."""
VERTEX_TO_CIRCLE_MM = 88.0
FRONT_TO_CIRCLE_SHARE = 0.37
"""Without a floor to go by: how far below the inner vertex, and how far back in the cavity's length."""

BELOW_MM, ABOVE_MM, AROUND_MM = 32.0, 38.0, 45.0
"""How much must be seen below, above and to each side of the centre of the circle, before any margin."""

_RING_GAP_MM = 9.0  # foramina, sutures, burr holes and subsampled thin bone that closing must bridge
_CUT_OFF_MM = 130.0  # the most of a cavity's outline that may lie beyond the field of view
_DOME_RADIUS_MM = 75.0
_BELOW_VERTEX_MM = 40.0
_STRIP_MM = 7.0
_PIT_MM = 16.0
_CLIVUS_MM, _LEAST_DROP_MM = 32.0, 18.0  # how far the floor falls behind the sella; how little of that may be shown
_DISAGREEMENT_MM = 28.0
_ROLL_COLUMNS = 0.6  # per slice of the coarse grid: about 20 degrees
_MIN_SLICE_CM2 = 15.0
_MIN_HEAD_CM2 = 80.0
_MIN_HEAD_CM3 = 250.0
_HEAD_WIDTH_MM, _HEAD_LENGTH_MM = (95.0, 190.0), (110.0, 225.0)


@dataclass(frozen=True)
class HeadExtent:
    """Where a head lies in its volume.

    `circle_centre_lps_mm`: the estimated middle of the circle of Willis, between the two supraclinoid carotids; None
    where neither the vertex nor the skull base could be told.  `below_mm`, `above_mm`, `around_mm`: how far the volume
    reaches from there towards the feet, the head, and to the nearest side in the plane (all negative when outside).
    `vertex_inside`: the top of the cavity is shown.  `spread_mm`: how far from its centre the circle may well lie.
    """

    circle_centre_lps_mm: tuple[float, float, float] | None
    vertex_inside: bool
    below_mm: float = -np.inf
    above_mm: float = -np.inf
    around_mm: float = -np.inf
    spread_mm: float = 0.0

    def covers_circle_of_willis(self, margin_mm: float = 0.0) -> bool:
        """Whether the region around the circle lies inside the volume with this margin at both ends."""
        return (
            self.circle_centre_lps_mm is not None
            and self.below_mm >= BELOW_MM + margin_mm
            and self.above_mm >= ABOVE_MM + margin_mm
            and self.around_mm >= AROUND_MM
        )


def head_extent(volume: Volume) -> HeadExtent:
    """Return where the head lies.  Raises NotAnalysable (NOT_A_HEAD) when no skull vault is recognised, or TOO_LARGE.

    Any spacing up to about 5 × 3 × 3 mm will do; finer volumes are subsampled first.
    """
    hu_DHW, affine = _coarse(volume)
    check_coarse(hu_DHW.size)
    if min(hu_DHW.shape) < 2:
        raise NotAnalysable(Reason.NOT_A_HEAD, f"a matrix of {volume.hu_DHW.shape}")
    if float((hu_DHW < AIR_HU).mean()) < 0.02:
        raise NotAnalysable(Reason.NOT_A_HEAD, "no air around a patient: not CT in Hounsfield units")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    bone_DHW = hu_DHW > BONE_HU
    cavity_DHW = _cavity(hu_DHW, bone_DHW, float(spacing[1]), float(spacing[2]))
    area_cm2 = cavity_DHW.sum(axis=(1, 2)) * float(spacing[1] * spacing[2]) / 100.0
    bottom, top = _longest_run(area_cm2)
    widest = int(np.argmax(area_cm2))
    length_mm, width_mm = (_span(cavity_DHW[widest].any(axis=1 - axis)) * float(spacing[1 + axis]) for axis in (0, 1))
    volume_cm3 = float(area_cm2[bottom:top].sum() * spacing[0] / 10.0)
    if (
        area_cm2[widest] < _MIN_HEAD_CM2
        or volume_cm3 < _MIN_HEAD_CM3
        or not _HEAD_WIDTH_MM[0] <= width_mm <= _HEAD_WIDTH_MM[1]
        or not _HEAD_LENGTH_MM[0] <= length_mm <= _HEAD_LENGTH_MM[1]
    ):
        raise NotAnalysable(
            Reason.NOT_A_HEAD, f"bone encloses {volume_cm3:.0f} cm³, at most {area_cm2[widest]:.0f} cm² in a slice"
        )
    return _located(volume, affine, bone_DHW, cavity_DHW, area_cm2, bottom, top)


def require_coverage(extent: HeadExtent, margin_mm: float = 0.0) -> None:
    """Raise NotAnalysable (COVERAGE) unless the region around the circle of Willis is shown whole."""
    if extent.circle_centre_lps_mm is None:
        raise NotAnalysable(Reason.COVERAGE, "neither the vertex nor the skull base is shown")
    if not extent.covers_circle_of_willis(margin_mm):
        raise NotAnalysable(
            Reason.COVERAGE,
            f"{extent.below_mm:.0f} mm below, {extent.above_mm:.0f} mm above and {extent.around_mm:.0f} mm around the circle of Willis",
        )


def _coarse(volume: Volume) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """The volume at every n-th voxel, not finer than `COARSE_MM_DHW`, and its affine."""
    strides = [
        max(1, int(coarse / spacing)) for coarse, spacing in zip(COARSE_MM_DHW, volume.spacing_mm_DHW, strict=True)
    ]
    affine = volume.affine_lps @ np.diag([*strides, 1.0])
    return volume.hu_DHW[:: strides[0], :: strides[1], :: strides[2]], affine


def _cavity(
    hu_DHW: NDArray[np.int16], bone_DHW: NDArray[np.bool_], pixel_h_mm: float, pixel_w_mm: float
) -> NDArray[np.bool_]:
    """In each slice, the largest region that bone encloses, once gaps up to `_RING_GAP_MM` are bridged.

    A skull that the field of view cuts off at the sides still encloses: what meets the border there is not air.
    """
    reach = max(1, round(_RING_GAP_MM / 2.0 / min(pixel_h_mm, pixel_w_mm)))
    disc = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1]) <= reach + 0.5
    thick = ndimage.binary_dilation(bone_DHW, structure=disc[None])
    in_plane = np.zeros((3, 3, 3), dtype=bool)
    in_plane[1] = ndimage.generate_binary_structure(2, 1)
    labels, count = ndimage.label(~thick, structure=in_plane)
    size = np.bincount(labels.ravel(), minlength=count + 1)
    contact_mm, air_mm = np.zeros(count + 1), np.zeros(count + 1)
    for side, pixel_mm in (
        (np.s_[:, 0], pixel_w_mm),
        (np.s_[:, -1], pixel_w_mm),
        (np.s_[:, :, 0], pixel_h_mm),
        (np.s_[:, :, -1], pixel_h_mm),
    ):
        contact_mm += pixel_mm * np.bincount(labels[side].ravel(), minlength=count + 1)
        air_mm += pixel_mm * np.bincount(
            labels[side].ravel(), weights=(hu_DHW[side] < AIR_HU).ravel(), minlength=count + 1
        )
    size[(contact_mm > _CUT_OFF_MM) | (air_mm > 0.3 * contact_mm)] = 0
    size[0] = 0
    cavity = np.zeros_like(thick)
    for d, plane in enumerate(labels):
        inside = np.unique(plane)
        largest = inside[np.argmax(size[inside])]
        if size[largest]:
            cavity[d] = plane == largest
    grown: NDArray[np.bool_] = ndimage.binary_dilation(cavity, structure=disc[None]) & ~bone_DHW
    return grown


def _longest_run(area_cm2: NDArray[np.float64]) -> tuple[int, int]:
    """The half-open range of neighbouring slices whose enclosed areas, each at least `_MIN_SLICE_CM2`, sum to the most."""
    labels, count = ndimage.label(area_cm2 >= _MIN_SLICE_CM2)
    if count == 0:
        return 0, 0
    best = 1 + int(np.argmax(ndimage.sum_labels(area_cm2, labels, range(1, count + 1))))
    inside = np.flatnonzero(labels == best)
    return int(inside[0]), int(inside[-1]) + 1


def _located(
    volume: Volume,
    affine: NDArray[np.float64],
    bone_DHW: NDArray[np.bool_],
    cavity_DHW: NDArray[np.bool_],
    area_cm2: NDArray[np.float64],
    bottom: int,
    top: int,
) -> HeadExtent:
    """The extent of a head whose cavity fills slices bottom..top-1 of the coarse grid."""
    slice_mm, row_mm = (float(np.linalg.norm(affine[:3, axis])) for axis in (0, 1))
    falling = area_cm2[top - 1] <= 0.5 * area_cm2[bottom:top].max()
    vertex_inside = bool(top < len(area_cm2) and falling)
    # Near its top the cavity is a cap: area = 2π · radius · depth.
    cap_mm = 100.0 * float(area_cm2[top - 1]) / (2.0 * np.pi * _DOME_RADIUS_MM)
    vertex_known = vertex_inside or (falling and cap_mm <= 10.0)
    level = top - 1 + (cap_mm - VERTEX_TO_CIRCLE_MM) / slice_mm
    front, back, midline = _outline(cavity_DHW, area_cm2, top, slice_mm)
    h = front + FRONT_TO_CIRCLE_SHARE * (back - front)
    # Look down on the floor from the widest part of the vault, well inside it.
    start = int(np.flatnonzero(area_cm2[:top] >= 0.9 * area_cm2[bottom:top].max())[-1])
    if vertex_known:
        start = max(bottom, min(start, top - 1 - round(_BELOW_VERTEX_MM / slice_mm)))
    edge = _dorsum_sellae(bone_DHW, start, midline(level if vertex_known else bottom), front, back, affine)
    if edge is not None:
        dorsum, behind = edge
        edge_level = dorsum + DORSUM_TO_CIRCLE_MM[0] / slice_mm
        if not vertex_known or abs(edge_level - level) * slice_mm <= _DISAGREEMENT_MM:
            level, h = edge_level, behind - DORSUM_TO_CIRCLE_MM[1] / row_mm
    elif not vertex_known:
        return HeadExtent(None, vertex_inside)
    w = midline(level)
    centre = (affine @ np.array([level, h, w, 1.0]))[:3]
    return extent_about(volume, (float(centre[0]), float(centre[1]), float(centre[2])), vertex_inside=vertex_inside)


def extent_about(
    volume: Volume, circle_centre_lps_mm: tuple[float, float, float], *, vertex_inside: bool, spread_mm: float = 0.0
) -> HeadExtent:
    """The extent of a head whose circle of Willis is known."""
    index = np.linalg.solve(volume.affine_lps, np.append(circle_centre_lps_mm, 1.0))[:3]
    spacing = np.array(volume.spacing_mm_DHW)
    normal = np.cross(volume.affine_lps[:3, 1], volume.affine_lps[:3, 2]) / (spacing[1] * spacing[2])
    spacing[0] = abs(normal @ volume.affine_lps[:3, 0])  # under a tilted gantry less than from slice to slice
    before = index * spacing
    behind = (np.array(volume.hu_DHW.shape) - 1 - index) * spacing
    return HeadExtent(
        circle_centre_lps_mm=circle_centre_lps_mm,
        vertex_inside=vertex_inside,
        below_mm=float(before[0]),
        above_mm=float(behind[0]),
        around_mm=float(min(before[1], before[2], behind[1], behind[2])),
        spread_mm=spread_mm,
    )


def _dorsum_sellae(
    bone_DHW: NDArray[np.bool_], start: int, middle: float, front: float, back: float, affine: NDArray[np.float64]
) -> tuple[float, float] | None:
    """The slice of the top of the dorsum sellae and the row just behind it, or None where no such edge is shown.

    Looks down from slice `start` along a strip around column `middle`: `floor` is the slice where bone is first met.
    """
    slice_mm, row_mm, column_mm = (float(np.linalg.norm(affine[:3, axis])) for axis in range(3))
    reach, centre = max(1, round(_STRIP_MM / column_mm)), round(middle)
    strip = bone_DHW[: start + 1, :, max(0, centre - reach) : centre + reach + 1].mean(axis=2) >= 0.4
    if strip.size == 0:
        return None
    floor_mm = np.where(strip.any(axis=0), start - np.argmax(strip[::-1], axis=0), -1) * slice_mm
    # Closing fills the pit of the sella, and sinuses seen through thin bone.
    floor_mm = ndimage.grey_closing(floor_mm, size=max(3, round(_PIT_MM / row_mm)))
    first, last = (min(round(front + share * (back - front)), len(floor_mm) - 1) for share in (0.22, 0.75))
    plateau_mm = float(np.median(floor_mm[first : first + max(2, round(20.0 / row_mm))]))
    deep = np.flatnonzero(floor_mm[first : last + 1] <= max(plateau_mm - _CLIVUS_MM, 0.0))
    if deep.size == 0 or deep[0] < 3 or plateau_mm < _LEAST_DROP_MM:
        return None
    # The edge is the corner between the plateau and the fall: the point farthest above the straight line that joins them.
    run = floor_mm[first : first + int(deep[0]) + 1]
    edge = first + int(np.argmax(run - np.linspace(run[0], run[-1], run.size)))
    top_mm = float(floor_mm[max(0, edge - round(8.0 / row_mm)) : edge + 1].max())
    return None if top_mm >= (start - 0.5) * slice_mm else (top_mm / slice_mm, float(edge))


def _span(line: NDArray[np.bool_]) -> int:
    """How many pixels lie between the first and the last that are set."""
    inside = np.flatnonzero(line)
    return int(inside[-1] - inside[0]) if inside.size else 0


def _outline(
    cavity_DHW: NDArray[np.bool_], area_cm2: NDArray[np.float64], top: int, slice_mm: float
) -> tuple[float, float, Callable[[float], float]]:
    """First and last row of the vault, and its middle column as a function of the slice, so that a rolled head is followed."""
    inside = [
        d
        for d in range(max(0, top - 1 - round(80.0 / slice_mm)), top - round(25.0 / slice_mm))
        if area_cm2[d] >= 0.6 * area_cm2.max()
    ] or [int(np.argmax(area_cm2))]
    fronts, backs, middles = [], [], []
    for d in inside:
        rows, columns = (np.flatnonzero(cavity_DHW[d].any(axis=axis)) for axis in (1, 0))
        fronts.append(float(rows[0]))
        backs.append(float(rows[-1]))
        middles.append(float(columns[0] + columns[-1]) / 2.0)
    slope = float(np.polyfit(inside, middles, 1)[0]) if len(inside) >= 4 else 0.0
    slope = float(np.clip(slope, -_ROLL_COLUMNS, _ROLL_COLUMNS))
    at, through = float(np.mean(inside)), float(np.mean(middles))
    return float(np.median(fronts)), float(np.median(backs)), lambda level: through + slope * (level - at)
