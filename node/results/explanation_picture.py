"""A picture of what the network marked: CT, heat map and circle, in three planes for each finding.  Pure."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from ai.explain import Explained, Explanation

NOTICE = "Research use, not a medical device"

_FIELD_MM = 80.0
_PANEL, _GAP, _TITLE, _HEADER, _FOOTER = 400, 10, 56, 44, 44  # pixels
_WINDOW_HU = (-100.0, 600.0)
_CIRCLE_MARGIN_MM = 3.0
_STRONGEST = 0.6  # of the heat's colour over the CT
_BACKGROUND, _BRIGHT, _DIM, _CIRCLE = (16, 18, 22), (236, 238, 242), (150, 156, 166), (90, 220, 255)
_HEAT_COLOURS = ((60, 0, 90), (190, 30, 70), (250, 120, 20), (255, 235, 90))
"""From weak to strong: dark to light, so that it also reads in grey and to the colour-blind."""
_PLANES = (("axial", 1, 2, "R L A P"), ("coronal", 0, 2, "R L H F"), ("sagittal", 0, 1, "A P H F"))
"""Name, the axes along rows and columns, and what lies left, right, above and below."""

Pixels = NDArray[np.float32]


def picture(explanation: "Explanation", heading: str) -> Image.Image:
    """One row for each lesion shown: its title, then axial, coronal and sagittal slices through its centre.

    A plane shows 80 mm around the centre, moved inside the region, as a radiologist sees it: the patient's right on the
    left, the head up.
    """
    rows = len(explanation.shown)
    width = 3 * _PANEL + 4 * _GAP
    sheet = Image.new("RGB", (width, _HEADER + rows * (_TITLE + _PANEL + _GAP) + _FOOTER), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, 12), heading, _BRIGHT, _font(20))
    draw.text((width - _GAP, 12), NOTICE, _CIRCLE, _font(20), anchor="ra")
    for number, shown in enumerate(explanation.shown):
        top = _HEADER + number * (_TITLE + _PANEL + _GAP)
        _titles(draw, top, shown, number + 1, explanation.findings.threshold)
        for column, plane in enumerate(_PLANES):
            panel = _panel(explanation.region.hu_DHW, shown, *plane)
            sheet.paste(panel, (_GAP + column * (_PANEL + _GAP), top + _TITLE))
    _legend(sheet, draw)
    return sheet


def _titles(draw: ImageDraw.ImageDraw, top: int, shown: "Explained", number: int, threshold: float) -> None:
    lesion = shown.lesion
    name = f"{number}  {lesion.location}" if shown.listed else f"Below the threshold: {lesion.location}"
    centre = ", ".join(f"{value:.1f}" for value in lesion.centre_lps_mm)
    measures = (
        f"diameter {lesion.diameter_mm:.1f} mm   probability {lesion.probability:.2f} (threshold {threshold:.2f})"
    )
    draw.text((_GAP, top + 2), name, _BRIGHT, _font(20))
    draw.text((_GAP, top + 28), f"{measures}   centre LPS {centre} mm", _DIM, _font(16))


def _panel(hu_DHW: NDArray[np.int16], shown: "Explained", name: str, row: int, column: int, sides: str) -> Image.Image:
    """One plane through the lesion's centre, `_PANEL` pixels square; black beyond the region."""
    affine, lesion = shown.heat.affine_lps, shown.lesion
    index = np.linalg.solve(affine, np.append(lesion.centre_lps_mm, 1.0))[:3]
    step_mm = float(affine[2, 0])
    across = 3 - row - column
    at = int(np.clip(round(float(index[across])), 0, hu_DHW.shape[across] - 1))
    (left, x), (top, y) = (_placed(index[axis], hu_DHW.shape[axis], _FIELD_MM / step_mm) for axis in (column, row))
    box = (left, top, left + _FIELD_MM / step_mm, top + _FIELD_MM / step_mm)
    grey = _enlarged(np.take(hu_DHW, at, across).astype(np.float32), box, fill=_WINDOW_HU[0])
    grey = np.clip((grey - _WINDOW_HU[0]) / (_WINDOW_HU[1] - _WINDOW_HU[0]), 0.0, 1.0)
    heat = np.clip(_enlarged(np.take(shown.heat.heat_DHW, at, across), box, fill=0.0), 0.0, 1.0)
    share = (_STRONGEST * np.sqrt(heat))[..., None]
    pixels = 255.0 * grey[..., None] * (1.0 - share) + _coloured(heat) * share
    if row == 0:
        pixels, y = pixels[::-1], _PANEL - y  # d runs to the head: up
    panel = Image.fromarray(np.rint(pixels).astype(np.uint8))
    draw = ImageDraw.Draw(panel)
    radius = (lesion.diameter_mm / 2.0 + _CIRCLE_MARGIN_MM) / _FIELD_MM * _PANEL
    draw.circle((x, y), radius, outline=_CIRCLE, width=2)
    middle, end = _PANEL // 2, _PANEL - 8
    corners = ((8, middle, "lm"), (end, middle, "rm"), (middle, 8, "ma"), (middle, end, "ms"), (8, end, "ls"))
    for word, (word_x, word_y, anchor) in zip((*sides.split(), name), corners, strict=True):
        draw.text((word_x, word_y), word, _BRIGHT, _font(15), anchor, stroke_width=2, stroke_fill=_BACKGROUND)
    return panel


def _placed(index: float, size: int, length: float) -> tuple[float, float]:
    """Where a stretch of `length` voxels around an index starts, moved inside the region, and the index in panel pixels."""
    start = float(np.clip(index + 0.5 - length / 2.0, 0.0, max(0.0, size - length)))
    return start, (index + 0.5 - start) / length * _PANEL


def _enlarged(plane: Pixels, box: Sequence[float], fill: float) -> Pixels:
    """The part of a plane in `box` (left, top, right, bottom in pixels' edges), `_PANEL` pixels square."""
    left, top, right, bottom = box
    transform = ((right - left) / _PANEL, 0.0, left, 0.0, (bottom - top) / _PANEL, top)
    image = Image.fromarray(plane).transform(
        (_PANEL, _PANEL), Image.Transform.AFFINE, transform, Image.Resampling.BICUBIC, fillcolor=fill
    )
    return np.asarray(image, np.float32)


def _coloured(heat: Pixels) -> Pixels:
    """H×W×3, 0 to 255: the colour of each value, linear between `_HEAT_COLOURS`."""
    stops = np.linspace(0.0, 1.0, len(_HEAT_COLOURS))
    channels = [np.interp(heat, stops, values) for values in zip(*_HEAT_COLOURS, strict=True)]
    return np.stack(channels, axis=-1).astype(np.float32)


def _legend(sheet: Image.Image, draw: ImageDraw.ImageDraw) -> None:
    """What heat and circle mean, along the lower edge."""
    y = sheet.height - _FOOTER + 14
    bar = _coloured(np.tile(np.linspace(0.0, 1.0, 120, dtype=np.float32), (12, 1)))
    sheet.paste(Image.fromarray(np.rint(bar).astype(np.uint8)), (_GAP, y + 2))
    words = "what raised the network's score here, weak to strong (3D Grad-CAM)          circle: diameter and 3 mm around it"
    draw.text((_GAP + 130, y - 1), words, _DIM, _font(15))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
