"""DICOM slices become a `Volume` in the patient's frame of reference, or `NotAnalysable` says why not.

Order and spacing come from the slice positions alone (`ai/stack.py`), pixels from `ai/frames.py`.  A gantry tilt is
kept as the true, sheared affine: whoever resamples uses the affine and is right.  Nothing is repaired silently.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from threading import Barrier

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
)

from ai.errors import NotAnalysable, Reason
from ai.frames import AIR_HU, GARBLED, Frame, check_described, frame_count, frame_hu, frames, text_of, transfer_syntax
from ai.limits import bytes_when_read, check_bytes, check_coarse, check_headers, plane_stride
from ai.stack import Stack, stack_geometry
from ai.wording import counted, unpadded

__all__ = [
    "AIR_HU",
    "ReadSlice",
    "Stack",
    "Volume",
    "read_slice",
    "stack_geometry",
    "subsampled_volume",
    "volume_from_datasets",
    "volume_from_files",
    "volume_from_slices",
]

_UNCOMPRESSED = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)


@dataclass(frozen=True, eq=False)
class Volume:
    """A CT volume whose geometry is known.

    `hu_DHW`: int16 Hounsfield units; d runs from feet to head, h from anterior to posterior (rows), w from the
    patient's right to left (columns), as in an axial slice.  `affine_lps`: 4×4 float64, maps (d, h, w, 1) of a voxel
    centre to LPS mm.  `sop_instance_uids`: the instance each slice d came from; `frame_numbers`: its frame in that
    instance, counted from 1.
    """

    hu_DHW: NDArray[np.int16]
    affine_lps: NDArray[np.float64]
    sop_instance_uids: tuple[str, ...] = ()
    frame_numbers: tuple[int, ...] = ()

    @property
    def spacing_mm_DHW(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along d, h and w, in mm."""
        d, h, w = np.linalg.norm(self.affine_lps[:3, :3], axis=0)
        return float(d), float(h), float(w)


@dataclass(eq=False)
class ReadSlice:
    """An instance whose file was read.

    `frames`: empty when nobody has looked yet.  `hu`: the pixels, int16 HU (rows, columns); where None, `ds` has them.
    Nothing but `let_go_of_pixels` changes it.
    """

    ds: Dataset
    frames: tuple[Frame, ...] = ()
    hu: NDArray[np.int16] | None = None

    def let_go_of_pixels(self) -> None:
        """Those of one frame are held no longer, once a volume has them; of several, another volume may be made."""
        if frame_count(self.ds) == 1:
            self.hu = None
            self.ds.pop("PixelData", None)


def read_slice(ds: Dataset) -> ReadSlice:
    """The instance with its pixels in HU, if they are those of one uncompressed frame; `ds` then loses its own.

    Whatever is wrong with them is left for whoever makes the volume to find.
    """
    found = tuple(frames(ds))
    syntax = transfer_syntax(ds)
    if len(found) != 1 or found[0].multi_frame or syntax not in _UNCOMPRESSED:
        return ReadSlice(ds, found)
    try:
        hu = frame_hu(ds, found[0])
    except NotAnalysable:
        return ReadSlice(ds, found)
    del ds.PixelData
    return ReadSlice(ds, found, hu)


def volume_from_datasets(datasets: Sequence[Dataset], threads: int = 0) -> Volume:
    """As `volume_from_slices`, of datasets with pixels.  They are not changed.  Raises NotAnalysable."""
    return volume_from_slices([ReadSlice(ds) for ds in datasets], threads)


def volume_from_slices(slices: Sequence[ReadSlice], threads: int = 0) -> Volume:
    """The series as one `Volume`.

    `slices`: all instances of one series, in any order: single-frame CT or Enhanced CT.  They are not changed.  The
    volume is the only array of its size that is made.  `threads` decode; 0: as many as there are cores.
    Raises NotAnalysable.
    """
    datasets = [each.ds for each in slices]
    _check_one_patient(datasets)
    check_headers(datasets)
    check_described(datasets)
    pairs = _without_copies([(frame, each) for each in slices for frame in each.frames or frames(each.ds)])
    headers = [frame for frame, _ in pairs]
    return _fill(headers, _stack(headers), lambda index: pairs[index][1], threads)


def _without_copies(pairs: list[tuple[Frame, ReadSlice]]) -> list[tuple[Frame, ReadSlice]]:
    """The slices, each once: one that was copied under another UID, with its place and its pixels, costs nothing."""
    first: dict[tuple[float, ...], tuple[Frame, ReadSlice]] = {}
    kept = []
    for frame, each in pairs:
        place = (*frame.position_mm, *frame.orientation)
        twin = first.setdefault(place, (frame, each))
        if twin[0] is frame or not (frame.has_geometry and np.array_equal(_plane(twin[::-1]), _plane((each, frame)))):
            kept.append((frame, each))
    return kept


def volume_from_files(paths: Sequence[str | os.PathLike[str]]) -> Volume:
    """As `volume_from_datasets`, from files: all headers, then the pixels of a few at a time.  Raises NotAnalysable."""
    datasets = [_read(path, stop_before_pixels=True) for path in paths]
    _check_one_patient(datasets)
    headers, owners = _all_frames(datasets)
    stack = _stack(headers)
    held: list[tuple[int, ReadSlice]] = []  # one instance: a multi-frame file is read once, not once a frame

    def instance(index: int) -> ReadSlice:
        owner = owners[index]
        if not held or held[0][0] != owner:
            held[:] = [(owner, ReadSlice(_read(paths[owner])))]
        return held[0][1]

    return _fill(headers, stack, instance, threads=0)


def subsampled_volume(
    paths: Sequence[str | os.PathLike[str]], stack: Stack, slice_mm: float = 4.0, pixel_mm: float = 2.0
) -> Volume:
    """A coarse `Volume` for judging coverage: about one slice every `slice_mm` and one pixel every `pixel_mm`.

    `paths[i]` holds the slice whose position was `positions_mm[i]` of `stack_geometry`; or one path holds all frames.
    Only the slices that are kept are read.  Voxels are picked, not averaged.  No decoder runs and nothing is inflated:
    the process of the caller may be one that must not crash.  Raises NotAnalysable when a file cannot be read, is
    compressed or does not agree with `stack`.
    """
    every = max(1, round(slice_mm / stack.spacing_mm))
    picked = stack.order[::every]
    if len(paths) == 1 and len(stack) > 1:
        whole = _read_uncompressed(paths[0])
        all_frames = list(frames(whole))
        if len(all_frames) != len(stack):
            raise NotAnalysable(
                Reason.MISSING_GEOMETRY, f"{counted(len(all_frames), 'frame')} for a stack of {len(stack)} slices"
            )
        chosen = ((whole, all_frames[int(i)]) for i in picked)
    elif len(paths) == len(stack):
        datasets = (_read_uncompressed(paths[int(i)]) for i in picked)
        chosen = ((ds, next(frames(ds))) for ds in datasets)
    else:
        raise NotAnalysable(
            Reason.MISSING_GEOMETRY, f"{counted(len(paths), 'file')} for a stack of {len(stack)} slices"
        )
    kept, planes = list[Frame](), list[NDArray[np.int16]]()
    for ds, frame in chosen:  # one after the other: only the coarse planes are held
        check_headers([ds])
        kept.append(frame)
        first = kept[0]
        _check_frames_alike([first, frame])
        stride = max(1, round(pixel_mm / first.pixel_spacing_mm[0]))
        check_coarse(len(picked) * -(-frame.rows // stride) * -(-frame.columns // stride))
        planes.append(frame_hu(ds, frame, stride))
    affine = stack.affine_lps((first.pixel_spacing_mm[0], first.pixel_spacing_mm[1]))
    affine[:3, 0] *= every
    affine[:3, 1:3] *= stride
    rows, columns = -(-first.rows // stride), -(-first.columns // stride)
    turn, affine = _patient_axes(affine, rows, columns)
    hu = np.stack([turn(plane) for plane in planes])
    return Volume(hu, affine, tuple(f.sop_instance_uid for f in kept), tuple(f.number for f in kept))


def is_directory(ds: Dataset) -> bool:
    """Whether a file's dataset is a directory of files (DICOMDIR), not one of them."""
    return bool(ds.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage)


def _read_uncompressed(path: str | os.PathLike[str]) -> Dataset:
    """As `_read`, unless its transfer syntax compresses or deflates.  Raises NotAnalysable."""
    with _naming_garbled(path):
        # Before the rest of the file, which may be deflated.
        syntax = read_file_meta_info(path).get("TransferSyntaxUID")
    if syntax in _UNCOMPRESSED:
        ds = _read(path)
        # Again: the file may have been replaced meanwhile by another with the same dataset.
        if transfer_syntax(ds) in _UNCOMPRESSED:
            return ds
    raise NotAnalysable(Reason.PIXELS_UNDECODABLE, "compressed or deflated")


def _read(path: str | os.PathLike[str], stop_before_pixels: bool = False) -> Dataset:
    with _naming_garbled(path):
        check_bytes([bytes_when_read(path)])
        return dcmread(path, stop_before_pixels=stop_before_pixels)


@contextmanager
def _naming_garbled(path: str | os.PathLike[str]) -> Iterator[None]:
    """An error that says that the file is no whole DICOM file becomes NotAnalysable."""
    try:
        yield
    except (InvalidDicomError, *GARBLED) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's fault, not the file's: worth another attempt
        raise NotAnalysable(
            Reason.PIXELS_TRUNCATED, f"a file of {Path(path).stat().st_size} bytes is not a whole DICOM file"
        ) from error


def _all_frames(datasets: Sequence[Dataset]) -> tuple[list[Frame], list[int]]:
    """All frames of all datasets, and the index of the dataset that each came from.  Raises TOO_LARGE."""
    check_headers(datasets)
    pairs = [(frame, owner) for owner, ds in enumerate(datasets) for frame in frames(ds)]
    return [frame for frame, _ in pairs], [owner for _, owner in pairs]


def _stack(headers: Sequence[Frame]) -> Stack:
    return stack_geometry(
        np.array([f.position_mm for f in headers]).reshape(-1, 3),
        np.array([f.orientation for f in headers]).reshape(-1, 6),
        pixel_spacings_mm=np.array([f.pixel_spacing_mm for f in headers]).reshape(-1, 2),
        matrices=np.array([(f.rows, f.columns) for f in headers]).reshape(-1, 2),
        frames_of_reference=[f.frame_of_reference_uid for f in headers],
    )


def _check_frames_alike(headers: Sequence[Frame]) -> None:
    if not all(frame.has_geometry for frame in headers):
        raise NotAnalysable(Reason.MISSING_GEOMETRY, "a slice without position, orientation or pixel spacing")
    if len({(f.rows, f.columns, f.pixel_spacing_mm) for f in headers}) > 1:
        raise NotAnalysable(Reason.MIXED_MATRIX, "slices of different matrix or pixel spacing")


def _check_one_patient(datasets: Sequence[Dataset]) -> None:
    """Raises MIXED_PATIENTS or MIXED_STUDIES: a stack can be even and still be two people's."""
    patients = {tuple(unpadded(text_of(ds, each)) for each in ("PatientID", "IssuerOfPatientID")) for ds in datasets}
    if len(patients) > 1:
        raise NotAnalysable(Reason.MIXED_PATIENTS, f"{len(patients)} patients")
    studies = {text_of(ds, "StudyInstanceUID") for ds in datasets}
    if len(studies) > 1:
        raise NotAnalysable(Reason.MIXED_STUDIES, f"{len(studies)} studies")


def _fill(headers: Sequence[Frame], stack: Stack, instance: Callable[[int], ReadSlice], threads: int) -> Volume:
    """The volume, slice by slice into one array; `instance(i)` is the one that holds `headers[i]`.

    Pixels are averaged in squares where there are more of them than can be held (`plane_stride`).
    """
    first = headers[0]
    affine = stack.affine_lps((first.pixel_spacing_mm[0], first.pixel_spacing_mm[1]))
    turn, affine = _patient_axes(affine, first.rows, first.columns)
    pairs = ((instance(int(index)), headers[int(index)]) for index in stack.order)
    stride = plane_stride([(len(stack), first.rows, first.columns)])
    affine[:3, 3] += affine[:3, 1:3].sum(axis=1) * (stride - 1) / 2.0
    affine[:3, 1:3] *= stride
    planes = (_averaged(turn(plane), stride) for plane in _decoded_planes(pairs, threads))
    lowest = next(planes)  # before the large array is made: a header may claim any matrix, pixels prove it
    hu = np.empty((len(stack), *lowest.shape), dtype=np.int16)
    hu[0] = lowest
    for d, plane in enumerate(planes, start=1):
        hu[d] = plane
    ordered = [headers[int(index)] for index in stack.order]
    return Volume(hu, affine, tuple(f.sop_instance_uid for f in ordered), tuple(f.number for f in ordered))


def _averaged(plane: NDArray[np.int16], stride: int) -> NDArray[np.int16]:
    """The mean of every `stride`² pixels; what is left over at the far sides is cut off."""
    if stride == 1:
        return plane
    rows, columns = plane.shape[0] // stride, plane.shape[1] // stride
    squares = plane[: rows * stride, : columns * stride].reshape(rows, stride, columns, stride)
    averaged: NDArray[np.int16] = np.rint(squares.mean(axis=(1, 3), dtype=np.float32)).astype(np.int16)
    return averaged


def _decoded_planes(pairs: Iterator[tuple[ReadSlice, Frame]], threads: int) -> Iterator[NDArray[np.int16]]:
    """The planes in HU, in order.  Compressed ones are decoded on several cores; only a few are held at a time."""
    pool = decoders(threads)
    while batch := list(islice(pairs, 2 * (threads or _cores()))):
        planes = [pool.submit(_plane, pair) for pair in batch]
        try:
            yield from (plane.result() for plane in planes)
        finally:
            for plane in planes:
                plane.cancel()
            wait(planes)


@lru_cache(maxsize=1)
def decoders(threads: int) -> ThreadPoolExecutor:
    """So many threads that decode, all of them running, for as long as the process; 0: as many as there are cores.

    Whoever may run out of memory calls this before: for a thread that begins without any, CPython waits for ever (its issue
    140746).  Raises RuntimeError where the system gives no more threads.
    """
    count = threads or _cores()
    pool, all_run = ThreadPoolExecutor(count, "decoder"), Barrier(count)
    try:
        list(pool.map(lambda _: all_run.wait(), range(count)))
    except BaseException:
        all_run.abort()
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    return pool


os.register_at_fork(after_in_child=decoders.cache_clear)  # a child has none of its parent's threads


def _cores() -> int:
    return os.cpu_count() or 1


def _plane(pair: tuple[ReadSlice, Frame]) -> NDArray[np.int16]:
    each, frame = pair
    return frame_hu(each.ds, frame) if each.hu is None else each.hu


Turn = Callable[[NDArray[np.int16]], NDArray[np.int16]]


def _patient_axes(affine: NDArray[np.float64], rows: int, columns: int) -> tuple[Turn, NDArray[np.float64]]:
    """How a stored plane is turned so that h runs to posterior and w to the patient's left, and the affine afterwards.

    Only exchanges and reversals: no voxel value changes, and every voxel keeps its place in the patient.
    """
    affine = affine.copy()
    exchange = abs(affine[0, 2]) < abs(affine[0, 1])  # the patient lay on the side: columns run along x
    if exchange:
        affine[:, [1, 2]] = affine[:, [2, 1]]
        rows, columns = columns, rows
    flip_h, flip_w = affine[1, 1] < 0.0, affine[0, 2] < 0.0
    for flip, axis, size in ((flip_h, 1, rows), (flip_w, 2, columns)):
        if flip:
            affine[:3, 3] += affine[:3, axis] * (size - 1)
            affine[:3, axis] *= -1.0

    def turn(plane: NDArray[np.int16]) -> NDArray[np.int16]:
        plane = plane.T if exchange else plane
        return plane[:: -1 if flip_h else 1, :: -1 if flip_w else 1]

    return turn, affine
