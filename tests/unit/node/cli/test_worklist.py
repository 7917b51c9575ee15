"""`willis worklist`: for people, for programs and for spreadsheets."""

import csv
import json
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest

from node.cli.worklist import _style
from storage.stages import Outcome
from storage.store import Store
from tests.support.builders import LEASE, FakeClock, claimed, finish, received, reported
from tests.support.command_line import Run, one_line
from tests.support.running import ROOT


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
    for word in ("Doe^Jane", "positive", "0.90", "left mca", "6.5", "pending", "11-23 09:00", "UTC"):
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
