"""`willis demo` in this process, with a node in processes of its own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from typer.testing import CliRunner

import training.phantom
from ai.volume import volume_from_files
from node.cli.main import app
from tests.support.node_fixtures import demonstrated
from training.phantom import PhantomScan


def test_the_demo_shows_the_main_job_and_may_be_repeated_in_its_folder(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    logging_restored: None,
    unmeasured_children: None,
    positive_series: list[Path],
    negative_series: list[Path],
) -> None:
    painted = {"positive": positive_series, "negative": negative_series}

    def make_scan(seed: int, **asked: Any) -> PhantomScan:
        """Half a minute is saved: what the demonstration paints has been painted for other tests."""
        wanted = {name: value for name, value in asked.items() if value is not None} | {"seed": seed}
        [paths] = [paths for name, paths in painted.items() if demonstrated(name) == wanted]
        volume = volume_from_files(paths)
        nothing = np.zeros(volume.hu_DHW.shape, np.uint8)
        return PhantomScan(seed, volume, (), nothing, nothing)

    monkeypatch.setattr(training.phantom, "make_scan", make_scan)
    folder = tmp_path / "demo"
    (folder / "pacs").mkdir(parents=True)
    (folder / "pacs" / "left-by-an-earlier-run.dcm").touch()
    ended = CliRunner().invoke(app, ["demo", "--folder", str(folder)])
    assert ended.exit_code == 0, ended.output
    assert "positive" in ended.stdout and "negative" in ended.stdout
    assert ended.stdout.count("from the last slice to the report in the PACS") == 2
    named = [line.strip() for line in ended.stdout.splitlines() if line.endswith(".dcm")]
    assert {dcmread(path).Modality for path in named} == {"SR"}
    assert sorted(folder.joinpath("pacs").glob("*.dcm")) == sorted(map(Path, named))
