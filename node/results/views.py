"""Planes of a volume as a radiologist sees them: turned the usual way, with orientation marks and a scale in mm.

Pure; draws with Pillow.
"""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from ai.affine import lps_of, voxel_of
from ai.frames import AIR_HU
from ai.volume import Volume
from node.results.plain_ascii import plain_ascii

Box = tuple[int, int, int, int]
"""Left, top, right, bottom on the picture, in pixels."""
Colour = tuple[int, int, int]
Vector = NDArray[np.float64]

BLACK, WHITE = (0, 0, 0), (255, 255, 255)
TEXT, SMALL = 26, 22
_STEPS = {"R": (-1, 0, 0), "L": (1, 0, 0), "A": (0, -1, 0), "P": (0, 1, 0), "F": (0, 0, -1), "H": (0, 0, 1)}
"""In LPS."""

BONE_HU = 700
"""Cortical bone reaches it; vessels with contrast hardly do."""
_LEAST_BONE_MM3 = 1000.0  # less is a clip, a coil or a calcified wall, and stays
_MARROW_MM, _RIM_MM = 3.0, 1.5  # how far apart two cortical walls may be, and how far bone fades out
_RIM_HU = 120


@dataclass(frozen=True)
class View:
    """A square of the patient on the picture: `centre_lps_mm` in the middle of `box`, `marks` left, right, above, below.

    `across` and `down`: unit vectors in LPS, along rows and columns of the picture.
    """

    box: Box
    centre_lps_mm: Vector
    across: Vector
    down: Vector
    mm_per_pixel: float
    marks: str

    @property
    def side(self) -> int:
        """The box's, in pixels."""
        return self.box[2] - self.box[0]

    @property
    def points_lps_mm(self) -> Vector:
        """Of every pixel's centre, row by row, (side², 3)."""
        steps = (np.arange(self.side) + 0.5 - self.side / 2.0) * self.mm_per_pixel
        points = self.centre_lps_mm + steps[:, None, None] * self.down + steps[None, :, None] * self.across
        return np.asarray(points.reshape(-1, 3))

    def place(self, point_lps_mm: Vector) -> tuple[float, float]:
        """Where on the picture (x, y) a point of the patient is projected to."""
        offset = (point_lps_mm - self.centre_lps_mm) / self.mm_per_pixel
        return (
            float(offset @ self.across) + self.box[0] + self.side / 2.0,
            float(offset @ self.down) + self.box[1] + self.side / 2.0,
        )


def plane_view(box: Box, centre_lps_mm: Vector, width_mm: float, marks: str) -> View:
    """An exact plane of the patient; `marks` "RLAP" is axial, "RLHF" coronal, "APHF" sagittal."""
    across, down = (np.array(_STEPS[marks[index]], float) for index in (1, 3))
    return View(box, np.asarray(centre_lps_mm, float), across, down, width_mm / (box[2] - box[0]), marks)


def slice_view(box: Box, volume: Volume, slice_d: int, centre_lps_mm: Vector, width_mm: float) -> View:
    """A slice as it was stored, around the point of it that lies at the row and column of `centre_lps_mm`."""
    _, h, w = voxel_of(volume.affine_lps, centre_lps_mm)
    axes = volume.affine_lps[:3, :3] / np.linalg.norm(volume.affine_lps[:3, :3], axis=0)
    centre = lps_of(volume.affine_lps, (slice_d, h, w))
    return View(box, centre, axes[:, 2], axes[:, 1], width_mm / (box[2] - box[0]), "RLAP")


def sampled(view: View, values_DHW: NDArray[Any], affine_lps: Vector, beyond: float) -> NDArray[np.float32]:
    """The values on `affine_lps`'s grid in the view's plane, linear between voxels, (side, side)."""
    voxels = voxel_of(affine_lps, view.points_lps_mm)
    values = ndimage.map_coordinates(values_DHW, voxels.T, np.float32, order=1, cval=beyond)
    return np.asarray(values.reshape(view.side, view.side))


def show(image: Image.Image, view: View, volume: Volume, window_hu: tuple[float, float]) -> None:
    """The volume in the view's plane; black beyond the volume."""
    _paste(image, view, sampled(view, volume.hu_DHW, volume.affine_lps, AIR_HU), window_hu)


def show_projection(image: Image.Image, view: View, volume: Volume, window_hu: tuple[float, float]) -> None:
    """The volume's brightest voxels along its slices, in a view of one of the slices."""
    hu_HW = volume.hu_DHW.max(axis=0)
    rows_columns = voxel_of(volume.affine_lps, view.points_lps_mm)[:, 1:]
    hu = ndimage.map_coordinates(hu_HW, rows_columns.T, np.float32, order=1, cval=AIR_HU)
    _paste(image, view, hu.reshape(view.side, view.side), window_hu)


def grey(hu: NDArray[np.float32], window_hu: tuple[float, float]) -> NDArray[np.float32]:
    """0 to 255 over the window."""
    low, high = window_hu
    return np.asarray(np.clip((hu - low) / (high - low), 0.0, 1.0) * np.float32(255.0))


def _paste(image: Image.Image, view: View, hu: NDArray[np.float32], window_hu: tuple[float, float]) -> None:
    pixels = np.rint(grey(hu, window_hu)).astype(np.uint8)
    image.paste(Image.fromarray(pixels).convert("RGB"), view.box[:2])


def annotate(draw: ImageDraw.ImageDraw, view: View, scale_mm: int, *names: str) -> None:
    """The four orientation marks, what it is below on the left, a scale below on the right."""
    left, top, right, bottom = view.box
    x, y = (left + right) / 2.0, (top + bottom) / 2.0
    places = ((left + 5, y, "lm"), (right - 5, y, "rm"), (x, top + 3, "ma"), (x, bottom - 5, "ms"))
    for mark, (mark_x, mark_y, anchor) in zip(view.marks, places, strict=True):
        write(draw, (mark_x, mark_y), mark, SMALL, WHITE, anchor)
    for number, name in enumerate(reversed(names)):
        write(draw, (left + 5, bottom - 5 - 26 * number), name, SMALL, WHITE, "ls")
    length = scale_mm / view.mm_per_pixel
    end, line = right - 8, bottom - 8
    draw.line((end - length, line, end, line), fill=WHITE, width=3)
    for tick in (end - length, end):
        draw.line((tick, line - 5, tick, line + 5), fill=WHITE, width=3)
    write(draw, (end, line - 9), f"{scale_mm} mm", SMALL, WHITE, "rs")


def ring(
    draw: ImageDraw.ImageDraw, view: View, point_lps_mm: Vector, diameter_mm: float, label: str, colour: Colour
) -> None:
    """A ring a little outside a finding, and its number beside it, both kept inside the view."""
    x, y = view.place(np.asarray(point_lps_mm, float))
    left, top, right, bottom = view.box
    radius = min(max(12.0, diameter_mm / 2.0 / view.mm_per_pixel + 6.0), view.side / 2.0 - 4.0)
    x, y = min(max(x, left + radius), right - radius), min(max(y, top + radius), bottom - radius)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=colour, width=3)
    aside = radius * 0.7 + 4.0
    beside, anchor = (x + aside, "ls") if x + aside + 22 < right else (x - aside, "rs")
    write(draw, (beside, max(y - aside, top + 24)), label, TEXT, colour, anchor)


def without_bone(hu_DHW: NDArray[np.int16], spacing_mm_DHW: tuple[float, float, float]) -> NDArray[np.int16]:
    """The HU with large bones at air: cortex, the marrow between, and what fades out around them.

    Vessels that lie in or against bone go with it.
    """
    labels, _ = ndimage.label(hu_DHW > BONE_HU)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    bone = (sizes * np.prod(spacing_mm_DHW) >= _LEAST_BONE_MM3)[labels]
    filled = ~_widened(~_widened(bone, _MARROW_MM, spacing_mm_DHW), _MARROW_MM, spacing_mm_DHW)
    rim = _widened(bone, _RIM_MM, spacing_mm_DHW) & (hu_DHW > _RIM_HU)
    return np.where(filled | rim, np.int16(AIR_HU), hu_DHW)


def _widened(of: NDArray[np.bool_], by_mm: float, spacing_mm_DHW: tuple[float, float, float]) -> NDArray[np.bool_]:
    """Grown along each axis by about so much, beyond the border as at it."""
    for axis, spacing in enumerate(spacing_mm_DHW):
        of = ndimage.maximum_filter1d(of, 2 * round(by_mm / spacing) + 1, axis, mode="nearest")
    return np.asarray(of)


_font = functools.cache(ImageFont.load_default)


def length_of(words: str, size: int) -> float:
    """In pixels."""
    return float(_font(size).getlength(plain_ascii(words)))


def write(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], words: str, size: int, colour: Colour, anchor: str = "la"
) -> None:
    """ASCII with a black edge, so that it can be read on any grey."""
    draw.text(at, plain_ascii(words), fill=colour, font=_font(size), anchor=anchor, stroke_width=3, stroke_fill=BLACK)
