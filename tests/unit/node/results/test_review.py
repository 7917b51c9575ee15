"""A verified report: what was accepted is a finding as before, what was rejected looks like none, and who said so is in it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO

import pytest
from pydicom import Dataset, dcmread

from node.results.document import NUMBERS_OF_A_REVISION, encode
from node.results.other_acquisitions import answer
from node.results.review import Decision, Reviewed, build_review
from tests.support.dicom_factory import ct_series, headers_of
from tests.support.reports import NEGATIVE, POSITIVE, answers, comments, items, named, report

AT = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
REPORT = report(instance_number=NUMBERS_OF_A_REVISION)
LOOP = Decision("Vessel loop or curve", "Roe^Richard")
REVIEWED = Reviewed((Decision(), LOOP), "Doe^Jane", "St. Elsewhere", AT, str(REPORT.SOPInstanceUID), 1)
GROUP, CONTEXT = "125007", "408729009"


def made(reviewed: Reviewed = REVIEWED, of: Dataset = REPORT, later_seconds: float = 600) -> Dataset:
    return dcmread(BytesIO(encode(build_review(of, reviewed, AT + timedelta(seconds=later_seconds)))))


def test_who_verified_it_when_and_for_whom_is_in_its_header_and_content() -> None:
    ds = made()
    [observer] = ds.VerifyingObserverSequence
    assert (ds.VerificationFlag, ds.CompletionFlag, ds.PreliminaryFlag) == ("VERIFIED", "COMPLETE", "FINAL")
    assert (observer.VerifyingObserverName, observer.VerifyingOrganization) == ("Doe^Jane", "St. Elsewhere")
    assert observer.VerificationDateTime == "20261123100000.000000+0000"
    assert [item.PersonName for item in items(ds) if item.ValueType == "PNAME"] == ["Doe^Jane"]
    assert answers(ds, "121005") == ["121007", "121006"]  # the device that measured, and the person


def test_an_accepted_finding_is_the_same_as_in_the_report() -> None:
    [group] = named(made(), GROUP)
    assert group == named(REPORT, GROUP)[0]
    assert answers(made(), "128609009") == ["52101004"]


def test_a_rejected_finding_has_neither_region_nor_measurement_nor_the_code_of_a_finding() -> None:
    ds = made()
    [group] = named(ds, GROUP)
    [tracking] = named(group, "112040")
    assert tracking.UID == named(named(REPORT, GROUP)[0], "112040")[0].UID
    [rejected] = [item for item in named(ds, CONTEXT) if item.ConceptCodeSequence[0].CodeValue == "410516002"]
    assert rejected.ObservationUID == named(REPORT, GROUP)[1].ObservationUID
    assert "REJECTED: Aneurysm 2: Basilar Tip: vessel loop or curve, by Roe^Richard." in comments(ds)
    assert not any("62.0" in text or "Suspected" in text for text in comments(ds))


def test_where_all_were_rejected_nothing_is_measured_and_nothing_is_called_absent() -> None:
    ds = made(replace(REVIEWED, decisions=(LOOP, LOOP)))
    assert named(ds, GROUP) == named(ds, "126010") == named(ds, "128609009") == []
    assert [item for item in items(ds) if item.ValueType in ("NUM", "SCOORD") and "Pixel" not in str(item)] == []
    assert answers(ds, CONTEXT) == ["410516002"] * 2
    assert "That a finding was rejected does not say that there is no other." in comments(ds)
    assert answers(ds, "111017") == []


def test_what_was_found_in_other_acquisitions_is_not_verified() -> None:
    first = "2 acquisitions in this series; this result is of acquisition 1 (10:15:00, 6 slices)"
    second, third = "acquisition 2 (10:15:45, 6 slices)", "acquisition 3 (10:16:30, 5 slices)"
    answers_of = [f"{second}: {answer(POSITIVE)}", f"{third}: {answer(NEGATIVE)}", f"{third}: not analysed: gap"]
    of = report(outcome=replace(POSITIVE, note="; ".join([first, *answers_of])), instance_number=NUMBERS_OF_A_REVISION)
    assert f"{'; '.join([first, *answers_of])}." in comments(of)
    said = comments(made(replace(REVIEWED, decisions=(LOOP, LOOP)), of))
    assert f"{first}; {second}: not assessed; {third}: not assessed; {third}: not analysed: gap." in said
    assert not any("suspected" in text or "detected" in text or "93.1 %" in text for text in said)


def test_what_a_person_says_is_complete_whatever_the_algorithm_left_out() -> None:
    ds = made(of=report(unanalysed="1 of 2 acquisitions", instance_number=NUMBERS_OF_A_REVISION))
    assert (ds.CompletionFlag, "CompletionFlagDescription" in ds) == ("COMPLETE", False)


def test_it_replaces_the_report_in_its_series_and_is_shown_before_it() -> None:
    ds = made()
    [study] = ds.PredecessorDocumentsSequence
    [series] = study.ReferencedSeriesSequence
    assert (study.StudyInstanceUID, series.SeriesInstanceUID) == (REPORT.StudyInstanceUID, REPORT.SeriesInstanceUID)
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == REPORT.SOPInstanceUID
    assert ds.SeriesInstanceUID == REPORT.SeriesInstanceUID
    assert REPORT.InstanceNumber < ds.InstanceNumber < 2 * NUMBERS_OF_A_REVISION
    many = made(replace(REVIEWED, number=1000))
    assert many.InstanceNumber < 2 * NUMBERS_OF_A_REVISION


def test_the_same_review_has_the_same_uid_and_another_has_another() -> None:
    assert made(later_seconds=7).SOPInstanceUID == made().SOPInstanceUID == REVIEWED.uid
    others = [
        replace(REVIEWED, decisions=(LOOP, Decision())),
        replace(REVIEWED, person_name="Roe^Richard"),
        replace(REVIEWED, at=AT + timedelta(seconds=1)),
        replace(REVIEWED, predecessor_uid="2.25.1"),
    ]
    assert len({REVIEWED.uid, *(each.uid for each in others)}) == 5


def test_what_limited_the_analysis_stays_said_and_the_patient_stays_as_received() -> None:
    images = headers_of(ct_series(6, SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName="Yamada^Tarou=山田^太郎"))
    ds = made(replace(REVIEWED, limits="metal artefact"), report(images, instance_number=100))
    assert "The analysis was limited: metal artefact." in comments(ds)
    assert any(text.startswith("6 images given to") for text in comments(ds))
    assert ds.PatientName == "Yamada^Tarou=山田^太郎"


def test_a_name_beyond_ascii_is_written_in_the_nearest_letters() -> None:
    assert (
        made(replace(REVIEWED, person_name="Müller^Zoë")).VerifyingObserverSequence[0].VerifyingObserverName
        == "Muller^Zoe"
    )


def test_a_report_of_other_findings_than_were_judged_is_not_verified() -> None:
    assert len(POSITIVE.lesions) == 2
    with pytest.raises(ValueError, match="1 decision on a report of 2 findings"):
        made(replace(REVIEWED, decisions=(Decision(),)))
