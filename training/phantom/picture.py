"""A picture sheet of a phantom: projections and slices as a radiologist sees them, lesions circled."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ai.affine import voxel_of
from training.phantom.scan import PhantomScan

PANEL = 300
_Pixels = NDArray[np.float32]


def picture(scan: PhantomScan, path: Path | str) -> None:
    """A PNG at `path`: three projections without bone, three slab projections with it, then axial slices."""
    hu = scan.volume.hu_DHW
    step = np.array(scan.volume.spacing_mm_DHW)
    centres = [voxel_of(scan.volume.affine_lps, lesion.centre_lps_mm) for lesion in scan.lesions]
    sizes = [lesion.diameter_mm for lesion in scan.lesions]
    arteries = (scan.vessel_DHW > 0) & (scan.vessel_DHW < 14)
    around = (
        np.array([float(np.median(axis)) for axis in np.nonzero(arteries)])
        if arteries.any()
        else np.array(hu.shape) / 2
    )
    focus = centres[0] if centres else around
    panels = []
    vessels = np.where(scan.vessel_DHW > 0, hu, -1000)
    for axis in range(3):
        panels.append(_panel(vessels.max(axis=axis), axis, step, centres, sizes, (0, 500)))
    for axis in range(3):
        half = int(9 / step[axis])
        middle = int(np.clip(focus[axis], half, hu.shape[axis] - half - 1))
        part = [slice(None)] * 3
        part[axis] = slice(middle - half, middle + half + 1)
        shown = [(c, s) for c, s in zip(centres, sizes, strict=True) if abs(c[axis] - middle) <= half]
        panels.append(
            _panel(hu[tuple(part)].max(axis=axis), axis, step, [c for c, _ in shown], [s for _, s in shown], (-20, 620))
        )
    offsets = (-52, -34, -26, -18, -12, -6, 0, 6, 14, 26, 45, 65)
    for offset in offsets:
        at = round(focus[0] + offset / step[0])
        if 0 <= at < hu.shape[0]:
            shown = [(c, s) for c, s in zip(centres, sizes, strict=True) if abs(c[0] - at) * step[0] <= s / 2 + 0.5]
            panels.append(_panel(hu[at], 0, step, [c for c, _ in shown], [s for _, s in shown], (-120, 480)))
    columns = 6
    rows = -(-len(panels) // columns)
    sheet = Image.new("RGB", (columns * PANEL, rows * PANEL + 18))
    for number, panel in enumerate(panels):
        sheet.paste(panel, (number % columns * PANEL, number // columns * PANEL + 18))
    words = [
        f"PHANTOM seed {scan.seed}",
        *(f"{one.location} {one.diameter_mm:.1f} mm" for one in scan.lesions),
        *scan.confounders,
    ]
    ImageDraw.Draw(sheet).text((4, 3), " | ".join(words), fill=(255, 255, 0))
    sheet.save(path)


def _panel(
    plane: NDArray[np.int16],
    axis: int,
    step: NDArray[np.float64],
    centres: list[NDArray[np.float64]],
    sizes: list[float],
    window: tuple[int, int],
) -> Image.Image:
    """One plane at equal scale in both directions, head up, with a ring around each lesion."""
    row, column = [k for k in range(3) if k != axis]
    grey = np.clip((plane.astype(np.float32) - window[0]) / (window[1] - window[0]), 0, 1)
    image = Image.fromarray((grey * 255).astype(np.uint8)).convert("RGB")
    height, width = plane.shape[0] * step[row], plane.shape[1] * step[column]
    scale = PANEL / max(height, width)
    image = image.resize((max(int(width * scale), 1), max(int(height * scale), 1)), Image.Resampling.BILINEAR)
    if axis != 0:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    draw = ImageDraw.Draw(image)
    for centre, size in zip(centres, sizes, strict=True):
        x, y = centre[column] * step[column] * scale, centre[row] * step[row] * scale
        y = image.height - y if axis != 0 else y
        ring = (size / 2 + 3.0) * scale
        draw.ellipse((x - ring, y - ring, x + ring, y + ring), outline=(255, 60, 60))
    sheet = Image.new("RGB", (PANEL, PANEL))
    sheet.paste(image, ((PANEL - image.width) // 2, (PANEL - image.height) // 2))
    return sheet
