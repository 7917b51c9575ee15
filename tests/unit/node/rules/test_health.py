"""Each rule of the node's health: what is well, what is not, and in which words."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from node.rules.health import FULL_BYTES, LOW_BYTES, Verdict, judge
from node.rules.health_facts import CertificateFact, Facts, PeerFact, ProcessFact
from storage.running import ResultsGivenUp
from tests.support.builders import START

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


def process(role: str, seconds_ago: float = 1, **changes: Any) -> ProcessFact:
    details = {"model": "0.6.0", "device": "cpu"} if role == "work" else {}
    return replace(ProcessFact(role, "ct-node", 7, START - timedelta(seconds=seconds_ago), False, details), **changes)


ALL = tuple(process(role) for role in ("serve", "receive", "work"))
WELL = Facts(START, "/var/lib/willis", 100 << 30, processes=ALL)


def without(role: str, *others: ProcessFact) -> tuple[ProcessFact, ...]:
    return (*(each for each in ALL if each.role != role), *others)


def certificate(before: timedelta, after: timedelta) -> dict[str, Any]:
    return {"certificates": [CertificateFact("[node.tls] certificate", "/etc/n.pem", START + before, START + after)]}


def refused(minutes_ago: int) -> dict[str, Any]:
    details = {"refused": 3, "refused_at": (START - minutes_ago * MINUTE).isoformat(), "refused_error": "no space left"}
    return {"processes": without("receive", process("receive", details=details))}


DOWN, DEGRADED = Verdict.DOWN, Verdict.DEGRADED


def job(name: str, minutes_ago: float, late_after_seconds: float = 240) -> dict[str, Any]:
    at = (START - minutes_ago * MINUTE).isoformat()
    return {"jobs": {name: {"at": at, "late_after_seconds": late_after_seconds}}}


def far(role: str, seconds_ago: float = 1, **details: Any) -> ProcessFact:
    """A process on another host."""
    return process(role, seconds_ago, host="other", details=details)


HELD = {"certificate_until": (START + DAY).isoformat()}
FAR = (far("serve"), far("receive"), far("work", model="0.6.0"))
ILL: dict[str, tuple[dict[str, Any], Verdict, str, str]] = {
    "nothing ever ran": ({"processes": ()}, DOWN, "processes", "no node runs on /var/lib/willis"),
    "the audit trail is not written": (
        {"processes": without("receive", process("receive", details={"audit_trouble": "file: permission denied"}))},
        DEGRADED, "audit",
        "the audit trail of `willis receive` is not written (file: permission denied); what waits is lost at a stop",
    ),
    "the supervisor is gone": (
        {"processes": without("serve", process("serve", 4, is_gone=True))}, DOWN, "processes",
        "`willis serve` (pid 7) died without a word, last seen 4 s ago: nothing is settled or delivered; start it with",
    ),
    "the supervisor hangs": (
        {"processes": without("serve", process("serve", 13))}, DOWN, "processes",
        "`willis serve` (pid 7 on ct-node) has not been heard of for 13 s: nothing is settled or delivered; look at its log",
    ),
    "no receiver": (
        {"processes": without("receive")}, DOWN, "processes",
        "`willis receive` does not run: no image is received; `willis serve` starts it again within 30 s",
    ),
    "no worker": ({"processes": without("work")}, DEGRADED, "processes", "`willis work` does not run: nothing is analysed"),
    "no pages where they are wanted": (
        {"serves_pages": True}, DEGRADED, "processes", "`willis web` does not run: no pages are served"),
    "a worker that cannot run": (
        {"processes": without("work", process("work", details={"trouble": "[ai] device = 'cuda': no GPU"}))}, DEGRADED,
        "processes", "ended ([ai] device = 'cuda': no GPU)",
    ),
    "a second bundle that cannot be used": (
        {"processes": without("work", process("work", details={"model": "1", "shadow_trouble": "[ai] shadow: it is not there"}))},
        DEGRADED, "model", "no second bundle answers what is reported: [ai] shadow: it is not there",
    ),
    "an engine that is away": (
        {"processes": without("work", process("work", details={"model": "1", "engine": {"trouble": "[ai] engine_address: away"}}))},
        DEGRADED, "engine", "[ai] engine_address: away (meanwhile `willis work` on ct-node analyses by itself)",
    ),
    "a reload that was refused": (
        {"processes": without("work", process("work", details={"model": "1", "reload": {"error": "[ai] bundle: broken"}}))},
        DEGRADED, "processes", "`willis work` could not reload and works on with what it had: [ai] bundle: broken; then `willis",
    ),
    "two nodes": (
        {"processes": (*ALL, process("serve", pid=8))}, DEGRADED, "processes",
        "2 nodes on ct-node use the folder /var/lib/willis (pids 7, 8): stop all but one",
    ),
    "a job that hangs": (
        {"processes": without("serve", process("serve", details=job("deliver", 5)))}, DOWN, "jobs",
        "the job deliver of `willis serve` (pid 7 on ct-node) has not finished since 2026-11-23 08:55:00 UTC: no report is",
    ),
    "an intake that hangs": (
        {"processes": without("receive", process("receive", details=job("intake", 2, 90)))}, DOWN, "jobs", "no image is answered"),
    "a job of less weight that hangs": (
        {"processes": without("serve", process("serve", details=job("retain", 5)))}, DEGRADED, "jobs", "the job retain of"),
    "a full disk of another host": (
        {"processes": (*ALL, far("serve", free_bytes=0), *FAR[1:]), "host": "ct-node"}, DOWN, "disk",
        "0 MiB free in /var/lib/willis of other, instances are refused",
    ),
    "a disk of another host that failed": (
        {"processes": (*ALL, far("serve", disk_error="the disk failed"), *FAR[1:]), "host": "ct-node"}, DOWN, "disk",
        "/var/lib/willis of other: the disk failed",
    ),
    "another host without a worker": (
        {"processes": (*ALL, *FAR[:2])}, DEGRADED, "processes", "`willis work` does not run on other: nothing is analysed"),
    "another host that died": (
        {"processes": (*ALL, far("serve", 600))}, DEGRADED, "processes",
        "`willis serve` (pid 7 on other) has not been heard of for 600 s: that of ct-node works on",
    ),
    "no database": ({"database_error": "no server listens there; start it"}, DOWN, "database", "no server listens there"),
    "a full disk": ({"free_bytes": FULL_BYTES - 1}, DOWN, "disk", "instances are refused; free some"),
    "a disk that fills up": ({"free_bytes": LOW_BYTES - 1}, DEGRADED, "disk", "2048 MiB free in /var/lib/willis"),
    "no disk": ({"free_bytes": None, "disk_error": "the disk failed; look"}, DOWN, "disk", "/var/lib/willis: the disk failed"),
    "refused instances": (refused(59), DEGRADED, "instances", "3 instances were refused, the last at 08:01:00 UTC: no space left"),
    "a model that is not loaded": (
        {"processes": without("work", process("work", details={}))}, DEGRADED, "model", "is not loaded yet"),
    "an analysis that is held up": ({"held_up": "no space left for a file; free some"}, DEGRADED, "model", "no space left for"),
    "a peer that does not answer": (
        {"peers": [PeerFact("PACS", START, START - DAY, "connection refused")]}, DEGRADED, "peers",
        "PACS does not answer (last answered 2026-11-22 09:00:00 UTC): connection refused",
    ),
    "a peer that never answered": (
        {"peers": [PeerFact("PACS", START, None, "silent")]}, DEGRADED, "peers", "PACS does not answer (has not answered yet)"),
    "results that were given up": (
        {"results_given_up": [ResultsGivenUp("CT1", 2, START, "no association with CT1")]}, DEGRADED, "peers",
        "CT1 never got 2 results of storage commitments that it asked for: no association with CT1; mend that, and have",
    ),
    "an old delivery": ({"oldest_pending_at": START - 16 * MINUTE}, DEGRADED, "deliveries", "since 2026-11-23 08:44:00 UTC"),
    "a dead letter": ({"dead_deliveries": 1}, DEGRADED, "deliveries", "1 delivery was refused or given up"),
    "an analysis that waits": ({"oldest_ready_at": START - 16 * MINUTE}, DEGRADED, "analysis", "waited for its analysis since"),
    "an expired certificate": (
        certificate(-DAY, -MINUTE), DEGRADED, "certificates",
        "[node.tls] certificate = '/etc/n.pem' expired on 2026-11-23: peers refuse it; renew it, then `willis reload`",
    ),
    "a certificate that expires soon": (certificate(-DAY, 29 * DAY), DEGRADED, "certificates", "expires on 2026-12-22; renew"),
    "a CA of a server that expires soon": (
        {"certificates": [CertificateFact("[web.ldap] ca", "/etc/l.pem", START - DAY, START + DAY)]}, DEGRADED, "certificates",
        "[web.ldap] ca = '/etc/l.pem' expires on 2026-11-24; renew it, then restart the node",
    ),
    "a certificate that was renewed and not taken": (
        {"processes": without("receive", process("receive", details=HELD)), "host": "ct-node", **certificate(-DAY, 99 * DAY)},
        DEGRADED, "certificates", "`willis receive` still shows a certificate that expires on 2026-11-24, though [node.tls]",
    ),
    "a certificate of tomorrow": (certificate(DAY, 99 * DAY), DEGRADED, "certificates", "is this machine's clock right?"),
    "a certificate that is not there": ({"certificate_errors": ["x.pem: gone"]}, DEGRADED, "certificates", "x.pem: gone"),
    "a clock that was set back": (
        {"processes": without("serve", process("serve", -60))}, DEGRADED, "clock", "60 s in the future: this machine's clock"),
}  # fmt: skip


def test_a_node_of_which_nothing_bad_is_known_is_ok() -> None:
    assert judge(WELL).reasons == ()
    assert (judge(WELL).verdict, judge(WELL).verdict.exit_status) == (Verdict.OK, 0)


@pytest.mark.parametrize("name", ILL)
def test_health_says_of(name: str) -> None:
    changes, verdict, about, said = ILL[name]
    [reason] = judge(replace(WELL, **changes)).reasons
    assert (reason.verdict, reason.about) == (verdict, about)
    assert said in reason.message


WELL_AS_WELL: dict[str, dict[str, Any]] = {
    "a beat that is a little late": {"processes": without("serve", process("serve", 11))},
    "a clock that is a little ahead": {"processes": without("serve", process("serve", -4))},
    "a process that died and was started again": {"processes": (*ALL, process("work", 9, is_gone=True, pid=6))},
    "pages that are served": {"serves_pages": True, "processes": (*ALL, process("web"))},
    "a job that works": {"processes": without("serve", process("serve", details=job("deliver", 3)))},
    "a process that has died and its job": {
        "processes": (*ALL, process("serve", 600, is_gone=True, pid=6, details=job("deliver", 10)))
    },
    "two hosts": {"processes": (*ALL, *FAR)},
    "a host that was put away": {"processes": (*ALL, far("serve", 3601))},
    "pages that nobody wants": {"processes": (*ALL, process("web", 9, is_gone=True))},
    "refusals of long ago": refused(61),
    "a certificate that holds": certificate(-DAY, 31 * DAY),
    "a certificate that another host has not taken": {
        "processes": (*ALL, far("serve"), far("receive", **dict[str, Any](HELD)), far("work", model="1")),
        "host": "ct-node",
        **certificate(-DAY, 99 * DAY),
    },
    "a peer that answers": {"peers": [PeerFact("PACS", START, START, "")]},
    "a delivery of now": {"oldest_pending_at": START - 14 * MINUTE},
    "enough room": {"free_bytes": LOW_BYTES},
}


@pytest.mark.parametrize("name", WELL_AS_WELL)
def test_health_is_silent_about(name: str) -> None:
    assert judge(replace(WELL, **WELL_AS_WELL[name])).reasons == ()


def test_without_the_database_nothing_else_is_said_of_processes() -> None:
    health = judge(replace(WELL, processes=(), database_error="away"))
    assert [reason.about for reason in health.reasons] == ["database"]


def test_the_worst_reason_comes_first_and_is_the_verdict() -> None:
    health = judge(replace(WELL, dead_deliveries=1, free_bytes=0))
    assert [reason.verdict for reason in health.reasons] == [DOWN, DEGRADED]
    assert (health.verdict, health.verdict.exit_status) == (DOWN, 2)
