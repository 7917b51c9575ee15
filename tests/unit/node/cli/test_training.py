"""`willis train`, `evaluate` and `submit` in this process."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.fileset import FileSet
from typer.testing import CliRunner, Result

from ai.bundle import save_bundle
from ai.inference import Tiling
from ai.locations import COLUMNS
from ai.preprocess import Preprocessing
from ai.unet import UNet
from node.cli.main import app
from tests.support.dicom_factory import ct_series
from tests.support.made_up_head import head
from tests.support.made_up_scan import scan
from tests.unit.ai.test_bundle import TINY, manifest
from training import dataset, evaluate
from training.phantom import write_series
from training.phantom.scan import PhantomScan
from training.submit import FREQUENCIES, series_in

CONFIG = """
folder = "run"
device = "cpu"
threads = 1
[data]
cache = "cache"
first_seed = 0
scans = 2
validation_first_seed = 100
validation_scans = 2
[network]
widths = [8, 16, 16]
convolutions = [1, 1, 1]
groups = 4
[preprocessing]
spacing_mm = 1.0
size_DHW = [64, 64, 64]
[sampling]
patch = 32
[optimisation]
steps = 3
warmup_steps = 1
checkpoint_every = 1
"""


@pytest.fixture(autouse=True)
def kill_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dataset, "make_scan", scan)
    return tmp_path


@pytest.fixture
def bundle(kill_point: Path) -> Path:
    settings = Preprocessing(spacing_mm=1.0, size_DHW=(64, 64, 64))
    save_bundle(kill_point / "bundle", manifest(preprocessing=settings, tiling=Tiling(size=64)), (UNet(TINY),))
    return kill_point / "bundle"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def complaint(result: Result, exit_code: int) -> str:
    assert result.exit_code == exit_code, result.output
    [line] = [line for line in result.stderr.splitlines() if line.startswith("willis: ")]
    assert "Traceback" not in result.output
    return line


@pytest.mark.parametrize("command", ["train", "evaluate", "submit"])
def test_help_shows_an_example_and_the_exit_status(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0 and f"Example: willis {command}" in result.stdout and "Exit status:" in result.stdout


def test_training_that_is_not_done_ends_with_three_and_goes_on(kill_point: Path) -> None:
    (kill_point / "run.toml").write_text(CONFIG)
    first = run("train", "run.toml", "--seconds", 0)
    assert first.exit_code == 3 and "run `willis train run.toml` again" in first.stdout
    second = run("train", "run.toml")
    assert second.exit_code == 0 and "continuing at step 1" in second.stdout and "step 3/3" in second.stdout


def test_a_training_configuration_that_cannot_be_used_is_one_line(kill_point: Path) -> None:
    assert "nowhere.toml" in complaint(run("train", "nowhere.toml"), 2)
    (kill_point / "run.toml").write_text(CONFIG.replace("patch", "pitch"))
    assert "unknown key sampling.pitch" in complaint(run("train", "run.toml"), 2)


def test_training_that_fails_is_one_line(kill_point: Path) -> None:
    (kill_point / "run.toml").write_text('initial_weights = "gone.safetensors"\n' + CONFIG)
    assert "gone.safetensors" in complaint(run("train", "run.toml"), 1)


def test_what_is_not_installed_is_named_with_the_remedy(kill_point: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'tensorboard'", name="tensorboard")

    (kill_point / "run.toml").write_text(CONFIG)
    monkeypatch.setattr("training.train.train", missing)
    assert "tensorboard is not installed: pip install 'willis[training]'" in complaint(run("train", "run.toml"), 2)


def test_an_evaluation_writes_a_report_and_is_not_repeated(kill_point: Path, bundle: Path) -> None:
    arguments = ("evaluate", bundle, "--seeds", "0:4", "--cache", "cache", "--out", "report", "--device", "cpu")
    first = run(*arguments)
    assert first.exit_code == 0, first.output
    assert "4 of 4 were computed now" in first.stdout and "Phantom figures" in first.stdout
    found = json.loads((kill_point / "report" / "report.json").read_text())
    assert (found["scans"], found["positive_scans"]) == (4, 2) and (kill_point / "report" / "report.html").exists()
    again = run(*arguments, "--baseline", "report/report.json")
    assert "all 4 had been computed before" in again.stdout
    assert json.loads((kill_point / "report" / "report.json").read_text())["baseline"]["difference"] == 0.0


def test_whole_series_are_evaluated_too(kill_point: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = head()
    nowhere = np.zeros(volume.hu_DHW.shape, np.uint8)
    asked: list[dict[str, Any]] = []

    def whole(seed: int, **options: Any) -> PhantomScan:
        asked.append(options)
        return PhantomScan(seed, volume, scan(1).lesions if options["positive"] else (), nowhere, nowhere)

    monkeypatch.setattr(evaluate, "make_scan", whole)
    result = run("evaluate", bundle, "--full", "--held-out", "--count", 2, "--matrix", 256, "--out", "report")
    assert result.exit_code == 0, result.output
    assert asked[0] == {"matrix": 256, "positive": True, "held_out": True} and asked[1]["positive"] is False
    assert "2 held-out phantoms, whole series of 256² pixels" in (kill_point / "report" / "report.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--seeds", "5"), "FIRST:COUNT"),
        (("--seeds", "5:2"), "needs --cache"),
        (("--seeds", "5:2", "--held-out"), "leave out --held-out"),
        (("--count", "500"), "200 scans, not 500"),
    ],
)
def test_an_evaluation_that_contradicts_itself_is_one_line(bundle: Path, arguments: tuple[str, ...], said: str) -> None:
    assert said in complaint(run("evaluate", bundle, "--out", "report", *arguments), 2)


def test_a_missing_bundle_or_an_unknown_device_is_named() -> None:
    assert "nowhere" in complaint(run("evaluate", "nowhere", "--out", "report"), 2)
    assert run("evaluate", "--out", "report", "--device", "quantum").exit_code == 2


def small_series(folder: Path, seed: int, **changes: Any) -> str:
    """A head of 3 mm voxels as DICOM; its Series Instance UID."""
    volume = head(spacing_mm_DHW=(3.0, 3.0, 3.0), **changes)
    nowhere = np.zeros(volume.hu_DHW.shape, np.uint8)
    uid = f"2.25.{seed}"
    write_series(PhantomScan(seed, volume, (), nowhere, nowhere), folder, series_instance_uid=uid)
    return uid


def test_a_submission_has_one_row_a_series_and_says_what_could_not_be_analysed(kill_point: Path, bundle: Path) -> None:
    good = small_series(kill_point / "series" / "a", 11)
    cropped = small_series(kill_point / "series" / "b", 12, low_mm=40.0)
    (kill_point / "series" / "a" / "notes.txt").write_text("not DICOM")
    result = run("submit", "series", "--bundle", bundle, "--out", "out/submission.csv")
    assert result.exit_code == 0, result.output
    with (kill_point / "out" / "submission.csv").open() as file:
        header, *rows = csv.reader(file)
    assert header == ["SeriesInstanceUID", *COLUMNS]
    assert [row[0] for row in rows] == [good, cropped] and all(len(row) == 15 for row in rows)
    assert [float(value) for value in rows[1][1:]] == pytest.approx(FREQUENCIES, abs=1e-6)
    assert [float(value) for value in rows[0][1:]] != pytest.approx(FREQUENCIES, abs=1e-6)
    said = [line for line in result.stdout.splitlines() if line.startswith(cropped)]
    assert len(said) == 1 and "gets the training frequencies (present 0.429)" in said[0] and "coverage" in said[0]
    assert not any(line.startswith(good) for line in result.stdout.splitlines())


def test_a_submission_of_nothing_but_failures_has_rows_and_fails(kill_point: Path, bundle: Path) -> None:
    small_series(kill_point / "series", 13, low_mm=40.0)
    assert "no series could be analysed" in complaint(run("submit", "series", "--bundle", bundle), 1)
    assert len((kill_point / "submission.csv").read_text().splitlines()) == 2


def test_a_folder_without_series_is_named(kill_point: Path, bundle: Path) -> None:
    assert "nowhere is not a folder" in complaint(run("submit", "nowhere"), 2)
    (kill_point / "empty").mkdir()
    assert "empty holds no DICOM files" in complaint(run("submit", "empty"), 2)


def test_a_directory_of_files_is_of_no_series(tmp_path: Path) -> None:
    [ds] = ct_series(1)
    ds.save_as(tmp_path / "I1", enforce_file_format=True)
    files = FileSet()
    files.add(ds)
    files.write(tmp_path / "written")
    (tmp_path / "written" / "DICOMDIR").rename(tmp_path / "DICOMDIR")
    shutil.rmtree(tmp_path / "written")
    assert series_in(tmp_path) == {ds.SeriesInstanceUID: [tmp_path / "I1"]}
