"""What is installed is whole, and what runs it is accepted by the tools that read it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from shutil import which
from zipfile import ZipFile

import pytest

from tests.support.absent import absent

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "packaging" / "systemd").iterdir())
PACKAGES = ("ai", "node", "storage", "training")
LARGEST_EXPOSURE = 20
"""In tenths, as systemd-analyze counts: 0 is none, 100 is all."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built of a copy: setuptools writes beside the source."""
    source = tmp_path_factory.mktemp("source")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    done = subprocess.run([*command, "."], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    [found] = source.glob("willis-*.whl")
    return found


def test_the_wheel_has_everything_that_the_source_has(wheel: Path) -> None:
    known = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=False)
    files = set(known.stdout.split()) or {
        str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py")
    }
    with ZipFile(wheel) as archive:
        missing = {name for name in files - set(archive.namelist()) if (ROOT / name).exists()}
    assert {name for name in missing if not name.endswith(".md")} == set()


def test_what_is_installed_from_the_wheel_runs_away_from_the_source(wheel: Path, tmp_path: Path) -> None:
    to = tmp_path / "installed"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(to)]
    subprocess.run([*command, str(wheel)], check=True, capture_output=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("WILLIS_", "COV"))}
    program = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); import node.cli.main as main\n"
        "from storage.store import Store\n"
        "assert main.__file__.startswith(sys.path[0]), main.__file__\n"
        "Store.open('sqlite:///made.db').close()\nmain.app()"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, str(to), "demo", "--help"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Send two synthetic studies" in done.stdout
    assert (tmp_path / "made.db").exists(), "the migrations are there"
    assert (to / "ai" / "models" / "willis" / "manifest.json").exists()


@pytest.fixture
def units(tmp_path: Path) -> list[str]:
    """The units, whose program is one that is here."""
    for unit in UNITS:
        (tmp_path / unit.name).write_text(unit.read_text("utf-8").replace("/opt/willis/bin/willis", "/bin/true"))
    return [str(tmp_path / unit.name) for unit in UNITS]


def test_systemd_accepts_the_units_and_finds_the_services_hardened(units: list[str]) -> None:
    if which("systemd-analyze") is None:
        absent("systemd-analyze is not installed (apt: systemd)")
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for unit in units:
        if unit.endswith(".service"):
            command = ["systemd-analyze", "security", "--offline=true", f"--threshold={LARGEST_EXPOSURE}", unit]
            looked = subprocess.run(command, capture_output=True, text=True, check=False)
            assert looked.returncode == 0, looked.stdout[-300:] + looked.stderr


def test_what_the_units_run_are_commands_of_ours() -> None:
    from node.cli.main import COMMANDS

    for unit in UNITS:
        for line in unit.read_text("utf-8").splitlines():
            if line.startswith("ExecStart="):
                assert line.split()[1] in COMMANDS


def test_the_backup_s_unit_can_reach_an_object_store_and_waits_for_the_disk_that_it_writes_to() -> None:
    unit = (ROOT / "packaging" / "systemd" / "willis-backup.service").read_text("utf-8")
    assert "PrivateNetwork" not in unit and "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6" in unit
    assert "RequiresMountsFor=/var/backups/willis" in unit


def test_the_debian_package_s_scripts_are_shell_and_it_has_every_unit_and_what_the_units_need() -> None:
    debian, build = ROOT / "packaging" / "debian", (ROOT / "packaging" / "deb.sh").read_text("utf-8")
    for script in sorted(debian.glob("willis.p*")):
        done = subprocess.run(["sh", "-n", str(script)], capture_output=True, text=True, check=False)
        assert (done.returncode, "#DEBHELPER#" in script.read_text("utf-8")) == (0, True), done.stderr
        guarded = re.sub(r"if \[ -d /run/systemd/system \].*?\bfi\n", "", script.read_text("utf-8"), flags=re.DOTALL)
        assert not re.search(r"^[^#]*(systemctl|deb-systemd-invoke)", guarded, re.MULTILINE), "there may be no systemd"
    assert os.access(debian / "rules", os.X_OK)
    assert os.access(ROOT / "packaging" / "deb.sh", os.X_OK)
    for unit in UNITS:
        assert unit.name in build or (unit.name.startswith("willis-") and "packaging/systemd/willis-*" in build)
        assert unit.stem == "willis" or f"--name={unit.stem} " in (debian / "rules").read_text("utf-8")
    prerm = (debian / "willis.prerm").read_text("utf-8")
    assert '[ "$1" != remove ] || deb-systemd-invoke stop willis-backup.timer' in prerm, (
        "an upgrade would end the backups"
    )
    assert "/var/lib/willis/audit.log" in (debian / "willis.logrotate").read_text("utf-8")
    postinst = (debian / "willis.postinst").read_text("utf-8")
    assert "adduser --system --group" in postinst and "/var/lib/willis /var/backups/willis" in postinst
    removed = re.sub(r"#.*", "", (debian / "willis.postrm").read_text("utf-8"))
    assert "/var" not in removed, "patients' images outlive the package"
    config = (ROOT / "config.toml").read_text("utf-8")
    assert re.search(r'^directory = "var" *#', config, re.MULTILINE), "deb.sh writes another folder there"


def test_alertmanager_accepts_its_configuration_and_wakes_who_is_on_call() -> None:
    if which("amtool") is None:
        absent("amtool is not installed (apt: prometheus-alertmanager)")
    path = str(ROOT / "docs" / "monitoring" / "alertmanager.yml")
    done = subprocess.run(["amtool", "check-config", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for severity, receiver in (("critical", "on-call"), ("warning", "it")):
        routed = ["amtool", "config", "routes", "test", f"--config.file={path}", f"severity={severity}"]
        said = subprocess.run(routed, capture_output=True, text=True, check=False)
        assert said.stdout.split()[-1] == receiver, said.stdout + said.stderr
