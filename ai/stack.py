"""Header geometry in, one ordered stack of slices out: pure arrays, no pixels, no files.

Slice positions are the only evidence.  Instance Number, Slice Location, Slice Thickness and Spacing Between Slices
are never read: each of them is known to lie.  Nothing is repaired: an uneven stack is refused with its reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ai.errors import NotAnalysable, Reason
from ai.wording import counted

AXIAL_WITHIN_DEGREES = 45.0
"""A slice whose normal is further than this from the patient's long axis is sagittal or coronal, not axial."""
MAX_TILT_DEGREES = 30.5
"""CT gantries tilt by up to 30°; a stack sheared by more than that was not made by a gantry."""
SAME_POSITION_MM = 0.02
LEAST_PIXEL_SPACING_MM = 0.001
"""No CT resolves a hundredth of a millimetre; what is smaller still is no spacing, and dividing by it no number."""
ORIENTATION_TOLERANCE = 0.003
"""Direction cosines that differ by less are called equal; 0.003 moves a corner 150 mm away by 0.45 mm."""
SPACING_TOLERANCE = 0.1
"""An interval may differ from the spacing by this fraction of it, or by `ROUNDING_MM`."""
ROUNDING_MM = 0.11
"""Positions written with one decimal make intervals that differ by up to 0.1 mm."""
GAP_RATIO = 1.5
SIDEWAYS_TOLERANCE_MM = 0.5

Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Stack:
    """An even stack of parallel axial slices.

    `order`: indices of the slices from feet to head.  `spacing_mm`: distance between neighbouring planes along
    `normal`.  `normal`: unit vector across the slices, pointing to the head (LPS).  `row_direction` and
    `column_direction`: unit vectors (LPS) along which the column index and the row index of a pixel grow, as stored.
    `origin_lps_mm`: centre of the first pixel of the lowest slice.  `step_lps_mm`: from a slice to the next above it;
    it leans away from `normal` by `tilt_degrees` when the gantry was tilted.
    """

    order: NDArray[np.intp]
    spacing_mm: float
    normal: Vector
    row_direction: Vector
    column_direction: Vector
    origin_lps_mm: Vector
    step_lps_mm: Vector
    tilt_degrees: float

    def __len__(self) -> int:
        return len(self.order)

    def affine_lps(self, pixel_spacing_mm: tuple[float, float]) -> NDArray[np.float64]:
        """4×4 that maps (slice, row, column, 1) as stored to LPS mm, shear included.

        `pixel_spacing_mm` is PixelSpacing: the distance between rows, then between columns (PS3.3 10.7.1.3).
        """
        affine = np.eye(4)
        affine[:3, 0] = self.step_lps_mm
        affine[:3, 1] = self.column_direction * pixel_spacing_mm[0]
        affine[:3, 2] = self.row_direction * pixel_spacing_mm[1]
        affine[:3, 3] = self.origin_lps_mm
        return affine


def stack_geometry(
    positions_mm: ArrayLike,
    orientations: ArrayLike,
    *,
    pixel_spacings_mm: ArrayLike | None = None,
    matrices: ArrayLike | None = None,
    frames_of_reference: Sequence[str] | None = None,
) -> Stack:
    """The slices form an even axial stack, and this is its order and geometry.

    `positions_mm` (N, 3) and `orientations` (N, 6) are ImagePositionPatient and ImageOrientationPatient in LPS, NaN
    where a slice has none; (6,) serves all slices.  `pixel_spacings_mm` (N, 2), `matrices` (N, 2) as rows and columns,
    and `frames_of_reference` are checked for being alike when given.

    Raises NotAnalysable with, in this order: TOO_FEW_SLICES (fewer than 2), MISSING_GEOMETRY,
    MIXED_FRAMES_OF_REFERENCE, MIXED_MATRIX, MIXED_ORIENTATION, NOT_AXIAL, DUPLICATE_POSITION, GAP, WRONG_SPACING,
    GANTRY_TILT.  A tilt of up to `MAX_TILT_DEGREES` is kept as the shear that it is.
    """
    positions = np.asarray(positions_mm, dtype=np.float64).reshape(-1, 3)
    cosines = np.broadcast_to(np.asarray(orientations, dtype=np.float64), (len(positions), 6))
    if len(positions) < 2:
        raise NotAnalysable(Reason.TOO_FEW_SLICES, counted(len(positions), "slice"))
    _check_present(positions, cosines, pixel_spacings_mm)
    _check_alike(pixel_spacings_mm, matrices, frames_of_reference)
    row_direction, column_direction = _one_orientation(cosines)
    normal = np.cross(row_direction, column_direction)
    if abs(normal[2]) < np.cos(np.radians(AXIAL_WITHIN_DEGREES)):
        angle = np.degrees(np.arccos(min(1.0, abs(float(normal[2])))))
        raise NotAnalysable(Reason.NOT_AXIAL, f"slice normal {angle:.0f} degrees from the patient's long axis")
    normal = normal * np.sign(normal[2])

    along = positions @ normal
    order = np.argsort(along, kind="stable")
    ordered = positions[order]
    _check_even(along[order], ordered[:, 2])
    origin, step = _fit_line(ordered)
    tilt_degrees = _check_straight(ordered, origin, step, normal)
    return Stack(order, float(step @ normal), normal, row_direction, column_direction, origin, step, tilt_degrees)


def _check_present(positions: Vector, cosines: Vector, pixel_spacings_mm: ArrayLike | None) -> None:
    absent = {"position": ~_all_in_row(np.isfinite(positions)), "orientation": ~_all_in_row(np.isfinite(cosines))}
    if pixel_spacings_mm is not None:
        spacings = np.asarray(pixel_spacings_mm, dtype=np.float64).reshape(-1, 2)
        with np.errstate(invalid="ignore"):
            absent["pixel spacing"] = ~_all_in_row(np.isfinite(spacings) & (spacings >= LEAST_PIXEL_SPACING_MM))
    for what, missing in absent.items():
        if missing.any():
            raise NotAnalysable(
                Reason.MISSING_GEOMETRY, f"{int(missing.sum())} of {len(missing)} slices without {what}"
            )
    row, column = cosines[:, :3], cosines[:, 3:]
    lengths = np.linalg.norm(row, axis=1), np.linalg.norm(column, axis=1)
    crooked = np.abs(lengths[0] - 1) + np.abs(lengths[1] - 1) + np.abs((row * column).sum(axis=1)) > 0.01
    if crooked.any():
        count = f"{int(crooked.sum())} of {len(crooked)}"
        raise NotAnalysable(Reason.MISSING_GEOMETRY, f"{count} slices not oriented by two perpendicular unit vectors")


def _all_in_row(flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(flags.all(axis=1), dtype=np.bool_)


def _check_alike(
    pixel_spacings_mm: ArrayLike | None, matrices: ArrayLike | None, frames_of_reference: Sequence[str] | None
) -> None:
    if frames_of_reference is not None and len(set(frames_of_reference)) > 1:
        raise NotAnalysable(Reason.MIXED_FRAMES_OF_REFERENCE, f"{len(set(frames_of_reference))} frames of reference")
    if matrices is not None:
        sizes = sorted({(int(r), int(c)) for r, c in np.asarray(matrices).reshape(-1, 2)})
        if len(sizes) > 1:
            shown = ", ".join(f"{r} x {c}" for r, c in sizes[:4])
            raise NotAnalysable(Reason.MIXED_MATRIX, f"{len(sizes)} matrix sizes: {shown}")
    if pixel_spacings_mm is not None:
        spacings = np.asarray(pixel_spacings_mm, dtype=np.float64).reshape(-1, 2)
        low, high = spacings.min(axis=0), spacings.max(axis=0)
        if ((high - low) > 1e-3 * low).any():
            raise NotAnalysable(Reason.MIXED_MATRIX, f"pixel spacing from {low.min():.4f} to {high.max():.4f} mm")


def _one_orientation(cosines: Vector) -> tuple[Vector, Vector]:
    """The orthonormal row and column directions that all slices share."""
    apart = np.abs(cosines - cosines[0]).max(axis=1)
    if (apart > ORIENTATION_TOLERANCE).any():
        worst = cosines[int(apart.argmax())]
        angle = max(_angle_degrees(worst[:3], cosines[0, :3]), _angle_degrees(worst[3:], cosines[0, 3:]))
        detail = (
            f"{int((apart > ORIENTATION_TOLERANCE).sum())} of {len(apart)} slices turned by up to {angle:.1f} degrees"
        )
        raise NotAnalysable(Reason.MIXED_ORIENTATION, detail)
    row = cosines[0, :3] / np.linalg.norm(cosines[0, :3])
    column = cosines[0, 3:] - row * float(cosines[0, 3:] @ row)
    return row, column / np.linalg.norm(column)


def _check_even(along_mm: Vector, z_mm: Vector) -> None:
    """The planes are evenly spaced.  Raises DUPLICATE_POSITION, GAP or WRONG_SPACING; `z_mm` is for the message."""
    intervals = np.diff(along_mm)
    same = intervals < SAME_POSITION_MM
    if same.any():
        where = z_mm[int(np.flatnonzero(same)[0])]
        repeated = counted(int(same.sum()), "slice repeats", "slices repeat")
        raise NotAnalysable(Reason.DUPLICATE_POSITION, f"{repeated} a position, the first at z = {where:.2f} mm")
    lower_quartile = float(np.quantile(intervals, 0.25, method="lower"))
    spacing = float(np.median(intervals[intervals < GAP_RATIO * lower_quartile]))
    wide = intervals > GAP_RATIO * spacing
    if wide.any():
        first = int(np.flatnonzero(wide)[0])
        missing = int(np.maximum(1, np.rint(intervals[wide] / spacing) - 1).sum())
        raise NotAnalysable(
            Reason.GAP,
            f"about {counted(missing, 'slice')} missing in {counted(int(wide.sum()), 'gap')}, "
            f"the first of {intervals[first]:.2f} mm above z = {z_mm[first]:.2f} mm at a spacing of {spacing:.3f} mm",
        )
    tolerance = max(SPACING_TOLERANCE * spacing, ROUNDING_MM)
    if (np.abs(intervals - spacing) > tolerance).any():
        raise NotAnalysable(
            Reason.WRONG_SPACING,
            f"intervals from {intervals.min():.3f} to {intervals.max():.3f} mm, mostly {spacing:.3f} mm",
        )
    # Small differences that add up (0.6 mm below, 0.7 mm above) bend the stack: no single affine fits it.
    even = np.linspace(along_mm[0], along_mm[-1], len(along_mm))
    drift = float(np.abs(along_mm - even).max())
    if drift > max(tolerance, 0.25):
        raise NotAnalysable(Reason.WRONG_SPACING, f"slices lie up to {drift:.2f} mm from an even stack")


def _fit_line(ordered_mm: Vector) -> tuple[Vector, Vector]:
    """Origin and step of the least-squares line through the positions, to a few micrometres where they are even.

    The step counts in 10⁻⁶ mm along each axis, and the origin in micrometres beside a multiple of it: where a scanner rounds
    positions, the slices that have come lie where they will when all are there.
    """
    k = np.arange(len(ordered_mm)) - (len(ordered_mm) - 1) / 2.0
    step: Vector = (k[:, None] * ordered_mm).sum(axis=0) / (k @ k)
    origin: Vector = ordered_mm.mean(axis=0) + k[0] * step
    step = step.round(6)
    multiple = step * round(float(origin @ step / (step @ step)))
    return multiple + (origin - multiple).round(3), step


def _check_straight(ordered_mm: Vector, origin: Vector, step: Vector, normal: Vector) -> float:
    """Degrees between the stack's axis and the normal.  Raises WRONG_SPACING (uneven sideways shifts), GANTRY_TILT."""
    line = origin + np.arange(len(ordered_mm))[:, None] * step
    off = ordered_mm - line
    sideways = float(np.linalg.norm(off - (off @ normal)[:, None] * normal, axis=1).max())
    if sideways > SIDEWAYS_TOLERANCE_MM:
        raise NotAnalysable(
            Reason.WRONG_SPACING, f"slices shifted sideways by up to {sideways:.2f} mm from a straight stack"
        )
    tilt = _angle_degrees(step, normal)
    if tilt > MAX_TILT_DEGREES:
        raise NotAnalysable(Reason.GANTRY_TILT, f"{tilt:.1f} degrees, at most {MAX_TILT_DEGREES:.1f}")
    return tilt


def _angle_degrees(a: Vector, b: Vector) -> float:
    return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b)))
