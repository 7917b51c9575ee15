"""The outbox is emptied: each report reaches its destination, or becomes a dead letter that a person sees."""

from datetime import timedelta
from typing import Any

from node.audit.recording import sending
from node.dicom.commitment import new_transaction_uid
from node.errors import Refused
from node.runtime import log
from node.scu.outgoing import Outgoing
from node.scu.remote import remote_of
from node.workflow.context import Context
from node.workflow.due import Attempts, each_due
from storage.errors import Damaged
from storage.killpoints import kill_point
from storage.records import Delivery


def deliver(context: Context) -> int:
    """Every delivery that is due was tried once; returns how many were accepted."""
    return each_due(context, context.store.outbox, _DELIVERIES, context.lease)


def _deliver_one(context: Context, delivery: Delivery) -> bool:
    """Whether the destination has it."""
    logger = _logger(delivery)
    peer = context.config.peers.get(delivery.destination)
    try:
        if peer is None:
            raise Refused(f"[peers.{delivery.destination}] is not configured")
        context.files.verify(delivery.file)
        outgoing = Outgoing.read(context.files.here(delivery.file))
        with sending(context.trail, context.clock, peer, outgoing.study):
            word = remote_of(context.config, peer, context.trail, context.clock).deliver(outgoing)
    except (Refused, Damaged) as error:
        if isinstance(error, Damaged) and context.files.is_elsewhere(
            delivery.file
        ):  # a host that has it can deliver it
            raise
        context.store.outbox.refused(delivery, str(error))
        logger.error("delivery_refused", error=str(error))
        return False
    kill_point("after_acceptance")
    transaction_uid = new_transaction_uid(context.random) if peer.storage_commitment else None
    context.store.outbox.accepted(delivery, context.clock(), transaction_uid)
    logger.info("delivery_accepted", status=word)
    return True


def _give_up(context: Context, delivery: Delivery, error: str) -> None:
    context.store.outbox.refused(delivery, f"given up after {context.config.delivery.give_up_hours:g} h: {error}")
    _logger(delivery).error("delivery_given_up", error=error)


def _logger(delivery: Delivery) -> Any:
    """For lines that say which object went where: of several of one case each has its own."""
    return log.get().bind(
        case=delivery.series_id,
        revision=delivery.revision,
        delivery=delivery.kind,
        destination=delivery.destination,
        attempts=delivery.attempts,
    )


_DELIVERIES = Attempts("delivery", _deliver_one, _give_up, _logger, renewed=timedelta(seconds=30))
