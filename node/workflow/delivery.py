"""The outbox is emptied: each report reaches its destination, or becomes a dead letter that a person sees."""

from datetime import timedelta
from functools import partial

from node.audit.recording import asking, sending
from node.dicom.commitment import new_transaction_uid
from node.errors import Refused, Unavailable, told
from node.runtime import log
from node.runtime.backoff import backoff_seconds
from node.scu import dimse, storage_scu, stow
from node.workflow.context import Desk
from storage.errors import Damaged
from storage.killpoints import here
from storage.records import Delivery


def deliver(desk: Desk) -> int:
    """Every delivery that is due was tried once; returns how many were accepted.

    A destination that cannot take one now gets no other in this round: its timeouts must not hold up the others.
    """
    accepted = 0
    lease = timedelta(seconds=3 * desk.config.node.network_timeout_seconds)
    outbox, away = desk.store.outbox, set[str]()
    while not desk.stopping.is_set() and (delivery := outbox.claim_due(desk.clock(), lease, away)):
        with desk.holding(partial(outbox.give_back, delivery)):
            try:
                accepted += _deliver_one(desk, delivery)
            except Unavailable as error:
                _postpone(desk, delivery, str(error))
                away.add(delivery.destination)
    return accepted


def _deliver_one(desk: Desk, delivery: Delivery) -> bool:
    """Whether the destination has it.  Raises Unavailable when it cannot be had now."""
    settings, logger = desk.config.node, log.get().bind(case=delivery.series_id, destination=delivery.destination)
    timeouts = dimse.timeouts(settings)
    peer = desk.config.peers.get(delivery.destination)
    try:
        if peer is None:
            raise Refused(f"[peers.{delivery.destination}] is not configured")
        desk.files.verify(delivery.file)
        path = desk.files.path(delivery.file)
        with sending(desk.trail, desk.clock, peer, path):
            if peer.url:
                asked = partial(asking, desk.trail, desk.clock, peer)
                word = stow.deliver(peer, timeouts, settings.tls, path, asked)
            else:
                word = storage_scu.deliver(dimse.entity(settings.ae_title, timeouts, settings.tls), peer, path)
    except (Refused, Damaged) as error:
        desk.store.outbox.refused(delivery, str(error))
        logger.error("delivery_refused", error=str(error), attempts=delivery.attempts)
        return False
    except Unavailable:
        raise
    except Exception as error:  # noqa: BLE001  the edge: whatever it is, the other deliveries go on
        _postpone(desk, delivery, told(error))
        return False
    here("after_acceptance")
    transaction_uid = new_transaction_uid(desk.random) if peer.storage_commitment else None
    desk.store.outbox.accepted(delivery, desk.clock(), transaction_uid)
    logger.info("delivery_accepted", status=word, attempts=delivery.attempts)
    return True


def _postpone(desk: Desk, delivery: Delivery, error: str) -> None:
    """The delivery is due again later, or a dead letter after `give_up_hours`."""
    settings, now = desk.config.delivery, desk.clock()
    logger = log.get().bind(case=delivery.series_id, destination=delivery.destination, attempts=delivery.attempts)
    if now - delivery.created_at >= timedelta(hours=settings.give_up_hours):
        desk.store.outbox.refused(delivery, f"given up after {settings.give_up_hours:g} h: {error}")
        logger.error("delivery_given_up", error=error)
        return
    seconds = backoff_seconds(
        delivery.attempts, settings.first_retry_seconds, settings.maximum_retry_seconds, desk.random.random()
    )
    desk.store.outbox.postponed(delivery, error, now + timedelta(seconds=seconds))
    logger.warning("delivery_postponed", error=error, next_attempt_seconds=round(seconds, 1))
