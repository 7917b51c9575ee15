"""The Secondary Capture summary: legible, about the right place, and nothing of the patient in its pixels."""

from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement

from ai.decode import Calibration, Candidate, Platt, findings
from ai.findings import Findings, Lesion
from ai.locations import LOCATIONS, Location
from ai.quality import Quality
from ai.volume import Volume, volume_from_datasets
from node.results.document import NotAnalysed, Outcome, encode
from node.results.identity import derive_uid
from node.results.plain_ascii import plain_ascii
from node.results.secondary_capture import build_summary
from node.results.summary_picture import SIDE, short, summary_picture, voxel_of
from tests.support.dicom_factory import LOSSY, ct_series, headers_of
from tests.support.made_up_head import head
from tests.support.reports import (
    ALGORITHM,
    CREATED,
    NOT_ANALYSED,
    OUTCOMES,
    POSITIVE,
    document,
    every_outcome,
    positive,
    received,
)

CYAN = (80, 220, 255)
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


def lit(picture: NDArray[np.uint8], colour: tuple[int, int, int]) -> NDArray[np.bool_]:
    return np.asarray((np.abs(picture.astype(int) - colour) < 12).all(axis=2))


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


def test_without_findings_it_refers_to_the_slices_that_it_shows() -> None:
    shown = {f"2.25.{20_000 + number}" for number in (5, 20, 35, 39)}  # 15 mm below, at, 15 and 30 mm above the middle
    ds = summary(outcome=OUTCOMES["negative"])
    assert {each.ReferencedSOPInstanceUID for each in ds.SourceImageSequence} == shown
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


def test_the_finding_is_circled_where_it_lies_on_its_key_slice_and_on_the_projection() -> None:
    volume, point = head(), (28.0, -10.0, 46.0)
    d, h, w = (round(value) for value in voxel_of(volume, point))
    volume.hu_DHW[d, h - 1 : h + 2, w - 1 : w + 2] = 3000
    picture = summary_picture(positive(Lesion(Location.LEFT_MCA, 0.9, point, 5.0)), ALGORITHM, volume)
    for left, top, right, bottom in ((24, 690, 214, 880), (580, 258, 1000, 678)):
        part = picture[top:bottom, left:right]
        wake, bright = lit(part, CYAN), lit(part, (255, 255, 255))
        rows, columns = np.nonzero(wake)
        inside = bright[rows.min() : rows.max(), columns.min() : columns.max()]
        assert inside.sum() >= 9
    thumbnail = np.nonzero(lit(picture[690:880, 24:214], (255, 255, 255)))
    assert np.abs([thumbnail[0].mean() - 95, thumbnail[1].mean() - 95]).max() < 33


def test_the_patients_left_is_on_the_right_of_the_projection() -> None:
    volume = head()
    left = summary_picture(positive(Lesion(Location.LEFT_MCA, 0.9, (33.0, -12.0, 40.0), 5.0)), ALGORITHM, volume)
    right = summary_picture(positive(Lesion(Location.RIGHT_MCA, 0.9, (-27.0, -12.0, 40.0), 5.0)), ALGORITHM, volume)
    where = [np.nonzero(lit(picture[258:678, 580:1000], CYAN))[1].mean() for picture in (left, right)]
    assert where[0] > 210 > where[1]


@every_outcome
def test_where_viewers_lay_their_controls_there_is_nothing_but_the_title(outcome: Outcome) -> None:
    picture = summary_picture(outcome, ALGORITHM, head())
    assert picture[:44].any()
    assert not picture[44:166].any()
    assert picture[166:220].any()


def test_a_bar_is_as_long_as_its_probability() -> None:
    half = summary_picture(Findings((0.5,) * 14, (), 0.9), ALGORITHM, None)
    full = summary_picture(Findings((0.999,) * 13 + (0.5,), (), 0.9), ALGORITHM, None)
    row = 258 + 30 + 12  # the first location, below presence
    assert 70 <= lit(half[row : row + 1, 268:419], (170, 170, 170)).sum() <= 80
    assert lit(full[row : row + 1, 268:419], (170, 170, 170)).sum() >= 148


def test_ten_findings_and_findings_outside_the_images_are_drawn() -> None:
    lesions = tuple(
        Lesion(place, 0.9, (500.0 * (i % 2), -12.0, 900.0 * i), 40.0) for i, place in enumerate(LOCATIONS[:10])
    )
    assert summary_picture(positive(*lesions), ALGORITHM, head()).shape == (SIDE, SIDE, 3)


def test_a_volume_without_a_head_is_drawn_around_its_middle() -> None:
    volume = Volume(np.full((30, 20, 20), 40, np.int16), np.eye(4)[[2, 1, 0, 3]])
    for outcome in (positive(Lesion(Location.ACOM, 0.9, (10.0, 10.0, 15.0), 4.0)), OUTCOMES["negative"]):
        assert summary_picture(outcome, ALGORITHM, volume)[690:880].any()


def test_every_text_that_is_drawn_is_in_the_font(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    from PIL import ImageDraw

    original = ImageDraw.ImageDraw.text

    def text(self: Any, at: Any, said: str, **options: Any) -> None:
        drawn.append(said)
        original(self, at, said, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
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
    picture = summary_picture(replace(POSITIVE, quality=quality), ALGORITHM, head())[HEADLINE]
    assert lit(picture, AMBER)[:, :1000].any() and not lit(picture, AMBER)[:, 1000:].any()


def test_one_probability_stands_at_a_finding_at_its_place_and_at_the_presence() -> None:
    candidate = Candidate(0.4, (10.0, 10.0, 15.0), 4.0, np.eye(13)[5])
    found = findings((candidate,), Calibration(Platt(), Platt(1.0, -5.0)), 0.5, 0.8)
    (lesion,) = found.lesions
    assert lesion.probability == found.present == found.probabilities[5] < 0.8
