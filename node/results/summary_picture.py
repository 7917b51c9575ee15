"""The summary as a picture: what was concluded, on one square that can be read in any viewer.  Pure; draws with Pillow.

Only printable ASCII is drawn, in the font that comes with Pillow, so that no glyph is missing; and nothing that names
a patient.  Nothing is smaller than 22 of 1,024 pixels, so that it can be read when shown at half that size.  Viewers lay
texts and controls over corners and top: OHIF's reach down to line 166 at that size, so that the title alone is above it.
"""

import functools
import textwrap
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ai.coverage import head_extent
from ai.errors import NotAnalysable
from ai.findings import Findings, Lesion
from ai.locations import COLUMNS, PRESENT
from ai.volume import Volume
from ai.wording import counted
from node.results.document import Algorithm, NotAnalysed, Outcome, operating_points, percent
from node.results.plain_ascii import plain_ascii

SIDE = 1024
TITLE = "WILLIS   intracranial aneurysm detection, head CTA"
WARNING = "RESEARCH USE - NOT VERIFIED - NOT A MEDICAL DEVICE"
MAXIMUM_THUMBNAILS = 4
"""The rest of at most ten findings are in the report."""

Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]
Point = tuple[float, float, float]
Voxel = tuple[float, float, float]
"""(d, h, w), not rounded."""
_BLACK, _WHITE, _GREY, _DIM = (0, 0, 0), (255, 255, 255), (170, 170, 170), (60, 60, 60)
_RED, _GREEN, _AMBER, _CYAN = (255, 96, 96), (120, 220, 120), (255, 190, 60), (80, 220, 255)
_MARGIN = 24
_TEXT, _SMALL = 26, 22
_SHORT = {
    "Internal Carotid Artery": "ICA",
    "Middle Cerebral Artery": "MCA",
    "Anterior Cerebral Artery": "ACA",
    "Anterior Communicating Artery": "ACom",
    "Posterior Communicating Artery": "PCom",
    "Circulation": "",
}
_MIP_MM, _THUMBNAIL_MM = 130.0, 60.0
_MIP_BELOW_MM, _MIP_ABOVE_MM = 8.0, 22.0
"""Of the circle of Willis: less below it, where the skull base hides the arteries."""
_WINDOW_HU = (-60.0, 540.0)
_MIP_WINDOW_HU = (50.0, 650.0)


def summary_picture(outcome: Outcome, algorithm: Algorithm, volume: Volume | None) -> NDArray[np.uint8]:
    """The summary as (1024, 1024, 3) RGB.  `volume`: the analysed images, None where there are none to show."""
    image = Image.new("RGB", (SIDE, SIDE), _BLACK)
    draw = ImageDraw.Draw(image)
    _text(draw, (_MARGIN, 14), TITLE, _SMALL, _GREY)
    if isinstance(outcome, NotAnalysed):
        _not_analysed(draw, outcome)
    else:
        _headline(draw, outcome)
        _bars(draw, outcome)
        if volume is not None:
            middle = _middle(volume, outcome)
            _projection(image, outcome, volume, middle)
            _thumbnails(image, outcome, volume, middle)
    footer = f"{algorithm.name} {algorithm.version}, Willis {algorithm.software_version}"
    draw.line((0, 940, SIDE, 940), fill=_DIM, width=2)
    for y, said, size, colour in ((948, footer, _SMALL, _GREY), (980, WARNING, _TEXT, _AMBER)):
        _text(draw, ((SIDE - _font(size).getlength(plain_ascii(said))) / 2, y), said, size, colour)
    return np.asarray(image, dtype=np.uint8)


def points_shown(findings: Findings, volume: Volume) -> list[Point]:
    """In LPS mm a point of each slice that is shown: the findings' centres, else the middles of the slices without any."""
    if findings.lesions:
        return [lesion.centre_lps_mm for lesion in findings.lesions]
    middle = _middle(volume, findings)
    points = [volume.affine_lps @ (d, middle[1], middle[2], 1.0) for _, d in _slices_without_findings(volume, middle)]
    return [(float(x), float(y), float(z)) for x, y, z, _ in points]


def short(location: str) -> str:
    """A location's name as neuroradiologists abbreviate it."""
    for long, brief in _SHORT.items():
        location = location.replace(long, brief)
    return location.strip()


def _not_analysed(draw: ImageDraw.ImageDraw, outcome: NotAnalysed) -> None:
    _text(draw, (_MARGIN, 160), "NOT ANALYSED", 76, _AMBER)
    _text(draw, (_MARGIN, 264), "This is not a negative result: no image was analysed.", 32, _WHITE)
    lines = textwrap.wrap(outcome.reason.explained, 48)
    lines += ["", f"Code: {outcome.reason.value}", *textwrap.wrap(outcome.detail, 48)]
    for number, line in enumerate(lines[:12]):
        _text(draw, (_MARGIN, 350 + 46 * number), line, 36, _WHITE)


def _headline(draw: ImageDraw.ImageDraw, findings: Findings) -> None:
    """The outcome; a limited one is never green, and says why beside it."""
    if findings.positive:
        said, colour = f"SUSPECTED ANEURYSM: {counted(len(findings.lesions), 'finding')}", _RED
    else:
        said, colour = (
            ("LIMITED: NO ANEURYSM DETECTED", _AMBER) if findings.limited else ("NO ANEURYSM DETECTED", _GREEN)
        )
    size = 36 if findings.limited else 50
    _text(draw, (_MARGIN, 160), said, size, colour)
    if findings.limited:
        _text(draw, (_MARGIN, 200), _fitting(findings.limited, SIDE - 2 * _MARGIN), _SMALL, _AMBER)
    named = "Presence, that of the most probable finding:" if findings.positive else "Probability of presence"
    points = ", ".join(f"{name} {percent(value)}" for name, value in operating_points(findings))
    said = f"{named} {percent(findings.present)}, {points}"
    _text(draw, (_MARGIN, 226 if findings.limited else 218), said, _SMALL if findings.limited else 24, _WHITE)


def _fitting(said: str, width: float) -> str:
    """The words as far as they fit; the report has the rest."""
    if _font(_SMALL).getlength(plain_ascii(said)) <= width:
        return said
    while _font(_SMALL).getlength(plain_ascii(f"{said} ...")) > width:
        said = said.rpartition(" ")[0]
    return f"{said} ..."


def _bars(draw: ImageDraw.ImageDraw, findings: Findings) -> None:
    """The 14 probabilities, presence first; those of a listed finding and the presence are bright."""
    listed = {lesion.location.value for lesion in findings.lesions} | ({PRESENT} if findings.positive else set())
    rows = [(PRESENT, findings.present), *zip(COLUMNS, findings.probabilities, strict=False)][: len(COLUMNS)]
    left, width, step, top = 268, 150, 30, 258
    for number, (name, probability) in enumerate(rows):
        y, colour = top + step * number, _RED if name in listed else _GREY
        _text(draw, (_MARGIN, y), short(name), _SMALL, _WHITE if name in listed else _GREY)
        draw.rectangle((left, y + 5, left + width, y + 22), outline=_DIM)
        if length := round(probability * width):
            draw.rectangle((left, y + 5, left + length, y + 22), fill=colour)
        _text(draw, (left + width + 10, y), percent(probability), _SMALL, _WHITE if name in listed else _GREY)
    for _, value in operating_points(findings):
        mark = left + round(value * width)
        draw.line((mark, top, mark, top + 26), fill=_CYAN, width=2)


@dataclass(frozen=True)
class _View:
    """A plane of the volume around a point: `box` on the picture shows rows and columns from `start` at `pixels_per_hw`."""

    box: Box
    start: tuple[float, float]
    pixels_per_hw: tuple[float, float]

    def place(self, h: float, w: float) -> tuple[float, float]:
        """Where on the picture the centre of voxel (h, w) lies."""
        x = self.box[0] + (w + 0.5 - self.start[1]) * self.pixels_per_hw[1]
        y = self.box[1] + (h + 0.5 - self.start[0]) * self.pixels_per_hw[0]
        return x, y


def _projection(image: Image.Image, findings: Findings, volume: Volume, middle: Voxel) -> None:
    """A maximum intensity projection along the slices through the circle of Willis and every finding, with numbers."""
    box = (580, 258, 1000, 678)
    centres = [voxel_of(volume, lesion.centre_lps_mm) for lesion in findings.lesions]
    slice_mm = volume.spacing_mm_DHW[0]
    depths = [middle[0] - _MIP_BELOW_MM / slice_mm, middle[0] + _MIP_ABOVE_MM / slice_mm, *(c[0] for c in centres)]
    low = min(max(0, round(min(depths))), len(volume.hu_DHW) - 1)
    high = max(min(len(volume.hu_DHW), round(max(depths)) + 1), low + 1)
    plane = volume.hu_DHW[low:high].max(axis=0)
    view = _show(image, plane, volume, (middle[1], middle[2]), _MIP_MM, box, _MIP_WINDOW_HU)
    draw = ImageDraw.Draw(image)
    for number, (centre, lesion) in enumerate(zip(centres, findings.lesions, strict=True), start=1):
        _circle(draw, view, centre, lesion, volume, str(number))
    thickness = round((high - low) * slice_mm)
    _text(draw, (box[0] + 6, box[3] - 30), f"Axial MIP, {thickness} mm", _SMALL, _WHITE)
    _sides(draw, box)


def _middle(volume: Volume, findings: Findings) -> Voxel:
    """What the projection is centred on: the circle of Willis where it is recognised, else the findings, else the volume."""
    try:
        circle = head_extent(volume).circle_centre_lps_mm
    except NotAnalysable:
        circle = None
    if circle is not None:
        return voxel_of(volume, circle)
    if findings.lesions:
        d, h, w = np.mean([voxel_of(volume, lesion.centre_lps_mm) for lesion in findings.lesions], axis=0)
        return float(d), float(h), float(w)
    depth, height, width = volume.hu_DHW.shape
    return depth / 2.0, height / 2.0, width / 2.0


def _thumbnails(image: Image.Image, findings: Findings, volume: Volume, middle: Voxel) -> None:
    """The key slices of the most probable findings, each with its finding circled; without findings, three slices."""
    draw, side, gap = ImageDraw.Draw(image), 190, 56
    for number, lesion in enumerate(findings.lesions[:MAXIMUM_THUMBNAILS], start=1):
        centre = voxel_of(volume, lesion.centre_lps_mm)
        box = _cell(number - 1, side, gap)
        plane = volume.hu_DHW[min(max(round(centre[0]), 0), len(volume.hu_DHW) - 1)]
        view = _show(image, plane, volume, (centre[1], centre[2]), _THUMBNAIL_MM, box, _WINDOW_HU)
        _circle(draw, view, centre, lesion, volume, str(number))
        name = short(lesion.location.value).replace("Left ", "L ").replace("Right ", "R ")
        _text(draw, (box[0], box[3] + 4), f"{number} {name}", _SMALL, _WHITE)
        said = f"{lesion.diameter_mm:.1f} mm, {percent(lesion.probability)}"
        _text(draw, (box[0], box[3] + 26), said, _SMALL, _WHITE)
    if more := len(findings.lesions[MAXIMUM_THUMBNAILS:]):
        _text(draw, (586, 262), f"{more} more in the report", _SMALL, _AMBER)
    if not findings.lesions:
        for number, (apart_mm, d) in enumerate(_slices_without_findings(volume, middle)):
            box = _cell(number, side, gap)
            _show(image, volume.hu_DHW[d], volume, (middle[1], middle[2]), _MIP_MM, box, _WINDOW_HU)
            said = f"{abs(apart_mm):.0f} mm {'above' if apart_mm > 0 else 'below'}" if apart_mm else "middle of the MIP"
            _text(draw, (box[0], box[3] + 4), said, _SMALL, _GREY)


def _slices_without_findings(volume: Volume, middle: Voxel) -> list[tuple[float, int]]:
    """What is shown where nothing was found: how many mm above the middle, and the slice."""
    last = len(volume.hu_DHW) - 1
    return [
        (apart_mm, min(max(round(middle[0] + apart_mm / volume.spacing_mm_DHW[0]), 0), last))
        for apart_mm in (-15.0, 0.0, 15.0, 30.0)
    ]


def _cell(number: int, side: int, gap: int) -> Box:
    left = _MARGIN + number * (side + gap)
    return left, 690, left + side, 690 + side


def voxel_of(volume: Volume, point_lps_mm: Point) -> Voxel:
    """The (d, h, w) of a point of the patient, in voxels, not rounded; shear of a tilted gantry included."""
    d, h, w, _ = np.linalg.solve(volume.affine_lps, np.append(point_lps_mm, 1.0))
    return float(d), float(h), float(w)


def _show(
    image: Image.Image,
    plane: NDArray[np.int16],
    volume: Volume,
    centre_hw: tuple[float, float],
    width_mm: float,
    box: Box,
    window_hu: tuple[float, float],
) -> _View:
    """`width_mm` of the plane around `centre_hw` fill the box; beyond the plane it is black."""
    _, h_mm, w_mm = volume.spacing_mm_DHW
    span = width_mm / h_mm, width_mm / w_mm
    start = centre_hw[0] + 0.5 - span[0] / 2.0, centre_hw[1] + 0.5 - span[1] / 2.0
    low, high = window_hu
    grey = np.clip((plane.astype(np.float32) - low) / (high - low) * 255.0, 0, 255).astype(np.uint8)
    side = box[2] - box[0]
    part = Image.fromarray(grey).transform(
        (side, side),
        Image.Transform.EXTENT,
        (start[1], start[0], start[1] + span[1], start[0] + span[0]),
        Image.Resampling.BILINEAR,
    )
    image.paste(part.convert("RGB"), box[:2])
    return _View(box, start, (side / span[0], side / span[1]))


def _circle(
    draw: ImageDraw.ImageDraw,
    view: _View,
    centre: Voxel,
    lesion: Lesion,
    volume: Volume,
    label: str,
) -> None:
    """A ring a little outside the finding, and its number beside it, both kept inside the view."""
    x, y = view.place(centre[1], centre[2])
    radius = max(12.0, lesion.diameter_mm / 2.0 / volume.spacing_mm_DHW[2] * view.pixels_per_hw[1] + 6.0)
    left, top, right, bottom = view.box
    x, y = min(max(x, left), right), min(max(y, top), bottom)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=_CYAN, width=3)
    beside = x + radius + 4 if x + radius + 24 < right else x - radius - 18
    _text(draw, (beside, min(max(y - radius - 14, top), bottom - 28)), label, _TEXT, _CYAN)


def _sides(draw: ImageDraw.ImageDraw, box: Box) -> None:
    """R and L: as everywhere in radiology, the patient's right is on the left of the picture."""
    middle = (box[1] + box[3]) // 2 - 14
    _text(draw, (box[0] + 6, middle), "R", _TEXT, _WHITE)
    _text(draw, (box[2] - 22, middle), "L", _TEXT, _WHITE)


_font = functools.cache(ImageFont.load_default)


def _text(draw: ImageDraw.ImageDraw, at: tuple[float, float], said: str, size: int, colour: Colour) -> None:
    draw.text(at, plain_ascii(said), font=_font(size), fill=colour, stroke_width=2, stroke_fill=_BLACK)
