"""A case as the worker leaves it: slices of a drawn head, two findings, and their masks beside the report."""

from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from ai.findings import Findings, Lesion
from ai.lesion_mask import LesionMask
from ai.locations import Location
from node.results.document import Algorithm, Document, encode
from node.results.identity import derive_uid
from node.results.segmentation import build_segmentation
from storage.files.instances import Files
from storage.records import LesionRecord, ResultObject
from storage.stages import Event
from storage.store import Store
from tests.support.builders import PROBABILITIES, FakeClock, conclusion, keep, report_object
from tests.support.dicom_factory import ct_series, headers_of
from tests.support.made_up_head import affine

LESIONS = (
    LesionRecord("Left Middle Cerebral Artery", 0.9, (-10.0, -15.0, 105.0), 6.5),
    LesionRecord("Anterior Communicating Artery", 0.7, (-5.0, -20.0, 117.0), 3.5),
)
THRESHOLD = 0.65
_ORIGIN, _SIDE, _PIXEL_MM = (-20.0, -30.0, 100.0), 64, 0.5


def _head(index: int) -> NDArray[np.int16]:
    """Skull, brain, two carotids and the findings' sacs, in HU."""
    row, column = np.mgrid[:_SIDE, :_SIDE].astype(float)
    middle = np.hypot((row - 32) / 29, (column - 32) / 25)
    hu = np.full((_SIDE, _SIDE), -1000.0)
    hu[middle <= 1.0] = 900.0
    hu[middle <= 0.88] = 38.0
    for centre in (23.0, 41.0):
        hu[np.hypot(row - 33, column - centre) <= 2.2] = 320.0
    for lesion in LESIONS:
        x, y, z = (at - begin for at, begin in zip(lesion.centre_lps_mm, _ORIGIN, strict=True))
        away_mm = np.sqrt((column * _PIXEL_MM - x) ** 2 + (row * _PIXEL_MM - y) ** 2 + (index - z) ** 2)
        hu[away_mm <= lesion.diameter_mm / 2] = 340.0
    return np.asarray(hu, np.int16)


def drawn_head(count: int = 24, **changes: Any) -> list[Dataset]:
    """Slices 1 mm apart from z = 100 mm on."""
    return ct_series(
        count,
        rows=_SIDE,
        columns=_SIDE,
        pixel_spacing_mm=(_PIXEL_MM, _PIXEL_MM),
        origin_mm=_ORIGIN,
        hu=_head,
        **changes,
    )


def with_masks(store: Store, files: Files, clock: FakeClock, **changes: Any) -> int:
    """The case is reported, positive, its masks lie beside the report; returns its number."""
    images = drawn_head(**changes)
    series = keep(store, files, clock, images)
    store.settling.leave(series, Event.SETTLED, "count", clock())
    claim = store.queue.claim("worker:1", clock(), timedelta(seconds=60), 3)
    assert claim is not None
    uid = derive_uid("masks", claim.series.id)
    masks = ResultObject("segmentation", uid, files.write_report(uid, _segmentation(images, uid)), ("PACS",))
    made = report_object(f"2.25.77.{claim.series.id}")
    concluded = conclusion(lesions=LESIONS, probabilities=PROBABILITIES, threshold=THRESHOLD)
    assert store.queue.finish(claim, concluded, made, ("PACS",), clock(), beside=(masks,))
    return claim.series.id


def _segmentation(images: list[Dataset], uid: str) -> bytes:
    lesions = tuple(_masked(each) for each in LESIONS)
    findings = Findings(PROBABILITIES, lesions, THRESHOLD)
    algorithm = Algorithm("Willis aneurysm detection", "0.1.0+weights.1a2b", "0.1.0", derive_uid("device", "test"))
    document = Document(
        headers_of(images),
        sop_instance_uid=uid,
        series_instance_uid=derive_uid("masks series", uid),
        series_number=9903,
        report_uid=derive_uid("report", uid),
        created=FakeClock().now,
        algorithm=algorithm,
    )
    return encode(build_segmentation(document, findings))


def _masked(record: LesionRecord) -> Lesion:
    """The sphere of the record's diameter, in cells of 1 mm."""
    reach = int(np.ceil(record.diameter_mm / 2))
    around = np.indices((2 * reach + 1,) * 3) - reach
    x, y, z = record.centre_lps_mm
    cells = np.asarray((around**2).sum(axis=0) <= (record.diameter_mm / 2) ** 2)
    mask = LesionMask(cells, affine((1.0, 1.0, 1.0), (x - reach, y - reach, z - reach)))
    return Lesion(Location(record.location), record.probability, record.centre_lps_mm, record.diameter_mm, mask)
