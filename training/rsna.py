"""The tables of the RSNA 2025 Intracranial Aneurysm Detection data, read exactly as the challenge lays them out.

    ROOT/train.csv                       SeriesInstanceUID, PatientAge, PatientSex, Modality, 14 labels
    ROOT/train_localizers.csv            SeriesInstanceUID, SOPInstanceUID, coordinates, location
    ROOT/series/UID/SOP_UID.dcm          one file a slice, or one multi-frame file
    ROOT/segmentations/UID_cowseg.nii    or UID/UID_cowseg.nii: vessel labels of some series

What the tables say wrongly stops the reading and names file, line and remedy; what is wrong with one series is that
series' own fault (`Unreadable`) and leaves the others alone.  `training/rsna_regions.py` turns series into regions.
"""

import ast
import csv
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ai.locations import COLUMNS, LOCATIONS, Location
from training.config import ConfigError

TRAIN, LOCALIZERS, SERIES, SEGMENTATIONS = "train.csv", "train_localizers.csv", "series", "segmentations"
TRAIN_COLUMNS = ("SeriesInstanceUID", "Modality", *COLUMNS)
LOCALIZER_COLUMNS = ("SeriesInstanceUID", "SOPInstanceUID", "coordinates", "location")
PATIENT_COLUMN = "PatientID"
"""Not in the challenge's table; folds go by it where somebody has added it."""


class Unreadable(Exception):
    """One series cannot be used; the message says why, and the others go on."""


@dataclass(frozen=True)
class Localizer:
    """A point on an aneurysm: `x` counts columns and `y` rows, in pixels; `frame` counts from 0 in a multi-frame file."""

    sop_instance_uid: str
    x: float
    y: float
    frame: int | None
    location: Location


@dataclass(frozen=True)
class RsnaSeries:
    """One row of `train.csv` with its localizers.  `labels`: the 14, in the order of `COLUMNS`."""

    series_instance_uid: str
    modality: str
    labels: tuple[bool, ...]
    localizers: tuple[Localizer, ...] = ()
    patient: str = ""

    @property
    def number(self) -> int:
        """A stable number, which takes the place of a phantom's seed."""
        return int(hashlib.sha256(self.series_instance_uid.encode()).hexdigest()[:12], 16)

    def fold(self, folds: int) -> int:
        """Which of so many folds the series is in: the same for all series of a patient, on every machine."""
        who = self.patient or self.series_instance_uid
        return int(hashlib.sha256(f"fold {who}".encode()).hexdigest()[:8], 16) % folds

    @property
    def unplaced(self) -> list[str]:
        """The locations that are labelled positive and have no localizer."""
        placed = {localizer.location for localizer in self.localizers}
        return [
            location.value
            for location, label in zip(LOCATIONS, self.labels[:-1], strict=True)
            if label and location not in placed
        ]


def read_tables(root: Path, modalities: Sequence[str] = ("CTA",)) -> list[RsnaSeries]:
    """Return the series of these modalities in the order of `train.csv`.

    Raises ConfigError, naming file, line and remedy, for what is missing or not as the challenge has it.
    """
    found: dict[str, RsnaSeries] = {}
    for line, row in _rows(root / TRAIN, TRAIN_COLUMNS):
        uid = row["SeriesInstanceUID"]
        if uid in found:
            raise ConfigError(f"{root / TRAIN} line {line}: series {uid} has a line already: keep one of them")
        labels = tuple(_label(root / TRAIN, line, name, row[name]) for name in COLUMNS)
        found[uid] = RsnaSeries(uid, row["Modality"].strip(), labels, (), row.get(PATIENT_COLUMN) or "")
    for line, row in _rows(root / LOCALIZERS, LOCALIZER_COLUMNS):
        series = found.get(row["SeriesInstanceUID"])
        if series is None:
            raise ConfigError(
                f"{root / LOCALIZERS} line {line}: series {row['SeriesInstanceUID']} is not in {TRAIN}: use both "
                "files of one download"
            )
        localizer = _localizer(root / LOCALIZERS, line, row)
        found[series.series_instance_uid] = replace(series, localizers=(*series.localizers, localizer))
    chosen = [series for series in found.values() if series.modality in modalities]
    if not chosen:
        there = sorted({series.modality for series in found.values()})
        raise ConfigError(f"{root / TRAIN} has no series of {', '.join(modalities)}; there are {', '.join(there)}")
    return chosen


def files_of(root: Path, series: RsnaSeries) -> list[Path]:
    """The DICOM files of a series.  Raises Unreadable when there are none."""
    folder = root / SERIES / series.series_instance_uid
    files = sorted(folder.glob("*.dcm"))
    if not files:
        raise Unreadable(f"{folder} has no .dcm files: download the series again")
    return files


def segmentation_of(root: Path, series: RsnaSeries) -> Path | None:
    """The vessel labels of a series, which only some have; they lie flat or in a folder of the series' name."""
    name = f"{series.series_instance_uid}_cowseg.nii"
    places = (root / SEGMENTATIONS / name, root / SEGMENTATIONS / series.series_instance_uid / name)
    return next((place for place in places if place.exists()), None)


def _rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Each line with its number.  Raises ConfigError for a file that is missing, empty or lacks a column."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if missing := [name for name in columns if name not in (reader.fieldnames or ())]:
                raise ConfigError(
                    f"{path} has no column {missing[0]!r}: use the challenge's file, its titles unchanged"
                )
            empty = True
            for row in reader:
                empty = False
                if any(row[name] is None for name in columns):
                    raise ConfigError(f"{path} line {reader.line_num} is cut short: copy the file again")
                yield reader.line_num, row
            if empty:
                raise ConfigError(f"{path} has titles and no lines: copy the file again")
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}): [data] rsna names the folder with {TRAIN}, {LOCALIZERS} and {SERIES}/"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: copy the file again") from error


def _label(path: Path, line: int, name: str, text: str) -> bool:
    if text.strip() not in ("0", "1"):
        raise ConfigError(f"{path} line {line}: {name!r} is {text!r}; a label is 0 or 1")
    return text.strip() == "1"


def _localizer(path: Path, line: int, row: Mapping[str, str]) -> Localizer:
    try:
        point: Any = ast.literal_eval(row["coordinates"])
        x, y = float(point["x"]), float(point["y"])
        frame = int(point["f"]) if "f" in point else None
    except (ValueError, SyntaxError, TypeError, KeyError) as error:
        raise ConfigError(
            f"{path} line {line}: coordinates {row['coordinates']!r} are not of the form {{'x': 1.5, 'y': 2.5}}, with 'f' "
            "for a multi-frame file"
        ) from error
    try:
        location = Location(row["location"].strip())
    except ValueError:
        raise ConfigError(f"{path} line {line}: {row['location']!r} is none of the 13 locations of {TRAIN}") from None
    return Localizer(row["SOPInstanceUID"], x, y, frame, location)
