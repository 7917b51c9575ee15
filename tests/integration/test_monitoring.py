"""What monitors ask of the pages' process, over a real socket: health, readiness, metrics; and what the files for them name."""

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from shutil import which
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families as parsed
from sqlalchemy.exc import OperationalError

from node.rules.health import ABOUT, FULL_BYTES
from node.web.sign_in import hash_of, new_token
from storage.files.instances import Files
from storage.queries.accounts import TokenKind
from storage.running import Process
from storage.store import Store
from tests.support.absent import absent
from tests.support.builders import FakeClock, reported
from tests.support.pages import Served, serving, web_context
from tests.support.running import ROOT

MONITORING = ROOT / "docs" / "monitoring"
RULES = yaml.safe_load((MONITORING / "willis.rules.yml").read_text("utf-8"))["groups"][0]["rules"]


@pytest.fixture
def served(sqlite_store: Store, files: Files, tmp_path: Path, clock: FakeClock) -> Iterator[Served]:
    with serving(web_context(sqlite_store, files, tmp_path, clock)) as pages:
        yield pages


def token(served: Served) -> dict[str, str]:
    """The header of a program that has an account."""
    context, made = served.context, new_token()
    account = context.store.accounts.named(served.account("prometheus"))
    assert account is not None
    now = context.clock()
    context.store.accounts.give_token(account, hash_of(made), TokenKind.API, now, now + timedelta(days=1))
    return {"Authorization": f"Bearer {made}"}


def run_all(served: Served, clock: FakeClock) -> None:
    """Every process of the node runs."""
    for role in ("serve", "receive", "work", "web"):
        details: dict[str, Any] = {"model": "0.7.0", "device": "cpu"} if role == "work" else {}
        if role == "receive":
            details = {"refused": 3, "refused_at": (clock() - timedelta(days=1)).isoformat(), "refused_error": "full"}
        folder = str(served.context.config.storage.directory)
        served.context.store.processes.beat(Process(role, role, "far", 1, folder, clock(), clock(), details))


def values(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    """The samples: name and the values of the labels, sorted."""
    return {(s.name, tuple(sorted(s.labels.values()))): s.value for family in parsed(text) for s in family.samples}


def test_anybody_hears_the_verdict_and_only_who_has_a_token_why(served: Served, clock: FakeClock) -> None:
    answer = httpx.get(f"{served.url}/healthz")
    assert (answer.status_code, answer.json()["health"]) == (503, "down")
    assert answer.json()["about"] == ["processes"]
    assert "reasons" not in answer.json()
    [reason] = httpx.get(f"{served.url}/healthz", headers=token(served)).json()["reasons"]
    assert "no node runs on" in reason["message"]
    run_all(served, clock)
    answer = httpx.get(f"{served.url}/healthz")
    assert (answer.status_code, answer.json()) == (200, {"health": "ok", "about": []})
    clock.advance(60)
    assert httpx.get(f"{served.url}/healthz").status_code == 503


def test_a_node_that_is_about_to_stop_is_not_ready_as_its_latest_process_says(served: Served, clock: FakeClock) -> None:
    host, folder = socket.gethostname()[:64], str(served.context.config.storage.directory)
    drains = Process("1", "serve", host, 1, folder, clock(), clock(), {"drains": True})
    served.context.store.processes.beat(drains)
    answer = httpx.get(f"{served.url}/readyz")
    assert (answer.status_code, answer.json()) == (503, {"ready": False, "about": ["stop"]})
    clock.advance(1)
    served.context.store.processes.beat(Process("2", "serve", host, 2, folder, clock(), clock()))
    assert httpx.get(f"{served.url}/readyz").status_code == 200


def test_a_node_whose_disk_is_full_is_not_ready(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A balancer that went on sending to it would have each instance refused, and a sender that fails soon is given more."""
    for free_bytes, status in ((FULL_BYTES, 200), (FULL_BYTES - 1, 503), (None, 503)):
        monkeypatch.setattr("node.web.monitoring.room_in", lambda _folder, free=free_bytes: (free, ""))
        answer = httpx.get(f"{served.url}/readyz")
        assert (answer.status_code, answer.json()["about"]) == (status, ["disk"] if status == 503 else [])


def test_without_its_database_it_is_not_ready_and_health_says_why(
    served: Served, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_all(served, clock)
    assert httpx.get(f"{served.url}/readyz").status_code == 200

    def away(*_: object) -> str:
        raise OperationalError("SELECT 1", {}, Exception("gone"))

    for part, method in (
        (served.context.store.processes, "drains"),
        (served.context.store.transactions, "reading_plainly"),
    ):
        monkeypatch.setattr(part, method, away)
    answer = httpx.get(f"{served.url}/readyz")
    assert (answer.status_code, answer.json()) == (503, {"ready": False, "about": ["database"]})
    answer = httpx.get(f"{served.url}/healthz")
    assert (answer.status_code, answer.json()["about"]) == (503, ["database"])
    found = values(httpx.get(f"{served.url}/metrics", headers=token(served)).text)
    assert found[("willis_health", ())] == 2
    assert found[("willis_unwell", ("database",))] == 2


def test_metrics_need_a_token_unless_they_are_open(
    served: Served, sqlite_store: Store, files: Files, tmp_path: Path, clock: FakeClock
) -> None:
    refused = httpx.get(f"{served.url}/metrics", headers={"Authorization": "Bearer wrong"})
    assert (refused.status_code, "willis user token NAME" in refused.text) == (401, True)
    assert httpx.get(f"{served.url}/metrics", headers=token(served)).status_code == 200
    with serving(web_context(sqlite_store, files, tmp_path, clock, open_metrics=True)) as opened:
        assert httpx.get(f"{opened.url}/metrics").status_code == 200


def test_metrics_tell_of_queues_clocks_outcomes_model_and_refusals_and_name_no_patient(
    store: Store, files: Files, tmp_path: Path, clock: FakeClock
) -> None:
    with serving(web_context(store, files, tmp_path, clock, open_metrics=True)) as served:
        run_all(served, clock)
        reported(store, clock)
        clock.advance(4)
        delivery = store.outbox.due.claim(clock(), timedelta(seconds=60))
        assert delivery is not None
        store.outbox.accepted(delivery, clock())
        store.outbox.accepted(delivery, clock())  # a second sender was slower: it does not count
        text = httpx.get(f"{served.url}/metrics").text
    found = values(text)
    assert found[("willis_model_info", ("0.7.0", "cpu"))] == 1
    assert found[("willis_refused_instances_total", ())] == 3
    assert found[("willis_series", ("reported",))] == 1
    assert found[("willis_deliveries", ("delivered",))] == 1
    assert found[("willis_case_seconds_count", ("delivery",))] == 1
    assert found[("willis_case_seconds_sum", ("delivery",))] == 4
    assert found[("willis_case_seconds_bucket", ("2.0", "delivery"))] == 0
    assert found[("willis_case_seconds_bucket", ("5.0", "delivery"))] == 1
    assert found[("willis_case_seconds_bucket", ("+Inf", "delivery"))] == 1
    assert found[("willis_case_seconds_count", ("total",))] == 1
    assert sum(value for (name, _), value in found.items() if name == "willis_reports_total") == 1
    assert not re.search("Doe|P-0001|A-77|2\\.25", text)


def test_what_a_person_had_analysed_again_is_a_report_and_no_clock(store: Store, clock: FakeClock) -> None:
    from tests.support.builders import LEASE, finish

    reported(store, clock)
    assert store.queue.retry(1)
    clock.advance(100)
    claim = store.queue.claim("worker:1", clock(), LEASE, 3)
    assert claim is not None and finish(store, clock, claim)
    tally = store.tally.all()
    assert sum(value for (name, *_), value in tally.items() if name == "reports") == 2
    assert sum(value for (_, label, bucket), value in tally.items() if label == "wait" and bucket != "sum") == 1


# --- the files for Prometheus and Grafana


def exported(served: Served, clock: FakeClock) -> set[str]:
    """The names of all samples of a node to which everything has happened."""
    reported(served.context.store, clock)
    run_all(served, clock)
    served.context.store.processes.peer_answered("PACS", socket.gethostname()[:64], clock())
    families = list(parsed(httpx.get(f"{served.url}/metrics", headers=token(served)).text))
    return {family.name for family in families} | {sample.name for family in families for sample in family.samples}


def test_every_metric_of_rules_and_dashboard_is_exported(served: Served, clock: FakeClock) -> None:
    dashboard = json.loads((MONITORING / "dashboard.json").read_text("utf-8"))
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(expressions) > 12
    expressions += [rule["expr"] for rule in RULES]
    named = set(re.findall(r"willis_\w+", " ".join(expressions)))
    named -= {
        "willis_peer_up",
        "willis_certificate_expires_timestamp_seconds",
    }  # where there are peers and certificates
    assert named - exported(served, clock) == set()
    source = (ROOT / "node" / "web" / "metrics.py").read_text("utf-8")
    assert '"peer_up"' in source and '"certificate_expires_timestamp_seconds"' in source
    assert {about for expr in expressions for about in re.findall(r'about="(\w+)"', expr)} <= set(ABOUT)


def test_each_rule_has_a_line_in_the_runbook_and_no_other_is_there() -> None:
    runbook = (ROOT / "docs" / "runbook.md").read_text("utf-8")
    lines = re.findall(r"^\| (Willis\w+) \|", runbook, re.MULTILINE)
    assert lines == [rule["alert"] for rule in RULES]


FIRING = {
    "WillisNotScraped": {'up{job="willis"}': "0x200"},
    "WillisDown": {"willis_health": "2x200"},
    "WillisDegraded": {"willis_health": "1x200"},
    "WillisProcessMissing": {'willis_process_up{role="work"}': "0x200"},
    "WillisDiskFilling": {"willis_storage_free_bytes": "9000000000-40000000x200"},
    "WillisRefusesInstances": {"willis_refused_instances_total": "0x175 1 1 1 1 1 1"},
    "WillisPeerAway": {'willis_peer_up{peer="PACS"}': "0x200"},
    "WillisDeliveryLate": {'willis_oldest_waiting_seconds{queue="delivery"}': "901x200"},
    "WillisDeliveryDead": {'willis_deliveries{stage="dead"}': "1x200"},
    "WillisAnalysisLate": {'willis_oldest_waiting_seconds{queue="analysis"}': "901x200"},
    "WillisAnalysisFailed": {'willis_series{stage="failed"}': "1x200"},
    "WillisModelMissing": {'willis_unwell{about="model"}': "1x200"},
    "WillisTurnaroundLong": {
        'willis_case_seconds_bucket{part="total",le="300.0"}': "0+8x200",
        'willis_case_seconds_bucket{part="total",le="600.0"}': "0+10x200",
        'willis_case_seconds_bucket{part="total",le="+Inf"}': "0+10x200",
    },
    "WillisManyNotAnalysed": {
        'willis_reports_total{outcome="not_analysed"}': "0+1x200",
        'willis_reports_total{outcome="negative"}': "0+2x200",
    },
    "WillisCertificateExpires": {'willis_certificate_expires_timestamp_seconds{key="k"}': "2500000x200"},
}
"""Each alert, and the series, one value a minute, at whose end it fires."""
SILENT = {
    "WillisNotScraped": {'up{job="willis"}': "1x200"},
    "WillisDown": {"willis_health": "1x100 0x99"},
    "WillisDegraded": {"willis_health": "0x190 1x10"},
    "WillisProcessMissing": {'willis_process_up{role="work"}': "1x200"},
    "WillisDiskFilling": {"willis_storage_free_bytes": "9000000000-400000x200"},
    "WillisRefusesInstances": {"willis_refused_instances_total": "7x200"},
    "WillisPeerAway": {'willis_peer_up{peer="PACS"}': "0x100 1x99"},
    "WillisDeliveryLate": {'willis_oldest_waiting_seconds{queue="delivery"}': "899x200"},
    "WillisDeliveryDead": {'willis_deliveries{stage="dead"}': "0x200"},
    "WillisAnalysisLate": {'willis_oldest_waiting_seconds{queue="analysis"}': "899x200"},
    "WillisAnalysisFailed": {'willis_series{stage="failed"}': "0x200"},
    "WillisModelMissing": {'willis_unwell{about="model"}': "0x200"},
    "WillisTurnaroundLong": {
        'willis_case_seconds_bucket{part="total",le="300.0"}': "0+10x200",
        'willis_case_seconds_bucket{part="total",le="600.0"}': "0+10x200",
        'willis_case_seconds_bucket{part="total",le="+Inf"}': "0+10x200",
    },
    "WillisManyNotAnalysed": {
        'willis_reports_total{outcome="not_analysed"}': "0x195 1x5",
        'willis_reports_total{outcome="negative"}': "0x195 1x5",
    },
    "WillisCertificateExpires": {'willis_certificate_expires_timestamp_seconds{key="k"}': "2700000x200"},
}
"""Likewise, by whose end it does not; few reports, and what is over."""


def expectation(alert: str, series: dict[str, str], fires: bool) -> dict[str, Any]:
    """A test of promtool: after three hours the alert fires, or not."""
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": given} for name, given in series.items()],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)',
                "eval_time": "3h",
                "exp_samples": [{"value": int(fires)}],
            }
        ],
    }


def test_each_rule_fires_when_it_should_and_is_silent_else(tmp_path: Path) -> None:
    assert list(FIRING) == list(SILENT) == [rule["alert"] for rule in RULES]
    if which("promtool") is None:
        absent("promtool is not installed (apt: prometheus)")
    tests = [
        expectation(alert, given, fires)
        for table, fires in ((FIRING, True), (SILENT, False))
        for alert, given in table.items()
    ]
    wanted = {"rule_files": [str(MONITORING / "willis.rules.yml")], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(wanted))
    done = subprocess.run(
        ["promtool", "test", "rules", "tests.yml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    text = (MONITORING / "prometheus.yml").read_text("utf-8")
    (tmp_path / "willis.token").write_text("x")
    (tmp_path / "willis.rules.yml").write_text((MONITORING / "willis.rules.yml").read_text("utf-8"))
    (tmp_path / "prometheus.yml").write_text(text.replace("/etc/prometheus/", ""))
    done = subprocess.run(
        ["promtool", "check", "config", "prometheus.yml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
