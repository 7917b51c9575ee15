"""Queries of other programs, on both databases."""

from typing import Any

import pytest
from sqlalchemy import text

from storage.conditions import Between, Condition, Level, Like
from storage.records import name_key
from storage.stages import Outcome
from storage.store import Store
from tests.support.builders import STUDY_UID, FakeClock, add, claimed, finish, header, received, reported


def found(store: Store, level: Level, what: str, *, limit: int = 10, **conditions: Any) -> list[Any]:
    return [row[what] for row in store.cfind.find(level, conditions, limit)]


def names(store: Store, **conditions: Any) -> list[Any]:
    return sorted(found(store, Level.STUDY, "patient_name", **conditions))


@pytest.fixture
def patients(store: Store, clock: FakeClock) -> Store:
    """Four studies of one series each."""
    described: dict[str, dict[str, Any]] = {
        "Doe^Jane": {},
        "DOE^JOHN^^": {"study_date": "20260101", "study_time": "1015", "patient_id": "P_1"},
        "Yamada^Tarou=山田^太郎": {"study_date": "", "study_time": "235959.5", "patient_id": "P%1"},
        "Ärger^Öde": {"study_date": "20251231", "accession_number": "[A]", "series_number": None},
    }
    for number, (name, changes) in enumerate(described.items()):
        received(store, clock, 1, f"2.25.1{number}", study_instance_uid=f"2.25.2{number}", patient_name=name, **changes)
    return store


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, ["DOE^JOHN^^", "Doe^Jane", "Yamada^Tarou=山田^太郎", "Ärger^Öde"]),
        ({"name_key": ["doe^john"]}, ["DOE^JOHN^^"]),
        ({"name_key": [Like("doe^j*")]}, ["DOE^JOHN^^", "Doe^Jane"]),
        ({"name_key": [Like("doe^j?ne")]}, ["Doe^Jane"]),
        ({"name_key": [Like("*=山田*")]}, ["Yamada^Tarou=山田^太郎"]),
        ({"name_key": [Like("ärger^?de")]}, ["Ärger^Öde"]),
        ({"patient_id": ["P_1", "P-0001"]}, ["DOE^JOHN^^", "Doe^Jane", "Ärger^Öde"]),
        ({"patient_id": [Like("P_*")]}, ["DOE^JOHN^^"]),
        ({"patient_id": [Like("P%*")]}, ["Yamada^Tarou=山田^太郎"]),
        ({"patient_id": [Like("p*")]}, []),
        ({"accession_number": [Like("[*"), Like("?-99")]}, ["Ärger^Öde"]),
        ({"study_date": [Between("20260101", "")]}, ["DOE^JOHN^^", "Doe^Jane"]),
        ({"study_date": [Between("", "20251231")]}, ["Ärger^Öde"]),
        ({"study_date": [Between("20251231", "20260101")], "name_key": [Like("doe*")]}, ["DOE^JOHN^^"]),
        ({"study_time": [Between("1015", "101559.999999")]}, ["DOE^JOHN^^", "Doe^Jane", "Ärger^Öde"]),
        ({"series_number": [3]}, ["DOE^JOHN^^", "Doe^Jane", "Yamada^Tarou=山田^太郎"]),
    ],
    ids=str,
)
def test_conditions_are_met_alike_on_both_databases(
    patients: Store, conditions: dict[str, Condition], expected: list[str]
) -> None:
    assert names(patients, **conditions) == expected


@pytest.mark.parametrize("level", [Level.STUDY, Level.SERIES])
def test_what_limits_a_negative_is_found_with_it(store: Store, clock: FakeClock, level: Level) -> None:
    finish(store, clock, claimed(store, clock), Outcome.NEGATIVE, limits="noise")
    [one] = store.cfind.find(level, {"study_instance_uid": [STUDY_UID]}, 10)
    assert (one["outcome"], one["limits"]) == ("negative", "noise")


def test_a_study_speaks_with_its_most_urgent_series(store: Store, clock: FakeClock) -> None:
    reported(store, clock, Outcome.NEGATIVE, series="2.25.1")
    positive = reported(store, clock, Outcome.POSITIVE, series="2.25.2")
    received(store, clock, 1, "2.25.3", modality="SR")
    received(store, clock, 1, "2.25.9", study_instance_uid="2.25.2000", modality="MR")
    one, other = store.cfind.find(Level.STUDY, {}, 10)
    assert (one["study_instance_uid"], other["study_instance_uid"]) == (STUDY_UID, "2.25.2000")
    assert (one["outcome"], one["series_instance_uid"], one["p_present"]) == ("positive", "2.25.2", 0.9)
    assert (one["report_uid"], one["reported_at"]) == (f"2.25.77.{positive.series.id}.1", clock())
    assert (one["modalities_in_study"], one["series_count"], one["study_instance_count"]) == (("CT", "SR"), 3, 7)
    assert (other["outcome"], other["report_uid"]) == (None, None)
    assert not found(store, Level.STUDY, "outcome", outcome=["negative"])  # or a positive study would look negative
    assert found(store, Level.STUDY, "outcome", outcome=["positive"]) == ["positive"]
    assert found(store, Level.STUDY, "study_instance_uid", modalities_in_study=["SR"]) == [STUDY_UID]
    assert found(store, Level.SERIES, "outcome", study_instance_uid=[STUDY_UID]) == ["positive", None, "negative"]


def test_the_most_urgent_come_first_and_the_limit_leaves_out_the_others(store: Store, clock: FakeClock) -> None:
    for number, outcome in enumerate((Outcome.NEGATIVE, Outcome.NOT_ANALYSED, Outcome.POSITIVE)):
        reported(store, clock, outcome, series=f"2.25.1{number}", study_instance_uid=f"2.25.2{number}")
    for level in (Level.STUDY, Level.SERIES):
        assert found(store, level, "outcome") == ["positive", "not_analysed", "negative"]
        assert found(store, level, "outcome", limit=2) == ["positive", "not_analysed"]


def test_the_images_of_a_series_are_found_by_number_and_uid(store: Store, clock: FakeClock) -> None:
    series = received(store, clock, 3)
    whose: dict[str, Any] = {"series_instance_uid": [series.series_instance_uid]}
    assert found(store, Level.IMAGE, "instance_number", **whose) == [1, 2, 3]
    assert found(store, Level.IMAGE, "sop_instance_uid", **whose, instance_number=[2]) == ["2.25.1002.2"]
    uids = ["2.25.1002.3", "2.25.404"]
    assert found(store, Level.IMAGE, "sop_class_uid", **whose, sop_instance_uid=uids) == ["1.2.840.10008.5.1.4.1.1.2"]
    assert found(store, Level.IMAGE, "patient_name", limit=1, **whose) == ["Doe^Jane"]


def test_an_instance_that_came_before_this_was_recorded_has_no_number(store: Store, clock: FakeClock) -> None:
    add(store, clock, header())
    with store.transactions.writing() as session:
        session.execute(text("""UPDATE instance SET header = '{"sop_class_uid": "1.2"}'"""))
    assert found(store, Level.IMAGE, "instance_number") == [None]


def test_names_are_compared_without_case_and_empty_components() -> None:
    assert name_key("Müller^Jörg^^ ") == name_key("MÜLLER^JÖRG") == "müller^jörg"
    assert name_key("Yamada^Tarou=山田^太郎^=") == "yamada^tarou=山田^太郎"
    assert name_key("=山田") == "=山田"
    assert name_key("^^=") == ""
