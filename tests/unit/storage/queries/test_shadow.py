"""What a second bundle has to answer, and what becomes of its attempts."""

from datetime import timedelta

import pytest

from storage.queries.retention import Why
from storage.queries.reviews import Action, Wanted
from storage.queries.shadow import Bundles, ShadowClaim, ShadowStage
from storage.records import Conclusion, LesionRecord
from storage.stages import Outcome
from storage.store import Store
from tests.support.builders import FakeClock, claimed, conclusion, finish, received, reported

LEASE = timedelta(minutes=5)
FIRST = conclusion(Outcome.POSITIVE)
SECOND = Bundles("a" * 64, "2.0", FIRST.model)
LESION = LesionRecord("left_mca", 0.8, (1.0, 2.0, 3.0), 4.0)
ANSWER = Conclusion(
    Outcome.POSITIVE, model="2.0", probabilities=(0.1,) * 13 + (0.7,), lesions=(LESION,), notify=True, threshold=0.5
)


def begun(store: Store, clock: FakeClock, bundles: Bundles = SECOND) -> ShadowClaim:
    claim = store.shadows.begin(bundles, clock(), LEASE)
    assert claim is not None
    return claim


def stages(store: Store) -> list[ShadowStage]:
    return [each.stage for each in store.shadows.answers()]


def test_it_answers_what_the_first_bundle_has_reported_once(store: Store, clock: FakeClock) -> None:
    assert store.shadows.begin(SECOND, clock(), LEASE) is None
    reported(store, clock)
    claim = begun(store, clock)
    assert (claim.series.id, claim.attempt) == (1, 1)
    assert store.shadows.begin(SECOND, clock(), LEASE) is None, "another worker has no right to it meanwhile"
    before = store.worklist.rows(), store.worklist.deliveries(1)
    assert store.shadows.end(claim, ANSWER)
    assert (store.worklist.rows(), store.worklist.deliveries(1)) == before
    [answer] = store.shadows.answers()
    assert (answer.stage, answer.first_present, answer.first_model) == (ShadowStage.ANSWERED, True, FIRST.model)
    assert (answer.outcome, answer.notify, answer.p_present, answer.model) == ("positive", True, 0.7, "2.0")
    assert answer.lesions[0]["centre_lps_mm"] == [1.0, 2.0, 3.0]
    clock.advance(3600)
    assert store.shadows.begin(SECOND, clock(), LEASE) is None
    assert begun(store, clock, Bundles("b" * 64, "2.0", FIRST.model)), "another bundle has not answered it"


@pytest.mark.parametrize("why", ["not analysed", "of another model", "long ago"])
def test_it_does_not_answer_what_is(why: str, store: Store, clock: FakeClock) -> None:
    reported(store, clock, Outcome.NOT_ANALYSED if why == "not analysed" else Outcome.NEGATIVE)
    bundles = Bundles("a" * 64, "2.0", "another" if why == "of another model" else FIRST.model)
    clock.advance(8 * 86_400 if why == "long ago" else 0)
    assert store.shadows.begin(bundles, clock(), LEASE) is None


def test_whoever_is_received_or_ready_is_waited_for(store: Store, clock: FakeClock) -> None:
    assert not store.shadows.somebody_waits()
    received(store, clock)
    assert store.shadows.somebody_waits()


def test_a_bundle_that_ends_its_process_does_so_once_in_a_lease_and_not_once_for_each_report(
    store: Store, clock: FakeClock
) -> None:
    for series in ("2.25.1", "2.25.2"):
        reported(store, clock, series=series)
    begun(store, clock)
    assert store.shadows.begin(SECOND, clock(), LEASE) is None
    clock.advance(LEASE.total_seconds() + 1)
    assert begun(store, clock).attempt == 2


def test_an_attempt_that_gave_way_does_not_count_and_one_that_failed_is_made_again_three_times(
    store: Store, clock: FakeClock
) -> None:
    reported(store, clock)
    store.shadows.give_back(begun(store, clock), clock())
    for attempt, pause in ((1, 60), (2, 240), (3, 0)):
        claim = begun(store, clock)
        assert claim.attempt == attempt
        store.shadows.fail(claim, clock(), "ValueError")
        clock.advance(pause - 1)
        assert store.shadows.begin(SECOND, clock(), LEASE) is None
        clock.advance(2)
    assert stages(store) == [ShadowStage.FAILED]


def test_an_attempt_whose_process_died_is_made_again_after_its_lease(store: Store, clock: FakeClock) -> None:
    reported(store, clock)
    for attempt in (1, 2, 3):
        assert begun(store, clock).attempt == attempt
        clock.advance(LEASE.total_seconds())
    assert store.shadows.begin(SECOND, clock(), LEASE) is None
    assert stages(store) == [ShadowStage.FAILED]


def test_what_retention_has_removed_is_settled(store: Store, clock: FakeClock) -> None:
    assert finish(store, clock, claimed(store, clock), destinations=())
    store.shadows.fail(begun(store, clock), clock(), "OSError")
    clock.advance(86_400)
    removal = store.retention.begin(1, Why.AGE, clock(), clock())
    assert removal is not None and store.retention.forget(removal, clock())
    assert store.shadows.begin(SECOND, clock(), LEASE) is None
    assert stages(store) == [ShadowStage.GONE]


def test_an_answer_to_a_report_that_has_a_successor_is_settled_without_it(store: Store, clock: FakeClock) -> None:
    reported(store, clock)
    claim = begun(store, clock)
    assert store.queue.retry(1)
    assert not store.shadows.end(claim, ANSWER)
    assert stages(store) == [ShadowStage.GONE]


def test_what_people_last_said_of_the_findings_is_beside_the_answer(store: Store, clock: FakeClock) -> None:
    assert finish(store, clock, claimed(store, clock), lesions=(LESION,))
    store.shadows.end(begun(store, clock), ANSWER)
    for version, action in enumerate((Action.REJECTED, Action.ACCEPTED)):
        reason = "artefact" if action is Action.REJECTED else ""
        store.reviews.change(Wanted(1, version, action, "dr.a", finding=1, reason=reason), clock())
    assert [each.verdicts for each in store.shadows.answers()] == [{1: True}]
