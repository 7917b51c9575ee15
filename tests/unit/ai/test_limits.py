"""A series that claims more than can be analysed is refused by its headers, before a pixel is decoded."""

import os
import tracemalloc
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from ai import limits
from ai.errors import NotAnalysable, Reason
from ai.limits import MOST_FILE_BYTES, bytes_when_read, check_bytes, check_headers, plane_stride
from ai.volume import subsampled_volume, volume_from_datasets, volume_from_files
from node.dicom.header import file_meta
from tests.support.builders import encoded
from tests.support.dicom_factory import ct_series, enhanced_ct, save
from tests.support.refusal import refusal
from tests.support.stacks import stack_of

TOO_LARGE: dict[str, Callable[[], list[Dataset]]] = {
    "slices larger than any": lambda: ct_series(3, Rows=4096, Columns=4097),
    "a slice larger than any among others": lambda: ct_series(2) + ct_series(1, Rows=65535, Columns=65535),
    "large slices too many even when averaged": lambda: [
        enhanced_ct(ct_series(3), Rows=1000, Columns=1000, NumberOfFrames=2049)
    ],
    "too many frames": lambda: [enhanced_ct(ct_series(3), NumberOfFrames=20_001)],
    "too many frames of many instances": lambda: [enhanced_ct(ct_series(3), NumberOfFrames=10_001)] * 2,
    "one large frame too many": lambda: [enhanced_ct(ct_series(3), Rows=512, Columns=512, NumberOfFrames=2049)],
}


def from_files(make: Callable[[list[Path]], object]) -> Callable[[Sequence[Dataset], Path], object]:
    return lambda series, folder: make(save(series, folder))


MAKERS: dict[str, Callable[[Sequence[Dataset], Path], object]] = {
    "datasets": lambda series, _: volume_from_datasets(series),
    "files": from_files(volume_from_files),
}


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("series", TOO_LARGE)
def test_what_claims_too_much_is_too_large(series: str, maker: str, tmp_path: Path) -> None:
    made = TOO_LARGE[series]()
    assert refusal(made, tmp_path, of=MAKERS[maker]).reason is Reason.TOO_LARGE


def test_the_largest_series_is_not_too_large() -> None:
    check_headers(ct_series(128, Rows=2048, Columns=2048))
    check_headers([enhanced_ct(ct_series(3), Rows=512, Columns=512, NumberOfFrames=2048)])
    check_headers([enhanced_ct(ct_series(3), NumberOfFrames=20_000)])
    check_bytes([MOST_FILE_BYTES // 2] * 2)


def test_the_coarse_volume_refuses_a_slice_larger_than_any(tmp_path: Path) -> None:
    series = ct_series(3)
    paths = save(ct_series(3, Rows=4096, Columns=4097), tmp_path)
    assert refusal(paths, stack_of(series), of=subsampled_volume).reason is Reason.TOO_LARGE


def test_a_file_larger_than_can_be_held_is_not_read(tmp_path: Path) -> None:
    (path,) = save(ct_series(1), tmp_path)
    os.truncate(path, MOST_FILE_BYTES + 1)  # a hole: it takes no room on the disk
    caught = refusal([path], of=volume_from_files)
    assert (caught.reason, caught.detail) == (Reason.TOO_LARGE, "files of more than 1536 MiB")


def deflated(dataset: bytes) -> bytes:
    meta = file_meta(("1.2.840.10008.5.1.4.1.1.2", "2.25.1"), DeflatedExplicitVRLittleEndian, "PACS")
    return meta + dataset


def test_a_deflate_bomb_is_counted_and_not_held(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(limits, "MOST_FILE_BYTES", 1 << 27)  # a twelfth of what it is
    path = tmp_path / "bomb.dcm"
    deflating = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    zeros = bytes(1 << 24)
    path.write_bytes(deflated(b"".join(deflating.compress(zeros) for _ in range(20)) + deflating.flush()))
    assert path.stat().st_size < 1 << 19
    assert (1 << 27) < bytes_when_read(path) < (1 << 27) + (1 << 25)  # of 320 MiB
    tracemalloc.start()
    with pytest.raises(NotAnalysable, match="too_large"):
        volume_from_files([path])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20


def test_a_file_counts_as_what_it_takes_once_it_is_read(tmp_path: Path) -> None:
    (ds,) = ct_series(1, rows=64, columns=64)
    whole, path = encoded(ds), tmp_path / "one.dcm"
    path.write_bytes(deflated(encoded(ds, DeflatedExplicitVRLittleEndian)))
    assert bytes_when_read(path) == len(whole)
    path.write_bytes(deflated(b"\xff" * 1000))
    assert bytes_when_read(path) == path.stat().st_size
    (plain,) = save([ds], tmp_path)
    assert bytes_when_read(plain) == plain.stat().st_size


def test_large_slices_are_averaged_where_they_are_too_many_to_be_held(monkeypatch: pytest.MonkeyPatch) -> None:
    hu = np.arange(8 * 8).reshape(8, 8).astype(np.int16)
    series = ct_series(3, rows=8, columns=8, hu=lambda _: hu)
    whole = volume_from_datasets(series)
    monkeypatch.setattr(limits, "MOST_VOXELS", 3 * 16)
    monkeypatch.setattr(limits, "LEAST_MATRIX", 4)
    halved = volume_from_datasets(series)
    assert halved.hu_DHW.shape == (3, 4, 4)
    assert (np.abs(halved.hu_DHW[0] - hu.reshape(4, 2, 4, 2).mean(axis=(1, 3))) <= 0.5).all()
    corner, other = whole.affine_lps @ [0, 0.5, 0.5, 1], halved.affine_lps @ [0, 0, 0, 1]
    assert np.allclose(corner, other) and halved.spacing_mm_DHW[1] == 2 * whole.spacing_mm_DHW[1]


def test_slices_of_1024_pixels_are_not_too_large() -> None:
    assert plane_stride([(768, 1024, 1024)]) == 2
    assert plane_stride([(512, 1024, 1024)]) == 1
