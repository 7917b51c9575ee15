"""The same images in other transfer syntaxes, encoded by others than the decoder under test wherever there are others."""

import copy
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread, uid
from pydicom.encaps import encapsulate
from pydicom.uid import UID

DCMTK: dict[str, tuple[UID, Sequence[str]]] = {
    "implicit little endian": (uid.ImplicitVRLittleEndian, ("dcmconv", "+ti")),
    "explicit big endian": (uid.ExplicitVRBigEndian, ("dcmconv", "+tb")),
    "deflated": (uid.DeflatedExplicitVRLittleEndian, ("dcmconv", "+td")),
    "JPEG lossless, first order": (uid.JPEGLosslessSV1, ("dcmcjpeg", "+e1")),
    "JPEG lossless, another predictor": (uid.JPEGLossless, ("dcmcjpeg", "+el", "+sv", "6")),
    "JPEG-LS": (uid.JPEGLSLossless, ("dcmcjpls", "+el")),
    "RLE": (uid.RLELossless, ("dcmcrle",)),
}
"""Lossless syntaxes that dcmtk encodes."""
LOSSY: dict[str, tuple[UID, Sequence[str]]] = {
    "JPEG extended, 12 bits": (uid.JPEGExtended12Bit, ("dcmcjpeg", "+ee", "+q", "95")),
    "JPEG-LS, near lossless": (uid.JPEGLSNearLossless, ("dcmcjpls", "+en", "+md", "2")),
}
CODECS: dict[str, UID] = {
    "JPEG 2000, lossless only": uid.JPEG2000Lossless,
    "JPEG 2000": uid.JPEG2000,
    "HTJ2K, lossless only": uid.HTJ2KLossless,
    "HTJ2K, RPCL": uid.HTJ2KLosslessRPCL,
    "HTJ2K": uid.HTJ2K,
}
"""Syntaxes that dcmtk does not encode; the frames are encoded without loss."""


def by_dcmtk(datasets: Sequence[Dataset], command: Sequence[str], folder: Path) -> list[Dataset]:
    """What dcmtk's encoder makes of the datasets; it must be installed."""
    assert shutil.which(command[0])
    encoded: list[Dataset] = []
    for number, ds in enumerate(datasets):
        source, target = folder / f"{number}-in.dcm", folder / f"{number}-out.dcm"
        ds.save_as(source, enforce_file_format=True)
        subprocess.run([*command, str(source), str(target)], check=True, timeout=60)
        encoded.append(dcmread(target))
    return encoded


def by_codec(datasets: Sequence[Dataset], syntax: UID) -> list[Dataset]:
    """The datasets with their frames as codestreams of this syntax, without loss."""
    return [_by_codec(ds, syntax) for ds in datasets]


def _by_codec(source: Dataset, syntax: UID) -> Dataset:
    ds = copy.deepcopy(source)
    count = int(ds.get("NumberOfFrames", 1))
    frames = source.pixel_array.reshape(count, ds.Rows, ds.Columns)
    ds.PixelData = encapsulate([_codestream(frame, syntax, ds.BitsStored) for frame in frames])
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = syntax
    return ds


def _codestream(frame: NDArray[np.integer], syntax: UID, bits: int) -> bytes:
    if syntax in (uid.JPEG2000Lossless, uid.JPEG2000):
        return bytes(imagecodecs.jpeg2k_encode(frame, level=0, reversible=True, codecformat="J2K", bitspersample=bits))
    if syntax == uid.JPEGLSLossless:
        return bytes(imagecodecs.jpegls_encode(frame.view(np.uint16)))  # it knows no signs
    return bytes(imagecodecs.htj2k_encode(frame, reversible=True))
