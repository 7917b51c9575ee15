"""A small CT slice, as an association carries it and as it is read."""

from typing import Any

from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from storage.records import Header
from tests.support.builders import encoded, read_header
from tests.support.dicom_factory import change, ct_series


def slice_with(**changes: Any) -> Dataset:
    """A small CT slice; a keyword sets an attribute, None removes it."""
    [ds] = ct_series(1, rows=4, columns=5, ImageType=["ORIGINAL", "PRIMARY", "AXIAL"], AcquisitionNumber=4)
    ds.AcquisitionDate, ds.SeriesDescription, ds.ConvolutionKernel = "20260101", "CTA 0.75", "H20f"
    return change(ds, **changes)


def wire(ds: Dataset, syntax: str) -> bytes:
    """The dataset's bytes as an association carries them."""
    if syntax == DeflatedExplicitVRLittleEndian:
        return encoded(ds, syntax)
    if syntax in (JPEGLSLossless, RLELossless):
        ds = Dataset({element.tag: element for element in ds})
        ds.PixelData = encapsulate([b"\xff\xd8fragment", b"another fragment"])
        ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
        return encoded(ds)
    if syntax == ExplicitVRBigEndian:
        ds = Dataset({element.tag: element for element in ds if element.tag != 0x7FE00010})
        pixels = slice_with().PixelData
        ds.PixelData = bytes(byte for pair in zip(pixels[1::2], pixels[::2], strict=True) for byte in pair)
        ds["PixelData"].VR = "OW"
    return encoded(ds, syntax)


def read(content: bytes, syntax: str = ExplicitVRLittleEndian, sop: str = "2.25.20000") -> Header:
    return read_header(content, syntax, CTImageStorage, sop)
