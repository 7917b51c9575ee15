"""`willis show`, `willis status` and `willis retry`."""

import json
import re
import sqlite3
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from node.runtime.notify import NODE_PROCESS, WORKER_PROCESS, Wakeup
from node.web.wording import headline
from storage.stages import Outcome, Stage
from storage.store import Store
from tests.support.builders import LEASE, START, FakeClock, finish, header, received, reported, series_now, stored_file
from tests.support.command_line import Run, one_line
from tests.support.running import ROOT


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
    assert empty["series"] == {stage.value: 0 for stage in Stage} | {"empty": 0}
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
    assert status["last_errors"] == ["2026-11-23 09:00:09 UTC PACS: status 0x0122"]
    assert status["last_slice_to_report_seconds"]["total"] == {"median": 2.0, "p95": 8.3}
    assert status["last_slice_to_report_seconds"]["delivery"]["median"] == 2.0


def test_a_case_that_recovery_emptied_is_not_called_one_that_is_being_received(
    run: Run, config: Path, store: Store, clock: FakeClock
) -> None:
    reported(store, clock, count=1)
    store.intake.forget_instance(header(1).sop_instance_uid, stored_file(header(1)))
    series = json.loads(run("status", "--json", "-c", config).stdout)["series"]
    assert {name: number for name, number in series.items() if number} == {"empty": 1}
    assert "empty, to be sent again" in " ".join(run("worklist", "-c", config).stdout.split())
    [row] = store.triage.cases()
    assert headline(row) == "Empty: to be sent again"


def test_whoever_reads_the_status_may_stop_reading_and_the_verdict_stays(config: Path, store: Store) -> None:
    command = [sys.executable, "-m", "node", "status", "-c", str(config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert (process.wait(30), process.stderr.read()) == (2, b""), "no node runs: down"


@pytest.mark.parametrize("what", ["readable", "_queues"])
def test_a_database_that_goes_while_the_status_is_made_is_down(
    run: Run, config: Path, store: Store, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def gone(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr("node.workflow.health.readable" if what == "readable" else "node.cli.worklist._queues", gone)
    ended = run("status", "--json", "-c", config)
    assert ended.exit_code == 2
    status = json.loads(ended.stdout)
    assert (status["health"], "database" in [each["about"] for each in status["reasons"]]) == ("down", True)


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
