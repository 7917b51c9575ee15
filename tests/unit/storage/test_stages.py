from itertools import product

import pytest

from storage.errors import IllegalTransition
from storage.stages import DeliveryEvent, DeliveryStage, Event, Stage, advance, advance_delivery, sources

LEGAL = {
    **{(stage, Event.RECEIVED): Stage.RECEIVING for stage in Stage},
    (Stage.RECEIVING, Event.SETTLED): Stage.READY,
    (Stage.RECEIVING, Event.SET_ASIDE): Stage.SET_ASIDE,
    (Stage.READY, Event.CLAIMED): Stage.ANALYSING,
    (Stage.ANALYSING, Event.GIVEN_BACK): Stage.READY,
    (Stage.ANALYSING, Event.REPORTED): Stage.REPORTED,
    (Stage.ANALYSING, Event.EXHAUSTED): Stage.FAILED,
    (Stage.REPORTED, Event.RETRIED): Stage.READY,
    (Stage.SET_ASIDE, Event.RETRIED): Stage.READY,
    (Stage.FAILED, Event.RETRIED): Stage.READY,
}
LEGAL_DELIVERY = {
    (DeliveryStage.PENDING, DeliveryEvent.ACCEPTED): DeliveryStage.DELIVERED,
    (DeliveryStage.PENDING, DeliveryEvent.POSTPONED): DeliveryStage.PENDING,
    (DeliveryStage.PENDING, DeliveryEvent.REFUSED): DeliveryStage.DEAD,
    (DeliveryStage.DELIVERED, DeliveryEvent.COMMITTED): DeliveryStage.COMMITTED,
    (DeliveryStage.DELIVERED, DeliveryEvent.UNCOMMITTED): DeliveryStage.PENDING,
    (DeliveryStage.DELIVERED, DeliveryEvent.REFUSED): DeliveryStage.DEAD,
    (DeliveryStage.DEAD, DeliveryEvent.REQUEUED): DeliveryStage.PENDING,
}


@pytest.mark.parametrize(("stage", "event"), sorted(product(Stage, Event)))
def test_every_series_transition_is_in_the_table_or_raises(stage: Stage, event: Event) -> None:
    if (stage, event) in LEGAL:
        assert advance(stage, event) is LEGAL[stage, event]
    else:
        with pytest.raises(IllegalTransition, match=f"{stage.value}.*{event.value}"):
            advance(stage, event)


@pytest.mark.parametrize(("stage", "event"), sorted(product(DeliveryStage, DeliveryEvent)))
def test_every_delivery_transition_is_in_the_table_or_raises(stage: DeliveryStage, event: DeliveryEvent) -> None:
    if (stage, event) in LEGAL_DELIVERY:
        assert advance_delivery(stage, event) is LEGAL_DELIVERY[stage, event]
    else:
        with pytest.raises(IllegalTransition, match=f"{stage.value}.*{event.value}"):
            advance_delivery(stage, event)


@pytest.mark.parametrize("event", Event)
def test_sources_of_an_event_are_the_stages_in_which_it_is_legal(event: Event) -> None:
    assert set(sources(event)) == {stage for stage, legal in LEGAL if legal is event}


def test_every_stage_can_be_reached_and_none_is_a_trap() -> None:
    reached = {Stage.RECEIVING}
    while further := {after for (before, _), after in LEGAL.items() if before in reached} - reached:
        reached |= further
    assert reached == set(Stage)
    assert {before for (before, event) in LEGAL if event is not Event.RECEIVED} == set(Stage)
