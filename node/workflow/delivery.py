"""The outbox is emptied: each report reaches its destination, or becomes a dead letter that a person sees."""

from datetime import timedelta
from functools import partial

from node.audit.recording import asking, sending
from node.dicom.commitment import new_transaction_uid
from node.errors import Refused, Unavailable, safe_message
from node.runtime import log
from node.runtime.backoff import backoff_seconds
from node.scu import dimse, storage_scu, stow
from node.workflow.context import Context
from storage.errors import Damaged
from storage.killpoints import kill_point
from storage.records import Delivery


def deliver(context: Context) -> int:
    """Every delivery that is due was tried once; returns how many were accepted.

    A destination that cannot take one now gets no other in this round: its timeouts must not hold up the others.
    """
    accepted = 0
    lease = timedelta(seconds=3 * context.config.node.network_timeout_seconds)
    outbox, away = context.store.outbox, set[str]()
    while not context.stopping.is_set() and (delivery := outbox.claim_due(context.clock(), lease, away)):
        with context.holding(partial(outbox.give_back, delivery)):
            try:
                accepted += _deliver_one(context, delivery)
            except Unavailable as error:
                _postpone(context, delivery, str(error))
                away.add(delivery.destination)
    return accepted


def _deliver_one(context: Context, delivery: Delivery) -> bool:
    """Whether the destination has it.  Raises Unavailable when it cannot be had now."""
    settings, logger = context.config.node, log.get().bind(case=delivery.series_id, destination=delivery.destination)
    timeouts = dimse.timeouts(settings)
    peer = context.config.peers.get(delivery.destination)
    try:
        if peer is None:
            raise Refused(f"[peers.{delivery.destination}] is not configured")
        context.files.verify(delivery.file)
        path = context.files.path(delivery.file)
        with sending(context.trail, context.clock, peer, path):
            if peer.url:
                asked = partial(asking, context.trail, context.clock, peer)
                word = stow.deliver(peer, timeouts, settings.tls, path, asked)
            else:
                word = storage_scu.deliver(dimse.entity(settings.ae_title, timeouts, settings.tls), peer, path)
    except (Refused, Damaged) as error:
        context.store.outbox.refused(delivery, str(error))
        logger.error("delivery_refused", error=str(error), attempts=delivery.attempts)
        return False
    except Unavailable:
        raise
    except Exception as error:  # noqa: BLE001  the edge: whatever it is, the other deliveries go on
        _postpone(context, delivery, safe_message(error))
        return False
    kill_point("after_acceptance")
    transaction_uid = new_transaction_uid(context.random) if peer.storage_commitment else None
    context.store.outbox.accepted(delivery, context.clock(), transaction_uid)
    logger.info("delivery_accepted", status=word, attempts=delivery.attempts)
    return True


def _postpone(context: Context, delivery: Delivery, error: str) -> None:
    """The delivery is due again later, or a dead letter after `give_up_hours`."""
    settings, now = context.config.delivery, context.clock()
    logger = log.get().bind(case=delivery.series_id, destination=delivery.destination, attempts=delivery.attempts)
    if now - delivery.created_at >= timedelta(hours=settings.give_up_hours):
        context.store.outbox.refused(delivery, f"given up after {settings.give_up_hours:g} h: {error}")
        logger.error("delivery_given_up", error=error)
        return
    seconds = backoff_seconds(
        delivery.attempts, settings.first_retry_seconds, settings.maximum_retry_seconds, context.random.random()
    )
    context.store.outbox.postponed(delivery, error, now + timedelta(seconds=seconds))
    logger.warning("delivery_postponed", error=error, next_attempt_seconds=round(seconds, 1))
