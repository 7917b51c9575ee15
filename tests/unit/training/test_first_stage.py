"""What first stages mark, beside each other."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ai.decode import Candidate
from ai.locations import LOCATIONS, Location
from ai.manifest import DEFAULT_BUNDLE
from training.cases import Scored
from training.config import TrainConfig
from training.dataset import build_cache
from training.first_stage import Ranked, compared, figures, main, ranked
from training.phantom.scan import TrueLesion
from training.train import train

RUN = """
folder = "{folder}"
[network]
widths = [8, 16, 16]
convolutions = [1, 1, 1]
groups = 4
"""


def candidate(score: float, x_mm: float) -> Candidate:
    return Candidate(score, (x_mm, 0.0, 0.0), 5.0, np.full(len(LOCATIONS), 1.0 / len(LOCATIONS)))


def answered(seed: int, diameter_mm: float, *candidates: Candidate) -> Ranked:
    """A scan with one aneurysm at the origin, or none where its diameter is 0."""
    lesion = TrueLesion(Location.BASILAR_TIP, (0.0, 0.0, 0.0), diameter_mm)
    return ranked(Scored(seed, (lesion,) if diameter_mm else (), candidates))


SCANS = (
    answered(1, 2.5, candidate(1.0, 0.0), candidate(2.0, 30.0)),
    answered(2, 3.5, candidate(0.5, 30.0)),
    answered(3, 8.0, candidate(3.0, 1.0)),
    answered(4, 0.0, candidate(0.0, 0.0)),
)


def test_what_is_marked_is_counted_by_size_and_ranked_among_the_false_marks() -> None:
    found = figures(SCANS)
    marked = [found[f"marked, {size}"] for size in ("all", "from_4mm", "3_to_4mm", "under_3mm")]
    assert marked == [pytest.approx(2 / 3), 1.0, 0.0, 1.0]
    assert found["at 0.5, under_3mm"] == 1.0, "two of four scans may have a false mark: .5 is the third"
    assert found["AUC"] == 1.0
    assert list(found)[:4] == [f"marked, {size}" for size in ("all", "from_4mm", "3_to_4mm", "under_3mm")]
    assert math.isnan(figures(SCANS[3:])["marked, all"])


def test_the_difference_is_of_the_same_scans() -> None:
    better = [replace(scan, lesions=tuple((mm, 4.0) for mm, _ in scan.lesions)) for scan in SCANS]
    low, high = compared(SCANS, better)["marked, 3_to_4mm"]
    assert (low, high) == (1.0, 1.0)
    assert set(compared(SCANS, SCANS)["CPM"]) == {0.0}


def test_a_run_is_compared_with_a_bundle(
    config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans, run = tmp_path / "scans", tmp_path / "went_on.toml"
    list(build_cache(scans, (1, 2), config.preprocessing))
    run.write_text(RUN.format(folder=config.folder))
    assert main([str(scans), str(DEFAULT_BUNDLE), str(run)]) == 2
    assert f"{run} has no checkpoint yet" in capsys.readouterr().err
    train(config, report=lambda _: None)
    (again := tmp_path / "again" / run.name).parent.mkdir()
    again.write_text(run.read_text())
    link = tmp_path / "another"
    link.symlink_to(DEFAULT_BUNDLE.resolve())
    assert main([str(scans), str(DEFAULT_BUNDLE), str(run), str(again), str(link)]) == 0
    said = capsys.readouterr().out
    assert "2 scans, 1 aneurysms, 16 candidates a scan" in said
    assert all(f"{each}\n  marked, all" in said for each in (DEFAULT_BUNDLE, run, again, link)) and " to " in said


def test_a_folder_without_scans_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), str(DEFAULT_BUNDLE)]) == 2
    assert "holds no prepared scans: name a --cache" in capsys.readouterr().err


def test_a_folder_that_holds_no_bundle_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), str(tmp_path / "none")]) == 2
    assert str(tmp_path / "none") in capsys.readouterr().err
