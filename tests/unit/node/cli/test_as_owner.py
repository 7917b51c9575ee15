"""Whose the files are that a command leaves, and whose configuration it reads."""

import os
from pathlib import Path

import pytest

from node.cli import app
from storage.files.instances import Files
from tests.support.command_line import Run, config, one_line, run

__all__ = ["config", "run"]


@pytest.fixture
def run_as_root(run: Run, config: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Root runs a command where the storage folder is another user's."""
    if os.geteuid() == 0:
        os.chown(config.parent / "var", 1, 1)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return run


@pytest.mark.parametrize(
    "command", [["serve"], ["migrate"], ["restore", "backup"], ["fsck", "--repair"], ["user", "add", "j.doe"]]
)
def test_root_is_told_as_whom_to_run_what_makes_files_in_another_user_s_folder(
    run_as_root: Run, config: Path, command: list[str]
) -> None:
    said = one_line(run_as_root(*command, "--config", config), 2)
    assert "who could not use what root makes there: `runuser -u " in said
    assert list((config.parent / "var").iterdir()) == []


def test_root_may_run_what_only_reads_and_what_is_in_a_folder_of_its_own(
    run: Run, run_as_root: Run, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_as_root("fsck", "--config", config).exit_code == 0
    if os.getuid() == 0:
        os.chown(config.parent / "var", 0, 0)
        assert run("fsck", "--repair", "--config", config).exit_code == 0


def test_what_a_new_node_keeps_is_its_owner_s_alone(tmp_path: Path) -> None:
    Files(tmp_path / "below" / "var")
    assert (tmp_path / "below" / "var").stat().st_mode & 0o777 == 0o700


def test_the_configuration_of_an_installed_node_is_found_by_itself_after_the_one_of_this_folder(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "etc.toml"
    installed.write_text("[node]\nprot = 1\n")
    monkeypatch.setattr(app, "DEFAULTS", (Path("config.toml"), installed))
    assert "etc.toml: unknown key node.prot" in one_line(run("config", "check"), 2)
    Path("config.toml").write_text("[node]\nhots = 1\n")
    assert "config.toml: unknown key node.hots" in one_line(run("config", "check"), 2)
