"""What a crash or a clock that was set back left behind is due again."""

from datetime import timedelta

from node.runtime import log
from node.runtime.processes import LEASE_SLACK_SECONDS, has_died
from node.workflow.context import Context
from node.workflow.uploads import LEASE as UPLOAD_LEASE

_SLACK = timedelta(seconds=LEASE_SLACK_SECONDS)
_NOTIFIED_WITHIN = timedelta(hours=49)
"""A day of `after_minutes`, one of quiet hours, and the hour by which clocks are changed."""


def rescue(context: Context) -> int:
    """What a dead worker held is ready again: at once on this host, else after its lease; returns how many."""
    _after_the_clock_was_set_back(context)
    queue = context.store.queue
    returned = queue.expire(context.clock(), timedelta(seconds=context.config.ai.time_limit_seconds) + _SLACK)
    returned += sum(queue.give_back(worker, refund=False) for worker in queue.claimants() if has_died(worker))
    if returned:
        log.get().warning("claims_given_back", count=returned)
        context.wake_worker()
    return returned


def _after_the_clock_was_set_back(context: Context) -> None:
    """Nothing waits for a time that the clock, set back meanwhile, will show only much later."""
    now, delivery, store = context.clock(), context.config.delivery, context.store
    longest = max(timedelta(seconds=delivery.maximum_retry_seconds), context.lease)
    answered = max(longest + _SLACK, timedelta(seconds=delivery.commitment_timeout_seconds))
    changed = store.settling.stamp_anew(context.clock) + store.outbox.due.hasten(now, longest)
    changed += store.commitments.due.hasten(now, answered) + store.commitment_requests.due.hasten(now, answered)
    changed += store.notifications.due.hasten(now, _NOTIFIED_WITHIN)
    changed += store.uploads.hasten(now, UPLOAD_LEASE + longest, leased=True)
    if changed:
        log.get().warning("clock_was_set_back", count=changed)
