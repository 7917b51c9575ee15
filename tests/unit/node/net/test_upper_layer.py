"""The two tables of an association's life, against the Standard's as pynetdicom has it, and what every abort says."""

import pytest
from pynetdicom.fsm import TRANSITION_TABLE

from node.net.upper_layer import (
    ACCEPTOR,
    ARTIM_RUNS,
    REQUESTOR,
    Event,
    IllegalEvent,
    Pdu,
    State,
    Step,
    Table,
    advance,
)

BOTH = pytest.mark.parametrize("table", [ACCEPTOR, REQUESTOR], ids=["acceptor", "requestor"])
LIVING = set(State) - {State.IDLE, State.AWAITING_REQUEST, State.CONNECTING, State.AWAITING_CLOSE}
OF_THE_OTHER_SIDE = {
    "acceptor": {"Sta4", "Sta5", "Sta9", "Sta11"},
    "requestor": {"Sta2", "Sta3", "Sta10", "Sta12"},
}


def walk(table: Table, *events: Event) -> list[Step]:
    steps, state = list[Step](), State.IDLE
    for event in events:
        steps.append(advance(table, state, event))
        state = steps[-1].state
    return steps


def names(steps: list[Step]) -> list[str]:
    return [step.action.name for step in steps]


@pytest.mark.parametrize(("side", "table"), [("acceptor", ACCEPTOR), ("requestor", REQUESTOR)])
def test_a_table_has_the_standards_action_in_every_cell_of_its_side(side: str, table: Table) -> None:
    ours = {
        (event.value.split()[0], state.value): action.name
        for state, row in table.items()
        for event, (action, _) in row.items()
    }
    theirs = {
        (event, state): action
        for (event, state), action in TRANSITION_TABLE.items()
        if state not in OF_THE_OTHER_SIDE[side] and (event, state) != ({"acceptor": "Evt1"}.get(side, "Evt5"), "Sta1")
    }
    assert ours == theirs


@BOTH
def test_every_state_that_is_reached_has_a_row_and_every_row_is_reached(table: Table) -> None:
    reached = {after for row in table.values() for _, after in row.values()} | {State.IDLE}
    assert reached == set(table)


@BOTH
def test_the_timer_runs_where_the_table_lets_it_expire(table: Table) -> None:
    assert {state for state, row in table.items() if Event.ARTIM_EXPIRED in row} == ARTIM_RUNS & set(table)


@BOTH
def test_every_end_of_the_connection_leads_to_idle_and_nothing_else_does(table: Table) -> None:
    for state, row in table.items():
        for event, (action, after) in row.items():
            gone = action.closes
            assert gone == (after is State.IDLE), f"{event} in {state}"
            assert not (gone and action.sends), f"{event} in {state}"


def test_an_acceptor_that_is_released_answers_and_waits_for_the_end() -> None:
    steps = walk(
        ACCEPTOR, Event.CONNECTION_CAME, Event.A_ASSOCIATE_RQ, Event.SEND_ACCEPT, Event.P_DATA_TF, Event.SEND_DATA,
        Event.A_RELEASE_RQ, Event.SEND_RELEASE_RESPONSE, Event.CLOSED,
    )  # fmt: skip
    assert [step.action.sends for step in steps] == [
        None, None, Pdu.A_ASSOCIATE_AC, None, Pdu.P_DATA_TF, None, Pdu.A_RELEASE_RP, None,
    ]  # fmt: skip
    assert names(steps) == ["AE-5", "AE-6", "AE-7", "DT-2", "DT-1", "AR-2", "AR-4", "AR-5"]
    assert steps[-1].state is State.IDLE


def test_a_requestor_closes_when_its_release_is_answered() -> None:
    steps = walk(
        REQUESTOR, Event.CONNECT, Event.CONNECTED, Event.A_ASSOCIATE_AC, Event.SEND_DATA, Event.P_DATA_TF,
        Event.SEND_RELEASE, Event.P_DATA_TF, Event.A_RELEASE_RP,
    )  # fmt: skip
    assert names(steps) == ["AE-1", "AE-2", "AE-3", "DT-1", "DT-2", "AR-1", "AR-6", "AR-3"]
    assert steps[-1].action.closes


def test_when_both_ask_for_release_the_requestor_answers_first_and_both_get_an_answer() -> None:
    requestor = [Event.CONNECT, Event.CONNECTED, Event.A_ASSOCIATE_AC, Event.SEND_RELEASE]
    acceptor = [Event.CONNECTION_CAME, Event.A_ASSOCIATE_RQ, Event.SEND_ACCEPT, Event.SEND_RELEASE]
    of_requestor = walk(REQUESTOR, *requestor, Event.A_RELEASE_RQ, Event.SEND_RELEASE_RESPONSE, Event.A_RELEASE_RP)
    of_acceptor = walk(
        ACCEPTOR, *acceptor, Event.A_RELEASE_RQ, Event.A_RELEASE_RP, Event.SEND_RELEASE_RESPONSE, Event.CLOSED
    )
    assert names(of_requestor)[4:] == ["AR-8", "AR-9", "AR-3"]
    assert names(of_acceptor)[4:] == ["AR-8", "AR-10", "AR-4", "AR-5"]


@BOTH
def test_a_pdu_that_is_fine_but_not_now_is_aborted_by_the_provider_as_unexpected(table: Table) -> None:
    for state in LIVING & set(table):
        step = advance(table, state, Event.A_ASSOCIATE_RQ)
        assert (step.action.name, step.abort, step.state) == ("AA-8", (2, 2), State.AWAITING_CLOSE), state


@BOTH
@pytest.mark.parametrize(("event", "reason"), [(Event.UNRECOGNIZED_PDU, 1), (Event.INVALID_PDU, 6)])
def test_a_pdu_that_cannot_be_understood_is_aborted_by_the_provider_with_that_reason(
    table: Table, event: Event, reason: int
) -> None:
    for state in LIVING & set(table):
        assert advance(table, state, event).abort == (2, reason), state


@BOTH
def test_our_own_abort_names_the_user_as_its_source(table: Table) -> None:
    for state in LIVING & set(table):
        step = advance(table, state, Event.SEND_ABORT)
        assert (step.action.sends, step.abort) == (Pdu.A_ABORT, (0, 0)), state


@BOTH
def test_nothing_is_sent_when_the_peer_aborts_or_is_gone(table: Table) -> None:
    for state, row in table.items():
        for event in (Event.A_ABORT, Event.CLOSED):
            if event in row:
                step = advance(table, state, event)
                assert (step.action.sends, step.abort, step.state) == (None, None, State.IDLE)


@pytest.mark.parametrize("event", [Event.A_RELEASE_RQ, Event.P_DATA_TF, Event.A_ASSOCIATE_AC, Event.UNRECOGNIZED_PDU])
def test_whoever_does_not_begin_with_a_request_is_aborted(event: Event) -> None:
    steps = walk(ACCEPTOR, Event.CONNECTION_CAME, event)
    assert (steps[-1].action.name, steps[-1].abort) == ("AA-1", (0, 0))


def test_a_request_of_another_protocol_version_is_rejected_without_a_decision() -> None:
    step = walk(ACCEPTOR, Event.CONNECTION_CAME, Event.OTHER_VERSION)[-1]
    assert (step.action.sends, step.state) == (Pdu.A_ASSOCIATE_RJ, State.AWAITING_CLOSE)


@pytest.mark.parametrize(
    ("table", "state", "event"),
    [
        (ACCEPTOR, State.AWAITING_REQUEST, Event.SEND_DATA),
        (ACCEPTOR, State.ESTABLISHED, Event.SEND_ACCEPT),
        (ACCEPTOR, State.AWAITING_CLOSE, Event.SEND_ABORT),
        (ACCEPTOR, State.IDLE, Event.CONNECT),
        (REQUESTOR, State.ESTABLISHED, Event.SEND_RELEASE_RESPONSE),
        (REQUESTOR, State.AWAITING_RELEASE, Event.SEND_DATA),
        (REQUESTOR, State.DECIDING, Event.SEND_ACCEPT),
    ],
)
def test_what_a_side_may_not_do_is_a_fault_that_is_named(table: Table, state: State, event: Event) -> None:
    with pytest.raises(IllegalEvent, match=f"{event.name} in {state.name}"):
        advance(table, state, event)


def test_every_type_of_pdu_is_an_event() -> None:
    assert {kind: Event[kind.name].name for kind in Pdu} == {kind: kind.name for kind in Pdu}
