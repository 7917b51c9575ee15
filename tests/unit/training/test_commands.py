"""Commands of training say what they cannot read, and end with 2."""

from pathlib import Path

import pytest

from ai.manifest import DEFAULT_BUNDLE
from training import calibrate, candidates, drawn_candidates, mine

CONFIG = "training/configs/willis.toml"


def test_a_bundle_that_cannot_be_read_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere, folder = str(tmp_path / "nowhere"), str(tmp_path / "folder")
    for command, asked in (
        (candidates.main, [nowhere, folder, folder]),
        (drawn_candidates.main, [nowhere, folder, folder]),
        (calibrate.main, [CONFIG, "0.2", folder, nowhere]),
        (mine.main, [CONFIG, nowhere]),
    ):
        assert command(asked) == 2
        assert nowhere in capsys.readouterr().err


def test_a_folder_without_painted_scans_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert candidates.main([str(DEFAULT_BUNDLE), str(tmp_path), str(tmp_path / "marked")]) == 2
    assert f"{tmp_path / 'regions'} is no folder: name one of `python -m training.paint`" in capsys.readouterr().err
    assert not (tmp_path / "marked").exists()
