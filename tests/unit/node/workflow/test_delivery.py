"""Reports reach their peers, with a real peer on loopback; only the clock is made up."""

from datetime import timedelta
from random import Random
from typing import Any

import pytest

from node.runtime.backoff import Backoff
from node.simulated_pacs import Fault
from node.workflow.delivery import deliver
from node.workflow.settling import settle
from storage.stages import DeliveryStage
from tests.support.builders import (
    next_attempt_at,
)
from tests.support.dicom_factory import ct_series
from tests.support.running import free_port
from tests.support.site import NO_TLS_FILES, PeerFactory, WorkflowFactory, peers


def quick(**changes: Any) -> dict[str, Any]:
    """Timeouts that a test can wait for."""
    return {"acse_timeout_seconds": 2, "dimse_timeout_seconds": 0.3, "network_timeout_seconds": 2} | changes


def test_a_report_arrives_at_the_peer_byte_for_byte_and_is_delivered(
    workflow: WorkflowFactory, peer: PeerFactory
) -> None:
    pacs = peer()
    context = workflow(peers=peers(pacs.port))
    context.report()
    assert deliver(context.context) == 1
    delivery = context.delivery()
    assert (delivery.stage, delivery.attempts, delivery.delivered_at) == (DeliveryStage.DELIVERED, 1, context.clock())
    [received_file] = pacs.folder.iterdir()
    sent, got = context.files.read(delivery.file), received_file.read_bytes()
    assert got[-500:] == sent[-500:]
    assert deliver(context.context) == 0
    assert len(pacs.requests) == 1


@pytest.mark.parametrize("status", [0x0111, 0x0107, 0xB000, 0xB006, 0xB007])
def test_a_duplicate_or_a_warning_is_delivered(workflow: WorkflowFactory, peer: PeerFactory, status: int) -> None:
    pacs = peer(fault=Fault.REFUSE, status=status)
    context = workflow(peers=peers(pacs.port))
    context.report()
    assert deliver(context.context) == 1
    assert context.delivery().stage is DeliveryStage.DELIVERED


@pytest.mark.parametrize("status", [0xA900, 0xC000, 0x0122, 0x0124])
def test_a_refusal_is_a_dead_letter_with_its_status(workflow: WorkflowFactory, peer: PeerFactory, status: int) -> None:
    pacs = peer(fault=Fault.REFUSE, status=status)
    context = workflow(peers=peers(pacs.port))
    context.report()
    assert deliver(context.context) == 0
    assert (context.delivery().stage, context.delivery().last_error) == (DeliveryStage.DEAD, f"status 0x{status:04X}")
    context.clock.advance(10**6)
    assert deliver(context.context) == 0
    assert len(pacs.requests) == 1


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"fault": Fault.REFUSE, "status": 0xA700}, "status 0xA700"),
        ({"fault": Fault.REFUSE, "status": 0x0110}, "status 0x0110"),
        ({"fault": Fault.REJECT}, "rejected the association"),
        ({"fault": Fault.ABORT}, "no answer: the association ended or timed out"),
        ({"fault": Fault.SILENCE}, "no answer: the association ended or timed out"),
    ],
)
def test_what_may_pass_is_postponed_by_two_seconds_or_a_little_less(
    workflow: WorkflowFactory, peer: PeerFactory, options: dict[str, Any], error: str
) -> None:
    pacs = peer(**options)
    context = workflow(peers=peers(pacs.port), node=quick())
    context.report()
    assert deliver(context.context) == 0
    delivery = context.delivery()
    assert (delivery.stage, delivery.attempts) == (DeliveryStage.PENDING, 1)
    assert error in delivery.last_error
    assert delivery.next_attempt_at is not None
    assert 1.5 <= (delivery.next_attempt_at - context.clock()).total_seconds() <= 2.0
    pacs.stop()


def test_a_peer_that_is_down_gets_its_report_when_it_is_back(workflow: WorkflowFactory, peer: PeerFactory) -> None:
    port = free_port()
    context = workflow(peers=peers(port), node=quick())
    context.report()
    waits = []
    for _ in range(4):
        assert deliver(context.context) == 0
        due = next_attempt_at(context.store)
        assert due is not None
        waits.append((due - context.clock()).total_seconds())
        context.clock.now = due
    assert [low <= wait <= high for wait, (low, high) in zip(waits, [(1.5, 2), (3, 4), (6, 8), (12, 16)], strict=True)]
    assert waits == sorted(waits)
    assert waits[3] > 11
    pacs = peer(port)
    assert deliver(context.context) == 1
    assert (context.delivery().attempts, len(pacs.requests)) == (5, 1)


def test_after_the_configured_hours_it_is_given_up_with_the_last_error(workflow: WorkflowFactory) -> None:
    context = workflow(peers=peers(free_port()), node=quick(), delivery={"give_up_hours": 24})
    context.report()
    context.clock.advance(24 * 3600 - 1)
    deliver(context.context)
    assert context.delivery().stage is DeliveryStage.PENDING
    context.clock.advance(600)
    deliver(context.context)
    assert context.delivery().stage is DeliveryStage.DEAD
    assert context.delivery().last_error.startswith("given up after 24 h: no association with PACS at 127.0.0.1:")


def test_a_revived_dead_letter_has_its_hours_again(workflow: WorkflowFactory, peer: PeerFactory) -> None:
    context = workflow(peers=peers(free_port()), node=quick(), delivery={"give_up_hours": 24})
    context.report()
    context.clock.advance(25 * 3600)
    deliver(context.context)
    [report] = context.store.worklist.reports(1)
    assert context.store.outbox.requeue(report["id"], context.clock()) == 1
    deliver(context.context)
    assert context.delivery().stage is DeliveryStage.PENDING


def test_a_destination_that_is_no_longer_configured_is_a_dead_letter(workflow: WorkflowFactory) -> None:
    context = workflow()
    context.report(["GONE"])
    assert deliver(context.context) == 0
    assert (context.delivery().stage, context.delivery().last_error) == (
        DeliveryStage.DEAD, "[peers.GONE] is not configured",
    )  # fmt: skip


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_report_that_is_damaged_on_disk_is_never_sent(
    workflow: WorkflowFactory, peer: PeerFactory, damage: str
) -> None:
    pacs = peer()
    context = workflow(peers=peers(pacs.port))
    context.report()
    path = context.files.path(context.delivery().file)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink() if damage == "missing" else path.write_bytes(content)
    assert deliver(context.context) == 0
    assert context.delivery().stage is DeliveryStage.DEAD
    assert pacs.requests == []


def test_everything_due_is_tried_and_one_failure_holds_nothing_up(workflow: WorkflowFactory, peer: PeerFactory) -> None:
    pacs = peer()
    context = workflow(peers=peers(pacs.port), node=quick())
    context.report()
    context.report(["GONE", "PACS"])
    context.report()
    assert deliver(context.context) == 3
    assert [row["delivery"] for row in context.store.worklist.rows()] == ["delivered", "dead", "delivered"]


def test_certificates_that_cannot_be_used_hold_up_only_the_peers_with_tls(
    workflow: WorkflowFactory, peer: PeerFactory
) -> None:
    pacs = peer()
    secure = {"SECURE": {"ae_title": "SECURE", "host": "127.0.0.1", "port": free_port(), "tls": True}}
    context = workflow(peers=peers(pacs.port) | secure, node=quick(tls=NO_TLS_FILES))
    context.report(["SECURE"])
    context.report()
    assert deliver(context.context) == 1
    assert (context.delivery().stage, context.delivery(2).stage) == (DeliveryStage.PENDING, DeliveryStage.DELIVERED)
    assert context.delivery().last_error.startswith("[node.tls] certificate = '/nothing/node.pem'")
    assert context.delivery().next_attempt_at == context.clock() + timedelta(
        seconds=2 * (1 - 0.25 * Random(0).random())
    )


def test_a_failure_that_nobody_thought_of_postpones_its_own_delivery_and_is_given_up_at_last(
    workflow: WorkflowFactory, peer: PeerFactory
) -> None:
    pacs = peer()
    context = workflow(peers=peers(pacs.port), node=quick())
    context.report()
    context.report()
    path = context.files.path(context.delivery().file)
    path.unlink()
    path.mkdir()
    assert deliver(context.context) == 1
    assert (context.delivery().stage, context.delivery().last_error) == (DeliveryStage.PENDING, "Is a directory")
    context.clock.advance(72 * 3600)
    assert deliver(context.context) == 0
    assert (context.delivery().stage, context.delivery().last_error) == (
        DeliveryStage.DEAD, "given up after 72 h: Is a directory",
    )  # fmt: skip


def test_a_destination_that_is_away_is_tried_once_a_round_and_the_others_get_their_reports(
    workflow: WorkflowFactory, peer: PeerFactory
) -> None:
    pacs, away = peer(), {"AWAY": {"ae_title": "AWAY", "host": "127.0.0.1", "port": free_port()}}
    context = workflow(peers=peers(pacs.port) | away, node=quick())
    for destination in ("AWAY", "AWAY", "PACS", "AWAY", "PACS"):
        context.report([destination])
    assert deliver(context.context) == 2
    assert [context.delivery(case).attempts for case in (1, 2, 3, 4, 5)] == [1, 0, 1, 0, 1]
    assert deliver(context.context) == 0
    assert [context.delivery(case).attempts for case in (1, 2, 4)] == [1, 1, 0]  # what was tried waits its turn


def test_once_the_node_stops_nothing_more_is_begun(workflow: WorkflowFactory) -> None:
    context = workflow(peers=peers(free_port()))
    context.report()
    context.context.stopping.set()
    assert deliver(context.context) == 0
    assert context.delivery().attempts == 0
    context.keep(ct_series(3), closed=None)
    assert context.settle_after(3600) == 0
    context.context.stopping.clear()
    assert settle(context.context) == 1


def test_a_delivery_that_another_sender_holds_is_left_to_it(workflow: WorkflowFactory, peer: PeerFactory) -> None:
    pacs = peer()
    context = workflow(peers=peers(pacs.port), node=quick())
    context.report()
    assert context.store.outbox.due.claim(context.clock(), timedelta(seconds=60)) is not None
    assert deliver(context.context) == 0
    context.clock.advance(60)
    assert deliver(context.context) == 1


@pytest.mark.parametrize(
    ("attempts", "jitter", "seconds"),
    [
        (1, 0.0, 2.0), (2, 0.0, 4.0), (3, 0.0, 8.0), (9, 0.0, 512.0), (10, 0.0, 600.0), (11, 0.0, 600.0),
        (10_000, 0.0, 600.0), (1, 1.0, 1.5), (1, 0.5, 1.75), (50, 1.0, 450.0),
    ],
)  # fmt: skip
def test_the_wait_doubles_up_to_its_maximum_and_is_shortened_by_up_to_a_quarter(
    attempts: int, jitter: float, seconds: float
) -> None:
    assert Backoff(2.0, 600.0).after(attempts, jitter) == pytest.approx(seconds)


def test_a_day_of_attempts_fits_into_the_backoff() -> None:
    waited, attempts = 0.0, 0
    while waited < 24 * 3600:
        attempts += 1
        waited += Backoff(2.0, 600.0).after(attempts, 0.5)
    assert 100 < attempts < 250
