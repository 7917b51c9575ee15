"""Deflated datasets: what inflates without end is stopped at the limit."""

import struct
import zlib
from random import Random

import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
)

from node.dicom import dataset_walker, header
from node.dicom.header import UnreadableDataset
from tests.support.builders import encoded
from tests.unit.node.dicom.slices import read, slice_with, wire


@pytest.mark.parametrize("limit", [100, 400])
def test_a_deflate_bomb_is_stopped_at_the_limit(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    content = wire(slice_with(), DeflatedExplicitVRLittleEndian)
    read(content, DeflatedExplicitVRLittleEndian)
    monkeypatch.setattr(header, "MAXIMUM_INFLATED_BYTES", limit)
    with pytest.raises(UnreadableDataset, match="larger"):
        read(content, DeflatedExplicitVRLittleEndian)


def test_a_bomb_of_zeros_takes_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    import tracemalloc

    monkeypatch.setattr(header, "MAXIMUM_INFLATED_BYTES", 20_000_000)
    content = encoded(slice_with(PixelData=None))
    bomb = content + struct.pack("<HH2sHL", 0x7FE0, 0x10, b"OW", 0, 200_000_000) + bytes(200_000_000)
    deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    deflated = deflater.compress(bomb) + deflater.flush()
    del bomb
    tracemalloc.start()
    with pytest.raises(UnreadableDataset):
        read(deflated, DeflatedExplicitVRLittleEndian)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40_000_000


def test_few_bytes_do_not_inflate_to_many(monkeypatch: pytest.MonkeyPatch) -> None:
    def deflated(pixels: bytes) -> bytes:
        return wire(slice_with(Rows=64, Columns=64, PixelData=pixels), DeflatedExplicitVRLittleEndian)

    monkeypatch.setattr(dataset_walker, "ANYWAY_BYTES", 10_000)
    for allowed in (Random(1).randbytes(20_000), bytes(8192)):
        read(deflated(allowed), DeflatedExplicitVRLittleEndian)
    with pytest.raises(UnreadableDataset, match="inflates too far"):
        read(deflated(bytes(1 << 20)), DeflatedExplicitVRLittleEndian)


@pytest.mark.parametrize("damage", [b"\x07not deflate at all", b""])
def test_bytes_that_do_not_inflate_are_unreadable(damage: bytes) -> None:
    with pytest.raises(UnreadableDataset, match="deflated dataset is"):
        read(damage, DeflatedExplicitVRLittleEndian)
