"""The verbs of storage commitment: ask destinations, tell those who asked us.  Safe to repeat and to be killed in."""

import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from pynetdicom import evt
from pynetdicom.sop_class import StorageCommitmentPushModel

from node.config.peer import Peer
from node.dicom import commitment
from node.dicom.commitment import CONTEXTS, INSTANCE_UID, Item, Result
from node.errors import Refused, Unavailable
from node.runtime import log
from node.scp.commitment_scp import CommitmentReports, result_of
from node.scu import dimse, storage_scu
from node.workflow.context import Context
from node.workflow.due import each_due
from storage.records import Commitment, CommitmentRequest

SAME_ASSOCIATION_SECONDS = 2.0
"""How long an answer may come on the association on which it was asked for; most come on another one."""
_MESSAGE_ID = 1


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
        item = (storage_scu.identify(context.files.path(delivery.file))[0], delivery.sop_instance_uid)
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
    answered = threading.Event()

    def on_report(event: Any) -> tuple[int, None]:
        status = reports.on_event_report(event)
        answered.set()
        return status

    ae = dimse.entity(context.config.node.ae_title, dimse.timeouts(context.config.node), context.config.node.tls)
    assoc = dimse.associate(ae, peer, CONTEXTS, [(evt.EVT_N_EVENT_REPORT, on_report)])
    try:
        status, _ = assoc.send_n_action(
            commitment.request_dataset(due.transaction_uid, [item]),
            commitment.REQUEST, StorageCommitmentPushModel, INSTANCE_UID, _MESSAGE_ID,
        )  # fmt: skip
        if "Status" not in status:
            raise Unavailable("storage commitment: no answer: the association ended or timed out")
        commitment.judge(int(status.Status))
        now = context.clock()
        context.store.commitments.asked(
            due, now, now + timedelta(seconds=context.config.delivery.commitment_timeout_seconds)
        )
        log.get().info("commitment_asked", case=due.delivery.series_id, destination=due.delivery.destination)
        answered.wait(SAME_ASSOCIATION_SECONDS)
    except RuntimeError:
        raise Unavailable("the association ended") from None
    finally:
        dimse.end(assoc)


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
    _send_result(context, found[1], result)
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


def _send_result(context: Context, peer: Peer, result: Result) -> None:
    """The peer has the result, on an association of its own.  Raises Unavailable, Refused."""
    ae = dimse.entity(context.config.node.ae_title, dimse.timeouts(context.config.node), context.config.node.tls)
    roles: Sequence[str] = [StorageCommitmentPushModel]
    assoc = dimse.associate(ae, peer, CONTEXTS, scp_roles=roles)
    try:
        status, _ = assoc.send_n_event_report(
            commitment.result_dataset(result),
            result.event_type, StorageCommitmentPushModel, INSTANCE_UID, _MESSAGE_ID,
        )  # fmt: skip
    except RuntimeError:
        raise Unavailable("the association ended") from None
    finally:
        dimse.end(assoc)
    if "Status" not in status or int(status.Status) != 0x0000:
        said = f"status 0x{int(status.Status):04X}" if "Status" in status else "no answer"
        raise Unavailable(f"storage commitment result: {said}")
