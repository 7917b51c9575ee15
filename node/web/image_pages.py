"""A case's images: what the viewer needs to know of them, one slice at a time, the masks of the findings, the thumbnail."""

import gzip
import hashlib

from starlette.responses import JSONResponse, RedirectResponse, Response

from node.web.case_pages import NO_CASE, row_of
from node.web.images import NoImages, Series, findings_on, hounsfield
from node.web.masks import Run, masks_on
from node.web.requests import Asked
from node.web.thumbnails import thumbnail
from storage.errors import StorageError
from storage.queries.worklist import Row

_KEPT_SECONDS = 3600


def images(asked: Asked) -> Response:
    """What the viewer needs to know: how many slices of which size, and where the findings are on them."""
    row = row_of(asked)
    if row is None:
        return JSONResponse({"message": NO_CASE}, 404)
    try:
        series = asked.context.images.series(row["case_id"], key_of(row))
    except NoImages as error:
        return JSONResponse({"message": str(error)}, error.status)
    return JSONResponse(
        {
            "key": key_of(row),
            "slices": len(series.places),
            "rows": series.frame.rows,
            "columns": series.frame.columns,
            "pixel_mm": list(series.frame.pixel_spacing_mm) if series.has_geometry else None,
            "slice_mm": series.slice_spacing_mm(),
            "is_stack": series.is_stack,
            "marks": series.marks,
            "positions_mm": [round(place.along_mm, 2) for place in series.places] if series.has_geometry else [],
            "findings": findings_on(series, row["lesions"] or []),
            "masks": _masks(asked, row, series),
        }
    )


def key_of(row: Row) -> str:
    """Another one where the numbers of the slices mean others; SQLite gives a removed case's number to another series."""
    series = hashlib.sha256(row["series_instance_uid"].encode()).hexdigest()[:12]
    return f"{row['revision']}-{row['instance_count']}-{series}"


def _masks(asked: Asked, row: Row, series: Series) -> dict[int, list[Run]]:
    deliveries = asked.context.store.worklist.deliveries(row["case_id"])
    mine = [each for each in deliveries if each.kind == "segmentation" and each.revision == row["revision"]]
    if not mine or row["outcome"] != "positive":
        return {}
    try:
        return masks_on(series, asked.context.files.here(mine[-1].file))
    except StorageError:  # the images are shown without them
        return {}


def image(asked: Asked) -> Response:
    """One slice: its HU row by row, little endian, 16 bits each, with sign.

    With a `key` in the address, that of `images`, the slice that had this number then, or 409.
    """
    row, number = row_of(asked), int(asked.request.path_params["number"])
    if row is None:
        return Response(NO_CASE, 404, media_type="text/plain")
    key = asked.request.query_params.get("key")
    if key not in (None, key_of(row)):
        return Response("The images have changed.", 409, media_type="text/plain")
    try:
        series = asked.context.images.series(row["case_id"], key_of(row))
        if not 0 <= number < len(series.places):
            return Response("There is no such slice.", 404, media_type="text/plain")
        hu = hounsfield(series.places[number])
    except NoImages as error:
        return Response(str(error), error.status, media_type="text/plain")
    packed = gzip.compress(hu.astype("<i2").tobytes(), compresslevel=1)
    size = {"X-Rows": str(hu.shape[0]), "X-Columns": str(hu.shape[1])}
    return Response(
        packed,
        media_type="application/octet-stream",
        headers={"Content-Encoding": "gzip", **size, **(_kept() if key else {})},
    )


def small_image(asked: Asked) -> Response:
    """The thumbnail."""
    row = row_of(asked)
    if row is None:
        return Response(status_code=404)
    try:
        series = asked.context.images.series(row["case_id"], key_of(row))
        return Response(thumbnail(series, row), media_type="image/png", headers=_kept())
    except NoImages:
        return RedirectResponse("/static/no-image.svg", 303)


def _kept() -> dict[str, str]:
    """The browser may keep it: its address changes with what it shows.  Nobody between may."""
    return {"Cache-Control": f"private, max-age={_KEPT_SECONDS}"}
