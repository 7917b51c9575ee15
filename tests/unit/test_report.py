"""The Structured Report says what was found, about whom, and nothing more; always in the same bytes."""

import dataclasses
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from io import BytesIO
from typing import Any

import pytest
from highdicom.sr import Comprehensive3DSR
from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag

from ai.errors import Reason
from ai.findings import Findings, Lesion
from ai.frames import encodings_of
from ai.locations import COLUMNS, LOCATIONS, Location
from ai.volume import volume_from_datasets
from node.report import (
    DISCLAIMER,
    Algorithm,
    NotAnalysed,
    Outcome,
    Predecessor,
    Region,
    build_report,
    derive_uid,
    encode,
    key_slice,
    missing_identity,
)
from node.report_codes import SITES
from node.report_items import plain_ascii
from tests.dicom_factory import change, ct_series, enhanced_ct, headers_of, lps_of, marked

ALGORITHM = Algorithm("Willis aneurysm detection", "0.1.0+weights.1a2b", "0.1.0", derive_uid("device", "test"))
CREATED = datetime(2026, 11, 23, 9, 30, 15, 250_000, tzinfo=UTC)
NEGATIVE = Findings((0.02,) * 14, (), 0.5)


def positive(*lesions: Lesion) -> Findings:
    probabilities = [0.011] * 14
    for lesion in lesions:
        probabilities[LOCATIONS.index(lesion.location)] = lesion.probability
    probabilities[-1] = 0.957
    return Findings(tuple(probabilities), lesions, 0.5)


RIGHT_MCA = Lesion(Location.RIGHT_MCA, 0.931, (-18.4, -28.5, 103.2), 4.26)
BASILAR = Lesion(Location.BASILAR_TIP, 0.62, (-19.2, -29.0, 101.0), 7.0)
POSITIVE = positive(RIGHT_MCA, BASILAR)
NOT_ANALYSED = NotAnalysed(Reason.GAP, "about 3 slices missing above z = -41.50 mm")
OUTCOMES: dict[str, Outcome] = {"positive": POSITIVE, "negative": NEGATIVE, "not analysed": NOT_ANALYSED}
every_outcome = pytest.mark.parametrize("outcome", OUTCOMES.values(), ids=OUTCOMES.keys())


def report(headers: Sequence[Dataset] | None = None, outcome: Outcome = POSITIVE, **changes: Any) -> Dataset:
    """The report as whoever reads the file sees it."""
    return dcmread(BytesIO(encoded(headers, outcome, **changes)))


def encoded(headers: Sequence[Dataset] | None = None, outcome: Outcome = POSITIVE, **changes: Any) -> bytes:
    arguments: dict[str, Any] = {
        "report_uid": derive_uid("report", "series", 1),
        "series_uid": derive_uid("report series", "study"),
        "series_number": 9001,
        "created": CREATED,
        "algorithm": ALGORITHM,
    }
    sources = headers_of(ct_series(6)) if headers is None else headers
    return encode(build_report(sources, outcome, **arguments | changes))


def received(header: Dataset, character_set: bytes = b"ISO_IR 100", **raw: bytes) -> Dataset:
    """The header as it comes off the wire: undecoded, with these exact bytes for some attributes."""
    ds = headers_of([header])[0]
    for keyword, value in {"SpecificCharacterSet": character_set, **raw}.items():
        tag, value = Tag(keyword), value + b" " * (len(value) % 2)
        ds[tag] = RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, False, True)
    if not character_set:
        del ds.SpecificCharacterSet
    ds.set_original_encoding(False, True, encodings_of(ds))
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    write_dataset(buffer, ds)
    return dcmread(BytesIO(buffer.getvalue()), force=True)


def items(ds: Dataset) -> Iterator[Dataset]:
    for item in ds.get("ContentSequence") or []:
        yield item
        yield from items(item)


def named(ds: Dataset, code_value: str) -> list[Dataset]:
    return [item for item in items(ds) if item.ConceptNameCodeSequence[0].CodeValue == code_value]


def answers(ds: Dataset, code_value: str) -> list[str]:
    return [item.ConceptCodeSequence[0].CodeValue for item in named(ds, code_value)]


def comments(ds: Dataset) -> list[str]:
    return [item.TextValue for item in named(ds, "121106")]


def evidence(ds: Dataset) -> set[str]:
    return {
        instance.ReferencedSOPInstanceUID
        for study in ds.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }


# The three shapes


@every_outcome
def test_every_report_says_that_it_is_unverified_and_no_medical_device(outcome: Outcome) -> None:
    ds = report(outcome=outcome)
    assert comments(ds)[-1] == DISCLAIMER == "Unverified result of a research system; not a medical device."
    assert ds.VerificationFlag == "UNVERIFIED"
    assert ds.PreliminaryFlag == "PRELIMINARY"
    assert ds.SOPClassUID.name == "Comprehensive 3D SR Storage"
    assert ds.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert f"6 images given to {ALGORITHM.name} {ALGORITHM.version}." in comments(ds)


def test_a_positive_report_has_a_measurement_group_a_lesion_with_the_diameter_first() -> None:
    ds = report()
    assert ds.CompletionFlag == "COMPLETE"
    assert answers(ds, "111017") == ["111242"]
    assert answers(ds, "128609009") == ["52101004"]  # Intracranial aneurysm: Present
    groups = named(ds, "125007")
    assert [group.ContentTemplateSequence[0].TemplateIdentifier for group in groups] == ["1410", "1410"]
    first = groups[0]
    assert answers(first, "121071") == ["128609009"]
    numbers = [item for item in items(first) if item.ValueType == "NUM"]
    measured = [
        (n.ConceptNameCodeSequence[0].CodeValue, n.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue)
        for n in numbers
    ]
    assert measured == [("81827009", "mm"), ("122157", "%")]
    assert [float(n.MeasuredValueSequence[0].NumericValue) for n in numbers] == [4.3, 93.1]
    assert answers(numbers[0], "121401") == ["56851009"]
    assert [item.TextValue for item in named(first, "111001") + named(first, "111003")] == [
        ALGORITHM.name,
        ALGORITHM.version,
    ]


@pytest.mark.parametrize("location", LOCATIONS)
def test_each_location_is_given_in_codes_and_by_its_exact_name(location: Location) -> None:
    ds = report(outcome=positive(dataclasses.replace(RIGHT_MCA, location=location)))
    (group,) = named(ds, "125007")
    (site,) = named(group, "363698007")
    side = {"Left": ["7771000"], "Right": ["24028007"]}.get(location.value.split()[0], [])
    assert answers(site, "272741003") == side
    assert site.ConceptCodeSequence[0].CodeValue == SITES[location].anatomy.value
    assert named(group, "112039")[0].TextValue == f"Aneurysm 1: {location.value}"
    assert any(text.startswith(f"Aneurysm 1: {location.value}, 4.3 mm, 93.1 %") for text in comments(ds))
    assert SITES[location.mirrored].anatomy == SITES[location].anatomy


def test_infraclinoid_and_supraclinoid_differ_in_their_modifier() -> None:
    modifiers = {location: SITES[location].modifier for location in LOCATIONS if "clinoid" in location.value}
    for location, modifier in modifiers.items():
        assert modifier is not None
        assert modifier.value == ("40415009" if "Infraclinoid" in location.value else "46053002")


@pytest.mark.parametrize("outcome", [POSITIVE, NEGATIVE])
def test_all_fourteen_probabilities_can_be_read(outcome: Findings) -> None:
    (table,) = [text for text in comments(report(outcome=outcome)) if "\r\n" in text]
    lines = dict(line.rsplit(": ", 1) for line in table.split("\r\n"))
    assert list(lines) == list(COLUMNS)
    assert [float(value.removesuffix(" %")) for value in lines.values()] == pytest.approx(
        [100 * p for p in outcome.probabilities], abs=0.05
    )
    assert any(f"Probability of aneurysm presence {100 * outcome.present:.1f} % (threshold 50.0 %)" in text
               for text in comments(report(outcome=outcome)))  # fmt: skip


@pytest.mark.parametrize(
    ("probability", "shown"), [(0.99999, "99.9 %"), (1e-6, "0.1 %"), (1.0, "100.0 %"), (0.0, "0.0 %")]
)
def test_certainty_is_never_made_by_rounding(probability: float, shown: str) -> None:
    findings = Findings((probability, *(0.02,) * 13), (), 0.5)
    (table,) = [text for text in comments(report(outcome=findings)) if "\r\n" in text]
    assert table.startswith(f"{COLUMNS[0]}: {shown}\r\n")


def test_a_negative_report_says_absent_and_measures_nothing() -> None:
    ds = report(outcome=NEGATIVE)
    assert ds.CompletionFlag == "COMPLETE"
    assert answers(ds, "111017") == ["111241"]
    assert answers(ds, "128609009") == ["272519000"]
    assert named(ds, "126010") == named(ds, "125007") == []
    assert comments(ds)[0].startswith("No intracranial aneurysm was detected.")


def test_a_report_without_an_analysis_says_why_and_nothing_about_an_aneurysm() -> None:
    ds = report(outcome=NOT_ANALYSED)
    assert ds.CompletionFlag == "PARTIAL"
    assert ds.CompletionFlagDescription == "Not analysed: gap"
    assert answers(ds, "111017") == ["111245"]
    assert named(ds, "128609009") == named(ds, "126010") == []
    assert comments(ds)[0] == f"NOT ANALYSED: {Reason.GAP.explained} [gap] (about 3 slices missing above z = -41.50 mm)"


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_can_be_reported(reason: Reason) -> None:
    ds = report(outcome=NotAnalysed(reason))
    assert len(ds.CompletionFlagDescription) <= 64
    assert comments(ds)[0].endswith(f"[{reason.value}]")


@every_outcome
def test_a_note_is_shown_before_the_disclaimer(outcome: Outcome) -> None:
    texts = comments(report(outcome=outcome, note="The vertex is not covered."))
    assert texts[-2:] == ["The vertex is not covered.", DISCLAIMER]


# Who and when


@every_outcome
def test_the_same_inputs_give_the_same_bytes_in_any_order_of_arrival(outcome: Outcome) -> None:
    headers = headers_of(ct_series(6))
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
    for nonsense in (None, "0900", "+9x00"):
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


def test_a_later_report_names_its_predecessors() -> None:
    earlier = [Predecessor("2.25.1001", "2.25.5", uid) for uid in ("2.25.6", "2.25.4")]
    ds = report(predecessors=earlier)
    (study,) = ds.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    assert [i.ReferencedSOPInstanceUID for i in series.ReferencedSOPSequence] == ["2.25.4", "2.25.6"]
    assert series.ReferencedSOPSequence[0].ReferencedSOPClassUID == ds.SOPClassUID
    assert "PredecessorDocumentsSequence" not in report()


# Where


def test_the_key_slice_is_the_nearest_and_the_circle_is_in_pixels_from_the_outer_corner() -> None:
    series = ct_series(6)
    ds = report(headers_of(series))
    circle = named(ds, "111030")[0]
    column, row, edge_column, edge_row = circle.GraphicData
    assert circle.GraphicType == "CIRCLE"
    (source,) = circle.ContentSequence[0].ReferencedSOPSequence
    assert source.ReferencedSOPInstanceUID == series[3].SOPInstanceUID
    np_x, np_y, _ = lps_of(series[3], row - 0.5, column - 0.5)
    assert (np_x, np_y) == pytest.approx(RIGHT_MCA.centre_lps_mm[:2])
    assert edge_row == row
    assert (edge_column - column) * 0.4 == pytest.approx(4.26 / 2)
    assert evidence(ds) == {series[3].SOPInstanceUID, series[1].SOPInstanceUID}
    assert [e.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for e in named(ds, "260753009")[:2]] == [
        series[3].SOPInstanceUID,
        series[1].SOPInstanceUID,
    ]


@pytest.mark.parametrize("orientation", [(-1, 0, 0, 0, -1, 0), (0, 1, 0, -1, 0, 0), (0.8, 0.6, 0, -0.6, 0.8, 0)])
def test_a_voxel_of_the_volume_is_found_on_the_stored_image(orientation: tuple[float, ...]) -> None:
    series = ct_series(6, orientation=orientation)
    volume = volume_from_datasets(series)
    for d, h, w in ((0, 0, 0), (2, 5, 1), (5, 3, 7)):
        x, y, z, _ = volume.affine_lps @ [d, h, w, 1.0]
        where = key_slice(headers_of(series), (x, y, z))
        index = [ds.SOPInstanceUID for ds in series].index(where.sop_instance_uid)
        assert where.distance_mm == pytest.approx(0.0, abs=1e-6)
        assert where.sop_instance_uid == volume.sop_instance_uids[d]
        assert where.frame_number is None
        stored = marked(8, 9)(index)[int(where.row), int(where.column)]
        assert (where.row % 1, where.column % 1) == pytest.approx((0.5, 0.5))
        assert stored == volume.hu_DHW[d, h, w]


def test_a_lesion_can_be_shown_as_a_point_in_the_patient() -> None:
    ds = report(region=Region.POINT_3D)
    point = named(ds, "111030")[0]
    assert (point.ValueType, point.GraphicType) == ("SCOORD3D", "POINT")
    assert list(point.GraphicData) == pytest.approx(RIGHT_MCA.centre_lps_mm, rel=1e-6)
    assert point.ReferencedFrameOfReferenceUID == "2.25.1003"
    with pytest.raises(ValueError, match="CIRCLE_2D"):
        report(headers_of(ct_series(6, FrameOfReferenceUID=None)), region=Region.POINT_3D)


def test_images_without_a_frame_of_reference_get_a_circle_without_naming_one() -> None:
    ds = report(headers_of(ct_series(6, FrameOfReferenceUID=None)))
    assert named(ds, "112227") == []
    assert named(ds, "111030")


def test_a_multi_frame_source_is_referred_to_by_its_frame_number() -> None:
    series = ct_series(6)
    (header,) = headers_of([enhanced_ct([series[i] for i in (5, 4, 3, 2, 1, 0)])])
    ds = report([header])
    sources = [item.ReferencedSOPSequence[0] for item in named(ds, "260753009")]
    assert {s.ReferencedSOPInstanceUID for s in sources} == {"2.25.30000"}
    assert [s.ReferencedFrameNumber for s in sources] == [3, 5, 3, 5]
    assert evidence(ds) == {"2.25.30000"}


def test_a_lesion_that_no_slice_can_show_is_an_error() -> None:
    with pytest.raises(ValueError, match="position"):
        report(headers_of(ct_series(6, ImagePositionPatient=None)))


def test_a_report_without_lesions_refers_to_the_lowest_the_middle_and_the_highest_slice() -> None:
    series = ct_series(7, step_mm=(0, 0, -1))
    assert evidence(report(headers_of(series), NEGATIVE)) == {series[i].SOPInstanceUID for i in (0, 3, 6)}
    without_geometry = headers_of(ct_series(2, ImagePositionPatient=None))
    assert len(evidence(report(without_geometry, NOT_ANALYSED))) == 2
    assert len(evidence(report(headers_of(ct_series(1)), NOT_ANALYSED))) == 1


# Names and text


def test_derived_uids_are_stable_distinct_and_valid() -> None:
    assert derive_uid("a", 1) == "2.25.179331661237947338406327999226885456516"
    assert len({derive_uid("ab", "c"), derive_uid("a", "bc"), derive_uid("abc"), derive_uid("a", "b", "c")}) == 4
    assert len({derive_uid(1), derive_uid("1")}) == 2
    assert all(len(derive_uid("x", n)) <= 64 for n in range(100))


def test_tracking_and_observation_uids_belong_to_the_report_and_the_lesion() -> None:
    def uids(report_uid: str) -> list[str]:
        ds = report(report_uid=report_uid)
        return [i.UID for i in named(ds, "112040")] + [g.ObservationUID for g in named(ds, "125007")]

    assert len(set(uids("2.25.11") + uids("2.25.12"))) == 8
    assert uids("2.25.11") == uids("2.25.11")


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("5° × 3 cm³ ≥ é", "5 degrees x 3 cm3 >= e"),
        ("a\\b~c", "a/b-c"),
        ("山\t", "??"),
        ("a\r\nb", "a\r\nb"),
    ],
)
def test_text_becomes_the_ascii_that_every_character_set_has(text: str, plain: str) -> None:
    assert plain_ascii(text) == plain


@every_outcome
def test_highdicom_reads_the_report(outcome: Outcome) -> None:
    ds = Comprehensive3DSR.from_dataset(report(outcome=outcome))
    groups = ds.content.get_planar_roi_measurement_groups()
    assert len(groups) == (2 if outcome is POSITIVE else 0)
    if groups:
        assert groups[0].finding_type.value == "128609009"
        assert [m.value for m in groups[0].get_measurements()] == [4.3, 93.1]
