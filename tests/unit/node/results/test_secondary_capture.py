"""The Secondary Capture summary: legible, about the right place, and nothing of the patient in its pixels."""

import re
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ImageDraw
from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement

from ai.affine import voxel_of
from ai.decode import Calibration, Candidate, Platt, findings
from ai.findings import Findings, Lesion
from ai.locations import LOCATIONS, Location
from ai.quality import Quality
from ai.volume import Volume, volume_from_datasets
from node.results.codes import short
from node.results.document import NotAnalysed, Outcome, encode, percent
from node.results.identity import derive_uid
from node.results.plain_ascii import plain_ascii
from node.results.secondary_capture import build_summary
from node.results.summary_picture import LOWER, MAIN, SIDE, UPPER_LEFT, UPPER_RIGHT, points_shown, summary_picture
from node.results.views import Box, without_bone
from tests.support.dicom_factory import LOSSY, change, ct_series, headers_of
from tests.support.made_up_head import head
from tests.support.reports import (
    ALGORITHM,
    BASILAR,
    CREATED,
    NOT_ANALYSED,
    OUTCOMES,
    POSITIVE,
    RIGHT_MCA,
    document,
    every_outcome,
    positive,
    received,
)

CYAN, RED, GREY, WHITE = (80, 220, 255), (255, 96, 96), (170, 170, 170), (255, 255, 255)
ROWS, COLUMNS = 60, 60


def a_series(**changes: Any) -> list[Dataset]:
    return ct_series(40, rows=ROWS, columns=COLUMNS, pixel_spacing_mm=(1.0, 1.0), hu=grey, **changes)


def grey(index: int) -> NDArray[np.int16]:
    return np.full((ROWS, COLUMNS), 40 + index, np.int16)


def summary(series: list[Dataset] | None = None, outcome: Outcome = POSITIVE, **changes: Any) -> Dataset:
    """The summary as whoever reads the file sees it."""
    datasets = a_series() if series is None else series
    volume = None if isinstance(outcome, NotAnalysed) else volume_from_datasets(a_series())
    ds = build_summary(document(headers_of(datasets), "summary", **changes), outcome, volume)
    return dcmread(BytesIO(encode(ds)))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text that is drawn, in order."""
    texts: list[str] = []
    original = ImageDraw.ImageDraw.text

    def text(self: Any, at: Any, said: str, *rest: Any, **options: Any) -> None:
        texts.append(said)
        original(self, at, said, *rest, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    return texts


def lit(picture: NDArray[np.uint8], colour: tuple[int, int, int]) -> NDArray[np.bool_]:
    return np.asarray((np.abs(picture.astype(int) - colour) < 12).all(axis=-1))


@every_outcome
def test_it_is_an_rgb_image_that_pydicom_reads(outcome: Outcome) -> None:
    ds = summary(outcome=outcome)
    assert ds.pixel_array.shape == (SIDE, SIDE, 3)
    assert (ds.SOPClassUID, ds.Modality) == ("1.2.840.10008.5.1.4.1.1.7", "OT")
    assert (ds.BurnedInAnnotation, ds.ConversionType, ds.ImageType) == ("NO", "WSD", ["DERIVED", "SECONDARY"])
    assert ds.pixel_array.std() > 10
    assert ds.ContributingEquipmentSequence[0].DeviceUID == ALGORITHM.device_uid


@every_outcome
def test_the_same_conclusion_gives_the_same_bytes(outcome: Outcome) -> None:
    assert summary(outcome=outcome).PixelData == summary(a_series()[::-1], outcome).PixelData
    assert summary(outcome=outcome) == summary(a_series()[::-1], outcome)


def test_each_outcome_looks_different() -> None:
    assert len({summary(outcome=outcome).PixelData for outcome in OUTCOMES.values()}) == 3


@every_outcome
def test_nothing_of_the_patient_is_in_the_pixels(outcome: Outcome) -> None:
    other = {"PatientName": "Roe^Max", "PatientID": "Q-9", "AccessionNumber": "B-1", "StudyDate": "20200202"}
    assert summary(a_series(**other), outcome).PixelData == summary(outcome=outcome).PixelData


def test_it_refers_to_the_report_and_to_the_key_slices_of_findings() -> None:
    ds = summary()
    [report] = ds.ReferencedInstanceSequence
    assert report.ReferencedSOPInstanceUID == derive_uid("report", "series", 1)
    assert [each.ReferencedSOPInstanceUID for each in ds.SourceImageSequence] == ["2.25.20003", "2.25.20001"]
    assert {each.PurposeOfReferenceCodeSequence[0].CodeValue for each in ds.SourceImageSequence} == {"121329"}


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        (b"ISO_IR 100", b"M\xfcller^J\xf6rg"),
        (b"ISO_IR 192", "Łukasz^Ωμέγα".encode()),
        (b"\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"),
    ],
)
def test_names_in_any_character_set_are_copied_byte_for_byte(character_set: bytes, name: bytes) -> None:
    series = [received(ds, character_set, PatientName=name, IssuerOfPatientID=b"HOSPITAL A") for ds in a_series()]
    ds = summary(series, NOT_ANALYSED)
    element = ds.get_item("PatientName")
    assert isinstance(element, RawDataElement)
    assert element.value is not None
    assert element.value.rstrip() == name
    assert (ds.IssuerOfPatientID, ds.PatientID, ds.StudyInstanceUID) == ("HOSPITAL A", "P-0001", "2.25.1001")


def test_the_body_part_is_the_head_that_was_analysed_else_what_the_images_say() -> None:
    neck = [change(ds, BodyPartExamined="NECK") for ds in a_series()]
    assert [summary(neck, outcome).BodyPartExamined for outcome in (POSITIVE, NOT_ANALYSED)] == ["HEAD", "NECK"]
    for said in (None, "", "Head & neck"):
        ds = summary([change(ds, BodyPartExamined=said) for ds in a_series()], NOT_ANALYSED)
        assert ("BodyPartExamined" in ds, ds.Laterality) == (False, "")


def test_without_findings_it_refers_to_the_slice_that_it_shows() -> None:
    [shown] = summary(outcome=OUTCOMES["negative"]).SourceImageSequence
    assert shown.ReferencedSOPInstanceUID == "2.25.20020"  # the middle of the volume
    assert "SourceImageSequence" not in summary(outcome=NOT_ANALYSED)


@every_outcome
def test_a_summary_of_images_that_were_compressed_with_loss_says_so(outcome: Outcome) -> None:
    assert summary(outcome=outcome).LossyImageCompression == "00"
    ds = summary(a_series(**LOSSY), outcome)
    assert {keyword: ds[keyword].value for keyword in LOSSY} == LOSSY


@pytest.mark.parametrize(
    "broken", [{"created": CREATED.replace(tzinfo=None)}, {"series": a_series(StudyInstanceUID="")}]
)
def test_without_a_zone_or_a_study_there_is_no_summary(broken: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"timezone-aware|lack StudyInstanceUID"):
        summary(**broken)


def part(picture: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    left, top, right, bottom = box
    return picture[top:bottom, left:right]


def middle_of(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """(x, y)"""
    rows, columns = np.nonzero(mask)
    return float(columns.mean()), float(rows.mean())


def test_the_key_slice_fills_a_third_of_the_picture() -> None:
    left, top, right, bottom = MAIN
    assert (right - left) * (bottom - top) >= SIDE * SIDE / 3


@pytest.mark.parametrize("box", [MAIN, UPPER_LEFT, UPPER_RIGHT, LOWER], ids=["axial", "coronal", "sagittal", "MIP"])
def test_the_finding_is_circled_where_it_lies_in_every_plane_through_it(box: Box) -> None:
    volume, point = head(), (28.0, -10.0, 46.0)
    d, h, w = (round(value) for value in voxel_of(volume.affine_lps, point))
    volume.hu_DHW[d - 1 : d + 2, h - 1 : h + 2, w - 1 : w + 2] = 3000
    picture = summary_picture(positive(Lesion(Location.LEFT_MCA, 0.9, point, 5.0)), ALGORITHM, volume)
    shown = part(picture, box)
    rows, columns = np.nonzero(lit(shown, CYAN))
    inside = lit(shown, WHITE)[rows.min() : rows.max(), columns.min() : columns.max()]
    assert inside.sum() >= 9
    side = box[2] - box[0]
    bright = lit(shown, WHITE)[side // 4 : side * 3 // 4, side // 4 : side * 3 // 4]
    if box != LOWER:  # centred on the finding
        assert middle_of(bright) == pytest.approx((side / 4, side / 4), abs=side / 20)


def test_the_patients_left_is_on_the_right_of_the_projection() -> None:
    volume = head()
    left = positive(Lesion(Location.LEFT_MCA, 0.9, (33.0, -12.0, 40.0), 5.0))
    right = positive(Lesion(Location.RIGHT_MCA, 0.9, (-27.0, -12.0, 40.0), 5.0))
    pictures = [
        summary_picture(replace(each, circle_centre_lps_mm=(3.0, -12.0, 40.0)), ALGORITHM, volume)
        for each in (left, right)
    ]
    where = [middle_of(lit(part(picture, LOWER), CYAN))[0] for picture in pictures]
    assert where[0] > (LOWER[2] - LOWER[0]) / 2 > where[1]


@every_outcome
def test_where_viewers_lay_their_controls_there_is_nothing_but_the_title(outcome: Outcome) -> None:
    picture = summary_picture(outcome, ALGORITHM, head())
    assert picture[:44].any()
    assert not picture[44:166].any()
    assert picture[166:220].any()


@pytest.mark.parametrize("probability", [0.61, 0.75, 0.999])
def test_a_bar_is_as_long_as_the_probability_that_the_words_state(probability: float, drawn: list[str]) -> None:
    lesion = replace(RIGHT_MCA, probability=probability)
    picture = summary_picture(positive(lesion, BASILAR), ALGORITHM, None)
    bar = lit(picture[229, :], RED)
    outline = np.nonzero(lit(picture[219, :], GREY) | lit(picture[219, :], RED))[0]
    assert bar.sum() / (outline.max() - outline.min()) == pytest.approx(probability, abs=0.02)
    percentages = [number for words in drawn for number in re.findall(r"[0-9.]+ %", words)]
    assert percentages == [percent(probability), "50.0 %", "62.0 %"]  # no other probability beside a finding's own


def test_ends_of_bars_lie_on_the_side_of_the_threshold_that_the_outcome_says() -> None:
    below = summary_picture(Findings((0.49,) * 14, (), 0.5), ALGORITHM, None)[229, :]
    bar, mark = np.nonzero(lit(below, GREY))[0], np.nonzero(lit(below, CYAN))[0]
    assert bar[bar < mark.min()].size > 100
    assert (bar > mark.max()).sum() <= 2  # the frame alone


def test_the_slices_of_the_findings_are_named_as_the_viewer_names_them(drawn: list[str]) -> None:
    series = a_series()
    for number, ds in enumerate(series):
        ds.InstanceNumber = 400 - number
    summary(series)
    assert "Axial, image 397" in drawn
    assert "image 399" in drawn


def test_every_view_has_its_orientation_marks_and_a_scale_in_millimetres(drawn: list[str]) -> None:
    summary_picture(POSITIVE, ALGORITHM, head())
    assert [word for word in drawn if word in tuple("RLAPHF")] == [*"RLAP", *"RLHF", *"APHF", *"RLAP"]
    assert [word for word in drawn if re.fullmatch("[0-9]+ mm", word)] == ["20 mm", "10 mm", "10 mm", "20 mm"]


def test_the_scale_is_as_long_as_it_says() -> None:
    picture = part(summary_picture(POSITIVE, ALGORITHM, head()), MAIN)
    line = np.nonzero(lit(picture[-8, 300:], WHITE))[0]
    assert (line.max() - line.min()) / (MAIN[2] - MAIN[0]) * 90.0 == pytest.approx(20.0, abs=0.5)


def test_the_projection_is_without_the_skull_and_keeps_the_vessels() -> None:
    volume = head(spacing_mm_DHW=(1.0, 1.0, 1.0))
    left = without_bone(volume.hu_DHW[70:100], (1.0, 1.0, 1.0))
    assert (volume.hu_DHW[70:100] == 1100).any()
    assert not (left == 1100).any()
    assert (left == 350).sum() == (volume.hu_DHW[70:100] == 350).sum() > 0


def test_a_finding_in_bone_is_left_on_the_projection() -> None:
    volume, point = head(), (3.0, 30.0, 62.0)
    d, h, w = (round(value) for value in voxel_of(volume.affine_lps, point))
    volume.hu_DHW[d - 6 : d + 6, h - 6 : h + 6, w - 6 : w + 6] = 1100
    lesion = Lesion(Location.OTHER_POSTERIOR, 0.9, point, 6.0)
    picture = part(summary_picture(positive(lesion), ALGORITHM, volume), LOWER)
    rows, columns = np.nonzero(lit(picture, CYAN))
    assert lit(picture, WHITE)[rows.min() : rows.max(), columns.min() : columns.max()].sum() > 300


def test_what_is_unusual_is_said_and_what_does_not_fit_is_said_to_be_in_the_report(drawn: list[str]) -> None:
    for outcome in (POSITIVE, OUTCOMES["negative"]):
        assert isinstance(outcome, Findings)
        drawn.clear()
        summary_picture(replace(outcome, note="limited quality"), ALGORITHM, None)
        assert "Limited quality." in drawn
        summary_picture(replace(outcome, note="noise " * 100), ALGORITHM, None)
        assert any(words.endswith("... (see the report)") for words in drawn)


def test_a_negative_summary_says_that_it_rules_nothing_out(drawn: list[str]) -> None:
    summary_picture(OUTCOMES["negative"], ALGORITHM, head())
    assert "This does not rule out an aneurysm: read the images." in drawn


def test_findings_that_are_not_shown_are_counted(drawn: list[str]) -> None:
    for count, said in ((4, False), (5, True), (10, True)):
        drawn.clear()
        lesions = [replace(RIGHT_MCA, location=place) for place in LOCATIONS[:count]]
        summary_picture(positive(*lesions), ALGORITHM, None)
        shown = sum(bool(re.match("[0-9]  ", words)) for words in drawn)
        assert any(f"{count - shown} more in the report." in words for words in drawn) == said
        assert shown == count or said


def test_ten_findings_and_findings_outside_the_images_are_drawn() -> None:
    lesions = tuple(
        Lesion(place, 0.9, (500.0 * (i % 2), -12.0, 900.0 * i), 40.0) for i, place in enumerate(LOCATIONS[:10])
    )
    assert summary_picture(positive(*lesions), ALGORITHM, head()).shape == (SIDE, SIDE, 3)


def test_the_slice_without_a_finding_is_at_the_circle_that_was_analysed() -> None:
    negative = OUTCOMES["negative"]
    assert isinstance(negative, Findings)
    analysed = replace(negative, circle_centre_lps_mm=(3.0, -12.0, 50.0))
    assert np.allclose(points_shown(analysed, head()), [(3.0, -12.0, 50.0)], atol=1.1)


def test_a_volume_without_a_head_is_drawn_around_its_middle() -> None:
    volume = Volume(np.full((30, 20, 20), 40, np.int16), np.eye(4)[[2, 1, 0, 3]])
    for outcome in (positive(Lesion(Location.ACOM, 0.9, (10.0, 10.0, 15.0), 4.0)), OUTCOMES["negative"]):
        assert summary_picture(outcome, ALGORITHM, volume)[260:840].any()


def test_every_text_that_is_drawn_is_in_the_font(drawn: list[str]) -> None:
    for outcome in (*OUTCOMES.values(), NotAnalysed(NOT_ANALYSED.reason, "12° ≥ 3 × 山")):
        summary_picture(outcome, ALGORITHM, head())
    assert all(said == plain_ascii(said) for said in drawn)
    assert "12 degrees >= 3 x ?" in drawn
    assert "RESEARCH USE - NOT VERIFIED - NOT A MEDICAL DEVICE" in drawn


def test_locations_are_abbreviated_as_radiologists_do() -> None:
    assert [
        short(place.value) for place in (Location.LEFT_SUPRACLINOID_ICA, Location.ACOM, Location.OTHER_POSTERIOR)
    ] == [
        "Left Supraclinoid ICA",
        "ACom",
        "Other Posterior",
    ]


GREEN, AMBER = (120, 220, 120), (255, 190, 60)
HEADLINE = np.s_[150:258]


def test_a_negative_that_the_images_limit_is_not_green() -> None:
    negative, volume = OUTCOMES["negative"], head()
    assert isinstance(negative, Findings)
    limited = replace(negative, quality=Quality(noise_hu=8.0, arterial_hu=350.0, metal_mm3=60.0))
    plain, other = (summary_picture(each, ALGORITHM, volume)[HEADLINE] for each in (negative, limited))
    assert lit(plain, GREEN).any() and not lit(plain, AMBER).any()
    assert lit(other, AMBER).any() and not lit(other, GREEN).any()


def test_many_limits_fit_into_the_picture() -> None:
    quality = Quality(40.0, float("nan"), 60.0, 30.0, 3.0, 12.0, "left")
    picture = summary_picture(replace(POSITIVE, quality=quality), ALGORITHM, head())[850:940]
    assert lit(picture, AMBER)[:, :1012].any() and not lit(picture, AMBER)[:, 1012:].any()


def test_one_probability_stands_at_a_finding_at_its_place_and_at_the_presence() -> None:
    candidate = Candidate(0.4, (10.0, 10.0, 15.0), 4.0, np.eye(13)[5])
    found = findings((candidate,), Calibration(Platt(), Platt(1.0, -5.0)), 0.5, 0.8)
    (lesion,) = found.lesions
    assert lesion.probability == found.present == found.probabilities[5] < 0.8
