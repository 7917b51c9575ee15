"""Who may associate, and who failed too often."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from node.config.sections import Config, Tls
from node.rules.access import Caller, Certificate, Refusal, Turnstile, refusal
from node.runtime.log import _PLAIN
from node.scp.rejections import MOST_CALLERS, Rejections, last_rejections

SHA256 = "ab" * 32
CT1 = Certificate(SHA256, frozenset({"ct1", "ct1.example"}))
TLS = Tls.model_validate({"certificate": "a", "key": "b", "ca": "c"})


def config(node: dict[str, Any] | None = None, **peers: dict[str, Any]) -> Config:
    made = {name: {"ae_title": name, "host": "x", "port": 1} | changes for name, changes in peers.items()}
    return Config.model_validate({"node": {"tls": TLS} | (node or {}), "peers": made})


def judged(made: Config, calling: str = "CT1", host: str = "10.1.2.3", **changes: Any) -> Refusal | None:
    return refusal(made, Caller(calling, changes.pop("called", "WILLIS"), host, **changes))


def test_with_nobody_configured_everybody_may_call() -> None:
    assert judged(config()) is None


def test_a_title_that_is_neither_a_peers_nor_listed_is_refused_as_unknown() -> None:
    assert judged(config(CT1={})) is None
    assert judged(config({"allowed_calling_ae": ["CT1"]}, PACS={})) is None
    assert judged(config(PACS={})) is Refusal.CALLING_AE
    assert Refusal.CALLING_AE.code == (1, 1, 3)


@pytest.mark.parametrize(
    ("host", "is_inside"),
    [("10.1.255.255", True), ("10.2.0.0", False), ("::ffff:10.1.0.9", True), ("192.0.2.7", True), ("192.0.2.8", False),
     ("2001:db8::5", True), ("2001:db9::5", False), ("not an address", False)],
)  # fmt: skip
def test_a_peer_calls_from_its_networks_only(host: str, is_inside: bool) -> None:
    made = config(CT1={"networks": ["10.1.0.0/16", "192.0.2.7", "2001:db8::/32"]})
    assert judged(made, host=host) is (None if is_inside else Refusal.NETWORK)


def test_the_networks_of_a_peer_replace_those_of_the_node() -> None:
    node = {"allowed_networks": ["10.0.0.0/8"], "allowed_calling_ae": ["CT9", "CT1"]}
    made = config(node, CT1={"networks": ["192.0.2.0/24"]}, PACS={})
    assert judged(made, "CT1", "192.0.2.1") is None
    assert judged(made, "CT1", "10.0.0.1") is Refusal.NETWORK  # although listed besides
    for title in ("CT9", "PACS"):
        assert judged(made, title, "10.0.0.1") is None
        assert judged(made, title, "192.0.2.1") is Refusal.NETWORK


@pytest.mark.parametrize(
    ("settings", "shown", "expected"),
    [
        ({"tls_sha256": SHA256.upper()}, CT1, None),
        ({"tls_sha256": "cd" * 32}, CT1, Refusal.CERTIFICATE),
        ({"tls_sha256": SHA256}, None, Refusal.NO_CERTIFICATE),
        ({"tls_subject": "CT1.example"}, CT1, None),
        ({"tls_subject": "ct2"}, CT1, Refusal.CERTIFICATE),
        ({"tls_subject": "ct1"}, None, Refusal.NO_CERTIFICATE),
        ({"tls_subject": "ct1", "tls_sha256": "cd" * 32}, CT1, Refusal.CERTIFICATE),
        ({}, None, None),
    ],
)
def test_a_peer_with_a_fingerprint_or_a_subject_must_show_that_certificate(
    settings: dict[str, Any], shown: Certificate | None, expected: Refusal | None
) -> None:
    assert judged(config(CT1=settings), certificate=shown) is expected


def test_a_peer_with_tls_calls_over_tls_unless_another_with_its_title_need_not() -> None:
    made = config(CT1={"tls": True})
    assert judged(made) is Refusal.NO_TLS
    assert judged(made, is_tls=True) is None
    assert judged(config(CT1={"tls": True}, PLAIN={"ae_title": "CT1"})) is None
    assert judged(config(CT1={"tls": True}, CT2={}), "CT2") is None


def test_of_two_peers_with_one_title_one_must_fit() -> None:
    made = config(
        A={"ae_title": "CT1", "networks": ["10.1.0.0/16"]}, B={"ae_title": "CT1", "networks": ["10.2.0.0/16"]}
    )
    assert judged(made, host="10.2.0.1") is None
    assert judged(made, host="10.3.0.1") is Refusal.NETWORK


def test_the_called_title_is_checked_where_that_is_wanted() -> None:
    assert judged(config(), called="OTHER") is None
    assert judged(config({"require_called_ae": True}), called="OTHER") is Refusal.CALLED_AE
    assert Refusal.CALLED_AE.code == (1, 1, 7)


@pytest.mark.parametrize("why", Refusal)
def test_reason_and_remedy_can_be_logged(why: Refusal) -> None:
    assert _PLAIN.match(why.value)
    assert _PLAIN.match(why.remedy)


def test_a_certificate_is_known_by_its_subject_and_its_alternative_names() -> None:
    decoded = {
        "subject": ((("countryName", "DE"),), (("commonName", "CT1"),)),
        "subjectAltName": (("DNS", "ct1.example"), ("IP Address", "10.0.0.7")),
    }
    shown = Certificate.of(b"x", decoded)
    assert shown is not None
    assert shown.names == {"ct1", "ct1.example", "10.0.0.7"}
    assert Certificate.of(None, None) is None


# --- the turnstile


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def turnstile(clock: Clock, failures: int = 3, **changes: int) -> Turnstile:
    return Turnstile(failures, 10, 30, clock, **changes)


def test_after_so_many_failures_in_time_a_host_is_turned_away_for_a_while_and_no_other_host() -> None:
    clock = Clock()
    made = turnstile(clock)
    assert [made.failed("a") for _ in range(3)] == [False, False, True]
    assert made.turns_away("a")
    assert not made.turns_away("b")
    clock.now = 29.9
    assert made.turns_away("a")
    clock.now = 30
    assert not made.turns_away("a")
    assert not made.failed("a")


def test_failures_that_lie_apart_or_before_a_success_do_not_add_up() -> None:
    clock = Clock()
    made = turnstile(clock)
    for clock.now in (0, 9, 20, 31):
        assert not made.failed("a")
    for _ in range(9):
        assert not made.failed("b")
        assert not made.failed("b")
        made.admitted("b")


def test_an_ipv6_host_is_counted_with_its_network() -> None:
    made = turnstile(Clock())
    for last in range(3):
        made.failed(f"2001:db8::{last}")
    assert made.turns_away("2001:db8::ffff")
    assert not made.turns_away("2001:db8:0:1::")


def test_zero_failures_turn_nobody_away_and_hosts_without_number_need_no_memory_without_bound() -> None:
    assert not any(turnstile(Clock(), failures=0).failed("a") for _ in range(99))
    made = turnstile(Clock(), most_hosts=5)
    for number in range(100):
        made.failed(f"10.0.0.{number}")
    assert len(made._records) == 5


# --- what is kept of the rejections


def test_the_last_rejections_are_counted_and_survive_a_restart(tmp_path: Path) -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    for _ in range(2):
        Rejections(tmp_path).note("CT9", "10.0.0.9", "unknown", "add it", at)
    assert [each.line for each in last_rejections(tmp_path)] == [
        "2026-01-02 03:04:05 CT9 at 10.0.0.9, 2 times: unknown; add it"
    ]
    kept = Rejections(tmp_path)
    for number in range(30):
        kept.note("", f"10.0.1.{number}", "no TLS", "", at)
    assert len(last_rejections(tmp_path)) == MOST_CALLERS
    assert last_rejections(tmp_path)[-1].line == "2026-01-02 03:04:05 10.0.1.29, 1 time: no TLS"


@pytest.mark.parametrize("content", ["", "[1]", '[{"x": 1}]', "\xff"])
def test_a_file_of_rejections_that_cannot_be_read_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "rejected-callers.json").write_text(content, "latin-1")
    assert last_rejections(tmp_path) == []
    Rejections(tmp_path / "missing").note("A", "b", "c", "d", datetime.now(UTC))  # no folder, no error
