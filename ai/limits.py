"""How large a series may be that is analysed, judged before its pixels are decoded.

A header may claim any number of voxels, and a few compressed bytes may hold nearly as many.  Taken at their word they
cost the analysis its memory, at every attempt.
"""

import os
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from ai.codestream import LARGEST_MATRIX
from ai.errors import NotAnalysable, Reason
from ai.frames import MAX_FRAMES, frame_count, matrix

MOST_VOXELS = 1 << 29
"""Twice a head and neck at 0.5 mm (1,000 slices of 512²).  The volume is then 1 GiB, and cut out for the network 2 GiB."""
LEAST_MATRIX = 512
"""Pixels along a side of a slice that are left where larger ones are averaged to fit into `MOST_VOXELS`."""
MOST_FILE_BYTES = 3 * MOST_VOXELS
"""Of all files of a series, which are held together: two bytes a voxel, and half as much again for the headers."""
MOST_COARSE_VOXELS = 1 << 26
"""Where a head is looked for.  At the coarse grid's 25 mm³ that is 40 times a whole body; each costs some 15 bytes."""
_META_LENGTH_AT = 140  # preamble, prefix, then the element header of (0002,0000)
_META_BYTES = 1024  # those of a stored file are fewer
_PIECE_BYTES = 1 << 14


def check_headers(datasets: Sequence[Dataset]) -> None:
    """Raises TOO_LARGE where the headers claim more than is analysed."""
    check_slices(sum(frame_count(ds) for ds in datasets))
    for ds in datasets:
        rows, columns = matrix(ds)
        if rows * columns > LARGEST_MATRIX:
            raise _too_large(f"a slice of {rows} x {columns} pixels, at most {LARGEST_MATRIX}")
    plane_stride([(frame_count(ds), *matrix(ds)) for ds in datasets])


def plane_stride(stacks: Sequence[tuple[int, int, int]]) -> int:
    """How many pixels along each side of a slice are averaged into one, so that the volume can be held: 1, 2 or 4.

    `stacks`: slices, rows and columns.  Never below 512² pixels a slice.  Raises TOO_LARGE.
    """
    for stride in (1, 2, 4):
        if stride > 1 and any(min(rows, columns) < LEAST_MATRIX * stride for _, rows, columns in stacks):
            break
        if sum(slices * (rows // stride) * (columns // stride) for slices, rows, columns in stacks) <= MOST_VOXELS:
            return stride
    slices = sum(stack[0] for stack in stacks)
    voxels = sum(slices * rows * columns for slices, rows, columns in stacks)
    raise _too_large(f"{slices} slices of {voxels} pixels in all, at most {MOST_VOXELS}")


def check_slices(slices: int) -> None:
    """Raises TOO_LARGE where a series claims more slices than any has."""
    if slices > MAX_FRAMES:
        raise _too_large(f"{slices} slices, at most {MAX_FRAMES}")


def check_coarse(voxels: int) -> None:
    """Raises TOO_LARGE where a head would be looked for in more than so many voxels."""
    if voxels > MOST_COARSE_VOXELS:
        raise _too_large(f"{voxels} voxels even on the coarse grid, at most {MOST_COARSE_VOXELS}")


def check_bytes(sizes_bytes: Iterable[int]) -> None:
    """Raises TOO_LARGE where files of these sizes are more than can be held together."""
    total = 0
    for size_bytes in sizes_bytes:
        total += size_bytes
        if total > MOST_FILE_BYTES:
            raise _too_large(f"files of more than {MOST_FILE_BYTES >> 20} MiB")


def bytes_when_read(path: str | os.PathLike[str]) -> int:
    """What the file takes in memory: its size or, deflated, that of the dataset in it, counted until it is too much.

    Raises OSError.  Bytes that cannot be inflated are not counted: whoever reads them finds that out.
    """
    with Path(path).open("rb") as stream:
        head = stream.read(_META_BYTES)
        size_bytes = os.fstat(stream.fileno()).st_size
        if DeflatedExplicitVRLittleEndian.encode() not in head:
            return size_bytes
        stream.seek(_META_LENGTH_AT + 4 + int.from_bytes(head[_META_LENGTH_AT : _META_LENGTH_AT + 4], "little"))
        inflating, inflated_bytes = zlib.decompressobj(-zlib.MAX_WBITS), 0
        try:
            while inflated_bytes <= MOST_FILE_BYTES and (piece := stream.read(_PIECE_BYTES)):
                inflated_bytes += len(inflating.decompress(piece))
        except zlib.error:
            pass
        return max(size_bytes, inflated_bytes)


def _too_large(detail: str) -> NotAnalysable:
    return NotAnalysable(Reason.TOO_LARGE, detail)
