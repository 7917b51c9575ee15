"""One round of attempts at what is due; the same for deliveries, commitments and the results of commitment requests."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial

from node.errors import Unavailable, safe_message
from node.runtime import log
from node.workflow.context import Context
from storage.queries.due import Due, Record


def each_due(
    context: Context,
    due: Due[Record],
    lease: timedelta,
    attempt: Callable[[Context, Record], bool],
    postpone: Callable[[Context, Record, str], None],
) -> int:
    """Each that is due was attempted once; returns how many attempts succeeded.

    `postpone` gets the message of what `attempt` raised.  A peer that cannot be had is asked for nothing else in this
    round: its timeouts must not hold up the others.  Where the database fails, whatever the peer said, the attempt does not
    count, and is made again after the `lease`.
    """
    succeeded, away = 0, set[str]()
    while not context.stopping.is_set() and (claimed := due.claim(context.clock(), lease, away)):
        with context.holding(partial(due.give_back, claimed)):
            try:
                succeeded += attempt(context, claimed)
            except Exception as error:  # noqa: BLE001  the edge: whatever it is, the others go on
                if due.is_of_database(error):
                    log.get().error("attempt_not_recorded", peer=claimed.peer, error=type(error).__name__)
                    due.give_back(claimed, context.clock() + lease)
                    continue
                if isinstance(error, Unavailable):
                    away.add(claimed.peer)
                postpone(context, claimed, safe_message(error))
    return succeeded
