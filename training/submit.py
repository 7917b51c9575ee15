"""A folder of series becomes the challenge's table: one row a series, 14 probabilities each."""

import csv
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.misc import is_dicom

from ai.bundle import Bundle
from ai.errors import NotAnalysable
from ai.locations import COLUMNS
from ai.predict import analyse
from ai.volume import is_directory, volume_from_files
from training.files import write_whole
from training.phantom.lesions import RSNA_POSITIVES

HEADER = ("SeriesInstanceUID", *COLUMNS)
_SERIES, _POSITIVE_SERIES = 4348, 1864
FREQUENCIES = tuple(count / _SERIES for count in (*RSNA_POSITIVES, _POSITIVE_SERIES))
"""What a series that could not be analysed gets: how often each column is positive in the challenge's training data.

Nothing was seen, so nothing better is known; and a value between the certain ones costs the AUC least.
"""


@dataclass(frozen=True)
class Row:
    """One series: its 14 probabilities, and why they are no more than `FREQUENCIES` when it could not be analysed."""

    series_instance_uid: str
    probabilities: tuple[float, ...]
    problem: str = ""


def series_in(root: Path) -> dict[str, list[Path]]:
    """The DICOM files below a folder by Series Instance UID, in order of path; what is not DICOM, or a directory of it, is left out."""
    found: dict[str, list[Path]] = {}
    for path in sorted(entry for entry in root.rglob("*") if entry.is_file()):
        if not is_dicom(path):
            continue
        try:
            ds = dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
            if is_directory(ds):
                continue
            uid = ds.get("SeriesInstanceUID")
        except (InvalidDicomError, EOFError, ValueError):
            uid = None
        found.setdefault(str(uid or path.parent.name), []).append(path)
    return found


def rows(
    series: dict[str, list[Path]],
    bundle: Bundle,
    device: str = "auto",
    each: Callable[[Row], None] | None = None,
) -> Iterator[Row]:
    """Yield each series' row; one that cannot be analysed does not stop the others."""
    for uid, paths in series.items():
        try:
            row = Row(uid, analyse(volume_from_files(paths), bundle, device).probabilities)
        except (NotAnalysable, OSError) as error:
            cause = f"{error.reason.explained} ({error})" if isinstance(error, NotAnalysable) else str(error)
            row = Row(uid, FREQUENCIES, cause)
        if each is not None:
            each(row)
        yield row


def write_submission(path: Path, table: Iterable[Row]) -> list[Row]:
    """Write the table, whole or not at all, and return its rows."""
    written = list(table)
    text = StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows((row.series_instance_uid, *(f"{value:.6f}" for value in row.probabilities)) for row in written)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.getvalue())
    return written
