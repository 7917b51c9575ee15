"""A small picture of a case's first finding, with its circle, for the worklist."""

from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw

from node.web.images import NoImages, Series, findings_on, hounsfield
from storage.queries.worklist import Row

SIDE = 112
_AROUND_MM = 60.0
_WINDOW_HU = (-60.0, 540.0)
_RING = (255, 190, 60)


def thumbnail(series: Series, row: Row) -> bytes:
    """A PNG of the surroundings of the first finding, or of the middle of the series.  Raises NoImages."""
    lesions = (row["lesions"] or [])[:1]
    found = findings_on(series, lesions)
    if not found and lesions:
        raise NoImages("The findings of this case cannot be placed.")
    place = series.places[int(found[0]["slice"]) if found else len(series.places) // 2]
    hu = hounsfield(place)
    pixel_mm = series.frame.pixel_spacing_mm[1] if series.has_geometry else 0.5
    half = _AROUND_MM / pixel_mm / 2 if found else max(hu.shape) / 2
    x, y = (found[0]["x"], found[0]["y"]) if found else (hu.shape[1] / 2, hu.shape[0] / 2)
    low, high = _WINDOW_HU
    grey = (np.clip((hu - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    box = (x - half, y - half, x + half, y + half)
    image = Image.fromarray(grey).transform((SIDE, SIDE), Image.Transform.EXTENT, box, Image.Resampling.BILINEAR)
    image = image.convert("RGB")
    if found:
        radius = max(found[0]["radius"] / (2 * half) * SIDE, 5.0) + 4
        middle = SIDE / 2
        ImageDraw.Draw(image).ellipse(
            (middle - radius, middle - radius, middle + radius, middle + radius), outline=_RING, width=2
        )
    out = BytesIO()
    image.save(out, "PNG")
    return out.getvalue()
