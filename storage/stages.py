"""The state machines of a series and of a delivery: everything that may change a stage is in these two tables.

    RECEIVING ──SETTLED──▶ READY ──CLAIMED──▶ ANALYSING ──REPORTED──▶ REPORTED
        │                    ▲                  │   └────EXHAUSTED──▶ FAILED
        └─SET_ASIDE▶ SET_ASIDE └──GIVEN_BACK─────┘

RECEIVED (a slice that is new) leads from every stage back to RECEIVING; outside RECEIVING it is a late slice, which
raises the revision and voids a claim.  RETRIED (a person asks) leads from every end back to READY as a new revision.

    PENDING ──ACCEPTED──▶ DELIVERED ──COMMITTED──▶ COMMITTED
      │  ▲                 │   │
      │  └──UNCOMMITTED────┘   │
      └─────────REFUSED────────┴──▶ DEAD ──REQUEUED──▶ PENDING

DELIVERED is the end where the destination offers no storage commitment; where it does, only COMMITTED is.
"""

from enum import StrEnum

from storage.errors import IllegalTransition


class Stage(StrEnum):
    """Where a series stands."""

    RECEIVING = "receiving"
    READY = "ready"
    ANALYSING = "analysing"
    REPORTED = "reported"
    SET_ASIDE = "set_aside"
    FAILED = "failed"


class Event(StrEnum):
    """What happens to a series."""

    RECEIVED = "received"
    SETTLED = "settled"
    SET_ASIDE = "set_aside"
    CLAIMED = "claimed"
    GIVEN_BACK = "given_back"
    REPORTED = "reported"
    EXHAUSTED = "exhausted"
    RETRIED = "retried"


class Outcome(StrEnum):
    """What came of a series.  Only NEGATIVE says that no aneurysm was found."""

    POSITIVE = "positive"
    NEGATIVE = "negative"
    NOT_ANALYSED = "not_analysed"
    NOT_ELIGIBLE = "not_eligible"
    COVERED = "covered"


class DeliveryStage(StrEnum):
    """Where a report stands on its way to one destination.  DEAD waits for a person."""

    PENDING = "pending"
    DELIVERED = "delivered"
    """The destination answered success to the C-STORE."""
    COMMITTED = "committed"
    """The destination has promised to keep it (PS3.4 annex J)."""
    DEAD = "dead"


class DeliveryEvent(StrEnum):
    """What happens to a delivery."""

    ACCEPTED = "accepted"
    COMMITTED = "committed"
    UNCOMMITTED = "uncommitted"
    POSTPONED = "postponed"
    REFUSED = "refused"
    REQUEUED = "requeued"


_SERIES: dict[Event, dict[Stage, Stage]] = {
    Event.RECEIVED: dict.fromkeys(Stage, Stage.RECEIVING),
    Event.SETTLED: {Stage.RECEIVING: Stage.READY},
    Event.SET_ASIDE: {Stage.RECEIVING: Stage.SET_ASIDE},
    Event.CLAIMED: {Stage.READY: Stage.ANALYSING},
    Event.GIVEN_BACK: {Stage.ANALYSING: Stage.READY},
    Event.REPORTED: {Stage.ANALYSING: Stage.REPORTED},
    Event.EXHAUSTED: {Stage.ANALYSING: Stage.FAILED},
    Event.RETRIED: dict.fromkeys((Stage.REPORTED, Stage.SET_ASIDE, Stage.FAILED), Stage.READY),
}

_DELIVERY: dict[DeliveryEvent, dict[DeliveryStage, DeliveryStage]] = {
    DeliveryEvent.ACCEPTED: {DeliveryStage.PENDING: DeliveryStage.DELIVERED},
    DeliveryEvent.COMMITTED: {DeliveryStage.DELIVERED: DeliveryStage.COMMITTED},
    DeliveryEvent.UNCOMMITTED: {DeliveryStage.DELIVERED: DeliveryStage.PENDING},
    DeliveryEvent.POSTPONED: {DeliveryStage.PENDING: DeliveryStage.PENDING},
    DeliveryEvent.REFUSED: dict.fromkeys((DeliveryStage.PENDING, DeliveryStage.DELIVERED), DeliveryStage.DEAD),
    DeliveryEvent.REQUEUED: {DeliveryStage.DEAD: DeliveryStage.PENDING},
}


def advance(stage: Stage, event: Event) -> Stage:
    """Return the stage after `event`.  Raises IllegalTransition, changing nothing."""
    try:
        return _SERIES[event][stage]
    except KeyError:
        raise IllegalTransition(stage, event) from None


def sources(event: Event) -> tuple[Stage, ...]:
    """The stages in which `event` is allowed: what a compare-and-set compares with."""
    return tuple(_SERIES[event])


def advance_delivery(stage: DeliveryStage, event: DeliveryEvent) -> DeliveryStage:
    """Return the delivery's stage after `event`.  Raises IllegalTransition, changing nothing."""
    try:
        return _DELIVERY[event][stage]
    except KeyError:
        raise IllegalTransition(stage, event) from None
