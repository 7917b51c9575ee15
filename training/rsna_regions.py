"""Series of the RSNA data become the prepared regions that training reads, and a list of those that cannot."""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from scipy import ndimage

from ai.affine import voxel_of
from ai.errors import NotAnalysable, Reason
from ai.frames import frames
from ai.inference import output_affine
from ai.locations import LOCATIONS, Location
from ai.predict import circle_region
from ai.preprocess import Preprocessing, Region
from ai.volume import volume_from_files
from training.dataset import UNKNOWN_VESSEL, Prepared, halved, save_prepared
from training.files import write_whole
from training.phantom.scan import TrueLesion
from training.rsna import Localizer, RsnaSeries, Unreadable, files_of, segmentation_of

LESION_RADIUS_MM = 2.5
"""Localizers have no size: each becomes a ball of about the median aneurysm (4.92 mm), and its diameter teaches nothing."""
UNREADABLE = "unreadable.json"
"""In the cache folder: series → why it was left out.  Delete it to have them tried again."""

MASK_VALUES = (
    Location.OTHER_POSTERIOR,
    Location.BASILAR_TIP,
    Location.RIGHT_PCOM,
    Location.LEFT_PCOM,
    Location.RIGHT_INFRACLINOID_ICA,
    Location.LEFT_INFRACLINOID_ICA,
    Location.RIGHT_SUPRACLINOID_ICA,
    Location.LEFT_SUPRACLINOID_ICA,
    Location.RIGHT_MCA,
    Location.LEFT_MCA,
    Location.RIGHT_ACA,
    Location.LEFT_ACA,
    Location.ACOM,
)
"""What 1 to 13 mean in a `_cowseg.nii`: not the order of the columns."""
_LABEL_OF_VALUE = np.array([0, *(1 + LOCATIONS.index(location) for location in MASK_VALUES)], np.uint8)
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def build_rsna_cache(
    cache: Path,
    root: Path,
    series: Sequence[RsnaSeries],
    preprocessing: Preprocessing,
    workers: int = 1,
    report: Callable[[str], None] = print,
) -> Iterator[Path]:
    """Yield the folder of each series' prepared region, making those that are missing.

    A series that cannot be used is reported and remembered in `UNREADABLE`, with its reason.
    """
    cache.mkdir(parents=True, exist_ok=True)
    listed = cache / UNREADABLE
    known: dict[str, str] = json.loads(listed.read_text(encoding="utf-8")) if listed.exists() else {}
    for each in series:
        if (cache / each.series_instance_uid).exists():
            yield cache / each.series_instance_uid
    missing = [one for one in series if not (cache / one.series_instance_uid).exists()]
    for one in missing:
        if one.series_instance_uid in known:
            report(f"{one.series_instance_uid} is left out: {known[one.series_instance_uid]}")
    missing = [one for one in missing if one.series_instance_uid not in known]
    for one, problem in _built(partial(_build, cache, root, preprocessing), missing, workers):
        if problem:
            report(f"{one.series_instance_uid} is left out: {problem}")
            known[one.series_instance_uid] = problem
            write_whole(listed, json.dumps(known, indent=1))
        else:
            yield cache / one.series_instance_uid


def prepare_series(root: Path, series: RsnaSeries, preprocessing: Preprocessing) -> Prepared:
    """Return the region of one series, placed as in an analysis, with its lesions, and its vessels where they are labelled.

    Raises Unreadable.
    """
    if series.unplaced:
        raise Unreadable(f"positive without a localizer: {', '.join(series.unplaced)}")
    files = files_of(root, series)
    try:
        lesions = lesions_of(files, series.localizers)
        volume = volume_from_files(files)
        region = circle_region(volume, preprocessing)
    except NotAnalysable as error:
        raise Unreadable(f"{error.reason.explained} ({error})") from error
    except OSError as error:
        raise Unreadable(str(error)) from error
    shape = tuple(side // 2 for side in region.hu_DHW.shape)
    vessel = np.full(shape, UNKNOWN_VESSEL, np.uint8)
    if (path := segmentation_of(root, series)) is not None:
        vessel = vessel_labels(path, region)
    lesion = balls(lesions, output_affine(region.affine_lps), (shape[0], shape[1], shape[2]))
    return Prepared(series.number, region, lesions, lesion, vessel, (), sized=False)


def outside_of(prepared: Prepared) -> int:
    """How many of a scan's lesions have their centre outside its region."""
    region = prepared.region
    at = [voxel_of(region.affine_lps, lesion.centre_lps_mm) for lesion in prepared.lesions]
    return sum(bool(((one < 0) | (one > np.array(region.hu_DHW.shape) - 1)).any()) for one in at)


def lesions_of(files: Sequence[Path], localizers: Sequence[Localizer]) -> tuple[TrueLesion, ...]:
    """The localizers as points of the patient.  Raises Unreadable, and NotAnalysable for a file that is no DICOM."""
    by_name = {path.stem: path for path in files}
    found = []
    for localizer in localizers:
        path = by_name.get(localizer.sop_instance_uid)
        if path is None:
            raise Unreadable(f"the slice {localizer.sop_instance_uid} of a localizer is not there: download it again")
        try:
            stored = list(frames(dcmread(path, stop_before_pixels=True)))
        except (InvalidDicomError, EOFError) as error:
            raise NotAnalysable(Reason.PIXELS_TRUNCATED, "the slice of a localizer is not a whole file") from error
        number = localizer.frame or 0
        if not 0 <= number < len(stored):
            raise Unreadable(f"a localizer is on frame {number} of a file with {len(stored)}")
        frame = stored[number]
        if not frame.has_geometry:
            raise NotAnalysable(Reason.MISSING_GEOMETRY, "the slice of a localizer")
        along_row = np.array(frame.orientation[:3]) * frame.pixel_spacing_mm[1] * localizer.x
        along_column = np.array(frame.orientation[3:]) * frame.pixel_spacing_mm[0] * localizer.y
        x, y, z = np.array(frame.position_mm) + along_row + along_column
        found.append(TrueLesion(localizer.location, (float(x), float(y), float(z)), 2.0 * LESION_RADIUS_MM))
    return tuple(found)


def balls(
    lesions: Sequence[TrueLesion], affine_lps: NDArray[np.float64], shape_DHW: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """Labels of a ball about each lesion's centre: the index plus one of the nearest within its radius, else 0."""
    nearest = np.full(shape_DHW, np.inf)
    labels = np.zeros(shape_DHW, np.uint8)
    grid = np.indices(shape_DHW).reshape(3, -1)
    points = (affine_lps[:3, :3] @ grid).T + affine_lps[:3, 3]
    for number, lesion in enumerate(lesions, start=1):
        apart = np.linalg.norm(points - np.array(lesion.centre_lps_mm), axis=1).reshape(shape_DHW)
        inside = (apart <= lesion.diameter_mm / 2.0) & (apart < nearest)
        labels[inside], nearest[inside] = number, apart[inside]
    return labels


def vessel_labels(path: Path, region: Region) -> NDArray[np.uint8]:
    """The vessel labels of a NIfTI mask on the region's output cells.  Raises Unreadable, naming the file."""
    try:
        image = nibabel.load(path)
        values = np.asanyarray(image.dataobj)
    except (ImageFileError, OSError, ValueError, EOFError) as error:
        raise Unreadable(f"{path} is no NIfTI file: download it again") from error
    if values.ndim != 3 or not np.isin(values, np.arange(len(_LABEL_OF_VALUE))).all():
        raise Unreadable(f"{path} holds more than the values 0 to 13 of one volume")
    mapping = np.linalg.inv(_RAS_TO_LPS @ image.affine) @ region.affine_lps
    picked = ndimage.affine_transform(
        values.astype(np.uint8), mapping[:3, :3], mapping[:3, 3], output_shape=region.hu_DHW.shape, order=0
    )
    if not picked.any():
        raise Unreadable(f"no vessel of {path} lies in the region: is it the mask of another series?")
    return halved(_LABEL_OF_VALUE[picked], 3)


def _built(
    build: Callable[[RsnaSeries], str], series: Sequence[RsnaSeries], workers: int
) -> Iterator[tuple[RsnaSeries, str]]:
    if workers <= 1:
        for one in series:
            yield one, build(one)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("forkserver")) as pool:
        yield from zip(series, pool.map(build, series), strict=True)


def _build(cache: Path, root: Path, preprocessing: Preprocessing, series: RsnaSeries) -> str:
    """Write one prepared region; return why not when it cannot be."""
    try:
        prepared = prepare_series(root, series, preprocessing)
    except Unreadable as error:
        return str(error)
    save_prepared(cache / series.series_instance_uid, prepared)
    return ""
