"""The command line in this process: what it prints and how it ends."""

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from node.cli.main import app
from node.cli.worklist import _style
from node.runtime.notify import NODE_PROCESS, WORKER_PROCESS, Wakeup
from node.simulated_pacs import Fault, SimulatedPeer
from storage.stages import Outcome, Stage
from storage.store import Store
from tests.support.builders import LEASE, START, FakeClock, claimed, finish, received, reported, series_now
from tests.support.dicom_factory import ct_series, save
from tests.support.running import ROOT, free_port

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logging_restored: None) -> Run:
    """Runs `willis` with these arguments in an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in [name for name in os.environ if name.startswith("WILLIS_")]:
        monkeypatch.delenv(name)

    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return invoke


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration whose folder is the test's own."""
    path = tmp_path / "willis.toml"
    path.write_text(f"[storage]\ndirectory = {str(tmp_path / 'var')!r}\n")
    (tmp_path / "var").mkdir()
    return path


@pytest.fixture
def store(config: Path) -> Any:
    """The store behind `config`."""
    opened = Store.open(f"sqlite:///{config.parent / 'var' / 'willis.db'}")
    yield opened
    opened.close()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A tiny model bundle."""
    from ai.bundle import save_bundle
    from ai.unet import UNet
    from tests.unit.ai.test_bundle import TINY, manifest

    save_bundle(tmp_path / "bundle", manifest(), (UNet(TINY),))
    return tmp_path / "bundle"


def one_line(result: Result, exit_code: int) -> str:
    """The one line of complaint with which a command ended."""
    assert result.exit_code == exit_code, result.output
    assert "Traceback" not in result.output
    [line] = [line for line in result.stderr.splitlines() if line]
    assert line.startswith("willis: ")
    return line


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


# --- config check


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

    monkeypatch.setattr(processes, "end_with_parent", lambda: None)
    path = tmp_path / "away.toml"
    path.write_text(
        f'[storage]\ndirectory = "var"\ndatabase_url = "postgresql+psycopg://u:secret@127.0.0.1:{free_port()}/x"\n'
    )
    line = one_line(run(command, "-c", path), 1)
    assert "no server listens there; start the server" in line
    assert processes.CONFIG_ERROR != 1


# --- worklist


def test_an_empty_worklist_is_empty_in_every_form(run: Run, config: Path) -> None:
    assert "Willis worklist" in run("worklist", "-c", config).stdout
    assert json.loads(run("worklist", "--json", "-c", config).stdout) == []
    result = run("worklist", "--csv", "-c", config)
    assert (result.exit_code, result.stdout) == (0, "")


def test_the_worklist_is_a_table_for_people(run: Run, config: Path, store: Store, clock: FakeClock) -> None:
    reported(store, clock)
    received(store, clock, series="2.25.5", patient_name="Yamada^Tarou=山田^太郎")
    output = run("worklist", "-c", config).stdout
    for word in ("Doe^Jane", "A-77", "positive", "0.90", "6.5", "pending", "山田", "receiving", "2026-11-23 09:00:00"):
        assert word in output, word
    assert "not a medical device" in output


def test_the_worklist_says_what_limits_a_negative_and_which_positive_is_worth_an_alert(
    run: Run, config: Path, store: Store, clock: FakeClock
) -> None:
    finish(store, clock, claimed(store, clock), Outcome.NEGATIVE, limits="noise", notify=False)
    finish(store, clock, claimed(store, clock, series="2.25.5"), notify=True)
    rows = json.loads(run("worklist", "--json", "-c", config).stdout)
    assert [(row["outcome"], row["limits"], row["notify"]) for row in rows] == [
        ("positive", None, True),
        ("negative", "noise", False),
    ]
    limited, plain = ({"outcome": "negative", "limits": limits} for limits in ("noise", None))
    assert (_style(limited), _style(plain)) == ("yellow", "green")
    shown = " ".join(run("worklist", "-c", config).stdout.split())
    assert "alert" in shown and "limited" in shown and "noise" in shown


def test_the_worklist_is_json_for_programs(run: Run, config: Path, store: Store, clock: FakeClock) -> None:
    reported(store, clock)
    received(store, clock, series="2.25.5", patient_name="Yamada^Tarou=山田^太郎")
    output = run("worklist", "--json", "-c", config).stdout
    rows = json.loads(output)
    assert [row["outcome"] for row in rows] == ["positive", None]
    assert rows[0]["lesions"][0]["diameter_mm"] == 6.5
    assert "山田" in output
    assert len(json.loads(run("worklist", "--json", "--limit", 1, "-c", config).stdout)) == 1


def test_the_worklist_is_csv_for_spreadsheets(run: Run, config: Path, store: Store, clock: FakeClock) -> None:
    reported(store, clock)
    rows = list(csv.DictReader(StringIO(run("worklist", "--csv", "-c", config).stdout)))
    assert [(row["patient_name"], row["outcome"], row["p_present"]) for row in rows] == [
        ("Doe^Jane", "positive", "0.9"),
    ]  # fmt: skip


def test_watching_keeps_the_table_until_it_is_interrupted(
    run: Run, config: Path, store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    beats = []

    def sleep(_seconds: float) -> None:
        beats.append(1)
        if len(beats) == 2:
            raise KeyboardInterrupt
        received(store, clock)

    monkeypatch.setattr(time, "sleep", sleep)
    result = run("worklist", "--watch", "-c", config)
    assert result.exit_code == 0
    assert "Doe^Jane" in result.stdout


def test_a_line_of_csv_holds_json_and_iso_times_and_nothing_of_python(
    run: Run, config: Path, store: Store, clock: FakeClock
) -> None:
    reported(store, clock)
    [row] = csv.DictReader(StringIO(run("worklist", "--csv", "-c", config).stdout))
    assert json.loads(row["lesions"])[0]["location"] == "Left Middle Cerebral Artery"
    assert json.loads(row["conflicts"]) == []
    assert row["last_instance_at"] == "2026-11-23T09:00:00+00:00"


@pytest.mark.parametrize("options", [("--json", "--csv"), ("--csv", "--watch"), ("--json", "--csv", "--watch")])
def test_options_that_exclude_each_other_are_one_line(run: Run, config: Path, options: tuple[str, ...]) -> None:
    line = one_line(run("worklist", *options, "-c", config), 2)
    assert line == f"willis: {' and '.join(options)} exclude each other: give one of them"


def test_whoever_reads_the_worklist_may_stop_reading(config: Path, store: Store, clock: FakeClock) -> None:
    for number in range(40):
        reported(store, clock, series=f"2.25.{number}")
    command = [sys.executable, "-m", "node", "worklist", "--json", "-c", str(config)]
    for reads in (0, 10):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
            assert process.stdout is not None and process.stderr is not None
            process.stdout.read(reads)
            process.stdout.close()
            assert (process.wait(30), process.stderr.read()) == (0, b"")


def test_the_worklist_fits_80_columns_and_cuts_nothing(
    config: Path, store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console

    from node.cli import worklist as commands

    reported(store, clock)
    received(store, clock, series="2.25.5", patient_name="Longname-Doublename^Christopher")
    narrow = Console(width=80, file=StringIO(), markup=False)
    monkeypatch.setattr(commands, "console", narrow)
    narrow.print(commands.worklist_table(store.worklist.rows()))
    output = narrow.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, output.splitlines())) <= 80
    assert "…" not in output
    for word in ("Doe^Jane", "positive", "0.90", "left mca", "6.5", "pending", "11-23 09:00"):
        assert word in output, word


def test_words_in_brackets_are_printed(run: Run, config: Path, store: Store, clock: FakeClock) -> None:
    reported(store, clock, series_description="CTA [thin] 0.75")
    delivery = store.outbox.due.claim(clock(), LEASE)
    assert delivery is not None
    store.outbox.postponed(delivery, "[peers.PACS] is not configured", clock())
    for command in (("show", "1"), ("status",)):
        assert "[peers.PACS] is not configured" in run(*command, "-c", config).stdout
    assert "[thin]" in run("worklist", "-c", config).stdout


def test_a_second_revision_is_called_that(run: Run, config: Path, store: Store, clock: FakeClock) -> None:
    reported(store, clock)
    store.queue.retry(1)
    claim = store.queue.claim("worker:1", clock.advance(60), LEASE, 3)
    assert claim is not None
    finish(store, clock, claim)
    assert "positive (revision 2)" in re.sub(r"\s+", " ", run("worklist", "-c", config).stdout.replace("│", " "))
    shown = run("show", 1, "-c", config).stdout
    assert "delivery of the report of revision 1 to PACS" in shown
    assert "delivery of the report of revision 2 to PACS" in shown


def test_the_probability_of_a_finding_and_those_of_the_scan_are_told_apart(
    run: Run, config: Path, store: Store, clock: FakeClock
) -> None:
    reported(store, clock)
    shown = run("show", 1, "-c", config).stdout
    assert "p_left_mca (any aneurysm there)" in shown
    assert "p_present (any aneurysm in the scan)" in shown
    assert "P of this finding" in shown


# --- show, status, retry


def test_show_tells_everything_of_a_case(run: Run, config: Path, store: Store, clock: FakeClock) -> None:
    reported(store, clock)
    delivery = store.outbox.due.claim(clock(), LEASE)
    assert delivery is not None
    store.outbox.postponed(delivery, "status 0xA700", clock())
    for case in ("1", "2.25.1002", "2.25.77.1.1"):
        result = run("show", case, "-c", config)
        assert result.exit_code == 0
        for word in (
            "Doe^Jane", "Left Middle Cerebral Artery", "1.0, -2.0, 3.5", "report of revision 1: positive, 2.25.77.1.1",
            "delivery of the report of revision 1 to PACS: pending after 1 attempt, last error: status 0xA700",
        ):  # fmt: skip
            assert word in result.stdout, word


@pytest.mark.parametrize(
    ("outcome", "reason", "sentence"),
    [
        (Outcome.NOT_ANALYSED, "gap", "Slices are missing between the first and the last"),
        (Outcome.NOT_ELIGIBLE, "localizer", "The series is a localizer."),
        (Outcome.COVERED, "covered", "Another reconstruction of the same acquisition was analysed."),
        (Outcome.NOT_ANALYSED, "of_another_version", "of_another_version"),
    ],
)
def test_show_explains_a_reason_in_a_sentence(
    run: Run, config: Path, store: Store, clock: FakeClock, outcome: Outcome, reason: str, sentence: str
) -> None:
    from storage.stages import Event

    series = received(store, clock)
    store.settling.leave(series, Event.SET_ASIDE, "quiet", clock(), outcome, reason)
    assert sentence in re.sub(r"\s+", " ", run("show", 1, "-c", config).stdout)


@pytest.mark.parametrize("command", ["show", "retry"])
def test_an_unknown_case_is_one_line_with_the_remedy(run: Run, config: Path, command: str) -> None:
    line = one_line(run(command, "404", "-c", config), 1)
    assert line == "willis: no case '404'; `willis worklist` lists the cases"


def test_status_is_json_for_programs(run: Run, config: Path, store: Store, clock: FakeClock) -> None:
    empty = json.loads(run("status", "--json", "-c", config).stdout)
    assert empty["series"] == {stage.value: 0 for stage in Stage}
    assert empty["deliveries"] == {"pending": 0, "delivered": 0, "committed": 0, "dead": 0}
    assert (empty["oldest_ready_seconds"], empty["last_errors"], empty["last_slice_to_report_seconds"]) == (
        None, [], {},
    )  # fmt: skip
    assert empty["free_gib"] > 0
    for number, seconds in enumerate((1, 2, 9)):
        clock.now = START
        reported(store, clock, series=f"2.25.{number}")
        delivery = store.outbox.due.claim(clock(), LEASE)
        assert delivery is not None
        store.outbox.accepted(delivery, clock.advance(seconds))
    reported(store, clock)
    delivery = store.outbox.due.claim(clock(), LEASE)
    assert delivery is not None
    store.outbox.refused(delivery, "status 0x0122")
    status = json.loads(run("status", "--json", "-c", config).stdout)
    assert (status["series"]["reported"], status["deliveries"]) == (
        4,
        {"pending": 0, "delivered": 3, "committed": 0, "dead": 1},
    )
    assert status["last_errors"] == ["2026-11-23 09:00:09 PACS: status 0x0122"]
    assert status["last_slice_to_report_seconds"]["total"] == {"median": 2.0, "p95": 8.3}
    assert status["last_slice_to_report_seconds"]["delivery"]["median"] == 2.0


def test_what_was_retried_by_a_person_does_not_count_in_the_percentiles(
    run: Run, config: Path, store: Store, clock: FakeClock
) -> None:
    def deliver() -> None:
        delivery = store.outbox.due.claim(clock(), LEASE)
        assert delivery is not None
        store.outbox.accepted(delivery, clock.advance(2))

    for series in ("2.25.1", "2.25.2", "2.25.3"):
        reported(store, clock, series=series)
        if series == "2.25.3":
            letter = store.outbox.due.claim(clock(), LEASE)
            assert letter is not None
            store.outbox.refused(letter, "status 0x0122")
        else:
            deliver()
    clock.advance(86_400)
    assert store.queue.retry(2)
    claim = store.queue.claim("worker:1", clock(), LEASE, 3)
    assert claim is not None
    finish(store, clock, claim)
    deliver()
    assert store.outbox.requeue(4 - 1, clock()) == 1
    deliver()
    status = json.loads(run("status", "--json", "-c", config).stdout)
    assert status["deliveries"]["delivered"] == 4
    assert status["last_slice_to_report_seconds"]["total"] == {"median": 2.0, "p95": 2.0}


def test_one_outage_is_one_line_of_status(run: Run, config: Path, store: Store, clock: FakeClock) -> None:
    for series in ("2.25.1", "2.25.2", "2.25.3"):
        reported(store, clock, series=series)
        delivery = store.outbox.due.claim(clock(), LEASE)
        assert delivery is not None
        store.outbox.postponed(delivery, "no association with PACS", clock() + timedelta(days=1))
    status = json.loads(run("status", "--json", "-c", config).stdout)
    assert [line.partition(" PACS")[2] for line in status["last_errors"]] == [
        ": no association with PACS (3 deliveries)"
    ]


def test_status_is_a_table_for_people(run: Run, config: Path, store: Store, clock: FakeClock) -> None:
    output = run("status", "-c", config).stdout
    assert "receiving 0" in output
    assert "none yet" in output
    reported(store, clock)
    delivery = store.outbox.due.claim(clock(), LEASE)
    assert delivery is not None
    store.outbox.accepted(delivery, clock.advance(3))
    output = run("status", "-c", config).stdout
    assert "reported 1" in output
    assert "total 3.0 (95 %: 3.0)" in output


def test_retry_analyses_a_case_again_and_wakes_the_node(run: Run, config: Path, store: Store, clock: FakeClock) -> None:
    reported(store, clock)
    folder = config.parent / "var"
    with Wakeup(folder, NODE_PROCESS) as node, Wakeup(folder, WORKER_PROCESS) as worker:
        result = run("retry", 1, "-c", config)
        assert (node.wait(0), worker.wait(0)) == (True, True)
    assert (result.exit_code, "as a new revision" in result.stdout) == (0, True)
    assert (series_now(store).stage, series_now(store).revision) == (Stage.READY, 2)


def test_retry_revives_dead_letters_and_leaves_the_result_as_it_is(
    run: Run, config: Path, store: Store, clock: FakeClock
) -> None:
    reported(store, clock)
    delivery = store.outbox.due.claim(clock(), LEASE)
    assert delivery is not None
    store.outbox.refused(delivery, "status 0x0122")
    result = run("retry", 1, "-c", config)
    assert "1 delivery is pending again" in result.stdout
    assert (series_now(store).stage, series_now(store).revision) == (Stage.REPORTED, 1)
    assert store.worklist.rows()[0]["delivery"] == "pending"


def test_retry_of_what_has_not_ended_is_one_line(run: Run, config: Path, store: Store, clock: FakeClock) -> None:
    received(store, clock)
    assert "case 1 is receiving: it has not ended yet" in one_line(run("retry", 1, "-c", config), 1)


# --- send, peer, phantom


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


def test_a_diameter_needs_an_aneurysm(run: Run, tmp_path: Path) -> None:
    assert "--diameter-mm needs --aneurysm" in one_line(run("phantom", tmp_path / "out", "--diameter-mm", 5), 2)


@pytest.mark.parametrize("option", [("--seed", "-1"), ("--diameter-mm", "99"), ("--spacing-mm", "0")])
def test_a_phantom_out_of_range_cannot_be_used(run: Run, tmp_path: Path, option: tuple[str, str]) -> None:
    assert run("phantom", tmp_path / "out", *option).exit_code == 2
