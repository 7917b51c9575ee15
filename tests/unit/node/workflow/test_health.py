"""What health finds in the database, and of it."""

import os
import socket
import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest

from node.config.sections import Config
from node.rules.health import judge
from node.workflow import health
from node.workflow.health import facts_of
from storage.running import Process, ResultsGivenUp
from storage.store import Store
from tests.support.builders import FakeClock
from tests.support.certificates import Certificates, certificates

__all__ = ["certificates"]


def test_results_that_were_given_up_are_known_until_the_peer_gets_one_or_for_some_days(
    sqlite_store: Store, clock: FakeClock, tmp_path: Path
) -> None:
    url, requests = str(sqlite_store.transactions.engine.url), sqlite_store.commitment_requests
    config = Config.model_validate({"storage": {"directory": tmp_path, "database_url": url}})

    def given_up() -> dict[str, int]:
        return {each.peer: each.number for each in facts_of(config, clock()).results_given_up}

    for uid, peer in (("1.1", "CT1"), ("1.2", "CT1"), ("1.3", "CT2"), ("1.4", "CT3")):
        request = requests.add(uid, peer, [("1.2", "1.3")], clock.advance(1), clock())
        assert request is not None
        if peer != "CT3":  # that one is owed still
            requests.postponed(request, f"no association with {peer}", None)
    assert given_up() == {"CT1": 2, "CT2": 1}
    [first, _] = facts_of(config, clock()).results_given_up
    assert first == ResultsGivenUp("CT1", 2, clock() - timedelta(seconds=2), "no association with CT1")
    again = requests.add("1.5", "CT1", [("1.2", "1.3")], clock.advance(1), clock())
    assert again is not None
    requests.answered(again, clock.advance(1))
    assert given_up() == {"CT2": 1}, "CT1 can be reached again"
    clock.advance(11 * 86_400)
    assert given_up() == {}


def test_who_locks_the_database_is_the_reason_once_all_are_silent_and_is_not_asked_before(
    sqlite_store: Store, clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(sqlite_store.transactions.engine.url)
    config = Config.model_validate({"storage": {"directory": tmp_path, "database_url": url}})
    for role in ("serve", "receive"):
        sqlite_store.processes.beat(Process(role, role, "far", 1, "", clock(), clock()))
    with sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with monkeypatch.context() as patched:
            patched.setattr(health, "require_no_lock", pytest.fail)
            assert facts_of(config, clock()).database_error == ""
        facts = facts_of(config, clock.advance(6))
    [reason] = [each for each in judge(facts).reasons if each.about in ("database", "processes")]
    assert f"(pid {os.getpid()}); see what that does, and end it" in reason.message
    assert facts.locked_by == os.getpid()
    assert facts_of(config, clock()).database_error == ""


def test_health_of_a_host_says_what_that_host_was_answered(
    sqlite_store: Store, clock: FakeClock, tmp_path: Path
) -> None:
    url, host = str(sqlite_store.transactions.engine.url), socket.gethostname()[:64]
    peers = {"PACS": {"ae_title": "PACS", "host": "127.0.0.1", "port": 104}}
    config = Config.model_validate({"storage": {"directory": tmp_path, "database_url": url}, "peers": peers})
    sqlite_store.processes.peer_answered("PACS", host, clock(), "connection refused")
    sqlite_store.processes.peer_answered("PACS", "another", clock())
    assert [each.error for each in facts_of(config, clock()).peers] == ["connection refused"]
    sqlite_store.processes.peer_answered("PACS", host, clock())
    sqlite_store.processes.peer_answered("PACS", "another", clock(), "connection refused")
    assert [each.error for each in facts_of(config, clock()).peers] == [""]


def test_health_of_a_host_where_no_node_runs_says_what_those_that_run_were_answered(
    sqlite_store: Store, clock: FakeClock, tmp_path: Path
) -> None:
    url = str(sqlite_store.transactions.engine.url)
    peers = {"PACS": {"ae_title": "PACS", "host": "127.0.0.1", "port": 104}}
    config = Config.model_validate({"storage": {"directory": tmp_path, "database_url": url}, "peers": peers})
    for host in ("far", "away"):
        sqlite_store.processes.beat(Process(host, "serve", host, 1, "", clock(), clock()))
    for host, error in (("away", ""), ("far", "connection refused"), ("gone", "no route"), ("near", "")):
        sqlite_store.processes.peer_answered("PACS", host, clock(), error)
    assert [each.error for each in facts_of(config, clock()).peers] == ["connection refused"]
    here = socket.gethostname()[:64]
    sqlite_store.processes.beat(Process("here", "serve", here, os.getpid(), "", clock(), clock()))
    assert facts_of(config, clock()).peers == []


def test_a_ca_that_cannot_be_read_hides_no_certificate_of_another_file(
    sqlite_store: Store, clock: FakeClock, tmp_path: Path, certificates: Certificates
) -> None:
    tls = certificates.of("node", ca=tmp_path / "gone.pem")
    storage = {"directory": tmp_path, "database_url": str(sqlite_store.transactions.engine.url)}
    facts = facts_of(Config.model_validate({"storage": storage, "node": {"tls": tls}}), clock())
    assert [each.path for each in facts.certificates] == [str(tls.certificate)]
    [error] = facts.certificate_errors
    assert "gone.pem" in error
