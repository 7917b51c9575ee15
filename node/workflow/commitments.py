"""The verbs of storage commitment: ask destinations, tell those who asked us.  Safe to repeat and to be killed in."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from pydicom import Dataset

from node.config.peer import Peer
from node.dicom import commitment
from node.dicom.commitment import Item
from node.errors import Refused
from node.runtime import log
from node.scp.commitment_scp import CommitmentReports, result_of
from node.scu import commitment_scu, dimse
from node.scu.outgoing import Outgoing
from node.workflow.context import Context
from node.workflow.due import Attempts, each_due, is_too_old
from storage.records import Commitment, CommitmentRequest

SAME_ASSOCIATION_SECONDS = 2.0
"""How long an answer may come on the association on which it was asked for; most come on another one."""


def ask(context: Context) -> int:
    """Every commitment that is due was asked for once; returns how many the destinations took on."""
    return each_due(context, context.store.commitments, _COMMITMENTS, _lease(context))


def _lease(context: Context) -> timedelta:
    return context.lease + timedelta(seconds=SAME_ASSOCIATION_SECONDS)


def _ask_one(context: Context, due: Commitment) -> bool:
    """Whether the destination took it on."""
    delivery, commitments, logger = due.delivery, context.store.commitments, _logger(due)
    peer = context.config.peers.get(delivery.destination)
    if peer is None or not peer.storage_commitment:
        commitments.dropped(due)
        return False
    if is_too_old(context, due):
        _give_up(context, due)
        return False
    if due.asked_at is not None:
        transaction_uid = commitment.new_transaction_uid(context.random)
        commitments.renewed(due, "commitment: no answer in time", transaction_uid, context.clock())
        logger.warning("commitment_unanswered")
        return False
    reports = CommitmentReports(context.config, context.store, context.clock)
    try:
        item = (Outgoing.read(context.files.here(delivery.file)).sop_class_uid, delivery.sop_instance_uid)
        _request(context, peer, due, item, reports)
    except Refused as error:
        commitments.refused(due, str(error))
        logger.error("commitment_refused", error=str(error))
        return False
    return True


def _give_up(context: Context, due: Commitment, _error: str = "") -> None:
    hours = context.config.delivery.give_up_hours
    context.store.commitments.refused(due, f"accepted, but not committed within {hours:g} h")
    _logger(due).error("commitment_given_up")


def _logger(due: Commitment) -> Any:
    delivery = due.delivery
    return log.get().bind(case=delivery.series_id, destination=delivery.destination, attempts=due.attempts)


_COMMITMENTS = Attempts("commitment", _ask_one, _give_up, _logger)


def _request(context: Context, peer: Peer, due: Commitment, item: Item, reports: CommitmentReports) -> None:
    """The destination has the request, and some time to answer at once.  Raises Unavailable, Refused."""
    statuses = list[int]()

    def on_report(event_type: int, information: Callable[[], Dataset]) -> int:
        statuses.append(reports.take(peer.ae_title, event_type, information))
        return statuses[-1]

    entity = dimse.our_entity(context.config.node)
    with dimse.associate(entity, peer, commitment.CONTEXTS, on_report=on_report) as assoc:
        commitment_scu.request(assoc, due.transaction_uid, [item])
        now = context.clock()
        context.store.commitments.asked(
            due, now, now + timedelta(seconds=context.config.delivery.commitment_timeout_seconds)
        )
        log.get().info("commitment_asked", case=due.delivery.series_id, destination=due.delivery.destination)
        assoc.listen(SAME_ASSOCIATION_SECONDS, lambda: bool(statuses))


def tell(context: Context) -> int:
    """Every result that is due was sent once to whoever asked; returns how many the askers took.

    Who refuses it is sent it again, as if he could not be reached: he waits for it, and no person would see that he does.
    """
    return each_due(context, context.store.commitment_requests, _RESULTS, _lease(context))


def _tell_one(context: Context, due: CommitmentRequest) -> bool:
    """Whether the asker has the result."""
    found = context.config.peer_named(due.calling_ae)
    if found is None:
        _give_up_result(context, due, f"{due.calling_ae} is no configured peer: no address to send the result to")
        return False
    result = result_of(due, context.store, context.files, context.clock())
    commitment_scu.send_result(dimse.our_entity(context.config.node), found[1], result)
    context.store.commitment_requests.answered(due, context.clock())
    _result_logger(due).info("commitment_result_sent", count=len(result.failed))
    return True


def _give_up_result(context: Context, due: CommitmentRequest, error: str) -> None:
    context.store.commitment_requests.postponed(due, error, None)
    _result_logger(due).warning("commitment_result_given_up", error=error)


def _result_logger(due: CommitmentRequest) -> Any:
    return log.get().bind(calling_ae=due.calling_ae, attempts=due.attempts, instances=len(due.instances))


_RESULTS = Attempts("commitment_result", _tell_one, _give_up_result, _result_logger)
