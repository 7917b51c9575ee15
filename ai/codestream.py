"""A compressed frame becomes its pixel values: JPEG, JPEG-LS, JPEG 2000, HTJ2K and RLE (PS3.5 8.2, A.4).

The codestream's own header is read before anything is decoded: it decides how much memory decoding takes.  The codecs
let other threads run, so that a series can be decoded on every core.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.uid import UID

LARGEST_MATRIX = 4096 * 4096
"""Pixels of a frame; no CT has more, and a few bytes may claim any number."""


@dataclass(frozen=True)
class Codestream:
    """What a codestream says of itself; `precision` is in bits a sample."""

    rows: int
    columns: int
    samples: int
    precision: int


def codestream(frame: bytes) -> Codestream:
    """The header of a JPEG, JPEG-LS or JPEG 2000 codestream.  Raises ValueError when it has none."""
    if frame.startswith(b"\xff\xd8"):
        return _jpeg(frame)
    start = frame.find(b"\xff\x4f\xff\x51")  # SOC, SIZ; some senders wrap the codestream in a JP2 file
    siz = frame[start + 6 : start + 43]
    if start < 0 or len(siz) < 37:
        raise ValueError("no JPEG or JPEG 2000 codestream")
    right, lower, left, upper = (int.from_bytes(siz[at : at + 4], "big") for at in (2, 6, 10, 14))
    return Codestream(lower - upper, right - left, int.from_bytes(siz[34:36], "big"), (siz[36] & 0x7F) + 1)


def _jpeg(frame: bytes) -> Codestream:
    """ISO/IEC 10918-1 B.2: the first frame header (SOF) after the other segments."""
    at = 2
    while at + 10 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            rows, columns = (int.from_bytes(frame[at + offset : at + offset + 2], "big") for offset in (5, 7))
            return Codestream(rows, columns, frame[at + 9], frame[at + 4])
        else:
            at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    raise ValueError("a JPEG codestream without a frame header")


Codec = Callable[[bytes], NDArray[np.generic]]

_CODECS: dict[UID, Codec] = {
    uid.JPEGBaseline8Bit: imagecodecs.jpeg8_decode,
    uid.JPEGExtended12Bit: imagecodecs.jpeg8_decode,
    uid.JPEGLossless: imagecodecs.jpeg8_decode,
    uid.JPEGLosslessSV1: imagecodecs.jpeg8_decode,
    uid.JPEGLSLossless: imagecodecs.jpegls_decode,
    uid.JPEGLSNearLossless: imagecodecs.jpegls_decode,
    uid.JPEG2000Lossless: imagecodecs.jpeg2k_decode,
    uid.JPEG2000: imagecodecs.jpeg2k_decode,
    uid.HTJ2KLossless: imagecodecs.jpeg2k_decode,
    uid.HTJ2KLosslessRPCL: imagecodecs.jpeg2k_decode,
    uid.HTJ2K: imagecodecs.jpeg2k_decode,
}


def decoded(frame: bytes, syntax: UID, rows: int, columns: int, bits_stored: int, signed: bool) -> NDArray[np.integer]:
    """The stored pixel values (rows, columns) of a compressed frame of one sample a pixel.

    `signed`: Pixel Representation; the codecs give what was encoded, which for all but JPEG 2000 is the bare two's
    complement.  Raises ValueError, or an exception of the codec, for what is not such a frame.
    """
    codec = _CODECS.get(syntax)
    if codec is None:
        raise NotImplementedError(f"no decoder for {syntax.name}")
    header = codestream(frame)
    if (header.rows, header.columns, header.samples) != (rows, columns, 1):
        raise ValueError(f"a frame of {header.rows} x {header.columns} x {header.samples}")
    if rows * columns > LARGEST_MATRIX:
        raise ValueError(f"a frame of {rows} x {columns}")
    values: NDArray[Any] = np.asarray(codec(frame))
    if values.shape != (rows, columns) or values.dtype.kind not in "iu" or values.dtype.itemsize > 2:
        raise ValueError(f"decoded to {values.dtype} {values.shape}")
    if signed and values.dtype.kind == "u":
        bits = min(header.precision, bits_stored)
        shift = 16 - bits
        return (values.astype(np.uint16) << shift).view(np.int16) >> shift
    return values


def unpacked(frame: bytes, pixels: int, allocated: int) -> bytes:
    """The native bytes, little endian, of an RLE frame (PS3.5 G).  Raises an exception of the codec.

    It is given the room of two such frames: one may end in a few bytes of padding, a bomb in 64 times what it takes.
    """
    return bytes(imagecodecs.dicomrle_decode(frame, f"<u{allocated // 8}", out=2 * pixels * allocated // 8))
