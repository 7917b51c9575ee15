"""What a crash or a clock that was set back left behind is due again."""

from datetime import timedelta

from node.runtime import log
from node.runtime.processes import LEASE_SLACK_SECONDS, has_died
from node.workflow.context import Context


def rescue(context: Context) -> int:
    """What a dead worker held is ready again: at once on this host, else after its lease; returns how many."""
    _after_the_clock_was_set_back(context)
    queue = context.store.queue
    returned = queue.expire(
        context.clock(), timedelta(seconds=context.config.ai.time_limit_seconds + LEASE_SLACK_SECONDS)
    )
    returned += sum(queue.give_back(worker, refund=False) for worker in queue.claimants() if has_died(worker))
    if returned:
        log.get().warning("claims_given_back", count=returned)
        context.wake_worker()
    return returned


def _after_the_clock_was_set_back(context: Context) -> None:
    """Nothing waits for a time that the clock, set back meanwhile, will show only much later."""
    now, node, delivery, store = context.clock(), context.config.node, context.config.delivery, context.store
    longest_seconds = max(delivery.maximum_retry_seconds, 3 * node.network_timeout_seconds)
    answered_seconds = max(longest_seconds + LEASE_SLACK_SECONDS, delivery.commitment_timeout_seconds)
    changed = store.settling.stamp_anew(now) + store.outbox.hasten(now, timedelta(seconds=longest_seconds))
    for waiting in (store.commitments, store.commitment_requests):
        changed += waiting.hasten(now, timedelta(seconds=answered_seconds))
    if changed:
        log.get().warning("clock_was_set_back", count=changed)
