"""A phantom as a series of DICOM CT images, as a scanner would send it."""

import datetime
import hashlib
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from training.phantom.scan import PhantomScan

_EPOCH = datetime.datetime(2025, 1, 1, 8, 0, 0, tzinfo=datetime.UTC)


def write_series(
    scan: PhantomScan,
    folder: Path | str,
    *,
    patient_name: str = "PHANTOM^WILLIS",
    patient_id: str | None = None,
    accession_number: str | None = None,
    study_instance_uid: str | None = None,
    series_instance_uid: str | None = None,
    series_number: int = 3,
    series_description: str | None = None,
    contrast: bool | None = None,
    intercept: int = -1024,
) -> list[Path]:
    """One file per slice, feet first, in `folder` (made when missing); CT Image Storage, explicit VR little endian.

    UIDs that are not given follow from the seed and the pixels, so that the same scan is written the same twice.
    `contrast`: whether the headers name a contrast agent; taken from the scan when None.
    `intercept`: the Rescale Intercept; scanners use both 0 and −1024.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    root = hashlib.sha256(scan.volume.hu_DHW[:: max(len(scan.volume.hu_DHW) // 8, 1)].tobytes()).hexdigest()

    def uid(*parts: str) -> str:
        return str(generate_uid(entropy_srcs=["willis phantom", str(scan.seed), root, *parts]))

    study = study_instance_uid or uid("study")
    series = series_instance_uid or uid("series", study)
    enhanced = scan.settings.get("arterial_hu", 300.0)
    with_contrast = float(enhanced) > 120 if contrast is None else contrast
    common = _common(scan, with_contrast, series_description)
    common.PatientName, common.PatientID = patient_name, patient_id or f"PHANTOM{scan.seed:06d}"
    common.AccessionNumber = accession_number if accession_number is not None else f"PH{scan.seed:08d}"
    common.StudyInstanceUID, common.SeriesInstanceUID = study, series
    common.FrameOfReferenceUID, common.SeriesNumber = uid("frame", study), series_number
    common.RescaleIntercept = str(intercept)
    affine = scan.volume.affine_lps
    moment = _EPOCH + datetime.timedelta(minutes=7 * (scan.seed % 100_000))
    paths = []
    for index, plane in enumerate(scan.volume.hu_DHW):
        dataset = _slice(common, plane - np.int16(intercept), affine, index, moment)
        dataset.SOPInstanceUID = uid("instance", series, str(index))
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = target / f"CT{index + 1:05d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _common(scan: PhantomScan, with_contrast: bool, description: str | None) -> Dataset:
    """The attributes that every slice of the series shares."""
    affine = scan.volume.affine_lps
    settings = scan.settings
    moment = _EPOCH + datetime.timedelta(minutes=7 * (scan.seed % 100_000))
    _, height, width = scan.volume.hu_DHW.shape
    spacing_d, spacing_h, spacing_w = scan.volume.spacing_mm_DHW
    ds = Dataset()
    ds.SOPClassUID = CTImageStorage
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.StudyDate = ds.SeriesDate = moment.strftime("%Y%m%d")
    ds.StudyTime = ds.SeriesTime = moment.strftime("%H%M%S")
    ds.Modality = "CT"
    ds.Manufacturer = "Willis"
    ds.ManufacturerModelName = "Phantom"
    ds.StationName = "PHANTOM"
    ds.InstitutionName = "Willis phantom laboratory"
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = "PHANTOM head CTA" if with_contrast else "PHANTOM head CT"
    ds.SeriesDescription = description or ("PHANTOM CTA HEAD" if with_contrast else "PHANTOM HEAD WITHOUT CONTRAST")
    ds.BodyPartExamined = "HEAD"
    ds.PatientBirthDate = "19600101"
    ds.PatientSex = "O"
    ds.PatientAge = "065Y"
    ds.StudyID = f"P{scan.seed % 10_000_000}"
    ds.DeviceSerialNumber = "0"
    ds.SoftwareVersions = "phantom"
    ds.PatientPosition = "HFS"
    ds.PositionReferenceIndicator = ""
    ds.ScanOptions = "HELICAL MODE"
    ds.KVP = str(int(settings.get("kvp", 120)))
    ds.XRayTubeCurrent = "250"
    ds.ExposureTime = "500"
    ds.Exposure = "125"
    ds.GantryDetectorTilt = "0"
    ds.TableHeight = "150"
    ds.RotationDirection = "CW"
    ds.FilterType = "HEAD"
    ds.ConvolutionKernel = str(settings.get("kernel", "STANDARD"))
    ds.SliceThickness = _ds(float(settings.get("slice_thickness_mm", spacing_d)))
    ds.SpacingBetweenSlices = _ds(spacing_d)
    ds.DataCollectionDiameter = "500"
    ds.ReconstructionDiameter = _ds(max(spacing_h * height, spacing_w * width))
    if with_contrast:
        ds.ContrastBolusAgent = "IODINE 370"
        ds.ContrastBolusRoute = "IV"
    ds.ImageOrientationPatient = [_ds(v) for v in (*affine[:3, 2] / spacing_w, *affine[:3, 1] / spacing_h)]
    ds.PixelSpacing = [_ds(spacing_h), _ds(spacing_w)]
    ds.Rows, ds.Columns = height, width
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleSlope, ds.RescaleType = "1", "HU"
    ds.WindowCenter, ds.WindowWidth = ("200", "700") if with_contrast else ("40", "80")
    ds.AcquisitionNumber = 1
    return ds


def _slice(common: Dataset, plane: np.ndarray, affine: np.ndarray, index: int, start: datetime.datetime) -> Dataset:
    """The dataset of one slice."""
    ds = Dataset()
    ds.update(common)
    position = affine[:3, 0] * index + affine[:3, 3]
    ds.ImagePositionPatient = [_ds(v) for v in position]
    ds.SliceLocation = _ds(float(position[2]))
    ds.InstanceNumber = index + 1
    moment = start + datetime.timedelta(seconds=20 + index * 0.01)
    ds.AcquisitionDate = ds.ContentDate = moment.strftime("%Y%m%d")
    ds.AcquisitionTime = ds.ContentTime = moment.strftime("%H%M%S.%f")
    ds.PixelData = np.ascontiguousarray(plane, dtype="<i2").tobytes()
    ds["PixelData"].VR = "OW"
    return ds


def _ds(value: float) -> str:
    """A decimal string of at most 16 characters."""
    return f"{value:.6f}".rstrip("0").rstrip(".") if abs(value) > 5e-7 else "0"
