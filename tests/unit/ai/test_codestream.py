"""Compressed frames: their header is read before they are decoded, and signs come out as they went in."""

import struct
import tracemalloc

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, uid
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import UID

from ai.codestream import Codestream, codestream, decoded
from ai.errors import Reason
from ai.volume import volume_from_datasets
from tests.support.compressed import by_codec
from tests.support.dicom_factory import ct_series, enhanced_ct
from tests.support.refusal import refusal

VALUES: NDArray[np.int16] = np.random.default_rng(1).integers(-2048, 2048, (20, 24)).astype(np.int16)
TWELVE_BITS = (VALUES.view(np.uint16) & 0x0FFF).astype(np.uint16)
"""The two's complement of VALUES in 12 bits, as an encoder without signs is given it."""


def with_frame(frame: bytes, syntax: str, **changes: int) -> list[Dataset]:
    """Three slices with this one compressed frame."""
    series = ct_series(3, rows=20, columns=24)
    for ds in series:
        ds.PixelData = encapsulate([frame])
        ds["PixelData"].is_undefined_length = True
        ds.file_meta.TransferSyntaxUID = UID(syntax)
        for keyword, value in changes.items():
            setattr(ds, keyword, value)
    return series


@pytest.mark.parametrize(
    ("syntax", "frame"),
    [
        (uid.JPEGLossless, imagecodecs.jpeg8_encode(TWELVE_BITS, lossless=True, bitspersample=12)),
        (uid.JPEG2000Lossless, imagecodecs.jpeg2k_encode(TWELVE_BITS, level=0, reversible=True, bitspersample=12)),
        (uid.JPEG2000Lossless, imagecodecs.jpeg2k_encode(VALUES, level=0, reversible=True, codecformat="J2K")),
        (uid.JPEGLSLossless, imagecodecs.jpegls_encode(VALUES.view(np.uint16))),
        (uid.HTJ2KLossless, imagecodecs.htj2k_encode(VALUES, reversible=True)),
    ],
)
def test_negative_values_survive_whether_the_codestream_knows_signs_or_not(syntax: UID, frame: bytes) -> None:
    np.testing.assert_array_equal(decoded(frame, syntax, 20, 24, 12, signed=True), VALUES)


def test_jpeg_baseline_has_eight_bits() -> None:
    grey = np.full((20, 24), 100, np.uint8)
    made = decoded(bytes(imagecodecs.jpeg8_encode(grey, level=100)), uid.JPEGBaseline8Bit, 20, 24, 8, signed=False)
    assert np.abs(made.astype(int) - 100).max() <= 1


def test_a_header_is_found_after_other_segments_and_fill_bytes() -> None:
    frame = bytes(imagecodecs.jpeg8_encode(TWELVE_BITS, lossless=True, bitspersample=12))
    comment = b"\xff\xfe\x00\x06abcd"
    assert codestream(frame[:2] + comment + b"\xff" + frame[2:]) == Codestream(20, 24, 1, 12)


@pytest.mark.parametrize(
    "frame", [b"", b"\xff\xd8", b"\xff\xd8\xff\xda\x00\x04ab", b"\xff\x4f\xff\x51\x00", b"RIFF" * 20]
)
def test_what_is_no_codestream_is_refused(frame: bytes) -> None:
    with pytest.raises(ValueError, match="codestream"):
        codestream(frame)
    assert refusal(with_frame(frame or b"\0\0", uid.JPEGLossless)).reason is Reason.PIXELS_UNDECODABLE


def test_a_matrix_that_a_codestream_only_claims_costs_no_memory() -> None:
    frame = bytearray(imagecodecs.jpeg8_encode(TWELVE_BITS, lossless=True, bitspersample=12))
    at = frame.index(b"\x00\x14\x00\x18")
    frame[at : at + 4] = b"\xff\xff\xff\xff"
    with pytest.raises(ValueError, match="65535 x 65535"):
        decoded(bytes(frame), uid.JPEGLossless, 20, 24, 12, signed=False)
    with pytest.raises(ValueError, match="a frame of 65535 x 65535$"):  # the header of the dataset may claim it too
        decoded(bytes(frame), uid.JPEGLossless, 65535, 65535, 12, signed=False)


def test_colour_and_truncated_frames_are_refused() -> None:
    colour = bytes(imagecodecs.jpeg8_encode(np.zeros((20, 24, 3), np.uint8)))
    half = bytes(imagecodecs.jpegls_encode(TWELVE_BITS))[:200]
    for frame, syntax in ((colour, uid.JPEGBaseline8Bit), (half, uid.JPEGLSLossless), (b"\0" * 40, uid.RLELossless)):
        assert refusal(with_frame(frame, syntax)).reason is Reason.PIXELS_UNDECODABLE


def test_an_rle_bomb_is_refused_and_not_unpacked() -> None:
    zeros = b"\x81\0" * (1 << 20)  # 128 MiB
    bomb = struct.pack("<16L", 2, 64, 64 + len(zeros), *[0] * 13) + zeros + zeros
    tracemalloc.start()
    assert refusal(with_frame(bomb, uid.RLELossless)).reason is Reason.PIXELS_UNDECODABLE
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 << 20


def test_a_syntax_without_a_decoder_is_refused_by_its_uid() -> None:
    caught = refusal(with_frame(bytes(imagecodecs.jpegls_encode(TWELVE_BITS)), uid.MPEG2MPML))
    assert caught.detail == f"transfer syntax {uid.MPEG2MPML}: NotImplementedError"


def test_frames_are_found_by_an_extended_offset_table() -> None:
    source = enhanced_ct(ct_series(5, rows=20, columns=24))
    (ds,) = by_codec([source], uid.HTJ2K)
    frames = [bytes(imagecodecs.htj2k_encode(frame, reversible=True)) for frame in source.pixel_array]
    ds.PixelData, ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths = encapsulate_extended(frames)
    np.testing.assert_array_equal(volume_from_datasets([ds]).hu_DHW, volume_from_datasets([source]).hu_DHW)
