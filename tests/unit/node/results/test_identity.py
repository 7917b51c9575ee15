"""A report is about the right patient, in the bytes that were received, and always the same."""

from datetime import timedelta, timezone
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag

from ai.errors import Reason
from node.results.document import DISCLAIMER, NotAnalysed, Outcome, Predecessor
from node.results.identity import missing_identity
from tests.support.dicom_factory import change, ct_series, headers_of
from tests.support.reports import (
    ALGORITHM,
    CREATED,
    NEGATIVE,
    comments,
    encoded,
    every_outcome,
    evidence,
    named,
    received,
    report,
)


@every_outcome
def test_the_same_inputs_give_the_same_bytes_in_any_order_of_arrival(outcome: Outcome) -> None:
    headers = headers_of(ct_series(6))
    for index, header in enumerate(headers):
        header.StudyDescription = f"as slice {index} has it"
    assert encoded(headers, outcome) == encoded(headers[::-1], outcome) == encoded(headers, outcome)


def test_building_a_report_changes_no_header() -> None:
    headers = [received(header) for header in headers_of(ct_series(6))]
    keywords = ("PatientName", "PatientID", "AccessionNumber", "StudyInstanceUID")
    before = [header.get_item(keyword) for header in headers for keyword in keywords]
    encoded(headers)
    assert [header.get_item(keyword) for header in headers for keyword in keywords] == before
    assert all(isinstance(element, RawDataElement) for element in before)


NAMES = {
    "Japanese": (
        b"\\ISO 2022 IR 87",
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B ",
    ),
    "Japanese with half-width katakana": (
        b"ISO 2022 IR 13\\ISO 2022 IR 87",
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J ",
    ),
    "Korean": (b"\\ISO 2022 IR 149", b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7 "),
    "UTF-8": (b"ISO_IR 192", "Müller^Žofie".encode() + b" "),
    "Latin-1": (b"ISO_IR 100", b"M\xfcller^J\xf6rg"),
    "Latin-1 without a character set": (b"", b"M\xfcller^J\xf6rg"),
    "bytes that its character set does not have": (b"ISO_IR 192", b"M\xff\xfeller^X "),
    "five components with spaces": (b"ISO_IR 100", b"Doe^Jane^Q ^Dr.^MD  "),
}  # fmt: skip


@pytest.mark.parametrize(("character_set", "name"), NAMES.values(), ids=NAMES.keys())
@every_outcome
def test_names_in_any_character_set_are_copied_byte_for_byte(
    character_set: bytes, name: bytes, outcome: Outcome
) -> None:
    raw = {"PatientName": name, "IssuerOfPatientID": name.replace(b"^", b"-"), "StudyDescription": name[1:] + b" "}
    headers = [received(header, character_set, **raw) for header in headers_of(ct_series(6))]
    ds = report(headers, outcome)
    for keyword, value in raw.items():
        assert ds.get_item(keyword).value == value + b" " * (len(value) % 2)
    assert ds.get("SpecificCharacterSet") == headers[0].get("SpecificCharacterSet")
    assert comments(ds)[-1] == DISCLAIMER


def test_a_value_received_with_an_odd_length_is_padded() -> None:
    headers = headers_of(ct_series(6))
    for header in headers:
        header[Tag("StudyID")] = RawDataElement(Tag("StudyID"), "SH", 3, b"S12", 0, False, True)
    assert report(headers).get_item("StudyID").value == b"S12 "


def test_a_sequence_that_cannot_be_read_is_left_out() -> None:
    headers = headers_of(ct_series(6))
    tag = Tag("IssuerOfAccessionNumberSequence")
    for header in headers:
        header[tag] = RawDataElement(tag, "SQ", 6, b"\xfe\xff\x00\xe0\x09\x00", 0, False, True)
    assert "IssuerOfAccessionNumberSequence" not in report(headers)


def test_a_name_that_was_read_before_is_still_copied_byte_for_byte() -> None:
    character_set, name = NAMES["Japanese"]
    headers = [received(header, character_set, PatientName=name) for header in headers_of(ct_series(6))]
    for header in headers:
        assert str(header.PatientName).startswith("Yamada^Tarou=山田^太郎")
    assert report(headers).get_item("PatientName").value.rstrip() == name.rstrip()


def test_patient_and_study_attributes_are_copied_with_their_sequences() -> None:
    issuer = Dataset()
    issuer.UniversalEntityID, issuer.UniversalEntityIDType = "1.2.3", "ISO"
    present: dict[str, Any] = {
        "IssuerOfPatientID": "HOSPITAL A",
        "IssuerOfPatientIDQualifiersSequence": Items([issuer]),
        "IssuerOfAccessionNumberSequence": Items([issuer]),
        "OtherPatientIDs": ["X1", "X2"],
        "PatientAge": "066Y",
        "StudyDescription": "CTA head",
        "PatientSex": "W",  # not a defined term: copied, not corrected
    }
    ds = report(headers_of(ct_series(6, **present)))
    for keyword, value in present.items():
        assert ds[keyword].value == value
    assert (ds.PatientID, ds.AccessionNumber, ds.StudyID) == ("P-0001", "A-77", "S1")
    assert ds.ReferringPhysicianName == "Roe^Richard"
    assert ds.StudyInstanceUID == "2.25.1001"
    assert ds.Manufacturer == "Willis"
    assert ds.SeriesInstanceUID != "2.25.1002"


TYPE_2 = (
    "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber",
    "ReferringPhysicianName",
)  # fmt: skip


@every_outcome
@pytest.mark.parametrize("value", [None, ""], ids=["missing", "empty"])
def test_missing_and_empty_type_2_attributes_are_written_empty(outcome: Outcome, value: str | None) -> None:
    ds = report(headers_of(ct_series(6, **dict.fromkeys(TYPE_2, value))), outcome)
    for keyword in TYPE_2:
        assert keyword in ds
        assert not ds[keyword].value
    assert missing_identity(headers_of(ct_series(1, **dict.fromkeys(TYPE_2, value)))) == ()


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({}, ()),
        ({"StudyInstanceUID": None}, ("StudyInstanceUID",)),
        ({"StudyInstanceUID": ""}, ("StudyInstanceUID",)),
        ({"SeriesInstanceUID": None, "SOPClassUID": None}, ("SeriesInstanceUID", "SOPClassUID")),
        ({"PatientID": None}, ()),
        ({"PatientName": "^^", "PatientID": " "}, ("PatientID",)),
        ({"PatientName": None, "PatientID": None}, ("PatientID",)),
    ],
)
def test_what_a_report_needs_can_be_asked_before_analysing(changes: dict[str, Any], missing: tuple[str, ...]) -> None:
    headers = headers_of(ct_series(3, **changes))
    assert missing_identity(headers) == missing
    if missing:
        with pytest.raises(ValueError, match=missing[0]):
            report(headers, NEGATIVE)


def test_no_headers_lack_everything() -> None:
    assert "StudyInstanceUID" in missing_identity([])


def test_a_stray_slice_of_another_patient_does_not_move_the_report_into_that_record() -> None:
    headers = headers_of(ct_series(6))
    change(headers[0], PatientID="OTHER", PatientName="Somebody^Else", StudyInstanceUID="2.25.666")
    ds = report(headers, NotAnalysed(Reason.MIXED_PATIENTS, "2 patients"))
    assert (ds.PatientID, ds.StudyInstanceUID) == ("P-0001", "2.25.1001")
    assert headers[0].SOPInstanceUID not in evidence(ds)


def test_content_time_is_in_the_timezone_that_the_images_state() -> None:
    ds = report(headers_of(ct_series(6, TimezoneOffsetFromUTC="-0330")))
    assert (ds.ContentDate, ds.ContentTime, ds.TimezoneOffsetFromUTC) == ("20261123", "060015.250000", "-0330")
    ds = report(headers_of(ct_series(6, TimezoneOffsetFromUTC="+0900")))
    assert ds.ContentTime == "183015.250000"
    for nonsense in (None, "0900", "+9x00", "+9900", "+0²00", "+0970"):
        in_berlin = CREATED.astimezone(timezone(timedelta(hours=1)))
        ds = report(headers_of(ct_series(6, TimezoneOffsetFromUTC=nonsense)), created=in_berlin)
        assert ds.ContentTime == "103015.250000"
        assert ds.ContributingEquipmentSequence[0].ContributionDateTime == "20261123103015.250000+0100"


def test_a_time_without_a_timezone_is_refused() -> None:
    with pytest.raises(ValueError, match="timezone"):
        report(created=CREATED.replace(tzinfo=None))


@every_outcome
def test_the_equipment_and_the_observer_are_named_alike_everywhere(outcome: Outcome) -> None:
    ds = report(outcome=outcome)
    (equipment,) = ds.ContributingEquipmentSequence
    assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    assert equipment.Manufacturer == ds.Manufacturer == named(ds, "121014")[0].TextValue == "Willis"
    assert equipment.ManufacturerModelName == ds.ManufacturerModelName == named(ds, "121015")[0].TextValue
    assert equipment.SoftwareVersions == ds.SoftwareVersions == "0.1.0"
    assert equipment.DeviceUID == named(ds, "121012")[0].UID == ALGORITHM.device_uid
    measured = zip(named(ds, "111001"), named(ds, "111003"), strict=True)
    described = {equipment.ContributionDescription, *(f"{name.TextValue} {made.TextValue}" for name, made in measured)}
    assert described == {f"{ALGORITHM.name} {ALGORITHM.version}"}


def test_a_later_report_names_its_predecessors() -> None:
    earlier = [Predecessor("2.25.1001", "2.25.5", uid) for uid in ("2.25.6", "2.25.4")]
    ds = report(predecessors=earlier)
    (study,) = ds.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    assert [i.ReferencedSOPInstanceUID for i in series.ReferencedSOPSequence] == ["2.25.4", "2.25.6"]
    assert series.ReferencedSOPSequence[0].ReferencedSOPClassUID == ds.SOPClassUID
    assert "PredecessorDocumentsSequence" not in report()
