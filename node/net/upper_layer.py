"""The life of an association in two tables, one for each side (PS3.8 9.2, tables 9-1 to 9-10); no I/O.

An acceptor waits for a request, decides on it and then serves until the peer asks for release.  A requestor connects,
asks, and releases when it has what it wanted:

    IDLE ─▶ AWAITING_REQUEST ─A-ASSOCIATE-RQ─▶ DECIDING ─▶ ESTABLISHED ─A-RELEASE-RQ─▶ RELEASE_REQUESTED ─┐
                                                                                        AWAITING_CLOSE ◀──┘
    IDLE ─▶ CONNECTING ─▶ AWAITING_ANSWER ─A-ASSOCIATE-AC─▶ ESTABLISHED ─▶ AWAITING_RELEASE ─A-RELEASE-RP─▶ IDLE

Either side may ask for release, and both may at once.  Then both requests cross, and the one who had requested the
association answers first (COLLISION_…): nobody waits for the other.

Whatever goes wrong ends in one of three ways, the same in every state between the request and the end:
- the peer sends what it may not: A-ABORT goes out, from the provider and with the reason (AA-8), and the connection is
  given a moment to be closed by the peer (AWAITING_CLOSE);
- we want no more: A-ABORT goes out, from the user (AA-1), and the same moment passes;
- the peer aborts (AA-3) or the connection is gone (AA-4): nothing is left to send.

Who drives a table does four things for each event: look up the step, send what the action sends, close the connection
when it says so, go on in the new state.  While `ARTIM_RUNS` for the state, the timer of PS3.8 9.1.5 runs.  A P-DATA-TF
that came is for the layer above (DT-2, AR-6).  What the tables do not hold cannot happen, or is a fault of ours:
`IllegalEvent`.  In AWAITING_CLOSE a driver may throw away unread whatever still comes: AA-7's second A-ABORT tells the
peer nothing new.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum


class Pdu(IntEnum):
    """The types of PDUs (PS3.8 9.3.1)."""

    A_ASSOCIATE_RQ = 0x01
    A_ASSOCIATE_AC = 0x02
    A_ASSOCIATE_RJ = 0x03
    P_DATA_TF = 0x04
    A_RELEASE_RQ = 0x05
    A_RELEASE_RP = 0x06
    A_ABORT = 0x07


class State(Enum):
    """Where an association stands; the values are the Standard's names (PS3.8 tables 9-1 to 9-5)."""

    IDLE = "Sta1"
    AWAITING_REQUEST = "Sta2"
    DECIDING = "Sta3"
    CONNECTING = "Sta4"
    AWAITING_ANSWER = "Sta5"
    ESTABLISHED = "Sta6"
    AWAITING_RELEASE = "Sta7"
    RELEASE_REQUESTED = "Sta8"
    COLLISION_OF_REQUESTOR = "Sta9"
    COLLISION_OF_ACCEPTOR = "Sta10"
    COLLISION_ANSWERED = "Sta11"
    """The requestor has answered and waits for the acceptor's answer."""
    COLLISION_CONFIRMED = "Sta12"
    """The acceptor has the requestor's answer and owes its own."""
    AWAITING_CLOSE = "Sta13"


class Event(Enum):
    """What happens; the first word is the Standard's name (PS3.8 table 9-10).  SEND_… is our wish, the rest happens to us."""

    CONNECT = "Evt1 an association is wanted"
    CONNECTED = "Evt2 our connection is open"
    A_ASSOCIATE_AC = "Evt3"
    A_ASSOCIATE_RJ = "Evt4"
    CONNECTION_CAME = "Evt5 a peer has opened a connection"
    A_ASSOCIATE_RQ = "Evt6"
    OTHER_VERSION = "Evt6 A-ASSOCIATE-RQ of a protocol version that is not ours"
    SEND_ACCEPT = "Evt7"
    SEND_REJECT = "Evt8"
    SEND_DATA = "Evt9"
    P_DATA_TF = "Evt10"
    SEND_RELEASE = "Evt11"
    A_RELEASE_RQ = "Evt12"
    A_RELEASE_RP = "Evt13"
    SEND_RELEASE_RESPONSE = "Evt14"
    SEND_ABORT = "Evt15"
    A_ABORT = "Evt16"
    CLOSED = "Evt17 the connection is closed"
    ARTIM_EXPIRED = "Evt18"
    UNRECOGNIZED_PDU = "Evt19 a PDU of unknown type"
    INVALID_PDU = "Evt19 a PDU that says what it may not"


@dataclass(frozen=True)
class Action:
    """What a step does (PS3.8 tables 9-6 to 9-9): the PDU that is sent, and whether we close the connection."""

    name: str
    sends: Pdu | None = None
    closes: bool = False


@dataclass(frozen=True)
class Step:
    """An action, and the state after it.  `abort` is source and reason of the A-ABORT that it sends (PS3.8 9.3.8)."""

    action: Action
    state: State
    abort: tuple[int, int] | None = None


class IllegalEvent(Exception):
    """The event cannot happen in this state, or this side may not want it; nothing has changed."""


Row = dict[Event, tuple[Action, State]]
Table = Mapping[State, Row]

ARTIM_RUNS = frozenset({State.AWAITING_REQUEST, State.AWAITING_CLOSE})
VERSION_NOT_SUPPORTED = (1, 2, 2)
"""Result, source and reason of the A-ASSOCIATE-RJ after OTHER_VERSION: permanent, by the provider (PS3.8 9.3.4)."""

BY_USER, BY_PROVIDER = 0, 2
_NOT_SIGNIFICANT, _UNRECOGNIZED, _UNEXPECTED, _INVALID_VALUE = 0, 1, 2, 6
_REASONS = {Event.UNRECOGNIZED_PDU: _UNRECOGNIZED, Event.INVALID_PDU: _INVALID_VALUE}
"""Of an abort by the provider; every other event is a PDU that is fine, but not now."""

_SENT = {
    "AE-2": Pdu.A_ASSOCIATE_RQ, "AE-7": Pdu.A_ASSOCIATE_AC, "AE-8": Pdu.A_ASSOCIATE_RJ,
    "DT-1": Pdu.P_DATA_TF, "AR-7": Pdu.P_DATA_TF,
    "AR-1": Pdu.A_RELEASE_RQ, "AR-4": Pdu.A_RELEASE_RP, "AR-9": Pdu.A_RELEASE_RP,
    "AA-1": Pdu.A_ABORT, "AA-7": Pdu.A_ABORT, "AA-8": Pdu.A_ABORT,
}  # fmt: skip
_CLOSING = {"AE-4", "AR-3", "AR-5", "AA-2", "AA-3", "AA-4", "AA-5"}


def _does(name: str, after: State) -> tuple[Action, State]:
    """A cell of a table: the Standard's action, and the state after it."""
    return Action(name, _SENT.get(name), name in _CLOSING), after


_PDUS = (
    Event.A_ASSOCIATE_RQ, Event.OTHER_VERSION, Event.A_ASSOCIATE_AC, Event.A_ASSOCIATE_RJ, Event.P_DATA_TF,
    Event.A_RELEASE_RQ, Event.A_RELEASE_RP, Event.UNRECOGNIZED_PDU, Event.INVALID_PDU,
)  # fmt: skip
_IGNORED_AT_THE_END = (
    Event.A_ASSOCIATE_AC, Event.A_ASSOCIATE_RJ, Event.P_DATA_TF, Event.A_RELEASE_RQ, Event.A_RELEASE_RP,
)  # fmt: skip


_ENDS: Row = {
    **dict.fromkeys(_PDUS, _does("AA-8", State.AWAITING_CLOSE)),
    Event.SEND_ABORT: _does("AA-1", State.AWAITING_CLOSE),
    Event.A_ABORT: _does("AA-3", State.IDLE),
    Event.CLOSED: _does("AA-4", State.IDLE),
}
"""What the states between request and end have in common, where they say nothing else: either side may end it."""
_WITHOUT_ENDS = (State.IDLE, State.AWAITING_REQUEST, State.CONNECTING, State.AWAITING_CLOSE)


def _of_side(collision: State, rows: Table) -> Table:
    """The table with these rows, those of both sides, and the ends.  `collision`: where both ask for release."""
    of_both: Table = {
        State.ESTABLISHED: {
            Event.P_DATA_TF: _does("DT-2", State.ESTABLISHED),
            Event.SEND_DATA: _does("DT-1", State.ESTABLISHED),
            Event.A_RELEASE_RQ: _does("AR-2", State.RELEASE_REQUESTED),
            Event.SEND_RELEASE: _does("AR-1", State.AWAITING_RELEASE),
        },
        State.RELEASE_REQUESTED: {
            Event.SEND_DATA: _does("AR-7", State.RELEASE_REQUESTED),
            Event.SEND_RELEASE_RESPONSE: _does("AR-4", State.AWAITING_CLOSE),
        },
        State.AWAITING_RELEASE: {
            Event.P_DATA_TF: _does("AR-6", State.AWAITING_RELEASE),
            Event.A_RELEASE_RP: _does("AR-3", State.IDLE),
            Event.A_RELEASE_RQ: _does("AR-8", collision),
        },
        State.AWAITING_CLOSE: {
            **dict.fromkeys(_PDUS, _does("AA-7", State.AWAITING_CLOSE)),
            **dict.fromkeys(_IGNORED_AT_THE_END, _does("AA-6", State.AWAITING_CLOSE)),
            Event.A_ABORT: _does("AA-2", State.IDLE),
            Event.ARTIM_EXPIRED: _does("AA-2", State.IDLE),
            Event.CLOSED: _does("AR-5", State.IDLE),
        },
    }
    return {state: row if state in _WITHOUT_ENDS else {**_ENDS, **row} for state, row in {**rows, **of_both}.items()}


ACCEPTOR: Table = _of_side(
    State.COLLISION_OF_ACCEPTOR,
    {
        State.IDLE: {Event.CONNECTION_CAME: _does("AE-5", State.AWAITING_REQUEST)},
        State.AWAITING_REQUEST: {
            **dict.fromkeys(_PDUS, _does("AA-1", State.AWAITING_CLOSE)),
            Event.A_ASSOCIATE_RQ: _does("AE-6", State.DECIDING),
            Event.OTHER_VERSION: (Action("AE-6", Pdu.A_ASSOCIATE_RJ), State.AWAITING_CLOSE),
            Event.A_ABORT: _does("AA-2", State.IDLE),
            Event.ARTIM_EXPIRED: _does("AA-2", State.IDLE),
            Event.CLOSED: _does("AA-5", State.IDLE),
        },
        State.DECIDING: {
            Event.SEND_ACCEPT: _does("AE-7", State.ESTABLISHED),
            Event.SEND_REJECT: _does("AE-8", State.AWAITING_CLOSE),
        },
        State.COLLISION_OF_ACCEPTOR: {Event.A_RELEASE_RP: _does("AR-10", State.COLLISION_CONFIRMED)},
        State.COLLISION_CONFIRMED: {Event.SEND_RELEASE_RESPONSE: _does("AR-4", State.AWAITING_CLOSE)},
    },
)
"""The side that was called."""

REQUESTOR: Table = _of_side(
    State.COLLISION_OF_REQUESTOR,
    {
        State.IDLE: {Event.CONNECT: _does("AE-1", State.CONNECTING)},
        State.CONNECTING: {
            Event.CONNECTED: _does("AE-2", State.AWAITING_ANSWER),
            Event.SEND_ABORT: _does("AA-2", State.IDLE),
            Event.CLOSED: _does("AA-4", State.IDLE),
        },
        State.AWAITING_ANSWER: {
            Event.A_ASSOCIATE_AC: _does("AE-3", State.ESTABLISHED),
            Event.A_ASSOCIATE_RJ: _does("AE-4", State.IDLE),
        },
        State.COLLISION_OF_REQUESTOR: {Event.SEND_RELEASE_RESPONSE: _does("AR-9", State.COLLISION_ANSWERED)},
        State.COLLISION_ANSWERED: {Event.A_RELEASE_RP: _does("AR-3", State.IDLE)},
    },
)
"""The side that calls."""


def advance(table: Table, state: State, event: Event) -> Step:
    """The step that `event` makes in `state`.  Raises IllegalEvent, changing nothing."""
    found = table.get(state, {}).get(event)
    if found is None:
        raise IllegalEvent(f"{event.name} in {state.name}")
    action, after = found
    return Step(action, after, _abort(action, event) if action.sends is Pdu.A_ABORT else None)


def _abort(action: Action, event: Event) -> tuple[int, int]:
    if action.name == "AA-1":
        return BY_USER, _NOT_SIGNIFICANT
    return BY_PROVIDER, _REASONS.get(event, _UNEXPECTED)
