import pytest
from sqlalchemy import text

from storage.database.schema import PROBABILITY_COLUMNS
from storage.queries.worklist import Clock
from storage.stages import DeliveryStage, Event, Outcome, Stage
from storage.store import Store
from tests.support.builders import (
    LEASE,
    PROBABILITIES,
    SERIES_UID,
    FakeClock,
    add,
    claimed,
    finish,
    header,
    ready,
    received,
    reported,
    series_now,
)

# Other programs rely on these names: columns are added at will, never renamed or removed.
COLUMNS = [
    "case_id",
    "priority",
    "patient_id",
    "issuer_of_patient_id",
    "patient_name",
    "accession_number",
    "study_date",
    "modality",
    "series_description",
    "study_instance_uid",
    "series_instance_uid",
    "calling_ae",
    "instance_count",
    "stage",
    "outcome",
    "reason",
    "detail",
    "evidence",
    "conflicts",
    "revision",
    "attempts",
    "p_left_infraclinoid_ica",
    "p_right_infraclinoid_ica",
    "p_left_supraclinoid_ica",
    "p_right_supraclinoid_ica",
    "p_left_mca",
    "p_right_mca",
    "p_acom",
    "p_left_aca",
    "p_right_aca",
    "p_left_pcom",
    "p_right_pcom",
    "p_basilar_tip",
    "p_other_posterior",
    "p_present",
    "top_location",
    "diameter_mm",
    "lesions",
    "model",
    "report_uid",
    "report_path",
    "delivery",
    "first_instance_at",
    "last_instance_at",
    "ready_at",
    "claimed_at",
    "reported_at",
    "delivered_at",
    "volume_seconds",
    "inference_seconds",
    "report_seconds",
    "committed_at",
    "limits",
    "notify",
    "acknowledged_at",
    "acknowledged_by",
    "assigned_to",
    "threshold",
]


def test_the_views_columns_are_stable(store: Store) -> None:
    with store.transactions.reading() as session:
        in_database = list(session.execute(text("SELECT * FROM worklist")).keys())
    assert in_database == COLUMNS
    assert [name for name in COLUMNS if name.startswith("p_")] == list(PROBABILITY_COLUMNS)


def test_an_empty_worklist_is_empty(store: Store) -> None:
    assert store.worklist.rows() == []
    assert store.worklist.case("1") is None


def test_a_row_tells_who_and_what(store: Store, clock: FakeClock) -> None:
    received(store, clock, issuer_of_patient_id="HOSPITAL A", study_date="20261123")
    [row] = store.worklist.rows()
    assert list(row) == COLUMNS
    expected = {
        "case_id": 1, "priority": 3, "patient_id": "P-0001", "issuer_of_patient_id": "HOSPITAL A",
        "patient_name": "Doe^Jane", "accession_number": "A-77", "study_date": "20261123", "modality": "CT",
        "series_description": "CTA 0.75", "study_instance_uid": "2.25.1001", "series_instance_uid": SERIES_UID,
        "calling_ae": "PACS", "instance_count": 3, "stage": "receiving", "conflicts": [], "revision": 1, "attempts": 0,
        "first_instance_at": clock(), "last_instance_at": clock(),
    }  # fmt: skip
    assert {key: row[key] for key in expected} == expected
    assert {key for key in COLUMNS if key not in expected and row[key] not in (None, "")} == set()


def test_what_limits_an_answer_and_whether_it_is_worth_an_alert_are_on_the_worklist(
    store: Store, clock: FakeClock
) -> None:
    for number, (limits, notify) in enumerate([("noise", True), ("", False)], start=1):
        finish(store, clock, claimed(store, clock, series=f"2.25.{number}"), limits=limits, notify=notify)
    reported(store, clock, Outcome.NOT_ANALYSED, series="2.25.3")
    rows = {row["series_instance_uid"]: (row["limits"], row["notify"]) for row in store.worklist.rows()}
    assert rows == {"2.25.1": ("noise", True), "2.25.2": (None, False), "2.25.3": (None, None)}
    assert [type(notify) for _, notify in rows.values()].count(bool) == 2  # SQLite keeps numbers


def test_conflicts_are_on_the_worklist(store: Store, clock: FakeClock) -> None:
    add(store, clock, header(1))
    add(store, clock, header(1), content="other")
    assert store.worklist.rows()[0]["conflicts"] == ["instances_differ"]


def test_the_most_urgent_come_first(store: Store, clock: FakeClock) -> None:
    def aside(uid: str, outcome: Outcome) -> None:
        series = received(store, clock, series=uid)
        store.settling.leave(series, Event.SET_ASIDE, "quiet", clock(), outcome, "x")

    aside("2.25.1", Outcome.NOT_ELIGIBLE)
    reported(store, clock, Outcome.NEGATIVE, series="2.25.2")
    received(store, clock, series="2.25.3")
    reported(store, clock, Outcome.NOT_ANALYSED, series="2.25.4")
    clock.advance(1)
    for uid, probability in (("2.25.5", 0.7), ("2.25.6", 0.99), ("2.25.7", 0.7)):
        claim = claimed(store, clock, series=uid)
        finish(store, clock, claim, probabilities=(0.1,) * 13 + (probability,))
        clock.advance(1)
    aside("2.25.8", Outcome.COVERED)
    rows = store.worklist.rows()
    assert [row["series_instance_uid"][-1] for row in rows] == ["6", "5", "7", "4", "3", "2", "1", "8"]
    assert [row["priority"] for row in rows] == [1, 1, 1, 2, 3, 4, 5, 5]
    assert [row["case_id"] for row in store.worklist.rows(2)] == [row["case_id"] for row in rows[:2]]


@pytest.mark.parametrize("reach", [received, ready, claimed])
def test_what_is_still_at_work_comes_before_what_is_negative(store: Store, clock: FakeClock, reach: object) -> None:
    reported(store, clock, Outcome.NEGATIVE, series="2.25.1")
    assert callable(reach)
    reach(store, clock)
    assert [row["priority"] for row in store.worklist.rows()] == [3, 4]


def test_a_case_is_found_by_number_series_or_report(store: Store, clock: FakeClock) -> None:
    reported(store, clock, series="2.25.1")
    reported(store, clock)
    for case in ("2", SERIES_UID, "2.25.77.2.1"):
        row = store.worklist.case(case)
        assert row is not None, case
        assert row["case_id"] == 2


@pytest.mark.parametrize("case", ["3", "", "2.25", "99999999999999999999", "'; DROP TABLE series; --", "-1"])
def test_an_unknown_case_is_none(store: Store, clock: FakeClock, case: str) -> None:
    reported(store, clock)
    assert store.worklist.case(case) is None


@pytest.mark.parametrize(
    ("ends", "state"),
    [
        (("pending", "pending"), "pending"),
        (("delivered", "pending"), "pending"),
        (("delivered", "delivered"), "delivered"),
        (("dead", "delivered"), "dead"),
        (("dead", "pending"), "dead"),
    ],
)
def test_the_delivery_state_is_the_worst_of_all_destinations(
    store: Store, clock: FakeClock, ends: tuple[str, str], state: str
) -> None:
    claim = claimed(store, clock)
    assert finish(store, clock, claim, destinations=ends)
    for _ in ends:
        delivery = store.outbox.due.claim(clock(), LEASE)
        assert delivery is not None
        if delivery.destination == "delivered":
            store.outbox.accepted(delivery, clock())
        if delivery.destination == "dead":
            store.outbox.refused(delivery, "x")
    [row] = store.worklist.rows()
    assert row["delivery"] == state
    assert row["delivered_at"] == (clock() if "delivered" in ends else None)


def test_the_status_of_an_empty_node_is_empty(store: Store) -> None:
    status = store.worklist.status()
    assert (status.stages, status.deliveries, status.errors, status.clocks) == ({}, {}, (), ())
    assert status.oldest_ready_at is status.oldest_pending_at is None


def test_the_status_counts_and_names_the_oldest(store: Store, clock: FakeClock) -> None:
    first = clock()
    ready(store, clock, series="2.25.1")
    clock.advance(1)
    ready(store, clock, series="2.25.2")
    received(store, clock, series="2.25.3")
    status = store.worklist.status()
    assert status.stages == {Stage.READY: 2, Stage.RECEIVING: 1}
    assert status.oldest_ready_at == first
    claim = store.queue.claim("w", clock(), LEASE, 3)
    assert claim is not None
    pending_since = clock.advance(1)
    finish(store, clock, claim)
    clock.advance(1)
    reported(store, clock)
    status = store.worklist.status()
    assert status.deliveries == {DeliveryStage.PENDING: 2}
    assert status.oldest_pending_at == pending_since


def test_the_status_shows_the_last_five_errors_newest_first(store: Store, clock: FakeClock) -> None:
    for number in range(7):
        reported(store, clock, series=f"2.25.{number}")
        delivery = store.outbox.due.claim(clock(), LEASE)
        assert delivery is not None
        store.outbox.refused(delivery, f"status {number}")
    errors = store.worklist.status().errors
    assert [error for _, error in errors] == [f"PACS: status {number}" for number in (6, 5, 4, 3, 2)]
    assert errors[0][0] == clock()


def test_the_status_tells_where_the_time_of_a_delivered_case_went(store: Store, clock: FakeClock) -> None:
    series = received(store, clock)
    clock.advance(2)
    store.settling.leave(series, Event.SETTLED, "anatomy", clock())
    clock.advance(3)
    claim = store.queue.claim("w", clock(), LEASE, 3)
    assert claim is not None
    clock.advance(5)
    finish(store, clock, claim)
    assert store.worklist.status().clocks == ()
    delivery = store.outbox.due.claim(clock.advance(0.5), LEASE)
    assert delivery is not None
    store.outbox.accepted(delivery, clock.advance(0.5))
    assert store.worklist.status().clocks == (
        Clock(settle=2.0, wait=3.0, volume=1.5, inference=2.5, report=0.25, delivery=1.0, total=11.0),
    )


def test_clocks_are_those_of_the_last_cases_newest_first(store: Store, clock: FakeClock) -> None:
    for number in range(3):
        reported(store, clock, series=f"2.25.{number}")
        delivery = store.outbox.due.claim(clock(), LEASE)
        assert delivery is not None
        store.outbox.accepted(delivery, clock.advance(number + 1))
    assert [each.total for each in store.worklist.status(last=2).clocks] == [3.0, 2.0]


def test_readers_do_not_wait_for_a_writer(store: Store, clock: FakeClock) -> None:
    reported(store, clock)
    with store.transactions.writing() as session:
        session.execute(text("UPDATE series SET reason = 'x'"))
        assert store.worklist.rows()[0]["reason"] == ""
        assert len(store.worklist.status().stages) == 1
    assert store.worklist.rows()[0]["reason"] == "x"


def test_probabilities_are_in_the_columns_that_bear_their_names(store: Store, clock: FakeClock) -> None:
    from ai.locations import COLUMNS as LABELS
    from ai.locations import Location

    reported(store, clock)
    [row] = store.worklist.rows()
    for location in Location:
        assert row[f"p_{location.name.lower()}"] == PROBABILITIES[LABELS.index(location.value)]
    assert row["p_present"] == PROBABILITIES[-1]
    assert series_now(store).outcome is Outcome.POSITIVE
