"""A picture of what the network marked, in three planes for each finding: plain, and with heat map and circle.  Pure."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ai.affine import lps_of, voxel_of
from ai.volume import Volume
from node.results.document import percent
from node.results.views import View, annotate, grey, plane_view, sampled

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
_PLANES = (("axial", "RLAP", 2), ("coronal", "RLHF", 1), ("sagittal", "APHF", 0))
"""Name; what lies left, right, above and below; the axis of LPS that runs through the plane."""
_ROW = _TITLE + 2 * (_PANEL + _GAP)

Pixels = NDArray[np.float32]


def picture(explanation: "Explanation", heading: str) -> Image.Image:
    """For each lesion shown its title, then axial, coronal and sagittal planes through its centre, plain and with the heat.

    A plane shows 80 mm around the centre, moved inside the region, as a radiologist sees it: the patient's right on the
    left, the head up.
    """
    rows = len(explanation.shown)
    width = 3 * _PANEL + 4 * _GAP
    sheet = Image.new("RGB", (width, _HEADER + rows * _ROW + _FOOTER), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, 12), heading, _BRIGHT, _font(20))
    draw.text((width - _GAP, 12), NOTICE, _CIRCLE, _font(20), anchor="ra")
    for number, shown in enumerate(explanation.shown):
        top = _HEADER + number * _ROW
        _titles(draw, top, shown, number + 1, explanation.findings.threshold)
        region = Volume(explanation.region.hu_DHW, explanation.region.affine_lps)
        for column, (name, marks, through) in enumerate(_PLANES):
            middle = _middle(region, shown, through)
            for below, hot in enumerate((False, True)):
                left, upper = _GAP + column * (_PANEL + _GAP), top + _TITLE + below * (_PANEL + _GAP)
                view = plane_view((left, upper, left + _PANEL, upper + _PANEL), middle, _FIELD_MM, marks)
                sheet.paste(_panel(view, region, shown, hot), view.box[:2])
                if hot:
                    radius = (shown.lesion.diameter_mm / 2.0 + _CIRCLE_MARGIN_MM) / view.mm_per_pixel
                    draw.circle(view.place(np.array(shown.lesion.centre_lps_mm)), radius, outline=_CIRCLE, width=2)
                annotate(draw, view, 20, name)
    _legend(sheet, draw)
    return sheet


def _titles(draw: ImageDraw.ImageDraw, top: int, shown: "Explained", number: int, threshold: float) -> None:
    lesion = shown.lesion
    name = f"{number}  {lesion.location}" if shown.listed else f"Below the threshold: {lesion.location}"
    centre = ", ".join(f"{value:.1f}" for value in lesion.centre_lps_mm)
    probability = f"probability {percent(lesion.probability)} (threshold {percent(threshold)})"
    measures = f"diameter {lesion.diameter_mm:.1f} mm   {probability}"
    draw.text((_GAP, top + 2), name, _BRIGHT, _font(20))
    draw.text((_GAP, top + 28), f"{measures}   centre LPS {centre} mm", _DIM, _font(16))


def _middle(region: Volume, shown: "Explained", through: int) -> NDArray[np.float64]:
    """In LPS mm the middle of a plane through the lesion, moved along the plane until what it shows is in the region."""
    half = _FIELD_MM / 2.0 / np.array(region.spacing_mm_DHW)
    last, at = np.array(region.hu_DHW.shape) - 1.0, voxel_of(region.affine_lps, shown.lesion.centre_lps_mm)
    inside = np.clip(at, np.minimum(half, last / 2.0), np.maximum(last - half, last / 2.0))
    middle = lps_of(region.affine_lps, inside)
    middle[through] = shown.lesion.centre_lps_mm[through]
    return middle


def _panel(view: View, region: Volume, shown: "Explained", hot: bool) -> Image.Image:
    """The plane, `_PANEL` pixels square; black beyond the region."""
    pixels = grey(sampled(view, region.hu_DHW, region.affine_lps, _WINDOW_HU[0]), _WINDOW_HU)[..., None]
    if hot:
        heat = np.clip(sampled(view, shown.heat.heat_DHW, shown.heat.affine_lps, 0.0), 0.0, 1.0)
        share = (_STRONGEST * np.sqrt(heat))[..., None]
        pixels = np.asarray(pixels * (1.0 - share) + _coloured(heat) * share, np.float32)
    return Image.fromarray(np.broadcast_to(np.rint(pixels), (_PANEL, _PANEL, 3)).astype(np.uint8))


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
