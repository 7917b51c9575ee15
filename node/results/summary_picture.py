"""The summary as a picture: what was concluded, on one square that can be read in any viewer.  Pure; draws with Pillow.

Only printable ASCII is drawn, in the font that comes with Pillow, so that no glyph is missing; and nothing that names
a patient.  Nothing is smaller than 22 of 1,024 pixels, so that it can be read when shown at half that size.  Viewers lay
texts and controls over corners and top: OHIF's reach down to line 166 at that size, so that the title alone is above it.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ai.affine import lps_of, starting_at, voxel_of
from ai.findings import Findings, Lesion
from ai.frames import AIR_HU
from ai.volume import Volume
from ai.wording import counted
from node.results.codes import short
from node.results.document import Algorithm, NotAnalysed, Outcome, operating_points, percent, remarks
from node.results.views import (
    BLACK,
    SMALL,
    TEXT,
    WHITE,
    Box,
    Vector,
    annotate,
    length_of,
    plane_view,
    ring,
    show,
    show_projection,
    slice_view,
    without_bone,
    write,
)

SIDE = 1024
TITLE = "WILLIS   intracranial aneurysm detection, head CTA"
WARNING = "RESEARCH USE - NOT VERIFIED - NOT A MEDICAL DEVICE"
NOT_RULED_OUT = "This does not rule out an aneurysm: read the images."
MAXIMUM_SHOWN = 4
"""The rest of at most ten findings are in the report."""

Point = tuple[float, float, float]
_GREY, _DIM = (170, 170, 170), (60, 60, 60)
_RED, _GREEN, _AMBER, _CYAN = (255, 96, 96), (120, 220, 120), (255, 190, 60), (80, 220, 255)
_MARGIN = 12
MAIN: Box = (12, 250, 606, 844)
"""More than a third of the picture: the key slice of the most probable finding; the projection where there is none."""
UPPER_LEFT: Box = (614, 250, 809, 445)
UPPER_RIGHT: Box = (817, 250, 1012, 445)
LOWER: Box = (614, 452, 1006, 844)
_ACROSS = ((UPPER_LEFT, "Cor", "RLHF"), (UPPER_RIGHT, "Sag", "APHF"))
_STRIP_TOP, _STRIP_SIDE, _CELL = 850, 86, 336
_KEY_MM, _PLANE_MM, _WHOLE_MM, _SMALL_MM = 90.0, 60.0, 130.0, 40.0
_MIP_BELOW_MM, _MIP_ABOVE_MM = 8.0, 22.0
"""Of the circle of Willis: less below it, where the skull base hides the arteries."""
_WINDOW_HU = (-60.0, 540.0)
_MIP_WINDOW_HU = (50.0, 600.0)
_MIP_LEAST_MM = 0.9
"""No finer voxels are searched for bone."""


def summary_picture(
    outcome: Outcome, algorithm: Algorithm, volume: Volume | None, slices: Sequence[str] = ()
) -> NDArray[np.uint8]:
    """The summary as (1024, 1024, 3) RGB.

    `volume`: the analysed images, None where there are none to show.  `slices`: what viewers call the slice of each of
    `points_shown`.
    """
    image = Image.new("RGB", (SIDE, SIDE), BLACK)
    draw = ImageDraw.Draw(image)
    write(draw, (_MARGIN, 14), TITLE, SMALL, _GREY)
    if isinstance(outcome, NotAnalysed):
        _not_analysed(draw, outcome)
    elif outcome.positive:
        _positive(image, draw, outcome, volume, slices)
    else:
        _negative(image, draw, outcome, volume, slices)
    footer = f"{algorithm.name} {algorithm.version}, Willis {algorithm.software_version}"
    draw.line((0, 942, SIDE, 942), fill=_DIM, width=2)
    write(draw, (SIDE / 2, 950), footer, SMALL, _GREY, "ma")
    write(draw, (SIDE / 2, 982), WARNING, TEXT, _AMBER, "ma")
    return np.asarray(image, dtype=np.uint8)


def points_shown(findings: Findings, volume: Volume) -> list[Point]:
    """In LPS mm a point of each slice that is shown: the findings' centres; without any, the circle of Willis."""
    if findings.lesions:
        return [lesion.centre_lps_mm for lesion in findings.lesions[:MAXIMUM_SHOWN]]
    d, h, w = voxel_of(volume.affine_lps, _middle(volume, findings))
    x, y, z = lps_of(volume.affine_lps, (_slice(volume, d), h, w))
    return [(float(x), float(y), float(z))]


def _not_analysed(draw: ImageDraw.ImageDraw, outcome: NotAnalysed) -> None:
    write(draw, (_MARGIN, 160), "NOT ANALYSED", 76, _AMBER)
    write(draw, (_MARGIN, 264), "This is not a negative result: no image was analysed.", 32, WHITE)
    lines = textwrap.wrap(outcome.reason.explained, 48)
    lines += ["", f"Code: {outcome.reason.value}", *textwrap.wrap(outcome.detail, 48), *remarks(outcome)]
    for number, line in enumerate(lines[:12]):
        write(draw, (_MARGIN, 350 + 46 * number), line, 36, WHITE)


def _positive(
    image: Image.Image, draw: ImageDraw.ImageDraw, findings: Findings, volume: Volume | None, slices: Sequence[str]
) -> None:
    first, *others = findings.lesions
    write(draw, (_MARGIN, 162), f"SUSPECTED ANEURYSM: {counted(len(findings.lesions), 'finding')}", 44, _RED)
    _probability(draw, f"1  {_measured(first)}", first.probability, findings, _RED)
    if volume is not None:
        _key_slice(image, draw, MAIN, volume, 1, first, slices, _KEY_MM)
        centre = np.array(first.centre_lps_mm)
        for box, name, marks in _ACROSS:
            view = plane_view(box, centre, _PLANE_MM, marks)
            show(image, view, volume, _WINDOW_HU)
            ring(draw, view, centre, first.diameter_mm, "1", _CYAN)
            annotate(draw, view, 10, name)
        _projection(image, draw, LOWER, findings, volume)
    beside = _strip_words(findings, len(others))
    shown = others[: MAXIMUM_SHOWN - 1 - bool(beside)]
    for number, lesion in enumerate(shown, start=2):
        _cell(image, draw, number, lesion, findings, volume, slices)
    if beside:
        left = _MARGIN + _CELL * len(shown)
        _lines(draw, left, 3, beside)


def _strip_words(findings: Findings, others: int) -> str:
    """What stands beside the other findings, if anything: how many are not shown, and remarks."""
    words = _remarks(findings)
    hidden = others - (MAXIMUM_SHOWN - 1 - bool(words))
    if hidden > 0:
        words.insert(0, f"{hidden if words else hidden + 1} more in the report.")
    return " ".join(words)


def _negative(
    image: Image.Image, draw: ImageDraw.ImageDraw, findings: Findings, volume: Volume | None, slices: Sequence[str]
) -> None:
    if findings.limited:
        write(draw, (_MARGIN, 162), "LIMITED: NO ANEURYSM DETECTED", 44, _AMBER)
    else:
        write(draw, (_MARGIN, 162), "NO ANEURYSM DETECTED", 44, _GREEN)
    _probability(draw, f"Presence {percent(findings.present)}", findings.present, findings, _GREY)
    if volume is not None:
        _projection(image, draw, MAIN, findings, volume)
        [point] = points_shown(findings, volume)
        middle = np.array(point)
        for box, name, marks in _ACROSS:
            view = plane_view(box, middle, _WHOLE_MM, marks)
            show(image, view, volume, _WINDOW_HU)
            annotate(draw, view, 20, name)
        view = slice_view(LOWER, volume, _slice(volume, voxel_of(volume.affine_lps, middle)[0]), middle, _WHOLE_MM)
        show(image, view, volume, _WINDOW_HU)
        annotate(draw, view, 20, ", ".join(["Axial", *filter(None, slices[:1])]))
    write(draw, (_MARGIN, _STRIP_TOP), NOT_RULED_OUT, SMALL, WHITE)
    _lines(draw, _MARGIN, 2, " ".join(_remarks(findings)))


def _remarks(findings: Findings) -> list[str]:
    """What limits the answer, first, and what else the report says beside it."""
    limited = [f"L{findings.limited[1:]}."] if findings.limited else []
    return [*limited, *remarks(findings)]


def _lines(draw: ImageDraw.ImageDraw, left: int, most: int, words: str) -> None:
    """The last `most` lines of the strip; what does not fit is in the report."""
    wrapped = textwrap.wrap(words, (SIDE - left) // 12, max_lines=most, placeholder=" ... (see the report)")
    for number, line in enumerate(wrapped, start=3 - most):
        write(draw, (left, _STRIP_TOP + 29 * number), line, SMALL, _AMBER)


def _measured(lesion: Lesion) -> str:
    return f"{short(lesion.location.value)}, {lesion.diameter_mm:.1f} mm, {percent(lesion.probability)}"


def _probability(
    draw: ImageDraw.ImageDraw, words: str, probability: float, findings: Findings, colour: tuple[int, int, int]
) -> None:
    """A line of words with the operating points, and the bar of the same probability beside it."""
    points = operating_points(findings)
    words += f" ({', '.join(f'{name} {percent(value)}' for name, value in points)})"
    size = TEXT if len(points) == 1 else SMALL
    write(draw, (_MARGIN, 213), words, size, WHITE)
    start = min(round(_MARGIN + length_of(words, size)) + 14, 900)
    _bar(draw, (start, 219, SIDE - _MARGIN, 239), probability, [value for _, value in points], colour)


def _bar(
    draw: ImageDraw.ImageDraw, box: Box, probability: float, marks: Sequence[float], colour: tuple[int, int, int]
) -> None:
    """As long as the probability is high, with a mark at each operating point."""
    left, top, right, bottom = box
    draw.rectangle(box, outline=_GREY)
    if length := round(probability * (right - left)):
        draw.rectangle((left, top, left + length, bottom), fill=colour)
    for at in (left + round(mark * (right - left)) for mark in marks):
        draw.line((at, top - 4, at, bottom + 4), fill=_CYAN, width=3)


def _key_slice(
    image: Image.Image,
    draw: ImageDraw.ImageDraw,
    box: Box,
    volume: Volume,
    number: int,
    lesion: Lesion,
    slices: Sequence[str],
    width_mm: float,
) -> None:
    """The slice nearest to the finding, as it was stored, with the finding circled."""
    centre = np.array(lesion.centre_lps_mm)
    view = slice_view(box, volume, _slice(volume, voxel_of(volume.affine_lps, centre)[0]), centre, width_mm)
    show(image, view, volume, _WINDOW_HU)
    ring(draw, view, centre, lesion.diameter_mm, str(number), _CYAN)
    if box == MAIN:
        annotate(draw, view, 20, ", ".join(["Axial", *filter(None, slices[number - 1 : number])]))


def _cell(
    image: Image.Image,
    draw: ImageDraw.ImageDraw,
    number: int,
    lesion: Lesion,
    findings: Findings,
    volume: Volume | None,
    slices: Sequence[str],
) -> None:
    """One of the other findings in the strip below: its key slice, small, and its words and bar."""
    left, top = _MARGIN + _CELL * (number - 2), _STRIP_TOP
    if volume is not None:
        box = (left, top, left + _STRIP_SIDE, top + _STRIP_SIDE)
        _key_slice(image, draw, box, volume, number, lesion, slices, _SMALL_MM)
    left, right = left + _STRIP_SIDE + 8, left + _CELL - 12
    name = short(lesion.location.value).replace("Left ", "L ").replace("Right ", "R ")
    write(draw, (left, top - 2), f"{number}  {name}", SMALL, WHITE)
    write(draw, (left, top + 25), f"{lesion.diameter_mm:.1f} mm, {percent(lesion.probability)}", SMALL, WHITE)
    named = next(iter(slices[number - 1 : number]), "")
    write(draw, (left, top + 53), named, SMALL, WHITE)
    start = left + round(length_of("image 0000", SMALL)) + 8
    _bar(
        draw,
        (start, top + 60, right, top + 76),
        lesion.probability,
        [value for _, value in operating_points(findings)],
        _RED,
    )


def _projection(image: Image.Image, draw: ImageDraw.ImageDraw, box: Box, findings: Findings, volume: Volume) -> None:
    """A maximum intensity projection, without the skull, through the circle of Willis and every finding, with numbers."""
    middle = _middle(volume, findings)
    middle_d = float(voxel_of(volume.affine_lps, middle)[0])
    depths = [float(voxel_of(volume.affine_lps, lesion.centre_lps_mm)[0]) for lesion in findings.lesions]
    slice_mm = volume.spacing_mm_DHW[0]
    depths += [middle_d - _MIP_BELOW_MM / slice_mm, middle_d + _MIP_ABOVE_MM / slice_mm]
    low, high = _slice(volume, min(depths)), _slice(volume, max(depths)) + 1
    view = slice_view(box, volume, _slice(volume, middle_d), middle, _WHOLE_MM)
    part = _around(volume, low, high, middle)
    show_projection(image, view, replace(part, hu_DHW=_without_skull(part, findings)), _MIP_WINDOW_HU)
    for number, lesion in enumerate(findings.lesions, start=1):
        ring(draw, view, np.array(lesion.centre_lps_mm), lesion.diameter_mm, str(number), _CYAN)
    annotate(draw, view, 20, "without bone", f"MIP, {round((high - low) * slice_mm)} mm")


def _around(volume: Volume, low: int, high: int, middle: Vector) -> Volume:
    """Of the slices from `low` to below `high`, what the projection shows and the bones that reach into it."""
    _, *centre = voxel_of(volume.affine_lps, middle)
    start, stop = [low], [high]
    for at, size, mm in zip(centre, volume.hu_DHW.shape[1:], volume.spacing_mm_DHW[1:], strict=True):
        reach = (_WHOLE_MM / 2.0 + 15.0) / mm
        start.append(int(np.clip(at - reach, 0, size - 1)))
        stop.append(int(np.clip(at + reach, start[-1] + 1, size)))
    part = tuple(slice(*ends) for ends in zip(start, stop, strict=True))
    return Volume(volume.hu_DHW[part], starting_at(volume.affine_lps, start))


def _without_skull(volume: Volume, findings: Findings) -> NDArray[np.int16]:
    """The HU without bone; what a finding may consist of stays."""
    spacing, shape = volume.spacing_mm_DHW, volume.hu_DHW.shape
    steps = [max(1, int(_MIP_LEAST_MM / each)) for each in spacing]
    coarse = volume.hu_DHW[:: steps[0], :: steps[1], :: steps[2]]
    kept = without_bone(coarse, (spacing[0] * steps[0], spacing[1] * steps[1], spacing[2] * steps[2])) > AIR_HU
    for axis, step in enumerate(steps):
        kept = np.repeat(kept, step, axis).take(range(shape[axis]), axis)
    for lesion in findings.lesions:
        at = voxel_of(volume.affine_lps, lesion.centre_lps_mm)
        z, y, x = (((np.arange(n) - c) * mm) ** 2 for n, c, mm in zip(shape, at, spacing, strict=True))
        kept |= z[:, None, None] + y[:, None] + x <= (lesion.diameter_mm / 2.0 + 1.0) ** 2
    return np.where(kept, volume.hu_DHW, np.int16(AIR_HU))


def _middle(volume: Volume, findings: Findings) -> Vector:
    """In LPS mm what the projection is centred on: the circle of Willis where it is recognised, else the findings, else the volume."""
    if findings.circle_centre_lps_mm is not None:
        return np.array(findings.circle_centre_lps_mm)
    if findings.lesions:
        return np.asarray(np.mean([lesion.centre_lps_mm for lesion in findings.lesions], axis=0))
    return lps_of(volume.affine_lps, np.array(volume.hu_DHW.shape) / 2.0)


def _slice(volume: Volume, d: float) -> int:
    """The nearest there is."""
    return min(max(round(float(d)), 0), len(volume.hu_DHW) - 1)
