"""Paints the series that a node sends to itself; `python -m training.canary FOLDER`, once for each folder."""

import json
import shutil
import sys
from pathlib import Path

from ai.locations import Location
from training.phantom import make_scan, write_series

SEED = 9_000_001
"""That of `willis demo`'s positive study: no training draws it."""


def paint(folder: Path) -> None:
    """`folder` has the slices and `painted.json`, which says where the aneurysm is; it appears whole or not at all."""
    new = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    scan = make_scan(SEED, positive=True, location=Location.LEFT_MCA, diameter_mm=8.0, matrix=256, spacing_mm=1.0)
    write_series(scan, new, patient_name="WILLIS^CANARY", patient_id="WILLIS-CANARY", accession_number="")
    [lesion] = scan.lesions
    painted = {"location": lesion.location.value, "centre_lps_mm": [float(each) for each in lesion.centre_lps_mm]}
    (new / "painted.json").write_text(json.dumps(painted) + "\n", "utf-8")
    new.replace(folder)


if __name__ == "__main__":
    paint(Path(sys.argv[1]))
