"""The Structured Report says what was found, about whom, and nothing more; always in the same bytes."""

import dataclasses
from typing import Any

import pytest
from highdicom.sr import Comprehensive3DSR

from ai.errors import Reason
from ai.findings import Findings
from ai.locations import COLUMNS, LOCATIONS, Location
from ai.quality import Quality
from ai.volume import volume_from_datasets
from node.config.types import Region
from node.results.codes import SITES
from node.results.document import DISCLAIMER, NotAnalysed, Outcome
from node.results.identity import derive_uid
from node.results.key_slices import key_slices, representative_slices
from node.results.plain_ascii import plain_ascii
from tests.support.dicom_factory import ct_series, enhanced_ct, headers_of, lps_of, marked
from tests.support.reports import (
    ALGORITHM,
    NEGATIVE,
    NOT_ANALYSED,
    POSITIVE,
    RIGHT_MCA,
    answers,
    comments,
    every_outcome,
    evidence,
    items,
    named,
    positive,
    report,
)

# The three shapes

METAL = Quality(noise_hu=8.0, arterial_hu=350.0, metal_mm3=60.0)


def outcome_words(outcome: Findings) -> str:
    """What the report says of the scan, after what it says of each finding."""
    return comments(report(outcome=outcome))[len(outcome.lesions)]


@pytest.mark.parametrize("outcome", [POSITIVE, NEGATIVE])
def test_what_limits_an_answer_is_in_its_first_sentence(outcome: Findings) -> None:
    first = outcome_words(dataclasses.replace(outcome, quality=METAL))
    assert "; limited: metal artefact at the circle of Willis. Probability" in first
    plain = comments(report(outcome=dataclasses.replace(outcome, quality=Quality(8.0, 350.0))))
    assert not any("limited" in text for text in plain) and plain == comments(report(outcome=outcome))


def test_both_operating_points_are_in_the_first_sentence() -> None:
    first = outcome_words(dataclasses.replace(POSITIVE, notify_threshold=0.81))
    assert first.endswith("(reported from 50.0 %; alert from 81.0 %).")


def test_slices_beyond_any_number_are_not_looked_through_for_one_to_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.results.key_slices.MAX_FRAMES", 4)
    shown = representative_slices(ct_series(9))
    assert [each.frame.position_mm[2] for each in shown] == [100.0, 102.0, 103.0]


@every_outcome
def test_every_report_says_that_it_is_unverified_and_no_medical_device(outcome: Outcome) -> None:
    ds = report(outcome=outcome)
    assert comments(ds)[-1] == DISCLAIMER == "Unverified result of a research system; not a medical device."
    assert ds.VerificationFlag == "UNVERIFIED"
    assert ds.PreliminaryFlag == "PRELIMINARY"
    assert ds.SOPClassUID.name == "Comprehensive 3D SR Storage"
    assert ds.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert answers(ds, "121058") == ["25045-6"]  # the imaging procedure, not the algorithm (IHE AIR)
    [given] = [
        text for text in comments(ds) if text.startswith(f"6 images given to {ALGORITHM.name} {ALGORITHM.version}")
    ]
    assert ("reads the region around the circle of Willis and not the whole head" in given) == isinstance(
        outcome, Findings
    )


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
    assert answers(numbers[0], "121401") == []  # no derivation: it is neither the longest diameter nor a mean
    assert "Diameters are those of spheres of equal volume." in comments(ds)
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


def test_each_finding_is_described_in_one_line_in_its_group_and_among_the_conclusions() -> None:
    series = ct_series(6)
    for number, ds in enumerate(series, start=151):
        ds.InstanceNumber = number
    ds = report(headers_of(series))
    [group, _] = named(ds, "125007")
    assert comments(group) == ["Willis: Right MCA, 4.3 mm, 93.1 %, image 154"]
    assert "Aneurysm 1: Right Middle Cerebral Artery, 4.3 mm, 93.1 %, image 154" in comments(ds)


def test_a_slice_without_a_number_is_not_named_and_a_frame_is_named_by_its_own() -> None:
    [group, _] = named(report(headers_of(ct_series(6, InstanceNumber=None))), "125007")
    assert comments(group) == ["Willis: Right MCA, 4.3 mm, 93.1 %"]
    [group, _] = named(report(headers_of([enhanced_ct(ct_series(6))])), "125007")
    assert comments(group)[0].endswith(", frame 4")


@every_outcome
def test_the_images_are_of_the_head(outcome: Outcome) -> None:
    ds = report(headers_of(ct_series(6, BodyPartExamined="HEAD")), outcome)
    assert set(answers(ds, "123014")) == {"69536005"}
    assert len(answers(ds, "123014")) == len(answers(ds, "121139"))


@pytest.mark.parametrize("outcome", [POSITIVE, NEGATIVE])
def test_what_was_analysed_is_a_head_in_ct_whatever_the_images_say(outcome: Findings) -> None:
    ds = report(headers_of(ct_series(6, BodyPartExamined="NECK")), outcome)
    assert (set(answers(ds, "123014")), set(answers(ds, "121139"))) == ({"69536005"}, {"CT"})


@pytest.mark.parametrize(
    ("said", "procedure", "modality", "region"),
    [
        ({}, "25045-6", {"CT"}, set()),
        ({"BodyPartExamined": "KNEE"}, "25045-6", {"CT"}, set()),
        ({"BodyPartExamined": "NECK"}, "25045-6", {"CT"}, {"45048000"}),
        ({"BodyPartExamined": "brain ", "Modality": "MR"}, "25056-3", {"MR"}, {"69536005"}),
        ({"Modality": "OT"}, "363679005", set(), set()),
        ({"Modality": None}, "363679005", set(), set()),
    ],
)
def test_of_images_that_were_not_analysed_nothing_is_claimed_that_they_do_not_say(
    said: dict[str, Any], procedure: str, modality: set[str], region: set[str]
) -> None:
    ds = report(headers_of(ct_series(6, **said)), NotAnalysed(Reason.NOT_ELIGIBLE))
    assert answers(ds, "121058") == [procedure]
    assert (set(answers(ds, "121139")), set(answers(ds, "123014"))) == (modality, region)


def test_what_was_unusual_about_the_analysis_is_said() -> None:
    for outcome in (POSITIVE, NEGATIVE):
        assert comments(report(outcome=dataclasses.replace(outcome, note="thick slices")))[-2:] == [
            "Thick slices.",
            DISCLAIMER,
        ]


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
    if probability:
        [measured] = named(report(outcome=positive(dataclasses.replace(RIGHT_MCA, probability=probability))), "122157")
        assert f"{measured.MeasuredValueSequence[0].NumericValue} %" == shown


def test_a_negative_report_says_absent_and_measures_nothing() -> None:
    ds = report(outcome=NEGATIVE)
    assert ds.CompletionFlag == "COMPLETE"
    assert answers(ds, "111017") == ["111241"]
    assert answers(ds, "128609009") == ["272519000"]
    assert named(ds, "126010") == named(ds, "125007") == []
    assert comments(ds)[0].startswith("No intracranial aneurysm was detected.")
    assert "Diameter" not in "".join(comments(ds))


def test_a_report_without_an_analysis_says_why_and_nothing_about_an_aneurysm() -> None:
    ds = report(outcome=NOT_ANALYSED)
    assert ds.CompletionFlag == "PARTIAL"
    assert ds.CompletionFlagDescription == "Not analysed: gap"
    assert answers(ds, "111017") == ["111245"]
    assert named(ds, "128609009") == named(ds, "126010") == []
    assert comments(ds)[0] == f"NOT ANALYSED: {Reason.GAP.explained} [gap] (about 3 slices missing above z = -41.50 mm)"


@pytest.mark.parametrize(("outcome", "summary", "said"), [(POSITIVE, "111244", ["52101004"]), (NEGATIVE, "111243", [])])
def test_where_not_all_could_be_analysed_the_report_is_partial_and_calls_nothing_absent(
    outcome: Findings, summary: str, said: list[str]
) -> None:
    ds = report(outcome=outcome, unanalysed="1 of 2 acquisitions")
    assert (ds.CompletionFlag, ds.CompletionFlagDescription) == ("PARTIAL", "Not analysed: 1 of 2 acquisitions")
    assert answers(ds, "111017") == [summary]
    assert answers(ds, "128609009") == said


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_can_be_reported(reason: Reason) -> None:
    ds = report(outcome=NotAnalysed(reason))
    assert len(ds.CompletionFlagDescription) <= 64
    assert comments(ds)[0].endswith(f"[{reason.value}]")


@pytest.mark.parametrize("findings", [POSITIVE, NEGATIVE])
def test_a_note_is_shown_before_the_disclaimer(findings: Findings) -> None:
    texts = comments(report(outcome=dataclasses.replace(findings, note="the vertex is not covered")))
    assert texts[-2:] == ["The vertex is not covered.", DISCLAIMER]


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
        [where] = key_slices(headers_of(series), [(x, y, z)])
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


def test_a_lesion_can_be_shown_as_a_closed_box_around_what_the_circle_encloses() -> None:
    column, row, edge_column, _ = named(report(), "111030")[0].GraphicData
    box = named(report(region=Region.BOX_2D), "111030")[0]
    points = list(zip(box.GraphicData[::2], box.GraphicData[1::2], strict=True))
    assert (box.ValueType, box.GraphicType, len(points)) == ("SCOORD", "POLYLINE", 5)
    assert points[0] == points[-1]
    columns, rows = (sorted(set(values)) for values in zip(*points, strict=True))
    assert columns == pytest.approx([2 * column - edge_column, edge_column], rel=1e-6)
    rows_high = (edge_column - column) * 0.4 / 0.5
    assert rows == pytest.approx([row - rows_high, row + rows_high], rel=1e-6)


@pytest.mark.parametrize("region", Region)
def test_the_diameter_names_the_region_that_it_is_inferred_from(region: Region) -> None:
    ds = report(region=region)
    [group, *_] = named(ds, "125007")
    [marked] = [item for item in group.ContentSequence if item.ValueType in ("SCOORD", "SCOORD3D")]
    first, *_ = [item for item in group.ContentSequence if item.ValueType == "NUM"]
    [inferred_from] = [item for item in first.ContentSequence if item.ValueType in ("SCOORD", "SCOORD3D")]
    assert (first.ConceptNameCodeSequence[0].CodeValue, inferred_from.RelationshipType) == ("81827009", "INFERRED FROM")
    assert (inferred_from.GraphicType, inferred_from.GraphicData) == (marked.GraphicType, marked.GraphicData)


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
    assert [s.ReferencedFrameNumber for s in sources] == [3, 5, 3, 3, 5, 5]
    assert evidence(ds) == {"2.25.30000"}


def test_a_lesion_that_no_slice_can_show_is_an_error() -> None:
    with pytest.raises(ValueError, match="position"):
        report(headers_of(ct_series(6, ImagePositionPatient=None)))


def test_a_report_without_lesions_refers_to_the_lowest_the_middle_and_the_highest_slice() -> None:
    series = ct_series(7)
    for ds, height in zip(series, (3, 6, 1, 5, 0, 2, 4), strict=True):  # UIDs and positions are in different orders
        ds.ImagePositionPatient = [-20.0, -30.0, 100.0 + height]
    assert evidence(report(headers_of(series), NEGATIVE)) == {series[i].SOPInstanceUID for i in (4, 0, 1)}
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
