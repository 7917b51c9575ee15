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
from node.workflow.due import each_due
from storage.records import Commitment, CommitmentRequest

SAME_ASSOCIATION_SECONDS = 2.0
"""How long an answer may come on the association on which it was asked for; most come on another one."""


def ask(context: Context) -> int:
    """Every commitment that is due was asked for once; returns how many the destinations took on."""
    return each_due(context, context.store.commitments.due, _lease(context), _ask_one, _postpone)


def _lease(context: Context) -> timedelta:
    return context.lease + timedelta(seconds=SAME_ASSOCIATION_SECONDS)


def _ask_one(context: Context, due: Commitment) -> bool:
    """Whether the destination took it on.  What it raises postpones the request."""
    delivery, commitments, now = due.delivery, context.store.commitments, context.clock()
    logger = log.get().bind(case=delivery.series_id, destination=delivery.destination, attempts=due.attempts)
    peer = context.config.peers.get(delivery.destination)
    if peer is None or not peer.storage_commitment:
        commitments.dropped(due)
        return False
    if now - delivery.created_at >= timedelta(hours=context.config.delivery.give_up_hours):
        commitments.refused(due, f"accepted, but not committed within {context.config.delivery.give_up_hours:g} h")
        logger.error("commitment_given_up")
        return False
    if due.asked_at is not None:
        commitments.renewed(due, "commitment: no answer in time", commitment.new_transaction_uid(context.random), now)
        logger.warning("commitment_unanswered")
        return False
    reports = CommitmentReports(context.config, context.store, context.clock)
    try:
        item = (Outgoing.read(context.files.path(delivery.file)).sop_class_uid, delivery.sop_instance_uid)
        _request(context, peer, due, item, reports)
    except Refused as error:
        commitments.refused(due, str(error))
        logger.error("commitment_refused", error=str(error))
        return False
    return True


def _postpone(context: Context, due: Commitment, error: str) -> None:
    context.store.commitments.postponed(due, error, context.clock() + context.retry_after(due.attempts))
    logger = log.get().bind(case=due.delivery.series_id, destination=due.delivery.destination, attempts=due.attempts)
    logger.warning("commitment_postponed", error=error)


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
    return each_due(context, context.store.commitment_requests.due, _lease(context), _tell_one, _postpone_result)


def _tell_one(context: Context, due: CommitmentRequest) -> bool:
    """Whether the asker has the result.  What it raises postpones it."""
    found = context.config.peer_named(due.calling_ae)
    if found is None:
        raise Refused(f"{due.calling_ae} is no configured peer: no address to send the result to")
    result = result_of(due, context.store, context.files, context.clock())
    commitment_scu.send_result(dimse.our_entity(context.config.node), found[1], result)
    context.store.commitment_requests.answered(due, context.clock())
    _logger(due).info("commitment_result_sent", count=len(result.failed))
    return True


def _postpone_result(context: Context, due: CommitmentRequest, error: str) -> None:
    """It is due again later; not where its asker has no address, nor after `give_up_hours`."""
    now = context.clock()
    is_late = now - due.created_at >= timedelta(hours=context.config.delivery.give_up_hours)
    if is_late or context.config.peer_named(due.calling_ae) is None:
        context.store.commitment_requests.postponed(due, error, None)
        _logger(due).warning("commitment_result_given_up", error=error)
        return
    context.store.commitment_requests.postponed(due, error, now + context.retry_after(due.attempts))
    _logger(due).warning("commitment_result_postponed", error=error)


def _logger(due: CommitmentRequest) -> Any:
    return log.get().bind(calling_ae=due.calling_ae, attempts=due.attempts, instances=len(due.instances))
