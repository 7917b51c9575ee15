"""Every kind of object that Willis makes before every validator: `python -m tests.support.validators` prints what each finds.

Exit status 1 where one finds an error, or a warning that `tests/interop/test_report_validators.py` does not allow.
"""

import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import highdicom
from pydicom import dcmread

from node.cli.demo import SEEDS
from node.results.document import encode
from tests.interop import test_report_validators as made
from tests.support.dicom_factory import ct_series, enhanced_ct
from tests.support.running import cached_phantom

ALLOWED = (
    *(made.DEVICE_UID_WARNING, made.ACCESSION_WARNING, made.GROUP_COMMENT_WARNING),
    *made.CHARACTER_SET_WARNING,
)
STUDY = "a study of all of them"
Complaints = tuple[int, list[str]]
"""How many errors, and every warning."""


def objects(folder: Path) -> Iterator[tuple[str, list[Path]]]:
    """Files by kind."""
    kinds = {
        "SR circle": ("positive-japanese-with-predecessor", "positive-multi-frame-circle", "positive-every"),
        "SR box": ("positive-box",),
        "SR point": ("positive-multi-frame-3d-point",),
        "SR negative": ("negative",),
        "SR not analysed": ("not-analysed",),
    }
    reports = made.SHAPES | made.QUICK
    for kind, names in kinds.items():
        contents = [make() for name, make in reports.items() if name.startswith(names)]
        yield kind, _written(folder, kind, contents)
    yield "SR review", _written(folder, "SR review", [make() for make in made.REVIEWS.values()])
    study = made.study_contents()
    yield "SC summary", _written(folder, "SC", study[7:-1:2])
    images = ct_series(6, **made.JAPANESE)
    masks = [made.segmentation(one, "2.25.9") for one in (images, [enhanced_ct(images)])]
    yield "SEG", _written(folder, "SEG", [study[-1], *masks])
    yield STUDY, _written(folder, "study", study)
    yield "phantom CT", cached_phantom("negative", seed=SEEDS["negative"], positive=False, matrix=384, spacing_mm=0.7)


def _written(folder: Path, kind: str, contents: list[bytes]) -> list[Path]:
    paths = [folder / f"{kind.replace(' ', '-')}-{number:02}.dcm" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return paths


def _of_lines(lines: list[str], error: str, warning: str) -> Complaints:
    return sum(bool(re.match(error, line)) for line in lines), [line for line in lines if re.match(warning, line)]


def dciodvfy(path: Path) -> Complaints:
    """dicom3tools: the IOD."""
    return _of_lines(made.run("dciodvfy", "-new", path)[1], "Error", "Warning")


def dsrdump(path: Path) -> Complaints:
    """dcmtk: the content tree."""
    return _of_lines(made.run("dsrdump", path)[1], "[EF]:", "W:")


def pixelmed(path: Path) -> Complaints:
    """PixelMed: the templates."""
    lines = made.pixelmed_lines(path)
    errors, warnings = _of_lines(lines, "Error", "Warning")
    return errors + (lines[-1] != "IOD validation complete"), warnings


def round_trip(path: Path) -> Complaints:
    """pydicom writes what it has read byte for byte, and highdicom understands it."""
    readers: dict[str, Callable[[Path], object]] = {"SR": highdicom.sr.srread, "SEG": highdicom.seg.segread}
    ds = dcmread(path)
    readers.get(str(ds.Modality), highdicom.imread)(path)
    return int(encode(ds) != path.read_bytes()), []


def main() -> int:
    """One line for each kind and validator; returns how many are wrong.  PixelMed, which is slow, sees one of a kind."""
    print(f"{'object':<24}{'validator':<12}{'files':>6}{'errors':>8}{'allowed':>9}{'other warnings':>16}")
    with tempfile.TemporaryDirectory() as folder:
        kinds = dict(objects(Path(folder)))
        study = kinds.pop(STUDY)
        wrong = 0
        for kind, paths in kinds.items():
            for check in (dciodvfy, dsrdump, round_trip) if kind.startswith("SR") else (dciodvfy, round_trip):
                wrong += _told(kind, check.__name__, len(paths), [check(path) for path in paths])
        wrong += _told(STUDY, "dcentvfy", len(study), [_of_lines(made.run("dcentvfy", *study)[1], "Error", "Warning")])
        for kind, paths in kinds.items():
            if kind.startswith("SR"):
                wrong += _told(kind, "PixelMed", 1, [pixelmed(paths[0])])
    return wrong


def _told(kind: str, validator: str, files: int, found: list[Complaints]) -> bool:
    """The line is printed; whether anything is wrong."""
    errors, warnings = sum(one for one, _ in found), [line for _, lines in found for line in lines]
    other = [line for line in warnings if not any(allowed in line for allowed in ALLOWED)]
    counts = f"{files:>6}{errors:>8}{len(warnings) - len(other):>9}{len(other):>16}"
    print(f"{kind:<24}{validator:<12}{counts}", *dict.fromkeys(other), sep="\n    ", flush=True)
    return bool(errors or other)


if __name__ == "__main__":
    sys.exit(bool(main()))
