"""The verbs of storage commitment: ask destinations, tell those who asked us.  Safe to repeat and to be killed in."""

import threading
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from pynetdicom import evt
from pynetdicom.sop_class import StorageCommitmentPushModel

from node.config.peer import Peer
from node.dicom import commitment
from node.dicom.commitment import CONTEXTS, INSTANCE_UID, Item, Result
from node.errors import Refused, Unavailable, safe_message
from node.runtime import log
from node.runtime.backoff import backoff_seconds
from node.scp.commitment_scp import Settler, result_of
from node.scu import dimse, storage_scu
from node.workflow.context import Context
from storage.records import Commitment, CommitmentRequest

SAME_ASSOCIATION_SECONDS = 2.0
"""How long an answer may come on the association on which it was asked for; most come on another one."""
_MESSAGE_ID = 1


def ask(context: Context) -> int:
    """Every commitment that is due was asked for once; returns how many the destinations took on.

    A destination that cannot be had is asked for nothing else in this round: its timeouts must not hold up the others.
    """
    taken = 0
    commitments, away = context.store.commitments, set[str]()
    while not context.stopping.is_set() and (due := commitments.claim_due(context.clock(), _lease(context), away)):
        with context.holding(partial(commitments.give_back, due)):
            taken += _ask_one(context, due, away)
    return taken


def _lease(context: Context) -> timedelta:
    return timedelta(seconds=3 * context.config.node.network_timeout_seconds + SAME_ASSOCIATION_SECONDS)


def _ask_one(context: Context, due: Commitment, away: set[str]) -> bool:
    """Whether the destination took it on; one that cannot be had now is one of those `away`."""
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
    settle = Settler(context.config, context.store, context.clock)
    try:
        item = (storage_scu.identify(context.files.path(delivery.file))[0], delivery.sop_instance_uid)
        _request(context, peer, due, item, settle)
    except Refused as error:
        commitments.refused(due, str(error))
        logger.error("commitment_refused", error=str(error))
        return False
    except Exception as error:  # noqa: BLE001  the edge: whatever it is, the other commitments go on
        if isinstance(error, Unavailable):
            away.add(delivery.destination)
        commitments.postponed(due, safe_message(error), now + _wait(context, due.attempts))
        logger.warning("commitment_postponed", error=safe_message(error))
        return False
    return True


def _request(context: Context, peer: Peer, due: Commitment, item: Item, settle: "Settler") -> None:
    """The destination has the request, and some time to answer at once.  Raises Unavailable, Refused."""
    answered = threading.Event()

    def on_report(event: Any) -> tuple[int, None]:
        status = settle.on_event_report(event)
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


def _wait(context: Context, attempts: int) -> timedelta:
    settings = context.config.delivery
    return timedelta(
        seconds=backoff_seconds(
            attempts, settings.first_retry_seconds, settings.maximum_retry_seconds, context.random.random()
        )
    )


def tell(context: Context) -> int:
    """Every result that is due was sent once to whoever asked; returns how many arrived.

    Who cannot be reached is sent nothing else in this round.  Who refuses is told again, as if he could not be reached:
    he waits for it, and a person would not see that he does.
    """
    sent = 0
    requests, away = context.store.commitment_requests, set[str]()
    while not context.stopping.is_set() and (due := requests.claim_due(context.clock(), _lease(context), away)):
        with context.holding(partial(requests.give_back, due)):
            sent += _tell_one(context, due, away)
    return sent


def _tell_one(context: Context, due: CommitmentRequest, away: set[str]) -> bool:
    """Whether the result arrived; who cannot be reached now is one of those `away`."""
    logger = log.get().bind(calling_ae=due.calling_ae, attempts=due.attempts, instances=len(due.instances))
    found = context.config.peer_named(due.calling_ae)
    try:
        if found is None:
            raise Refused(f"{due.calling_ae} is no configured peer: no address to send the result to")
        result = result_of(due, context.store, context.files, context.clock())
        _send_result(context, found[1], result)
    except Exception as error:  # noqa: BLE001  the edge: whatever it is, the other results go on
        if isinstance(error, Unavailable):
            away.add(due.calling_ae)
        age = context.clock() - due.created_at
        gives_up = found is None or age >= timedelta(hours=context.config.delivery.give_up_hours)
        again_at = None if gives_up else context.clock() + _wait(context, due.attempts)
        context.store.commitment_requests.postponed(due, safe_message(error), again_at)
        logger.warning(
            "commitment_result_given_up" if gives_up else "commitment_result_postponed", error=safe_message(error)
        )
        return False
    context.store.commitment_requests.answered(due, context.clock())
    logger.info("commitment_result_sent", count=len(result.failed))
    return True


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
