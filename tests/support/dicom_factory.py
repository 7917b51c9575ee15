"""Small synthetic CT datasets: as a scanner would send them, and broken on purpose by whoever asks."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
PHILIPS_STUDY = Path(__file__).resolve().parents[3] / "shared" / "data" / "philips-head-study"
"""A real scanner's study beside the repository, never in it; tests that use it skip, saying so, when it is absent."""
STUDY_UID, SERIES_UID, FRAME_OF_REFERENCE_UID = "2.25.1001", "2.25.1002", "2.25.1003"
LOSSY = {
    "LossyImageCompression": "01",
    "LossyImageCompressionRatio": 7.5,
    "LossyImageCompressionMethod": "ISO_15444_1",
}
"""A slice that was once compressed with loss."""
Pixels = Callable[[int], NDArray[np.int16]]


def marked(rows: int, columns: int) -> Pixels:
    """HU planes in which every voxel of a stack differs from its neighbours: 100·slice + 10·row + column."""

    def plane(index: int) -> NDArray[np.int16]:
        r, c = np.mgrid[:rows, :columns]
        return np.asarray(100 * index + 10 * r + c, dtype=np.int16)

    return plane


def normal_of(orientation: Sequence[float]) -> NDArray[np.float64]:
    """The cross product of the row and column directions."""
    return np.asarray(np.cross(orientation[:3], orientation[3:]), dtype=np.float64)


def identity(**changes: Any) -> Dataset:
    """Patient, study and series attributes that all slices of a series share; None removes one."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.PatientName, ds.PatientID = "Doe^Jane", "P-0001"
    ds.PatientBirthDate, ds.PatientSex = "19600101", "F"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = STUDY_UID, SERIES_UID
    ds.FrameOfReferenceUID = FRAME_OF_REFERENCE_UID
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20260101", "101500", "S1", "A-77"
    ds.ReferringPhysicianName = "Roe^Richard"
    ds.Modality, ds.Manufacturer, ds.SeriesNumber = "CT", "Factory", 3
    change(ds, **changes)
    return ds


def change(ds: Dataset, **changes: Any) -> Dataset:
    """Set attributes by keyword; None deletes."""
    for keyword, value in changes.items():
        if value is None:
            if keyword in ds:
                delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def ct_series(
    count: int = 6,
    *,
    spacing_mm: float = 1.0,
    rows: int = 8,
    columns: int = 9,
    pixel_spacing_mm: tuple[float, float] = (0.5, 0.4),
    orientation: Sequence[float] = AXIAL,
    origin_mm: Sequence[float] = (-20.0, -30.0, 100.0),
    step_mm: Sequence[float] | None = None,
    hu: Pixels | None = None,
    slope: float = 1.0,
    intercept: float = -1024.0,
    signed: bool = False,
    **changes: Any,
) -> list[Dataset]:
    """`count` single-frame CT instances, each one step along the normal from the last; HU as `hu(index)` gives them."""
    step = normal_of(orientation) * spacing_mm if step_mm is None else np.asarray(step_mm, dtype=np.float64)
    planes = hu or marked(rows, columns)
    series = []
    for index in range(count):
        ds = identity()
        _image(ds, rows, columns, signed)
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, f"2.25.{20_000 + index}"
        ds.InstanceNumber = index + 1
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.ImagePositionPatient = [round(float(v), 6) for v in np.asarray(origin_mm) + index * step]
        ds.ImageOrientationPatient = [round(float(v), 9) for v in orientation]
        ds.PixelSpacing = list(pixel_spacing_mm)
        ds.RescaleSlope, ds.RescaleIntercept = slope, intercept
        ds.PixelData = _stored(planes(index), slope, intercept, signed)
        _file_meta(ds)
        series.append(change(ds, **changes))
    return series


def enhanced_ct(series: Sequence[Dataset], *, shared: bool = True, **changes: Any) -> Dataset:
    """One Enhanced CT instance with the slices of `ct_series` as frames, in the given order.

    `shared`: orientation, pixel spacing and rescale stand in the Shared Functional Groups, else in every frame's own.
    """
    first = series[0]
    ds = identity()
    _image(ds, first.Rows, first.Columns, first.PixelRepresentation == 1)
    ds.SOPClassUID, ds.SOPInstanceUID = EnhancedCTImageStorage, "2.25.30000"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    ds.NumberOfFrames = len(series)
    common = Dataset()
    _common_groups(common, first)
    ds.SharedFunctionalGroupsSequence = Items([common if shared else Dataset()])
    frames = []
    for source in series:
        frame, position = Dataset(), Dataset()
        position.ImagePositionPatient = source.ImagePositionPatient
        frame.PlanePositionSequence = Items([position])
        if not shared:
            _common_groups(frame, source)
        frames.append(frame)
    ds.PerFrameFunctionalGroupsSequence = Items(frames)
    ds.PixelData = b"".join(source.PixelData for source in series)
    _file_meta(ds)
    return change(ds, **changes)


def headers_of(series: Sequence[Dataset]) -> list[Dataset]:
    """Copies without pixels, as the node keeps them."""
    headers = []
    for ds in series:
        header = Dataset({element.tag: element for element in ds if element.tag != 0x7FE00010})
        header.file_meta = ds.file_meta
        headers.append(header)
    return headers


def save(series: Sequence[Dataset], folder: Path) -> list[Path]:
    """Write each dataset as a DICOM file named by its reversed UID: the paths are in the given order, the names not."""
    paths = []
    for ds in series:
        path = folder / f"{ds.SOPInstanceUID[::-1]}.dcm"
        ds.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def rotated(about: str, degrees: float) -> tuple[float, ...]:
    """The axial orientation turned about a patient axis."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = {"x": [[1, 0, 0], [0, c, -s], [0, s, c]], "z": [[c, -s, 0], [s, c, 0], [0, 0, 1]]}[about]
    return tuple(np.concatenate([np.array(turn) @ AXIAL[:3], np.array(turn) @ AXIAL[3:]]))


def shuffled(series: list[Dataset], seed: int = 1) -> list[Dataset]:
    """The same instances as they may arrive."""
    return [series[i] for i in np.random.default_rng(seed).permutation(len(series))]


def lps_of(ds: Dataset, row: float, column: float) -> NDArray[np.float64]:
    """Where the Standard says a pixel's centre lies (PS3.3 equation C.7.6.2.1-1)."""
    orientation = np.asarray(ds.ImageOrientationPatient, dtype=np.float64)
    along_row = orientation[:3] * float(ds.PixelSpacing[1]) * column
    along_column = orientation[3:] * float(ds.PixelSpacing[0]) * row
    return np.asarray(ds.ImagePositionPatient, dtype=np.float64) + along_row + along_column


def _image(ds: Dataset, rows: int, columns: int, signed: bool) -> None:
    ds.Rows, ds.Columns = rows, columns
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
    ds.PixelRepresentation = int(signed)


def _common_groups(target: Dataset, source: Dataset) -> None:
    orientation, measures, rescale = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = source.ImageOrientationPatient
    measures.PixelSpacing = source.PixelSpacing
    measures.SliceThickness = 1.0
    rescale.RescaleSlope, rescale.RescaleIntercept = source.RescaleSlope, source.RescaleIntercept
    rescale.RescaleType = "HU"
    target.PlaneOrientationSequence = Items([orientation])
    target.PixelMeasuresSequence = Items([measures])
    target.PixelValueTransformationSequence = Items([rescale])


def _stored(hu: NDArray[np.int16], slope: float, intercept: float, signed: bool) -> bytes:
    values = np.rint((hu.astype(np.float64) - intercept) / slope)
    return values.astype("<i2" if signed else "<u2").tobytes()


def _file_meta(ds: Dataset) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta = meta
