"""The command line in this process: what it prints and how it ends."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from node.cli.app import app
from node.cli.main import called
from node.simulated_pacs import Fault, SimulatedPeer
from tests.support.command_line import Run, one_line
from tests.support.dicom_factory import ct_series, save
from tests.support.running import free_port


def test_version_is_printed(run: Run) -> None:
    result = run("--version")
    assert (result.exit_code, bool(re.match(r"willis \d+\.\d+\.\d+\n", result.stdout))) == (0, True)


COMMANDS = [
    "serve", "worklist", "show", "status", "retry", "explain", "fsck", "send", "peer", "phantom", "demo", "config check",
    "train", "evaluate", "submit",
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(run: Run, command: str) -> None:
    result = run(*command.split(), "--help")
    assert result.exit_code == 0
    assert f"Example: willis {command}" in re.sub(r"\s+", " ", result.stdout)


def test_without_a_command_there_is_help_with_the_exit_statuses(run: Run) -> None:
    result = run()
    assert "Exit status" in result.output
    for command in COMMANDS:
        assert command.split()[0] in result.output


def test_an_unknown_command_cannot_be_used(run: Run) -> None:
    assert run("wroklist").exit_code == 2


def test_a_good_configuration_is_said_to_be_good(run: Run, config: Path, bundle: Path) -> None:
    with config.open("a") as file:
        file.write(f"[ai]\nbundle = {str(bundle)!r}\n[node]\nae_title = 'MY_NODE'\n")
    result = run("config", "check", "--config", config)
    assert result.exit_code == 0, result.output
    assert "willis.toml: good; MY_NODE on 127.0.0.1:11112, peers: none" in result.stdout


def test_the_configuration_of_this_folder_is_found_by_itself(run: Run) -> None:
    Path("config.toml").write_text("[node]\nprot = 1\n")
    assert "unknown key node.prot; did you mean port?" in one_line(run("config", "check"), 2)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[node]\nprot = 1", "unknown key node.prot; did you mean port?"),
        ('[completion]\nquiet_seconds = "20s"', "completion.quiet_seconds = '20s'"),
        ("[node", "not TOML"),
        ('[storage]\ndirectory = "/proc/nowhere"', "cannot write to /proc/nowhere"),
        ('[storage]\ndatabase_url = "sqlite:////proc/nowhere/willis.db"', "folder exists"),
        ('[storage]\ndatabase_url = "postgresql+psycopg://u:secret@127.0.0.1:1/x"', "start the server"),
        ('[ai]\nbundle = "/nowhere"', "[ai] bundle: "),
        ('[node.tls]\ncertificate = "/nowhere.pem"\nkey = "/k"\nca = "/c"', "[node.tls] certificate = '/nowhere.pem'"),
    ],
)
def test_a_bad_configuration_is_one_line_and_exit_status_2(run: Run, tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(content + "\n")
    line = one_line(run("config", "check", "-c", path), 2)
    assert said in line
    assert "secret" not in line


def test_a_configuration_that_is_not_there_is_one_line(run: Run) -> None:
    assert "No such file" in one_line(run("config", "check", "--config", "/nowhere.toml"), 2)


def test_the_environment_names_the_configuration(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WILLIS_CONFIG", "/from/the/environment.toml")
    assert "/from/the/environment.toml" in one_line(run("config", "check"), 2)


@pytest.mark.parametrize("command", ["receive", "work"])
def test_a_process_whose_database_is_away_ends_so_that_it_is_started_again(
    run: Run, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from node.runtime import processes

    monkeypatch.setattr(processes, "end_with_parent", lambda *_: None)
    path = tmp_path / "away.toml"
    path.write_text(
        f'[storage]\ndirectory = "var"\ndatabase_url = "postgresql+psycopg://u:secret@127.0.0.1:{free_port()}/x"\n'
    )
    line = one_line(run(command, "-c", path), 1)
    assert "no server listens there; start the server" in line
    assert processes.CONFIG_ERROR != 1


@pytest.mark.parametrize(
    "address", ["", "PACS", "PACS@host", "PACS@host:", "PACS@host:0", "PACS@host:65536", "@host:1", "PACS@:1",
                "A_TITLE_THAT_IS_TOO_LONG@host:1", "PACS@host:1x"],
)  # fmt: skip
def test_a_bad_address_is_one_line_and_exit_status_2(run: Run, tmp_path: Path, address: str) -> None:
    line = one_line(run("send", tmp_path, "--to", address), 2)
    assert "write AE@HOST:PORT, for example WILLIS@127.0.0.1:11112" in line


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [("PACS@10.0.0.7:104", "10.0.0.7", 104), ("MY PACS@pacs.example:11112", "pacs.example", 11112),
     ("PACS@[::1]:104", "::1", 104)],
)  # fmt: skip
def test_a_good_address_is_understood(address: str, host: str, port: int) -> None:
    from node.cli.dicom import address as parse

    peer = parse(address)
    assert (peer.ae_title, peer.host, peer.port) == (address.split("@")[0], host, port)


def test_an_ae_title_that_is_none_is_one_line_and_exit_status_2(run: Run, tmp_path: Path) -> None:
    assert "AE@HOST:PORT" in one_line(run("send", tmp_path, "--to", "É@host:1"), 2)


def test_a_path_that_is_not_there_is_one_line_and_exit_status_2(run: Run) -> None:
    assert "/nowhere does not exist" in one_line(run("send", "/nowhere", "--to", "PACS@127.0.0.1:1"), 2)


def test_a_peer_that_is_not_there_is_one_line_and_exit_status_1(run: Run, tmp_path: Path) -> None:
    paths = save(ct_series(2), tmp_path)
    result = run("send", "--quiet", *paths, "--to", f"PACS@127.0.0.1:{free_port()}")
    assert "no association with PACS" in one_line(result, 1)


def test_send_tells_each_file_and_the_total(run: Run, tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    save(ct_series(3), tmp_path / "study")
    (tmp_path / "study" / "notes.txt").write_text("x")
    pacs = SimulatedPeer(tmp_path / "pacs")
    port = pacs.start(0)
    result = run("send", tmp_path / "study", "--to", f"PACS@127.0.0.1:{port}")
    quiet = run("send", "--quiet", tmp_path / "study", "--to", f"PACS@127.0.0.1:{port}")
    pacs.stop()
    assert (result.exit_code, quiet.exit_code) == (0, 0)
    assert result.stdout == quiet.stdout == "3 sent, 1 skipped, 0 refused\n"
    assert len(list(pacs.folder.iterdir())) == 3
    assert result.stderr.count(": success") == 3
    assert "notes.txt: skipped: not a DICOM file" in result.stderr
    assert ": success" not in quiet.stderr
    assert "notes.txt: skipped: not a DICOM file" in quiet.stderr


def test_a_refusal_is_exit_status_1(run: Run, tmp_path: Path) -> None:
    paths = save(ct_series(2), tmp_path)
    pacs = SimulatedPeer(tmp_path / "pacs", fault=Fault.REFUSE, status=0xC000)
    port = pacs.start(0)
    result = run("send", *paths, "--to", f"PACS@127.0.0.1:{port}")
    pacs.stop()
    assert (result.exit_code, result.stdout) == (1, "0 sent, 0 skipped, 2 refused\n")
    assert result.stderr.count("refused: status 0xC000") == 2


def test_nothing_sent_is_exit_status_1(run: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    assert run("send", tmp_path / "notes.txt", "--to", "PACS@127.0.0.1:1").exit_code == 1


def test_a_peer_whose_port_is_taken_is_one_line_and_exit_status_2(run: Run) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = one_line(run("peer", "--port", port), 2)
    assert f"port {port}: " in line
    assert "choose another with --port" in line


def test_a_peer_with_a_status_that_is_none_is_one_line_and_exit_status_2(run: Run) -> None:
    assert "--status 'many' is no number" in one_line(run("peer", "--status", "many"), 2)


def test_a_phantom_at_no_location_is_one_line_and_exit_status_2(run: Run, tmp_path: Path) -> None:
    line = one_line(run("phantom", tmp_path / "out", "--aneurysm", "left-foot"), 2)
    assert "--aneurysm 'left-foot' is no location; the locations are " in line
    assert "left-mca" in line
    assert not (tmp_path / "out").exists()


def test_an_aneurysm_needs_contrast(run: Run, tmp_path: Path) -> None:
    line = one_line(run("phantom", tmp_path / "out", "--aneurysm", "left-mca", "--no-contrast"), 2)
    assert "leave out one of the two" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", [*COMMANDS, "fetch", "echo", ""])
def test_help_is_not_cut_at_80_columns(run: Run, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = run(*command.split(), "--help")
    assert "…" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def every_command(group: Any, *before: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All commands below, each by the words that call it."""
    for name, command in group.commands.items():
        words = (*before, name)
        known = called(name) if not before else command
        yield from every_command(known, *words) if hasattr(known, "commands") else [(words, known)]


def test_what_help_says_of_the_configuration_is_all_shown(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    named = 0
    for words, command in every_command(typer.main.get_group(app)):
        texts = [command.help or "", *(getattr(each, "help", None) or "" for each in command.params)]
        sections = {section for text in texts for section in re.findall(r"\[[a-z_.]+\]", text)}
        shown = run(*words, "--help").stdout
        assert {section for section in sections if section not in shown} == set(), words
        named += len(sections)
    assert named > 5


def test_a_diameter_needs_an_aneurysm(run: Run, tmp_path: Path) -> None:
    assert "--diameter-mm needs --aneurysm" in one_line(run("phantom", tmp_path / "out", "--diameter-mm", 5), 2)


@pytest.mark.parametrize("option", [("--seed", "-1"), ("--diameter-mm", "99"), ("--spacing-mm", "0")])
def test_a_phantom_out_of_range_cannot_be_used(run: Run, tmp_path: Path, option: tuple[str, str]) -> None:
    assert run("phantom", tmp_path / "out", *option).exit_code == 2
